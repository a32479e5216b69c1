/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The two levels of tables between guest and host: looks entries up, judges them, makes and copies L2 tables. What a
 * row of entries means for a read is qcow2_map.c's, for a write qcow2_write.c's.
 */
#include "formats/qcow2/qcow2.h"

static uint64_t l1_entry_off(const struct vd_qcow2 *s, uint64_t l1_index)
{
	return s->h.l1_off + l1_index * 8;
}

int vd_qcow2_l1_lookup(const struct vd_qcow2 *s, uint64_t l1_index, unsigned meta_flags, uint64_t *l2_off,
		       bool *is_owned,
		    struct vd_error *e)
{
	uint64_t at = l1_entry_off(s, l1_index), word;
	uint8_t raw[8];
	int r = vd_meta_read(s->meta, 0, at, raw, sizeof(raw), meta_flags, e);

	if (r < 0)
		return r;
	word = vd_get_be64(raw);
	if (word & QCOW2_L1_RESERVED)
		return vd_qcow2_corrupt(s, e, at,
					"L1 entry %" PRIu64 " is 0x%016" PRIx64 ", which has reserved bits set", l1_index, word);
	*l2_off = word & QCOW2_OFFSET_MASK;
	*is_owned = word & QCOW2_COPIED;
	return *l2_off ? vd_qcow2_judge_cluster(s, *l2_off, "L2 table", at, e) : 0;
}

int vd_qcow2_l1_absent(const struct vd_qcow2 *s, uint64_t l1_index, uint64_t n, unsigned meta_flags,
		       uint64_t *absent,
		    struct vd_error *e)
{
	uint8_t raw[QCOW2_BATCH_BYTES];

	for (*absent = 0; *absent < n;) {
		uint64_t batch = vd_min_u64(n - *absent, sizeof(raw) / 8);
		int r = vd_meta_read(s->meta, 0, l1_entry_off(s, l1_index + *absent), raw, batch * 8,
				     meta_flags, e);

		if (r < 0)
			return r;
		/* Only all zeros: a word with other bits is for the lookup to judge. */
		for (uint64_t i = 0; i < batch; i++, ++*absent)
			if (vd_get_be64(raw + i * 8))
				return 0;
	}
	return 0;
}

/* ---- entries -------------------------------------------------------------------------------------------- */

uint64_t vd_qcow2_entry_off(const struct vd_qcow2 *s, uint64_t l2_off, uint64_t guest_off)
{
	return l2_off + guest_off / s->cluster_size % s->l2_entries * s->entry_size;
}

static int judge_packed(const struct vd_qcow2 *s, uint64_t word, uint64_t bitmap, uint64_t entry_off,
			const struct vd_qcow2_cluster *c, struct vd_error *e)
{
	const char *other;

	if (s->payload_file)
		return vd_qcow2_corrupt(s, e, entry_off,
					"an image with an external data file has a compressed cluster");
	if (word & QCOW2_COPIED || bitmap)
		return vd_qcow2_corrupt(s, e, entry_off,
					"the entry of a compressed cluster has reserved bits set");
	if (c->host_off >= atomic_load(&s->host_end))
		return vd_qcow2_corrupt(s, e, entry_off,
					"the compressed cluster at %" PRIu64 " lies beyond the end of the file", c->host_off);
	other = vd_qcow2_overlaps(s, c->host_off, c->host_len);
	if (other)
		return vd_qcow2_corrupt(s, e, entry_off, "the compressed cluster at %" PRIu64 " lies on the %s",
					c->host_off, other);
	return 0;
}

static int judge_host(const struct vd_qcow2 *s, const struct vd_qcow2_cluster *c, uint64_t guest_off,
		      uint64_t entry_off,
		      struct vd_error *e)
{
	if (!s->payload_file)
		return vd_qcow2_judge_cluster(s, c->host_off, "cluster", entry_off, e);
	if (c->host_off != guest_off)
		return vd_qcow2_corrupt(s, e, entry_off,
					"guest offset %" PRIu64 " is at %" PRIu64 " in the data file, must be the same",
				     guest_off, c->host_off);
	return 0;
}

