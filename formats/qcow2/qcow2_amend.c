/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changes what an image was created with: version, lazy refcounts, width of the refcounts, format of the backing file. Each
 * comes into force by one write of the first sector: a header by qcow2_head.c, new refcounts by qcow2_shape.c. All of a
 * request is judged before any of it is done, and a second time when it is done.
 */
#include "formats/qcow2/qcow2_head.h"
#include "formats/qcow2/qcow2_shape.h"

#include <stdlib.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

#define AT_VERSION 4
#define AT_COMPAT 80
#define AT_REFCOUNT_ORDER 96
#define AT_HEADER_LENGTH 100

struct amend {
	struct vd_qcow2 *s;
	const struct vd_amend_opts *o;
	uint32_t version, bits;         /* after */
};

/* ---- judging -------------------------------------------------------------------------------------------- */

/* What version 2 cannot say, in words; NULL: nothing of the header. */
static const char *beyond_version_2(const struct vd_qcow2 *s)
{
	const uint64_t known = QCOW2_INCOMPAT_EXTENDED_L2 | QCOW2_INCOMPAT_DATA_FILE | QCOW2_INCOMPAT_COMPRESSION;

	if (s->h.incompat & QCOW2_INCOMPAT_EXTENDED_L2)
		return "extended L2 entries";
	if (s->h.incompat & QCOW2_INCOMPAT_DATA_FILE)
		return "an external data file";
	if (s->h.incompat & QCOW2_INCOMPAT_COMPRESSION)
		return "zstd compression";
	return s->h.incompat & ~known ? "marks of damage" : s->n_bitmaps ? "bitmaps" : NULL;
}

static int refuse_downgrade(const struct vd_qcow2 *s, const char *what, const char *way, struct vd_error *e)
{
	vd_fail(e, VD_EUNSUPPORTED, "%s: version 2 (compat=0.10) cannot have %s, which the image has", s->name, what);
	return vd_hint(e, VD_EUNSUPPORTED, "%s", way);
}

static const char by_convert[] = "vdisk convert -O qcow2 -o compat=0.10 makes a copy without";

/* ---- zero clusters -------------------------------------------------------------------------------------- */

static int look_at_table(const struct vd_qcow2 *s, uint64_t l1_index, uint64_t l2_off, bool *found, struct vd_error *e)
{
	uint64_t per_batch = vd_min_u64(QCOW2_BATCH_BYTES / s->entry_size, s->l2_entries);
	uint8_t raw[QCOW2_BATCH_BYTES];
	int r = 0;

	for (uint64_t first = 0; first < s->l2_entries && r == 0 && !*found; first += per_batch) {
		uint64_t at = l2_off + first * s->entry_size;

		r = vd_meta_read(s->meta, 0, at, raw, per_batch * s->entry_size, 0, e);
		for (uint64_t i = 0; i < per_batch && r == 0; i++) {
			struct vd_qcow2_cluster c;

			r = vd_qcow2_decode(s, raw + i * s->entry_size, l1_index * s->l2_span + (first + i) * s->cluster_size,
					    at + i * s->entry_size, &c, e);
			*found |= c.zero != 0;
		}
	}
	return r;
}

static int has_zero_clusters(const struct vd_qcow2 *s, uint64_t l1_off, uint32_t l1_size, bool *found, struct vd_error *e)
{
	vd_auto_tree struct vd_qcow2_tree t = { 0 };
	int r = vd_qcow2_tree_read(s, l1_off, l1_size, &t, e);

	*found = false;
	for (uint32_t i = 0; i < l1_size && r == 0 && !*found; i++)
		if (t.l2[i])
			r = look_at_table(s, i, t.l2[i], found, e);
	return r;
}

/* Without a backing file a zero cluster says no more than a hole. */
static void make_hole(const struct vd_qcow2 *s, const void *ctx, uint64_t cluster_off, struct vd_qcow2_cluster *c)
{
	(void)s;
	(void)ctx;
	(void)cluster_off;
	if (c->zero)
		*c = (struct vd_qcow2_cluster){ 0 };
}

