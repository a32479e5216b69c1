/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Makes a gapless row of runs of a window's claims. Who claims what is the driver's to say, the window's to keep. */
#include "libvdisk/core/cover.h"

#include "libvdisk/base/checked.h"

#define SECTOR 512              /* compressed pieces end somewhere in one, and the next may begin in it */

void vd_cover_start(struct vd_cover *c, struct vd_image *img, const struct vd_window *w, uint64_t from)
{
	*c = (struct vd_cover){ .img = img, .w = w, .at = from, .stored_end = from };
}

static uint64_t end_of(const struct vd_claim *c)
{
	return c->host_off + c->len;
}

/* ---- who is here ---------------------------------------------------------------------------------------- */

static void retire(struct vd_cover *c)
{
	size_t n = 0;

	for (size_t i = 0; i < c->n_active; i++)
		if (end_of(&c->active[i]) > c->at)
			c->active[n++] = c->active[i];
	c->n_active = n;
}

/* The length of a compressed piece is an upper bound: it ends at the latest where the next one begins in its last sector. */
static void cut_packed(struct vd_cover *c, const struct vd_claim *next)
{
	size_t n = 0;

	for (size_t i = 0; i < c->n_active; i++) {
		const struct vd_claim *a = &c->active[i];
		bool ends = a->owner == VD_OWNER_PACKED && next->owner == VD_OWNER_PACKED && a->host_off < next->host_off &&
			    next->host_off >= vd_round_down(end_of(a) - 1, SECTOR);

		if (!ends)
			c->active[n++] = *a;
	}
	c->n_active = n;
}

static void admit(struct vd_cover *c)
{
	for (; c->next_claim < c->w->n_claims && c->w->claims[c->next_claim].host_off <= c->at; c->next_claim++) {
		const struct vd_claim *claim = &c->w->claims[c->next_claim];

		c->used_end = vd_max_u64(c->used_end, end_of(claim));
		c->last_owner = claim->owner;
		if (end_of(claim) <= c->at)
			continue;
		cut_packed(c, claim);
		if (c->n_active < VD_COVER_DEPTH)
			c->active[c->n_active++] = *claim;
		else
			c->deep_end = vd_max_u64(c->deep_end, end_of(claim));
	}
}

static uint64_t next_start(const struct vd_cover *c)
{
	return c->next_claim < c->w->n_claims ? c->w->claims[c->next_claim].host_off : UINT64_MAX;
}

/* ---- claimed -------------------------------------------------------------------------------------------- */

static bool is_content(const struct vd_host_run *r)
{
	return r->guest_off != VD_HOST_NOWHERE && (r->owner == VD_OWNER_DATA || r->owner == VD_OWNER_VMSTATE ||
						   r->owner == VD_OWNER_ZEROED || r->owner == VD_OWNER_SLACK);
}

/* `at`: in the LUKS header, of which there is one: formats with snapshots have it outside of the disk. */
static void look_into_key_area(const struct vd_cover *c, struct vd_host_run *r, uint64_t at)
{
	for (size_t i = 0; i < c->w->n_dead; i++) {
		const struct vd_span *dead = &c->w->dead[i];

		if (at < dead->off) {
			r->len = vd_min_u64(r->len, dead->off - at);
			return;
		}
		if (at < dead->end) {
			r->len = vd_min_u64(r->len, dead->end - at);
			r->owner = VD_OWNER_SLACK;
			r->why = VD_SLACK_DEAD_SLOT;
			return;
		}
	}
}

/* A container's header lies in the disk that the format shows; what the guest sees begins behind it. */
static void look_into_container(const struct vd_cover *c, struct vd_host_run *r)
{
	uint64_t payload = c->img->layer.payload_off, size = c->img->size, at = r->guest_off;

	if (!c->img->layer.is_container || at == VD_HOST_NOWHERE)
		return;
	if (!is_content(r)) {
		r->guest_off = at > payload ? at - payload : 0;
		return;
	}
	if (at < payload) {
		r->len = vd_min_u64(r->len, payload - at);
		r->owner = VD_OWNER_KEYAREA;
		r->why = VD_WHY_NONE;
		r->guest_off = VD_HOST_NOWHERE;
		look_into_key_area(c, r, at);
		return;
	}
	r->guest_off -= payload;
	if (r->guest_off < size) {
		r->len = vd_min_u64(r->len, size - r->guest_off);
		return;
	}
	r->owner = VD_OWNER_SLACK;
	r->why = VD_SLACK_PAST_END;
}

static void describe_claimed(const struct vd_cover *c, struct vd_host_run *r)
{
	struct vd_claim a = c->active[0];

	for (size_t i = 1; i < c->n_active; i++)
		a = vd_claim_join(&a, &c->active[i]);
	r->owner = a.owner;
	r->why = a.why;
	r->view = a.view;
	r->refs = a.refs;
	r->guest_off = a.guest_off;
	r->parent_off = vd_claim_parent(&a, r->off);
	if (r->owner == VD_OWNER_CORRUPT) {
		r->guest_off = VD_HOST_NOWHERE;
		return;
	}
	if (is_content(r))
		r->guest_off += r->off - a.host_off;
	if (r->refs > 1)
		r->flags |= VD_HOST_SHARED;
	if (r->owner == VD_OWNER_KEYAREA)
		look_into_key_area(c, r, r->off - c->img->layer.luks.header_off);
	look_into_container(c, r);
	if ((r->owner == VD_OWNER_DATA || r->owner == VD_OWNER_VMSTATE) && c->img->layer.encryption)
		r->flags |= VD_HOST_ENCRYPTED;
}

