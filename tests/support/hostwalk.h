/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The whole walk of an image's host files in memory, as tests look at it. */
#ifndef TESTS_HOSTWALK_H
#define TESTS_HOSTWALK_H

#include "tests/support/disks.h"

extern struct host_walk {
	struct vd_host_run *runs;
	size_t n;
	uint64_t n_findings;
	struct vd_error first;
} walked;

/* Walks `img`, `room` runs a call; fails the test unless they are gapless, disjoint and make up every file. */
void walk_host(struct vd_image *img, size_t room);
void walk_free(void);
/* The run of the last walk that holds the byte. */
const struct vd_host_run *walked_at(uint32_t file, uint64_t off);
/* Bytes of one owner; why VD_N_WHYS: any. */
uint64_t walked_bytes(enum vd_owner owner, enum vd_why why);
/* The first run of one owner, or NULL. */
const struct vd_host_run *walked_first(enum vd_owner owner, enum vd_why why);

#endif
