/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A host that logs what is done to its files, and the states in which a crash could have left them.
 *
 * What a crash may do, per file: every change that had completed before a flush began which itself completed is there.
 * Of the others any may be missing, and of a write any 512-byte sectors: for each sector the result is one of the
 * versions that were on their way, so a dropped later write is also an earlier one that arrived after it. Names are as at
 * the moment of the crash: rename flushes its folder; a fresh or removed name is taken as durable, as journalling
 * file systems have it once anything else is flushed.
 */
#ifndef VD_TESTS_RECORD_H
#define VD_TESTS_RECORD_H

#include "tests/support/wrap.h"

struct vd_record;

/* One change or flush. Ticks count the beginnings and ends of all of them, from 1. */
struct vd_event {
	unsigned kind;          /* OPEN (a file was made), WRITE, TRUNCATE, PUNCH, FLUSH, RENAME, UNLINK */
	unsigned file;          /* number of the file, which it keeps when renamed; RENAME, UNLINK: of no meaning */
	uint64_t begin, end;    /* ticks */
	int result;             /* a change that failed may be half done */
	uint64_t off, len;      /* TRUNCATE: the new size is in off */
	uint8_t *data;          /* WRITE */
	char *name, *to;        /* OPEN, RENAME, UNLINK */
};

/* The inner host must outlive it. Files that exist are recorded from their first opening on. */
int vd_record_new(struct vd_host *inner, struct vd_record **out, struct vd_error *e) VD_MUST_CHECK;
void vd_record_free(struct vd_record *rec);
struct vd_host *vd_record_host(struct vd_record *rec);

/* Now: what has ended has end <= tick. To be kept with what the test knows to be durable. */
uint64_t vd_record_tick(struct vd_record *rec);
/* How many operations of these kinds (enum vd_op_kind) ended after the tick; 0: ever. */
size_t vd_record_count(struct vd_record *rec, unsigned kinds, uint64_t after_tick);
/* The i-th in order of their ends; NULL past the last. Valid while nothing is recorded. */
const struct vd_event *vd_record_event(struct vd_record *rec, size_t i);

/* How many crash states there are with so many random ones at each cut. No operation may be under way from here on. */
size_t vd_crash_count(struct vd_record *rec, unsigned n_random);

struct vd_crash {
	struct vd_host *host;   /* in memory, the caller's to free with vd_mem_host_free() */
	uint64_t tick;          /* of the crash: flushes acknowledged at or before it count */
	size_t cut;             /* so many events had ended */
	unsigned variant;       /* 0: all that ended is there; 1: only what was flushed; else random */
};
/* The index-th state, the same for the same seed. */
int vd_crash_state(struct vd_record *rec, unsigned n_random, uint64_t seed, size_t index, struct vd_crash *out,
		   struct vd_error *e) VD_MUST_CHECK;
/* Writes the files of a host in memory into a folder, by the last part of their names, replacing what is there. */
int vd_crash_save(struct vd_host *mem, const char *folder, struct vd_error *e) VD_MUST_CHECK;

#endif
