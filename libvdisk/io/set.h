/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The set: all host files that one image (one layer of a chain) consists of, by index. File 0 is the image file
 * itself; a driver adds the others that the image names, each through the gate. A set knows which of its
 * files have writes that are not durable yet.
 */
#ifndef VD_IO_SET_H
#define VD_IO_SET_H

#include "libvdisk/io/io.h"

#define VD_SET_MAX 4096         /* files a set: a disk of 8 TiB in extents of 2 GiB */

struct vd_set;

struct vd_set_opts {
	struct vd_host *host;
	unsigned io_flags;      /* how references are opened: VD_IO_WRITE, VD_IO_FORCE_SHARE */
	vd_gate_fn gate;        /* NULL: the default gate (relative, inside the image's own folder) */
	void *gate_ctx;
	bool open_extents;      /* VD_REF_EXTENT even so */
	bool open_references;   /* false: references are only named, never opened (VD_OPEN_METADATA) */
};

/* Takes ownership of `image` (file 0) on success. */
int vd_set_new(const struct vd_set_opts *opts, struct vd_io *image, struct vd_set **out, struct vd_error *e) VD_MUST_CHECK;
/* Adds the file that the image names; *index is valid on success even if the file was not opened. */
int vd_set_add(struct vd_set *s, enum vd_reference_kind kind, const char *name, const char *format,
	       uint32_t *index, struct vd_error *e) VD_MUST_CHECK;
/* Adds a file that is open already (a created data file); takes ownership on success. */
int vd_set_adopt(struct vd_set *s, struct vd_io *io, uint32_t *index, struct vd_error *e) VD_MUST_CHECK;
/* Asks the gate for the path of a reference without opening it. Fills path (path_len bytes). */
int vd_set_resolve(struct vd_set *s, enum vd_reference_kind kind, const char *name, const char *format,
		   char *path, size_t path_len, struct vd_error *e) VD_MUST_CHECK;

/* Alone on the set: vd_output_exchange() of a file that is open. What was written to the old one is gone, but for the new one's bytes. */
int vd_set_exchange(struct vd_set *s, uint32_t file, const void *bytes, size_t len, struct vd_error *e) VD_MUST_CHECK;

struct vd_host *vd_set_host(const struct vd_set *s);
uint32_t vd_set_count(const struct vd_set *s);
/* The open file, or NULL when it was only named. */
struct vd_io *vd_set_io(const struct vd_set *s, uint32_t file);
/* Path of the file (opened) or the name in the image (not opened). */
const char *vd_set_name(const struct vd_set *s, uint32_t file);

/* Payload and table access by file index; a file that was not opened is VD_EREFERENCE. */
int vd_set_pread(struct vd_set *s, uint32_t file, void *buf, size_t len, uint64_t off, struct vd_error *e) VD_MUST_CHECK;
int vd_set_pwrite(struct vd_set *s, uint32_t file, const void *buf, size_t len, uint64_t off, struct vd_error *e) VD_MUST_CHECK;
int vd_set_punch(struct vd_set *s, uint32_t file, uint64_t off, uint64_t len, struct vd_error *e) VD_MUST_CHECK;
/* A hint: see struct vd_io_ops. */
void vd_set_finished(struct vd_set *s, uint32_t file, uint64_t off, uint64_t len);
/* Flushes every file that has writes since its last flush began: at most one fsync a file. */
int vd_set_flush(struct vd_set *s, struct vd_error *e) VD_MUST_CHECK;
/* A flush failed once: nothing more can be made durable (S3). */
bool vd_set_has_failed(struct vd_set *s);
/* Closes all files; the first failure is returned, all are closed whatever happens. Frees the set. */
int vd_set_close(struct vd_set *s, struct vd_error *e) VD_MUST_CHECK;
/* For error paths; NULL is allowed. */
void vd_set_abort(struct vd_set *s);

/* The default gate; ctx is unused. */
int vd_gate_own_folder(void *ctx, enum vd_reference_kind kind, const char *image, const char *name,
		       const char *format, char *path, size_t path_len, struct vd_error *e) VD_MUST_CHECK;

#endif