static int make_holes(struct vd_qcow2 *s, struct vd_error *e)
{
	vd_auto_tree struct vd_qcow2_tree t = { 0 };
	int r = vd_qcow2_tree_read(s, s->h.l1_off, s->h.l1_size, &t, e);

	for (uint32_t i = 0; i < s->h.l1_size && r == 0; i++) {
		uint64_t at = i * s->l2_span, l2_off;
		bool found = false;

		if (t.l2[i])
			r = look_at_table(s, i, t.l2[i], &found, e);
		if (r < 0 || !found)
			continue;
		r = vd_qcow2_l2_for_write(s, at, &l2_off, e);
		if (r == 0)
			r = vd_qcow2_l2_rewrite(s, l2_off, at, s->l2_entries, make_hole, NULL, e);
	}
	/* Durable before the header that has no word for them. */
	return r < 0 ? r : vd_space_drain(s->space, e);
}

static int judge_zero_clusters(const struct vd_qcow2 *s, struct vd_error *e)
{
	vd_auto_snapshots struct vd_qcow2_snapshots list = { 0 };
	bool found = false;
	int r = vd_qcow2_snapshots_read(s, &list, e);

	for (size_t i = 0; i < list.n && r == 0 && !found; i++)
		r = has_zero_clusters(s, list.at[i].l1_off, list.at[i].l1_size, &found, e);
	if (r < 0)
		return r;
	if (found)
		return refuse_downgrade(s, "a snapshot with zero clusters", "delete the snapshots that have them first", e);
	if (s->backing_file)
		r = has_zero_clusters(s, s->h.l1_off, s->h.l1_size, &found, e);
	if (r == 0 && found)
		return refuse_downgrade(s, "zero clusters over a backing file", "vdisk flatten first, or vdisk convert to a copy", e);
	return r;
}

static int judge_downgrade(const struct amend *a, struct vd_error *e)
{
	const struct vd_qcow2 *s = a->s;
	const char *what = beyond_version_2(s);

	if (what)
		return refuse_downgrade(s, what, s->n_bitmaps ? "vdisk bitmap remove takes them away" : by_convert, e);
	if (s->h.header_length > QCOW2_OWN_LENGTH)
		return refuse_downgrade(s, "a header longer than is known here", by_convert, e);
	return judge_zero_clusters(s, e);
}

static int judge_values(struct amend *a, struct vd_error *e)
{
	const struct vd_amend_opts *o = a->o;
	const struct vd_qcow2 *s = a->s;

	a->version = o->compat ? o->compat : s->h.version;
	a->bits = o->refcount_bits ? o->refcount_bits : 1u << s->h.refcount_order;
	if (a->version != 2 && a->version != 3)
		return vd_fail(e, VD_EARG, "a qcow2 version %" PRIu32 " is not possible: 2 or 3", a->version);
	if (!vd_is_pow2(a->bits) || a->bits > 64)
		return vd_fail(e, VD_EARG, "refcounts of %" PRIu32 " bits are not possible: a power of two from 1 to 64", a->bits);
	if (a->version == 2 && a->bits != 16)
		return refuse_downgrade(s, "refcounts of another width than 16 bits", "ask for refcount_bits=16 too", e);
	if (a->version == 2 && o->lazy_refcounts == VD_ON)
		return vd_fail(e, VD_EUNSUPPORTED, "%s: version 2 (compat=0.10) has no lazy refcounts", s->name);
	if (o->data_file_raw == VD_ON && !s->is_raw_external) {
		vd_fail(e, VD_EUNSUPPORTED, "%s: a data file cannot become a raw image of the disk by a word", s->name);
		return vd_hint(e, VD_EUNSUPPORTED, "vdisk convert -O qcow2 -o data_file=NAME,data_file_raw=on makes one");
	}
	if (o->backing_format && !s->backing_file)
		return vd_fail(e, VD_EARG, "%s has no backing file whose format could be said", s->name);
	return 0;
}

/* ---- the header ----------------------------------------------------------------------------------------- */

static int set_version(const struct amend *a, struct vd_qcow2_head *h, struct vd_error *e)
{
	uint8_t *fixed;
	int r;

	if (a->version == a->s->h.version)
		return 0;
	r = vd_alloc(QCOW2_OWN_LENGTH, 1, &fixed, e);
	if (r < 0)
		return r;
	memcpy(fixed, h->fixed, QCOW2_V2_LENGTH);
	free(h->fixed);
	h->fixed = fixed;
	h->fixed_len = a->version == 2 ? QCOW2_V2_LENGTH : QCOW2_OWN_LENGTH;
	vd_put_be32(fixed + AT_VERSION, a->version);
	if (a->version == 2)
		return vd_qcow2_head_put(h, QCOW2_EXT_FEATURE_NAMES, NULL, 0, e);
	vd_put_be32(fixed + AT_REFCOUNT_ORDER, a->s->h.refcount_order);
	vd_put_be32(fixed + AT_HEADER_LENGTH, QCOW2_OWN_LENGTH);
	return 0;
}

