/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sleeps before operations; changes nothing about them. */
#include "tests/support/latency.h"

#include <time.h>

static unsigned delay_of(const struct vd_latency *l, unsigned kind)
{
	switch (kind) {
	case VD_OP_READ: return l->read_us;
	case VD_OP_WRITE: case VD_OP_PUNCH: case VD_OP_TRUNCATE: return l->write_us;
	case VD_OP_FLUSH: return l->flush_us;
	default: return 0;
	}
}

static int before(struct vd_wrap *w, struct vd_op *op, struct vd_error *e)
{
	unsigned us = delay_of((struct vd_latency *)w, op->kind);
	struct timespec ts = { us / 1000000, (long)(us % 1000000) * 1000 };

	(void)e;
	if (us)
		nanosleep(&ts, NULL);
	return 0;
}

void vd_latency_init(struct vd_latency *l, struct vd_host *inner)
{
	vd_wrap_init(&l->wrap, inner);
	l->wrap.before = before;
}
