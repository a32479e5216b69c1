/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The sandboxed program that takes file systems apart: what its parts have of each other. */
#ifndef TOOLS_FSVIEW_READER_READER_H
#define TOOLS_FSVIEW_READER_READER_H

#include "fail.h"
#include "fsview/backend.h"
#include "fsview/wire.h"

/* Gives up everything but memory and the two descriptors. From here on only numbers come in and answers go out. */
int sandbox_enter(struct vd_error *e);
/* Its halves, each of which has to be enough. */
int sandbox_landlock(struct vd_error *e);
int sandbox_seccomp(struct vd_error *e);

/* A volume, as pieces of what the view reads for this process. */
struct device {
	uint64_t size;
	size_t n;
	struct fsview_range *pieces;    /* NULL: all of it, from byte 0 */
};
/* Reads through a cache. VD_ERANGE outside, VD_EIO: the view could not read. */
int device_read(const struct device *d, void *buf, size_t len, uint64_t off, struct vd_error *e);

/* The answer under way. NULL: no room; the request goes on with another cursor. */
void *answer_room(size_t len);

struct request {
	uint64_t a, b;
	const char *path, *name;
};
/* A kind of file system. Every call fills the answer and r->a, as wire.h has it. */
struct filesystem {
	int (*open)(const struct device *d, struct wire_opened *o, struct vd_error *e);
	int (*lookup)(struct request *r, struct fsview_stat *st, struct vd_error *e);
	int (*readlink)(struct request *r, struct vd_error *e);
	int (*readdir)(struct request *r, struct vd_error *e);
	int (*read)(struct request *r, struct vd_error *e);
	int (*xattr)(struct request *r, struct vd_error *e);
	int (*blocks)(struct request *r, struct vd_error *e);
	int (*free)(struct request *r, struct vd_error *e);
	int (*deleted)(struct request *r, struct vd_error *e);
};
extern const struct filesystem filesystem_ext, filesystem_ntfs, filesystem_fat;

/* False: no room. */
bool answer_entry(const char *name, size_t len, const struct fsview_stat *st);
bool answer_range(uint64_t off, uint64_t len);
bool answer_block(uint64_t file_off, uint64_t off, uint64_t len);
bool answer_deleted(const struct wire_deleted *d, const char *name);

/* Finds volumes: partitions (table.c), logical volumes (lvm.c), and what is in them (probe.c). */
int table_list(uint64_t disk_size, struct vd_error *e);
bool table_answer(struct fsview_volume *v, const struct fsview_range *pieces, size_t n, int lack, const char *why);
int lvm_add(const struct device *pv, uint64_t disk_off, struct vd_error *e);
int lvm_answer(struct vd_error *e);
int probe(const struct device *d, struct fsview_volume *v, struct vd_error *e);

static inline uint16_t read_le16(const void *p)
{
	const uint8_t *b = p;

	return (uint16_t)(b[0] | b[1] << 8);
}
static inline uint32_t read_le32(const void *p)
{
	return read_le16(p) | (uint32_t)read_le16((const uint8_t *)p + 2) << 16;
}
static inline uint64_t read_le64(const void *p)
{
	return read_le32(p) | (uint64_t)read_le32((const uint8_t *)p + 4) << 32;
}
void uuid_text(char out[40], const uint8_t *b, bool is_guid);

#endif