static void set_bits(const struct amend *a, struct vd_qcow2_head *h)
{
	uint64_t compat, autoclear;

	if (a->version == 2)
		return;
	compat = vd_get_be64(h->fixed + AT_COMPAT);
	autoclear = vd_get_be64(h->fixed + QCOW2_AT_AUTOCLEAR);
	if (a->o->lazy_refcounts)
		compat &= ~QCOW2_COMPAT_LAZY;
	if (a->o->lazy_refcounts == VD_ON)
		compat |= QCOW2_COMPAT_LAZY;
	if (a->o->data_file_raw == VD_OFF)
		autoclear &= ~QCOW2_AUTOCLEAR_DATA_FILE_RAW;
	vd_put_be64(h->fixed + AT_COMPAT, compat);
	vd_put_be64(h->fixed + QCOW2_AT_AUTOCLEAR, autoclear);
}

static bool changes_header(const struct amend *a)
{
	const struct vd_amend_opts *o = a->o;

	return a->version != a->s->h.version || o->lazy_refcounts || o->data_file_raw || o->backing_format;
}

static int change_header(const struct amend *a, struct vd_error *e)
{
	struct vd_qcow2 *s = a->s;
	const char *format = a->o->backing_format;
	vd_auto_head struct vd_qcow2_head h = { 0 };
	int r;

	if (!changes_header(a))
		return 0;
	r = vd_qcow2_head_read(s, &h, e);
	if (r == 0)
		r = set_version(a, &h, e);
	if (r < 0)
		return r;
	set_bits(a, &h);
	if (format)
		r = vd_qcow2_head_put(&h, QCOW2_EXT_BACKING_FORMAT, format, strlen(format), e);
	if (r == 0)
		r = vd_qcow2_head_switch(s, &h, e);
	if (r == 0)
		s->is_raw_external = s->h.autoclear & QCOW2_AUTOCLEAR_DATA_FILE_RAW;
	return r;
}

/* ---- tables --------------------------------------------------------------------------------------------- */

/* Nothing but new tables: of snapshots with all that version 3 asks for, of refcounts in this width. */
static int rebuild(const struct amend *a, uint32_t bits, struct vd_error *e)
{
	struct vd_qcow2 *s = a->s;
	vd_auto_snapshots struct vd_qcow2_snapshots list = { 0 };
	vd_auto_tree struct vd_qcow2_tree now = { 0 };
	struct vd_qcow2_act act = {
		.size = s->h.size, .l1_size = vd_max_u64(1, s->h.l1_size), .active = &now, .n_kept = UINT64_MAX,
		.snapshots = &list, .refcount_bits = bits,
	};
	int r = vd_qcow2_snapshots_read(s, &list, e);

	if (r == 0)
		r = vd_qcow2_tree_read(s, s->h.l1_off, s->h.l1_size, &now, e);
	if (r < 0)
		return r;
	act.old_snap_len = list.table_len;
	act.dead[0] = (struct vd_qcow2_area){ "L1 table", now.l1_off, now.l1_off + (uint64_t)now.l1_size * 8 };
	return vd_qcow2_shape(s, &act, e);
}

static int upgrade(const struct amend *a, struct vd_error *e)
{
	uint32_t bits = 1u << a->s->h.refcount_order;
	int r = a->version > a->s->h.version && a->s->h.n_snapshots ? rebuild(a, bits, e) : 0;

	if (r == 0)
		r = change_header(a, e);
	return r == 0 && a->bits != bits ? rebuild(a, a->bits, e) : r;
}

static int downgrade(const struct amend *a, struct vd_error *e)
{
	int r = a->bits != 1u << a->s->h.refcount_order ? rebuild(a, a->bits, e) : 0;

	if (r == 0)
		r = make_holes(a->s, e);
	return r < 0 ? r : change_header(a, e);
}

int vd_qcow2_amend(void *st, const struct vd_amend_opts *o, bool only_judge, struct vd_error *e)
{
	struct amend a = { .s = st, .o = o };
	bool is_less;
	int r = judge_values(&a, e);

	is_less = a.version < a.s->h.version;
	if (r == 0 && is_less)
		r = judge_downgrade(&a, e);
	if (r < 0 || only_judge)
		return r;
	return is_less ? downgrade(&a, e) : upgrade(&a, e);
}
