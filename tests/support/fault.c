/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Counts operations and makes the chosen ones fail; what a failure may leave behind is for the tests to say. */
#include "tests/support/fault.h"

#include <stdlib.h>
#include <string.h>

#include "libvdisk/base/alloc.h"

struct vd_fault {
	struct vd_wrap wrap;
	struct vd_fault_plan plan;
	atomic_uint_fast64_t seen, fired;
};

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n >= m && !strcmp(s + n - m, end);
}

static bool counts(const struct vd_fault_plan *plan, const struct vd_op *op)
{
	return (plan->kinds & op->kind) && (!plan->only || ends_with(op->name, plan->only));
}

static int before(struct vd_wrap *w, struct vd_op *op, struct vd_error *e)
{
	struct vd_fault *f = (struct vd_fault *)w;
	uint64_t n;

	if (!counts(&f->plan, op))
		return 0;
	n = atomic_fetch_add(&f->seen, 1) + 1;
	if (!f->plan.nth || n < f->plan.nth || (n > f->plan.nth && !f->plan.for_ever))
		return 0;
	atomic_fetch_add(&f->fired, 1);
	if (f->plan.half_done && op->kind == VD_OP_WRITE) {
		int r = vd_io_pwrite(op->inner, op->data, op->len / 2, op->off, e);

		if (r < 0)
			return r;
	}
	return vd_fail_errno(e, f->plan.err, "%s: %s number %llu was made to fail", op->name, vd_op_name(op->kind),
			     (unsigned long long)n);
}

int vd_fault_new(struct vd_host *inner, struct vd_fault **out, struct vd_error *e)
{
	int r = vd_alloc(1, sizeof(**out), out, e);

	if (r < 0)
		return r;
	vd_wrap_init(&(*out)->wrap, inner);
	(*out)->wrap.before = before;
	return 0;
}

void vd_fault_free(struct vd_fault *f)
{
	free(f);
}

struct vd_host *vd_fault_host(struct vd_fault *f)
{
	return &f->wrap.host;
}

void vd_fault_arm(struct vd_fault *f, const struct vd_fault_plan *plan)
{
	f->plan = plan ? *plan : (struct vd_fault_plan){ 0 };
	atomic_store(&f->seen, 0);
	atomic_store(&f->fired, 0);
}

uint64_t vd_fault_seen(const struct vd_fault *f)
{
	return atomic_load(&f->seen);
}

uint64_t vd_fault_fired(const struct vd_fault *f)
{
	return atomic_load(&f->fired);
}
