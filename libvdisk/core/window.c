/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Gathers claims in bounded memory: sorts, joins what is the same, and gives up the far end of the window when they are too many. */
#include "libvdisk/core/window.h"

#include <stdlib.h>
#include <string.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"

#define CLAIMS_FIRST 256

size_t vd_window_claims = VD_WINDOW_CLAIMS, vd_window_counts = VD_WINDOW_COUNTS;

void vd_window_init(struct vd_window *w, uint32_t file, uint64_t start, uint64_t end)
{
	*w = (struct vd_window){ .file = file, .start = start, .end = end, .unit = 1, .tail = UINT64_MAX };
}

void vd_window_fini(struct vd_window *w)
{
	free(w->claims);
	free(w->counts);
	*w = (struct vd_window){ 0 };
}

void vd_window_set_units(struct vd_window *w, uint64_t unit, uint64_t tail)
{
	w->unit = unit;
	w->tail = tail;
}

void vd_window_has_counts(struct vd_window *w)
{
	w->has_counts = true;
}

void vd_window_finding(struct vd_window *w, const struct vd_error *what)
{
	if (!w->n_findings++)
		w->first_finding = *what;
}

/* ---- joining -------------------------------------------------------------------------------------------- */

/* What a guest's bytes can be to those who share them, the best first. */
static int content_rank(const struct vd_claim *c)
{
	switch (c->owner) {
	case VD_OWNER_DATA:
		return 0;
	case VD_OWNER_VMSTATE:
		return 1;
	case VD_OWNER_ZEROED:
		return 2;
	case VD_OWNER_SLACK:
		return c->guest_off == VD_HOST_NOWHERE ? -1 : 3;
	default:
		return -1;
	}
}

/* Snapshots share a cluster at the same guest offset; tables and compressed clusters as a whole. */
static bool may_share(const struct vd_claim *a, const struct vd_claim *b)
{
	if (content_rank(a) >= 0 && content_rank(b) >= 0)
		return a->guest_off - a->host_off == b->guest_off - b->host_off;
	return a->owner == b->owner && a->guest_off == b->guest_off && a->host_off == b->host_off && a->len == b->len &&
	       (a->owner == VD_OWNER_PACKED || (a->owner == VD_OWNER_TABLE && a->why == VD_TABLE_LEAF && b->why == a->why));
}

static bool shows_before(const struct vd_claim *a, const struct vd_claim *b)
{
	int rank_a = content_rank(a), rank_b = content_rank(b);

	return rank_a != rank_b ? rank_a < rank_b : a->view <= b->view;
}

struct vd_claim vd_claim_join(const struct vd_claim *a, const struct vd_claim *b)
{
	struct vd_claim c = shows_before(a, b) ? *a : *b;

	c.refs = vd_min_u64((uint64_t)a->refs + b->refs, UINT32_MAX);
	if (!may_share(a, b)) {
		c.owner = VD_OWNER_CORRUPT;
		c.why = VD_WHY_NONE;
	}
	return c;
}

/* Longer ones first, so that what lies inside comes after what it lies in. */
static int by_place(const void *va, const void *vb)
{
	const struct vd_claim *a = va, *b = vb;

	if (a->host_off != b->host_off)
		return a->host_off < b->host_off ? -1 : 1;
	if (a->len != b->len)
		return a->len > b->len ? -1 : 1;
	return a->view < b->view ? -1 : a->view > b->view;
}

static bool is_sorted(const struct vd_window *w)
{
	for (size_t i = 1; i < w->n_claims; i++)
		if (by_place(&w->claims[i - 1], &w->claims[i]) > 0)
			return false;
	return true;
}

void vd_window_settle(struct vd_window *w)
{
	size_t n = 0;

	if (!is_sorted(w))
		qsort(w->claims, w->n_claims, sizeof(*w->claims), by_place);
	for (size_t i = 0; i < w->n_claims; i++) {
		struct vd_claim *last = n ? &w->claims[n - 1] : NULL;

		if (last && last->host_off == w->claims[i].host_off && last->len == w->claims[i].len)
			*last = vd_claim_join(last, &w->claims[i]);
		else
			w->claims[n++] = w->claims[i];
	}
	w->n_claims = n;
}

