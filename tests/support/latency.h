/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A host that takes its time, as a disk does: for benches and for tests of what happens meanwhile. */
#ifndef VD_TESTS_LATENCY_H
#define VD_TESTS_LATENCY_H

#include "tests/support/wrap.h"

struct vd_latency {
	struct vd_wrap wrap;
	unsigned read_us, write_us, flush_us;   /* slept before each operation; punch and truncate count as writes */
};

/* Fills a zeroed *l, whose delays may be changed at any time. The host is &l->wrap.host. */
void vd_latency_init(struct vd_latency *l, struct vd_host *inner);

#endif
