/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A host whose operations fail on demand. A sweep goes N = 1, 2, ... until a whole run has no failure left:
 *
 *	for (plan.nth = 1; ; plan.nth++) {
 *		vd_fault_arm(f, &plan);
 *		r = work(vd_fault_host(f));
 *		if (!vd_fault_fired(f))
 *			break;
 *		... r must be a failure, and the files sound ...
 *	}
 */
#ifndef VD_TESTS_FAULT_H
#define VD_TESTS_FAULT_H

#include "tests/support/wrap.h"

struct vd_fault;

struct vd_fault_plan {
	unsigned kinds;         /* enum vd_op_kind: which operations count, and fail */
	uint64_t nth;           /* the first that fails, from 1; 0: none does */
	int err;                /* errno: EIO, ENOSPC, ... */
	bool for_ever;          /* all after it fail, too */
	bool half_done;         /* a write that fails has written the first half of its bytes */
	const char *only;       /* NULL, or only files whose name ends so; borrowed */
};

/* The inner host must outlive it. */
int vd_fault_new(struct vd_host *inner, struct vd_fault **out, struct vd_error *e) VD_MUST_CHECK;
void vd_fault_free(struct vd_fault *f);
struct vd_host *vd_fault_host(struct vd_fault *f);
/* Starts counting from zero. NULL: nothing counts or fails. Not while operations are under way. */
void vd_fault_arm(struct vd_fault *f, const struct vd_fault_plan *plan);
/* How many operations counted since it was armed, and how many of them failed. */
uint64_t vd_fault_seen(const struct vd_fault *f);
uint64_t vd_fault_fired(const struct vd_fault *f);

#endif
