/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Blocks that were given out for a guest block and that no table names yet. Writers of different sectors of one new
 * block meet here, and one that gives up leaves the block to the others, or to the next. Under the allocation lock.
 */
#ifndef VD_FORMATS_PENDING_H
#define VD_FORMATS_PENDING_H

#include "libvdisk/base/error.h"

struct vd_pending {
	struct vd_pending_block { uint64_t index, host_off; } *at;
	size_t n, max;
};

/* Where the guest block's new block lies; 0: it has none. */
uint64_t vd_pending_find(const struct vd_pending *p, uint64_t index);
int vd_pending_add(struct vd_pending *p, uint64_t index, uint64_t host_off, struct vd_error *e) VD_MUST_CHECK;
/* The table names it now. */
void vd_pending_drop(struct vd_pending *p, uint64_t index);
void vd_pending_free(struct vd_pending *p);

#endif
