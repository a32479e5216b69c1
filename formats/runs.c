/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Joins pieces of a map. Where they lie, the drivers know. */
#include "formats/runs.h"

void vd_runs_add(struct vd_runs *r, uint64_t to, enum vd_where where, uint64_t host_off)
{
	struct vd_run *last = r->n ? &r->runs[r->n - 1] : NULL;
	uint64_t len = to - r->at, host_len = where == VD_DATA ? len : 0;

	if (last && last->where == where && (where != VD_DATA || last->host_off + last->host_len == host_off)) {
		last->len += len;
		last->host_len += host_len;
	} else if (r->n < r->cap) {
		r->runs[r->n++] = (struct vd_run){
			.guest_off = r->at, .len = len, .where = where,
			.host_off = where == VD_DATA ? host_off : 0, .host_len = host_len,
		};
	} else {
		r->is_full = true;
		return;
	}
	r->at = to;
}
