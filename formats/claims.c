/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Makes claims. What lies where, the drivers know. */
#include "formats/claims.h"

int vd_claim_place(struct vd_window *w, const struct vd_place *p, struct vd_error *e)
{
	struct vd_claim c = {
		.host_off = p->off, .len = p->used, .guest_off = p->guest_off, .parent_off = p->parent_off, .refs = 1,
		.owner = p->owner, .why = p->why,
	};
	int r = 0;

	if (p->used && vd_window_meets(w, p->off, p->used))
		r = vd_window_claim(w, &c, e);
	if (r < 0 || p->used >= p->len || !vd_window_meets(w, p->off + p->used, p->len - p->used))
		return r;
	c.host_off += p->used;
	c.len = p->len - p->used;
	c.guest_off = p->owner == VD_OWNER_DATA ? p->guest_off + p->used : VD_HOST_NOWHERE;
	c.owner = VD_OWNER_SLACK;
	c.why = p->rest;
	return vd_window_claim(w, &c, e);
}
