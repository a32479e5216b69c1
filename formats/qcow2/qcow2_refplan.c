/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owners of clusters as they will be after an act, a window of them at a time: loads the counts that are, adds and takes
 * away what trees reach, writes the result into new refcount blocks. Which trees and which blocks is qcow2_shape.c's.
 *
 * Tables are read through the cache; what is written is new and goes past it.
 */
#include "formats/qcow2/qcow2_shape.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

uint64_t vd_qcow2_window = 8u << 20;    /* 64 MiB of counts */

/* ---- loading -------------------------------------------------------------------------------------------- */

/* n clusters of one block. */
static int load_block(struct vd_qcow2_counts *c, uint64_t cluster, uint64_t n, uint64_t block_off, struct vd_error *e)
{
	const struct vd_qcow2 *s = c->s;
	uint32_t order = c->order;
	uint64_t per_batch = (uint64_t)QCOW2_BATCH_BYTES * 8 >> order, entries = s->cluster_size * 8 >> order;
	uint8_t raw[QCOW2_BATCH_BYTES];
	int r = 0;

	for (uint64_t part; n && r == 0; cluster += part, n -= part) {
		uint64_t in_block = cluster % entries;

		part = vd_min_u64(n, per_batch);
		r = vd_meta_read(s->meta, 0, block_off + (in_block << order) / 8, raw, ((part << order) + 7) / 8, 0, e);
		for (uint64_t i = 0; i < part && r == 0; i++)
			c->count[cluster - c->first + i] = vd_qcow2_count_get(raw, i, order);
	}
	return r;
}

/* Windows begin and end at multiples of eight clusters, so batches begin and end at bytes. */
int vd_qcow2_counts_load(struct vd_qcow2_counts *c, uint64_t first, uint64_t end, struct vd_error *e)
{
	uint64_t entries = c->s->cluster_size * 8 >> c->order;
	int r = 0;

	c->first = first;
	c->end = end;
	memset(c->count, 0, (end - first) * sizeof(*c->count));
	if (c->is_orphan)
		memset(c->is_orphan, 0, (end - first) * sizeof(*c->is_orphan));
	for (uint64_t at = first, n; at < end && r == 0; at += n) {
		uint64_t block = at / entries;

		n = vd_min_u64(end, (block + 1) * entries) - at;
		if (block < c->n_blocks && c->blocks[block])
			r = load_block(c, at, n, c->blocks[block], e);
	}
	return r;
}

/* ---- counting ------------------------------------------------------------------------------------------- */

int vd_qcow2_counts_step(struct vd_qcow2_counts *c, uint64_t cluster, uint64_t n, bool up, struct vd_error *e)
{
	uint64_t end = vd_min_u64(cluster + n, c->end);

	for (uint64_t i = vd_max_u64(cluster, c->first); i < end; i++) {
		uint64_t *count = &c->count[i - c->first];

		/* From 0 upwards: it is in use, but was free to be given out again. */
		if (!*count || *count == UINT64_MAX)
			return vd_qcow2_corrupt(c->s, e, i * c->s->cluster_size,
						"the refcount of a cluster in use is %" PRIu64 " and should go %s", *count,
						up ? "up" : "down");
		*count += up ? 1 : -1;
		if (!*count && c->is_orphan)
			c->is_orphan[i - c->first] = true;
	}
	return 0;
}

void vd_qcow2_counts_keep_orphans(struct vd_qcow2_counts *c)
{
	for (uint64_t i = 0; c->is_orphan && i < c->end - c->first; i++)
		if (c->is_orphan[i])
			c->count[i] = 1;
}

/* The entries of one table from one on. */
static int step_table(struct vd_qcow2_counts *c, uint64_t l1_index, uint64_t l2_off, uint64_t first, bool up,
		      struct vd_error *e)
{
	const struct vd_qcow2 *s = c->s;
	uint64_t per_batch = QCOW2_BATCH_BYTES / s->entry_size;
	uint8_t raw[QCOW2_BATCH_BYTES];
	int r = 0;

