/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A short list: as many blocks as writers are at work, and those that failed to be written. */
#include "formats/pending.h"

#include <stdlib.h>

#include "libvdisk/base/alloc.h"

static struct vd_pending_block *find(const struct vd_pending *p, uint64_t index)
{
	for (size_t i = p->n; i > 0; i--)
		if (p->at[i - 1].index == index)
			return &p->at[i - 1];
	return NULL;
}

uint64_t vd_pending_find(const struct vd_pending *p, uint64_t index)
{
	const struct vd_pending_block *b = find(p, index);

	return b ? b->host_off : 0;
}

int vd_pending_add(struct vd_pending *p, uint64_t index, uint64_t host_off, struct vd_error *e)
{
	if (p->n == p->max) {
		size_t max = p->max * 2 + 16;
		int r = vd_realloc(&p->at, max, sizeof(*p->at), e);

		if (r < 0)
			return r;
		p->max = max;
	}
	p->at[p->n++] = (struct vd_pending_block){ index, host_off };
	return 0;
}

void vd_pending_drop(struct vd_pending *p, uint64_t index)
{
	struct vd_pending_block *b = find(p, index);

	if (b)
		*b = p->at[--p->n];
}

void vd_pending_free(struct vd_pending *p)
{
	free(p->at);
	*p = (struct vd_pending){ 0 };
}
