/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The answer of a map as it grows: pieces in the order of the disk, neighbours joined. */
#ifndef VD_FORMATS_RUNS_H
#define VD_FORMATS_RUNS_H

#include "libvdisk/core/format.h"

struct vd_runs {
	uint64_t at, end;               /* guest bytes still to describe */
	struct vd_run *runs;
	size_t cap, n;
	bool is_full;                   /* the next piece needs a run more than there are */
};

/* [at, to) lies in file 0 at host_off (DATA), or nowhere; then `at` is `to`, unless it is full. */
void vd_runs_add(struct vd_runs *r, uint64_t to, enum vd_where where, uint64_t host_off);

#endif
