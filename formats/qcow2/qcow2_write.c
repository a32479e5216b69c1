/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Gives out the place for a write and links it afterwards. The core fills, encrypts and writes what lies there; who
 * owns clusters is qcow2_refcount.c's.
 *
 * Under extended L2 a reservation asks for whole subclusters only, but writers exclude each other by whole clusters
 * (fill_unit in describe): two that reserved a host cluster each for one guest cluster would lose one's data.
 */
#include "formats/qcow2/qcow2.h"

#define RESERVE_MAX (64u << 20)         /* bounds the work under the allocation lock; no format's reader sees the seams */

enum use {
	IN_PLACE,                       /* all that is touched is allocated and ours alone */
	OWN_HOST,                       /* the host cluster is ours, but some of it reads as zeros or asks the parent */
	NEW_HOST,                       /* needs another host cluster */
};

/* Neighbouring clusters that a write can deal with alike. */
struct stretch {
	enum use use;
	uint64_t n;
	uint64_t host_off;              /* of the first; not for NEW_HOST */
	bool head_is_whole, tail_is_whole; /* the first, the last one moves: all of it must be filled */
};

static enum use use_of(const struct vd_qcow2 *s, const struct vd_qcow2_cluster *c, uint32_t touched, bool as_zeros)
{
	/* In a data file each cluster has its place, used or not. */
	if (!s->payload_file && !(c->has_host && c->is_copied))
		return NEW_HOST;
	return (c->allocated & touched) == touched && !as_zeros ? IN_PLACE : OWN_HOST;
}

/* Takes the cluster into the stretch if it is of the same kind and goes on where the last one ends. */
static bool extend(const struct vd_qcow2 *s, struct stretch *t, const struct vd_qcow2_cluster *c,
		   uint64_t cluster_off, uint32_t touched, bool as_zeros)
{
	enum use use = use_of(s, c, touched, as_zeros);
	uint64_t host_off = s->payload_file ? cluster_off : c->host_off;
	bool moves = use == NEW_HOST && (c->is_packed || c->allocated);

	if (!t->n) {
		t->use = use;
		t->host_off = host_off;
		t->head_is_whole = moves;
	} else if (use != t->use || (use != NEW_HOST && host_off != t->host_off + t->n * s->cluster_size)) {
		return false;
	}
	t->tail_is_whole = moves;
	t->n++;
	return true;
}

/* How far from v->off on one reservation can go: inside one table. */
static int measure(const struct vd_qcow2 *s, const struct vd_resv *v, uint64_t l2_off, struct stretch *t,
		   struct vd_error *e)
{
	uint64_t first = vd_round_down(v->off, s->cluster_size);
	uint64_t end = vd_min_u64(v->off + v->len, vd_round_down(first, s->l2_span) + s->l2_span);
	uint64_t n_max = vd_min_u64((end - 1 - first) / s->cluster_size + 1, RESERVE_MAX / s->cluster_size);
	uint8_t raw[QCOW2_BATCH_BYTES];

	*t = (struct stretch){ 0 };
	while (t->n < n_max) {
		uint64_t n = vd_min_u64(n_max - t->n, sizeof(raw) / s->entry_size);
		uint64_t at = first + t->n * s->cluster_size;
		uint64_t entry_off = vd_qcow2_entry_off(s, l2_off, at);
		int r = vd_meta_read(s->meta, 0, entry_off, raw, n * s->entry_size, 0, e);

		for (uint64_t i = 0; i < n && r == 0; i++, at += s->cluster_size) {
			struct vd_qcow2_cluster c;

			r = vd_qcow2_decode(s, raw + i * s->entry_size, at, entry_off + i * s->entry_size, &c,
					    e);
			if (r == 0 && !extend(s, t, &c, at, vd_qcow2_sub_bits(s, at, v->off, end), v->as_zeros))
				return 0;
		}
		if (r < 0)
			return r;
	}
	return 0;
}

static int reserve_packed(struct vd_qcow2 *s, struct vd_resv *v, struct vd_error *e)
{
	int r;

	if (v->off % s->cluster_size || v->len > s->cluster_size || v->packed_len > s->cluster_size ||
	    s->payload_file)
		return vd_fail(e, VD_EARG,
			       "%s: %" PRIu64 " packed bytes at guest offset %" PRIu64 " are no compressed cluster",
			       s->name, v->packed_len, v->off);
	r = vd_qcow2_alloc_packed(s, v->packed_len, &v->host_off, e);
	if (r < 0)
		return r;
	v->covered = v->fill_len = v->len;
	v->fill_off = v->off;
	v->file = 0;
	v->in_place = v->fresh = false;
	v->cookie[0] = v->host_off;
	v->cookie[1] = v->packed_len;
	return 0;
}