void vd_qcow2_parse(const struct vd_qcow2 *s, const uint8_t *entry, struct vd_qcow2_cluster *c)
{
	unsigned off_bits = 62 - (s->h.cluster_bits - 8);
	uint64_t word = vd_get_be64(entry), bitmap = s->n_sub > 1 ? vd_get_be64(entry + 8) : 0;

	*c = (struct vd_qcow2_cluster){ 0 };
	if (word & QCOW2_COMPRESSED) {
		uint64_t sectors = ((word & (QCOW2_COMPRESSED - 1)) >> off_bits) + 1;

		c->is_packed = true;
		c->host_off = word & ((UINT64_C(1) << off_bits) - 1);
		c->host_len = sectors * QCOW2_SECTOR - c->host_off % QCOW2_SECTOR;
		return;
	}
	c->host_off = word & QCOW2_OFFSET_MASK;
	c->is_copied = word & QCOW2_COPIED;
	/* Offset 0 is a place in a data file alone. */
	c->has_host = c->host_off || (s->payload_file && c->is_copied);
	if (s->n_sub > 1) {
		c->allocated = (uint32_t)bitmap;
		c->zero = bitmap >> 32;
	} else {
		c->zero = word & QCOW2_ZERO;
		c->allocated = c->has_host && !c->zero;
	}
}

int vd_qcow2_decode(const struct vd_qcow2 *s, const uint8_t *entry, uint64_t guest_off, uint64_t entry_off,
		 struct vd_qcow2_cluster *c, struct vd_error *e)
{
	bool is_extended = s->n_sub > 1;
	uint64_t word = vd_get_be64(entry), bitmap = is_extended ? vd_get_be64(entry + 8) : 0;
	/* Version 2 has no zero clusters, extended entries have a bit for each subcluster. */
	uint64_t reserved = QCOW2_L2_RESERVED | (is_extended || s->h.version == 2 ? QCOW2_ZERO : 0);

	vd_qcow2_parse(s, entry, c);
	if (!word && !bitmap)
		return 0;
	if (c->is_packed)
		return judge_packed(s, word, bitmap, entry_off, c, e);
	if (word & reserved)
		return vd_qcow2_corrupt(s, e, entry_off, "L2 entry 0x%016" PRIx64 " has reserved bits set",
					word);
	if (!c->has_host && c->is_copied)
		return vd_qcow2_corrupt(s, e, entry_off,
					"L2 entry 0x%016" PRIx64 " owns a cluster, but names none", word);
	if (c->allocated & c->zero || (c->allocated && !c->has_host))
		return vd_qcow2_corrupt(s, e, entry_off,
					"subcluster bits 0x%016" PRIx64 " contradict themselves or the L2 entry", bitmap);
	return c->has_host ? judge_host(s, c, guest_off, entry_off, e) : 0;
}

static uint64_t encode_packed(const struct vd_qcow2 *s, const struct vd_qcow2_cluster *c)
{
	unsigned off_bits = 62 - (s->h.cluster_bits - 8);
	uint64_t more_sectors = (c->host_off % QCOW2_SECTOR + c->host_len - 1) / QCOW2_SECTOR;

	return QCOW2_COMPRESSED | more_sectors << off_bits | c->host_off;
}

void vd_qcow2_encode(const struct vd_qcow2 *s, const struct vd_qcow2_cluster *c, uint8_t *entry)
{
	uint64_t word = c->is_packed ? encode_packed(s, c) : c->host_off | (c->is_copied ? QCOW2_COPIED : 0);

	if (s->n_sub > 1)
		vd_put_be64(entry + 8, (uint64_t)c->zero << 32 | c->allocated);
	else if (c->zero)
		word |= QCOW2_ZERO;
	vd_put_be64(entry, word);
}

uint32_t vd_qcow2_sub_bits(const struct vd_qcow2 *s, uint64_t cluster_off, uint64_t from, uint64_t to)
{
	uint64_t first = from > cluster_off ? (from - cluster_off) / s->sub_size : 0;
	uint64_t end = vd_min_u64((to - cluster_off - 1) / s->sub_size + 1, s->n_sub);

	return (uint32_t)(((UINT64_C(1) << end) - 1) & ~((UINT64_C(1) << first) - 1));
}

/* ---- tables for writing --------------------------------------------------------------------------------- */

/* The copy's clusters have two owners now: the snapshot, which keeps the old table, and this one. */
static void disown_entries(const struct vd_qcow2 *s, uint8_t *raw, size_t len)
{
	for (size_t i = 0; i < len; i += s->entry_size)
		if (!(vd_get_be64(raw + i) & QCOW2_COMPRESSED))
			raw[i] &= 0x7f;
}

