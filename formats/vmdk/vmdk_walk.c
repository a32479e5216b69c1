/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The host walk of VMDK: makes claims of what leads to the bytes of a window. The format keeps no account of free space. */
#include "formats/vmdk/vmdk_visit.h"

static const struct { uint8_t owner, why, rest; } claimed_as[] = {
	[VMDK_REF_HEADER] = { VD_OWNER_HEADER, VD_WHY_NONE, VD_SLACK_HEADER },
	[VMDK_REF_DESCRIPTOR] = { VD_OWNER_DESCRIPTOR, VD_WHY_NONE, VD_SLACK_HEADER },
	[VMDK_REF_GD] = { VD_OWNER_TABLE, VD_TABLE_ROOT, VD_SLACK_TABLE },
	[VMDK_REF_RGD] = { VD_OWNER_COPY, VD_TABLE_ROOT, VD_SLACK_TABLE },
	[VMDK_REF_GT] = { VD_OWNER_TABLE, VD_TABLE_LEAF, VD_SLACK_TABLE },
	[VMDK_REF_RGT] = { VD_OWNER_COPY, VD_TABLE_LEAF, VD_SLACK_TABLE },
	[VMDK_REF_SE_JOURNAL] = { VD_OWNER_JOURNAL, VD_WHY_NONE, VD_SLACK_TABLE },
	[VMDK_REF_SE_MAP] = { VD_OWNER_TABLE, VD_TABLE_COUNT_LEAF, VD_SLACK_TABLE },
	[VMDK_REF_DATA] = { VD_OWNER_DATA, VD_WHY_NONE, VD_SLACK_PAST_END },
	[VMDK_REF_PACKED] = { VD_OWNER_PACKED, VD_WHY_NONE, VD_SLACK_PACKED },
};

/* A part and its padding. The guest offset of padding past the disk's end is where it would be. */
static int claim(struct vd_vmdk_visit *v, const struct vd_vmdk_ref *ref, struct vd_error *e)
{
	struct vd_window *w = v->ctx;
	struct vd_claim c = {
		.host_off = ref->host_off, .len = ref->used, .guest_off = ref->guest_off == UINT64_MAX ? VD_HOST_NOWHERE : ref->guest_off,
		.parent_off = ref->file || ref->entry_off == UINT64_MAX ? VD_HOST_NOWHERE : ref->entry_off, .refs = 1,
		.owner = claimed_as[ref->kind].owner, .why = claimed_as[ref->kind].why,
	};
	int r = 0;

	if (!vd_window_meets(w, ref->host_off, ref->len))
		return 0;
	if (ref->used)
		r = vd_window_claim(w, &c, e);
	if (r < 0 || ref->used == ref->len)
		return r;
	c.host_off += ref->used;
	c.len = ref->len - ref->used;
	c.guest_off = ref->kind == VMDK_REF_DATA ? ref->guest_off + ref->used : VD_HOST_NOWHERE;
	c.owner = VD_OWNER_SLACK;
	c.why = claimed_as[ref->kind].rest;
	return vd_window_claim(w, &c, e);
}

static int note(struct vd_vmdk_visit *v, const struct vd_vmdk_fault *f, struct vd_error *e)
{
	(void)e;
	vd_window_finding(v->ctx, f->what);
	return 0;
}

int vd_vmdk_walk(void *st, struct vd_window *w, struct vd_error *e)
{
	struct vd_vmdk_visit v = { .s = st, .ctx = w, .file = w->file, .take = claim, .fault = note };

	return vd_vmdk_visit(&v, e);
}