static void fill_in(const struct vd_qcow2 *s, struct vd_resv *v, const struct stretch *t)
{
	uint64_t first = vd_round_down(v->off, s->cluster_size), end;

	v->covered = vd_min_u64(v->off + v->len, first + t->n * s->cluster_size) - v->off;
	end = v->off + v->covered;
	v->in_place = t->use == IN_PLACE;
	v->fill_off = v->off;
	if (!v->in_place) {
		v->fill_off = vd_round_down(v->off, t->head_is_whole ? s->cluster_size : s->sub_size);
		end = vd_round_up(end, t->tail_is_whole ? s->cluster_size : s->sub_size);
	}
	/* A data file is as long as the disk: it may be used without its image. */
	if (s->payload_file)
		end = vd_max_u64(vd_min_u64(end, s->h.size), v->off + v->covered);
	v->fill_len = end - v->fill_off;
	v->host_off = t->host_off + (v->fill_off - first);
	v->file = s->payload_file;
}

/* In a data file a cluster has one place; nothing says yet that it is this one's, and it may not be given out any more. */
static int judge_floor(const struct vd_qcow2 *s, const struct vd_resv *v, const struct stretch *t, struct vd_error *e)
{
	if (!s->payload_file || t->use == IN_PLACE || t->host_off >= s->data_floor)
		return 0;
	return vd_fail(e, VD_EUNSUPPORTED, "%s: guest offset %" PRIu64 " is a hole, and its place in the data file lies before the end "
		       "that the file had, where nothing is given out now", s->name, v->off);
}

/* cookie: the host clusters that cancel() gives back. */
int vd_qcow2_reserve(void *st, struct vd_resv *v, struct vd_error *e)
{
	struct vd_qcow2 *s = st;
	struct stretch t;
	uint64_t l2_off;
	/* Here, so that publish() has nothing left that can fail for want of space. */
	int r = vd_qcow2_l2_for_write(s, v->off, &l2_off, e);

	if (r < 0)
		return r;
	if (v->packed_len)
		return reserve_packed(s, v, e);
	r = measure(s, v, l2_off, &t, e);
	if (r == 0)
		r = judge_floor(s, v, &t, e);
	if (r < 0)
		return r;
	v->fresh = false;
	v->cookie[1] = 0;
	if (t.use == NEW_HOST) {
		/* Fewer clusters than wanted end at a cluster's end, so the tail needs no other thought. */
		r = vd_qcow2_alloc(s, t.n, &t.host_off, &t.n, &v->fresh, e);
		if (r < 0)
			return r;
		v->cookie[0] = t.host_off;
		v->cookie[1] = t.n * s->cluster_size;
	}
	fill_in(s, v, &t);
	return 0;
}

/* What a cluster's entry says once the reservation is linked. */
static void link_host(const struct vd_qcow2 *s, const void *ctx, uint64_t cluster_off,
		      struct vd_qcow2_cluster *c)
{
	const struct vd_resv *v = ctx;
	uint64_t host_off = v->host_off + cluster_off - v->fill_off;
	uint32_t filled = vd_qcow2_sub_bits(s, cluster_off, v->fill_off, v->fill_off + v->fill_len);
	bool stays = c->has_host && c->host_off == host_off;

	if (v->packed_len) {
		*c = (struct vd_qcow2_cluster){ .is_packed = true, .host_off = v->host_off, .host_len = v->packed_len };
		return;
	}
	*c = (struct vd_qcow2_cluster){
		.has_host = true, .is_copied = true, .host_off = host_off,
		.allocated = (stays ? c->allocated & ~filled : 0) | (v->as_zeros ? 0 : filled),
		.zero = (c->zero & ~filled) | (v->as_zeros ? filled : 0),
	};
}

int vd_qcow2_publish(void *st, struct vd_resv *v, struct vd_error *e)
{
	struct vd_qcow2 *s = st;
	uint64_t first = vd_round_down(v->fill_off, s->cluster_size);
	uint64_t n = (v->fill_off + v->fill_len - 1 - first) / s->cluster_size + 1, l2_off;
	bool is_owned;
	int r = vd_qcow2_l1_lookup(s, first / s->l2_span, 0, &l2_off, &is_owned, e);

	return r < 0 ? r : vd_qcow2_l2_rewrite(s, l2_off, first, n, link_host, v, e);
}

void vd_qcow2_cancel(void *st, struct vd_resv *v)
{
	/* Nothing ever pointed there, so the space needs no quarantine. A failure leaks it. */
	if (v->cookie[1] && vd_qcow2_drop(st, v->cookie[0], v->cookie[1], NULL) < 0)
		v->cookie[1] = 0;
}
