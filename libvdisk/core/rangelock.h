/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Exclusive locks on ranges of guest bytes: overlapping holders wait for each other, others do not. First come, first
 * served among those that overlap; so a thread that holds a range asks for no other one of the same lock.
 */
#ifndef VD_CORE_RANGELOCK_H
#define VD_CORE_RANGELOCK_H

#include "libvdisk/base/error.h"

struct vd_rangelock;
/* On the holder's stack while it holds. */
struct vd_rangehold {
	uint64_t off, end;
	struct vd_rangehold *next;
	struct vd_rangelock *of;
};

int vd_rangelock_new(struct vd_rangelock **out, struct vd_error *e) VD_MUST_CHECK;
void vd_rangelock_free(struct vd_rangelock *l);
void vd_rangelock_acquire(struct vd_rangelock *l, struct vd_rangehold *h, uint64_t off, uint64_t len);
void vd_rangelock_release(struct vd_rangehold *h);

#endif