/* ---- not claimed ---------------------------------------------------------------------------------------- */

/* How the format counts what begins at r->off; r->len is cut to where that stays so. */
static uint64_t counted(struct vd_cover *c, struct vd_host_run *r)
{
	const struct vd_window *w = c->w;

	while (c->next_count < w->n_counts && w->counts[c->next_count].end <= r->off)
		c->next_count++;
	if (c->next_count == w->n_counts)
		return 0;
	if (w->counts[c->next_count].off > r->off) {
		r->len = vd_min_u64(r->len, w->counts[c->next_count].off - r->off);
		return 0;
	}
	r->len = vd_min_u64(r->len, w->counts[c->next_count].end - r->off);
	return w->counts[c->next_count].count;
}

static bool is_rest_of_unit(const struct vd_cover *c, struct vd_host_run *r)
{
	uint64_t unit = c->w->unit, begin = vd_round_down(r->off, unit), next = next_start(c);

	if (unit == 1 || (c->used_end <= begin && (next < begin || next - begin >= unit)))
		return false;
	r->len = vd_min_u64(r->len, unit - (r->off - begin));
	return true;
}

static void describe_unclaimed(struct vd_cover *c, struct vd_host_run *r)
{
	const struct vd_window *w = c->w;
	uint64_t next = next_start(c), count;

	r->guest_off = r->parent_off = VD_HOST_NOWHERE;
	if (is_rest_of_unit(c, r)) {
		r->owner = VD_OWNER_SLACK;
		r->why = c->last_owner == VD_OWNER_PACKED || (next < w->end && w->claims[c->next_claim].owner == VD_OWNER_PACKED) ?
			 VD_SLACK_PACKED : VD_SLACK_TABLE;
		return;
	}
	/* Up to the unit in which the next claim begins. */
	if (next < w->end && vd_round_down(next, w->unit) > r->off)
		r->len = vd_min_u64(r->len, vd_round_down(next, w->unit) - r->off);
	count = counted(c, r);
	r->owner = count ? VD_OWNER_LEAKED : r->off >= w->tail ? VD_OWNER_TAIL : VD_OWNER_FREE;
	r->refs = count;
	if (r->owner == VD_OWNER_FREE)
		r->len = vd_min_u64(r->len, w->tail - r->off);
}

/* ---- runs ----------------------------------------------------------------------------------------------- */

static int ask_host(struct vd_cover *c, struct vd_error *e)
{
	struct vd_io *io = vd_set_io(c->img->set, c->w->file);
	uint64_t len;
	int r;

	if (c->at < c->stored_end)
		return 0;
	r = vd_io_extent(io, c->at, &c->is_stored, &len, e);
	if (r == 0)
		c->stored_end = c->at + len;
	return r;
}

static void mark_hole(struct vd_host_run *r)
{
	if (r->owner == VD_OWNER_FREE || r->owner == VD_OWNER_TAIL)
		r->owner = VD_OWNER_HOSTHOLE;
	else
		r->flags |= VD_HOST_SPARSE;
}

/* From c->at on, as long as nothing changes. */
static int piece(struct vd_cover *c, struct vd_host_run *r, struct vd_error *e)
{
	uint64_t end;
	int err = ask_host(c, e);

	if (err < 0)
		return err;
	retire(c);
	admit(c);
	end = vd_min_u64(vd_min_u64(c->w->end, c->stored_end), next_start(c));
	for (size_t i = 0; i < c->n_active; i++)
		end = vd_min_u64(end, end_of(&c->active[i]));
	if (c->at < c->deep_end)
		end = vd_min_u64(end, c->deep_end);
	*r = (struct vd_host_run){ .off = c->at, .len = end - c->at, .file = c->w->file };
	if (c->w->is_crowded || c->at < c->deep_end) {
		r->owner = VD_OWNER_CORRUPT;
		r->guest_off = r->parent_off = VD_HOST_NOWHERE;
	} else if (c->n_active) {
		describe_claimed(c, r);
	} else {
		describe_unclaimed(c, r);
	}
	if (!c->is_stored)
		mark_hole(r);
	c->at += r->len;
	return 0;
}

static bool joins(const struct vd_host_run *a, const struct vd_host_run *b)
{
	if (a->owner != b->owner || a->flags != b->flags)
		return false;
	if (a->owner == VD_OWNER_CORRUPT)
		return true;
	if (a->why != b->why || a->refs != b->refs || a->view != b->view)
		return false;
	if (is_content(a))
		return a->guest_off + a->len == b->guest_off;
	return a->guest_off == b->guest_off && a->parent_off == b->parent_off;
}

int vd_cover_next(struct vd_cover *c, struct vd_host_run *run, bool *got, struct vd_error *e)
{
	struct vd_host_run next;
	int r;

	*got = false;
	while (c->at < c->w->end) {
		r = piece(c, &next, e);
		if (r < 0)
			return r;
		if (!c->has_pending) {
			c->pending = next;
			c->has_pending = true;
		} else if (joins(&c->pending, &next)) {
			c->pending.len += next.len;
		} else {
			*run = c->pending;
			c->pending = next;
			*got = true;
			return 0;
		}
	}
	*got = c->has_pending;
	*run = c->pending;
	c->has_pending = false;
	return 0;
}