/* Nothing points at the copy yet, so it needs no order against what its entries point at. */
static int copy_table(struct vd_qcow2 *s, uint64_t from, uint64_t to, struct vd_error *e)
{
	uint8_t raw[QCOW2_BATCH_BYTES];
	size_t n = vd_min_u64(sizeof(raw), s->cluster_size);
	int r = 0;

	for (uint64_t done = 0; done < s->cluster_size && r == 0; done += n) {
		r = vd_meta_read(s->meta, 0, from + done, raw, n, 0, e);
		if (r < 0)
			return r;
		disown_entries(s, raw, n);
		r = vd_meta_write(s->meta, 0, to + done, raw, n, VD_RANK_OWNER, e);
	}
	return r;
}

int vd_qcow2_l2_for_write(struct vd_qcow2 *s, uint64_t guest_off, uint64_t *l2_off, struct vd_error *e)
{
	uint64_t l1_index = guest_off / s->l2_span, old, n;
	bool is_owned, is_fresh;
	uint8_t raw[8];
	int r = vd_qcow2_l1_lookup(s, l1_index, 0, &old, &is_owned, e);

	*l2_off = old;
	if (r < 0 || (old && is_owned))
		return r;
	r = vd_qcow2_alloc(s, 1, l2_off, &n, &is_fresh, e);
	if (r == 0)
		r = vd_meta_zero(s->meta, 0, *l2_off, s->cluster_size, VD_RANK_OWNER, e);
	if (r == 0 && old)
		r = copy_table(s, old, *l2_off, e);
	if (r < 0)
		return r;
	vd_put_be64(raw, *l2_off | QCOW2_COPIED);
	r = vd_meta_write(s->meta, 0, l1_entry_off(s, l1_index), raw, sizeof(raw), VD_RANK_ROOT, e);
	if (r == 0 && old)
		vd_qcow2_release_table(s, old, s->cluster_size);
	return r;
}

/* ---- rewriting entries ---------------------------------------------------------------------------------- */

/* Space in the image file that the old entry has and the new one has not. Neighbours gather in *pending. */
static void give_up(struct vd_qcow2 *s, const struct vd_qcow2_cluster *old, const struct vd_qcow2_cluster *new,
		    struct vd_range *pending)
{
	bool stays = new->has_host && new->host_off == old->host_off;

	/* Each compressed cluster is an owner of its own: two in one range would count as one. */
	if (old->is_packed) {
		vd_space_release(s->space,
				 (struct vd_range){ .host_off = old->host_off, .len = old->host_len });
		return;
	}
	if (s->payload_file || !old->has_host || stays)
		return;
	if (pending->host_off + pending->len != old->host_off) {
		if (pending->len)
			vd_space_release(s->space, *pending);
		*pending = (struct vd_range){ .host_off = old->host_off };
	}
	pending->len += s->cluster_size;
}

int vd_qcow2_l2_rewrite(struct vd_qcow2 *s, uint64_t l2_off, uint64_t guest_off, uint64_t n,
		     void (*change)(const struct vd_qcow2 *s, const void *ctx, uint64_t cluster_off,
				    struct vd_qcow2_cluster *c),
		     const void *ctx, struct vd_error *e)
{
	uint8_t old_raw[QCOW2_BATCH_BYTES], raw[QCOW2_BATCH_BYTES];
	struct vd_range pending = { 0 };
	int r = 0;

	for (uint64_t batch; n && r == 0; n -= batch, guest_off += batch * s->cluster_size) {
		uint64_t entry_off = vd_qcow2_entry_off(s, l2_off, guest_off);
		size_t len;

		batch = vd_min_u64(n, sizeof(raw) / s->entry_size);
		len = batch * s->entry_size;
		r = vd_meta_read(s->meta, 0, entry_off, old_raw, len, 0, e);
		for (uint64_t i = 0; i < batch && r == 0; i++) {
			uint64_t cluster_off = guest_off + i * s->cluster_size, at = i * s->entry_size;
			struct vd_qcow2_cluster old, new;

			r = vd_qcow2_decode(s, old_raw + at, cluster_off, entry_off + at, &old, e);
			new = old;
			change(s, ctx, cluster_off, &new);
			vd_qcow2_encode(s, &new, raw + at);
			if (r == 0)
				give_up(s, &old, &new, &pending);
		}
		if (r == 0 && memcmp(raw, old_raw, len))
			r = vd_meta_write(s->meta, 0, entry_off, raw, len, VD_RANK_LEAF, e);
	}
	if (pending.len)
		vd_space_release(s->space, pending);
	return r;
}