/* ---- taking --------------------------------------------------------------------------------------------- */

static void drop_past_end(struct vd_window *w)
{
	while (w->n_claims && w->claims[w->n_claims - 1].host_off >= w->end)
		w->n_claims--;
}

/* Too many: those that are equal become one, and if that does not help, half of them are left to the next window. */
static void compact(struct vd_window *w)
{
	uint64_t least = w->start + VD_WINDOW_ALIGN, middle;

	vd_window_settle(w);
	if (w->n_claims < w->max_claims / 4 * 3)
		return;
	middle = vd_round_down(w->claims[w->n_claims / 2].host_off, VD_WINDOW_ALIGN);
	w->end = vd_min_u64(w->end, vd_max_u64(middle, least));
	drop_past_end(w);
	if (w->n_claims < w->max_claims / 4 * 3)
		return;
	w->is_crowded = true;
	w->n_claims = 0;
}

static int make_room(struct vd_window *w, struct vd_error *e)
{
	size_t n = w->max_claims ? w->max_claims * 2 : CLAIMS_FIRST;
	int r;

	if (w->max_claims >= vd_window_claims) {
		compact(w);
		return 0;
	}
	n = vd_min_u64(n, vd_window_claims);
	r = vd_realloc(&w->claims, n, sizeof(*w->claims), e);
	if (r == 0)
		w->max_claims = n;
	return r;
}

uint64_t vd_claim_parent(const struct vd_claim *c, uint64_t host_off)
{
	if (!c->is_sole || c->parent_off == VD_HOST_NOWHERE)
		return c->parent_off;
	return c->parent_off + ((host_off >> c->unit_bits) - (c->host_off >> c->unit_bits)) * c->entry_bytes;
}

/* Side by side on the host, on the disk and in the table, and nobody else leads there. */
static bool continues(const struct vd_claim *a, const struct vd_claim *b)
{
	return a->is_sole && b->is_sole && a->owner == b->owner && a->why == b->why && a->view == b->view &&
	       a->host_off + a->len == b->host_off && a->guest_off + a->len == b->guest_off &&
	       vd_claim_parent(a, b->host_off) == b->parent_off;
}

static int keep(struct vd_window *w, const struct vd_claim *c, struct vd_error *e)
{
	int r = w->n_claims == w->max_claims ? make_room(w, e) : 0;

	/* The window may just have become smaller. */
	if (r < 0 || w->is_crowded || !vd_window_meets(w, c->host_off, c->len))
		return r;
	w->claims[w->n_claims++] = *c;
	return 0;
}

int vd_window_claim(struct vd_window *w, const struct vd_claim *c, struct vd_error *e)
{
	struct vd_claim *last = w->n_claims ? &w->claims[w->n_claims - 1] : NULL;

	if (!c->len || !vd_window_meets(w, c->host_off, c->len) || w->is_crowded)
		return 0;
	if (w->list)
		return w->list(w->list_ctx, c, e);
	if (last && continues(last, c)) {
		last->len += c->len;
		return 0;
	}
	return keep(w, c, e);
}

/* In ascending order, so what does not fit any more lies at the window's end. */
int vd_window_count(struct vd_window *w, uint64_t off, uint64_t len, uint64_t count, struct vd_error *e)
{
	struct vd_counted *last = w->n_counts ? &w->counts[w->n_counts - 1] : NULL;
	size_t n;
	int r;

	if (!len || !count || !vd_window_meets(w, off, len))
		return 0;
	if (last && last->end == off && last->count == count) {
		last->end += len;
		return 0;
	}
	if (w->n_counts >= vd_window_counts && vd_round_down(off, VD_WINDOW_ALIGN) > w->start) {
		w->end = vd_round_down(off, VD_WINDOW_ALIGN);
		return 0;
	}
	if (w->n_counts == w->max_counts) {
		n = w->max_counts ? w->max_counts * 2 : CLAIMS_FIRST;
		r = vd_realloc(&w->counts, n, sizeof(*w->counts), e);
		if (r < 0)
			return r;
		w->max_counts = n;
	}
	w->counts[w->n_counts++] = (struct vd_counted){ .off = off, .end = off + len, .count = count };
	return 0;
}