	for (uint64_t n; first < s->l2_entries && r == 0; first += n) {
		uint64_t entry_off = l2_off + first * s->entry_size;

		n = vd_min_u64(per_batch, s->l2_entries - first);
		r = vd_meta_read(s->meta, 0, entry_off, raw, n * s->entry_size, 0, e);
		for (uint64_t i = 0; i < n && r == 0; i++) {
			uint64_t guest_off = l1_index * s->l2_span + (first + i) * s->cluster_size, cluster;
			struct vd_qcow2_cluster entry;

			r = vd_qcow2_decode(s, raw + i * s->entry_size, guest_off, entry_off + i * s->entry_size, &entry, e);
			if (r < 0 || !(entry.is_packed || entry.has_host) || s->payload_file)
				continue;
			cluster = entry.host_off / s->cluster_size;
			r = vd_qcow2_counts_step(c, cluster, entry.is_packed ? (entry.host_off + entry.host_len - 1) /
						 s->cluster_size - cluster + 1 : 1, up, e);
		}
	}
	return r;
}

int vd_qcow2_counts_tree(struct vd_qcow2_counts *c, const struct vd_qcow2_tree *t, uint64_t from,
			 enum vd_qcow2_parts parts, bool up, struct vd_error *e)
{
	const struct vd_qcow2 *s = c->s;
	int r = 0;

	for (uint64_t i = from / s->l2_entries; t && i < t->l1_size && r == 0; i++) {
		uint64_t begin = i * s->l2_entries, first = from > begin ? from - begin : 0;

		if (!t->l2[i])
			continue;
		/* A table that keeps some of its entries stays. */
		if (!first && parts & QCOW2_TABLES)
			r = vd_qcow2_counts_step(c, t->l2[i] / s->cluster_size, 1, up, e);
		if (r == 0 && parts & QCOW2_DATA)
			r = step_table(c, i, t->l2[i], first, up, e);
	}
	return r;
}

int vd_qcow2_counts_judge(const struct vd_qcow2_counts *c, uint32_t order, struct vd_error *e)
{
	uint64_t max = vd_qcow2_count_max(order);

	for (uint64_t i = 0; i < c->end - c->first; i++) {
		if (c->count[i] <= max)
			continue;
		vd_fail(e, VD_EUNSUPPORTED,
			"%s: a cluster would have %" PRIu64 " owners, and refcounts of %u bits count up to %" PRIu64,
			c->s->name, c->count[i], 1u << order, max);
		return vd_hint(e, VD_EUNSUPPORTED,
			       "delete a snapshot, or vdisk amend -o refcount_bits=16 or more");
	}
	return 0;
}

/* ---- storing -------------------------------------------------------------------------------------------- */

static int store_block(const struct vd_qcow2_counts *c, uint64_t cluster, uint64_t n, uint64_t block_off,
		       uint32_t order, struct vd_error *e)
{
	const struct vd_qcow2 *s = c->s;
	uint64_t at = block_off + (cluster % (s->cluster_size * 8 >> order) << order) / 8;
	size_t len = (n << order) / 8;
	vd_auto_free uint8_t *raw = NULL;
	int r = vd_alloc(len, 1, &raw, e);

	if (r < 0)
		return r;
	for (uint64_t i = 0; i < n; i++)
		vd_qcow2_count_put(raw, i, order, c->count[cluster - c->first + i]);
	return vd_set_pwrite(s->set, 0, raw, len, at, e);
}

int vd_qcow2_counts_store(const struct vd_qcow2_counts *c, const uint64_t *blocks, uint32_t order, struct vd_error *e)
{
	uint64_t entries = c->s->cluster_size * 8 >> order;
	int r = 0;

	for (uint64_t at = c->first, n; at < c->end && r == 0; at += n) {
		uint64_t block = at / entries;

		n = vd_min_u64(c->end, (block + 1) * entries) - at;
		if (blocks[block])
			r = store_block(c, at, n, blocks[block], order, e);
	}
	return r;
}
