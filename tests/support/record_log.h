/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The recorder's log, as record.c writes it and crash.c reads it. */
#ifndef VD_TESTS_RECORD_LOG_H
#define VD_TESTS_RECORD_LOG_H

#include <pthread.h>
#include <stdio.h>

#include "tests/support/record.h"

struct vd_record_file {
	char *name;             /* when it was first seen */
	bool is_new;            /* made under the recorder: it has no base */
};

struct vd_record {
	struct vd_wrap wrap;
	pthread_mutex_t lock;   /* all below */
	uint64_t tick;
	struct vd_event *events;
	size_t n_events, room;
	struct vd_record_file *files;
	unsigned n_files;
	struct vd_host *base;   /* in memory: content of files that existed before, each under its number */
};

/* Which name leads to which file. */
struct vd_names {
	struct {
		const char *name;       /* the log's */
		unsigned file;
	} *of;
	size_t n;
};
void vd_names_at(const struct vd_record *rec, struct vd_names *names, uint64_t tick);
/* The file's number, or -1. */
long vd_names_find(const struct vd_names *names, const char *name);
void vd_names_free(struct vd_names *names);

/* Copies what is not a hole, and the size. */
int vd_copy_io(struct vd_io *from, struct vd_io *to, struct vd_error *e) VD_MUST_CHECK;

#endif
