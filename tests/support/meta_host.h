/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A table cache on a scripted host: two files in memory that log what is asked of them, fail where they are told to, and
 * let a test act in the middle of an operation. For tests of core/meta; whole images have mem, recorder and injector.
 */
#ifndef TESTS_META_HOST_H
#define TESTS_META_HOST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "libvdisk/core/meta_page.h"

#define PAGE 512
#define FILE_SIZE (4u << 20)
#define N_FILES 2
#define LOG_MAX 16384

struct host_op { char kind; uint32_t file; uint64_t off; size_t len; };         /* kind: R, W, F */

struct host_file {
	struct vd_io io;
	uint32_t index;
	uint8_t bytes[FILE_SIZE];
};

extern struct world {
	struct vd_set *set;
	struct vd_meta *meta;
	struct host_file *files[N_FILES];
	pthread_mutex_t lock;                   /* the log and the files' bytes */
	struct host_op log[LOG_MAX];            /* the first so many since it was cleared */
	size_t n_ops;
	long fail_after;                        /* of writes and flushes; negative: never */
	void (*hook)(const struct host_op *op); /* runs before a write or flush, and after a read has got its bytes */
} world;

/* cache_bytes 0: room for 16 pages, the least there is. */
int meta_start(uint64_t cache_bytes, bool fresh);
int meta_stop(void **state);

void host_clear_log(void);
/* The log as text: "R5 W:7+3 F" is page 5 of file 0 read, three pages from 7 of file 1 written, some file flushed. */
const char *host_log(void);
size_t host_count(char kind);
/* A page of payload, written past the cache. */
void host_payload(uint64_t page);
extern const struct vd_io_ops host_ops;

/* One byte of a page of file 0: in the cache, and on the host. */
void meta_put(uint64_t page, uint8_t value, enum vd_meta_rank rank);
uint8_t meta_get(uint64_t page);
uint8_t meta_on_host(uint64_t page);
bool meta_is_resident(uint64_t page);

struct vd_meta_batch *meta_snapshot(void);
int meta_commit(struct vd_error *e);
/* Commits, and leaves its operations alone in the log. */
void meta_commit_ok(void);

#endif
