/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Images on a host in memory, behind a recorder and an injector of faults: what the tests of the core stand on. Each
 * call here that is not about a failure ends the test when it fails.
 */
#ifndef TESTS_DISKS_H
#define TESTS_DISKS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "libvdisk/core/image.h"
#include "libvdisk/core/registry.h"
#include "libvdisk/io/mem.h"
#include "tests/support/fault.h"
#include "tests/support/record.h"
#include "tests/support/toy.h"

extern struct disks {
	struct vd_host *mem;
	struct vd_fault *fault;         /* around mem */
	struct vd_record *record;       /* around fault */
	struct vd_host *host;           /* the recorder's */
} disks;

int disks_start(void **state);
int disks_stop(void **state);

/* Another host in memory with copies of all files; freed with vd_mem_host_free(). No file may be open. */
struct vd_host *disks_clone(void);

/* A gate for a folder-less host: every name is a path. */
int disks_gate(void *ctx, enum vd_reference_kind kind, const char *image, const char *name, const char *format,
	       char *path, size_t path_len, struct vd_error *e);

/* Fills struct_size, format and gate. */
struct vd_create_opts disk_create_opts(const struct vd_format *format, uint64_t size);
struct vd_open_opts disk_open_opts(const struct vd_format *format, unsigned flags);

struct vd_image *disk_create(const struct vd_format *format, const char *name, const struct vd_create_opts *opts);
/* Creates, commits, closes. `backing`: name of the parent, NULL: none; its format is the same. */
void disk_make(const struct vd_format *format, const char *name, uint64_t size, const char *backing);
/* A raw file of this size, `value` throughout. */
void disk_put_raw(const char *name, uint64_t size, uint8_t value);
struct vd_image *disk_open(const struct vd_format *format, const char *name, unsigned flags);
void disk_commit(struct vd_image *img);
void disk_close(struct vd_image *img);

void disk_write(struct vd_image *img, uint64_t off, uint64_t len, uint8_t value);
void disk_zero(struct vd_image *img, uint64_t off, uint64_t len);
void disk_flush(struct vd_image *img);
/* Every byte of the range has this value; the message of a failure says which has not. */
void disk_expect(struct vd_image *img, uint64_t off, uint64_t len, uint8_t value);

/* The call failed with this code, and its message has the words. */
#define expect_failure(result, code, e, words) expect_failure_at(result, code, e, words, __FILE__, __LINE__)
void expect_failure_at(int result, int code, const struct vd_error *e, const char *words, const char *file, int line);
/* The result of a call that succeeds, else its words. */
#define expect_ok(result, e) expect_ok_at(result, e, __FILE__, __LINE__)
void expect_ok_at(int result, const struct vd_error *e, const char *file, int line);

/* How many operations of these kinds since the tick. */
size_t disks_count(unsigned kinds, uint64_t tick);
#define CHANGES (VD_OP_WRITE | VD_OP_TRUNCATE | VD_OP_PUNCH | VD_OP_RENAME | VD_OP_UNLINK)

#endif
