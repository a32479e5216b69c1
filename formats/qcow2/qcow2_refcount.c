/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who owns the clusters of the image file: finds free ones, counts owners up and down, makes refcount blocks and moves
 * the refcount table when it is full (keeps Q1). What a cluster is for is its caller's business.
 *
 * Order of what it writes (ranks of core/meta):
 *
 *  R1  Counts and new blocks are OWNER, the table entry that points at a new block is INDEX, and whatever points at
 *      the cluster that was given out is written above both.
 *  R2  A table that moves is built whole in new space as OWNER; the header's pointer to it is INDEX. Until that pointer
 *      has been part of a snapshot, entries added to the new table stay OWNER too: at INDEX they would drag the
 *      table's page up to the pointer's rank, and a crash could leave the header pointing at a page not yet written.
 *  R3  A new block lies in the first cluster that it counts, of those that may be given out: so making one needs no free
 *      cluster, and none below.
 */
#include "formats/qcow2/qcow2.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

/*
 * Clusters past the end of the file that have an owner all the same, as a crash of another writer leaves them; more are no
 * accident, and looking for the end of them could take for ever: one block may serve a whole table.
 */
#define STRAYS_MAX (1u << 20)

/* A piece of one refcount block in memory. */
struct window {
	uint64_t first, end;            /* cluster numbers that it counts */
	uint64_t at;                    /* its place in the file */
	size_t len;                     /* 0: there is no block for them */
	uint8_t raw[QCOW2_BATCH_BYTES];
};

static uint64_t reft_entries(const struct vd_qcow2 *s)
{
	return (atomic_load(&s->reft_end) - atomic_load(&s->reft_off)) / 8;
}

/* *block_off is 0 when nothing in the block's range is in use. */
static int find_block(const struct vd_qcow2 *s, uint64_t block, uint64_t *block_off, struct vd_error *e)
{
	uint64_t at = atomic_load(&s->reft_off) + block * 8;
	uint8_t raw[8];
	int r;

	*block_off = 0;
	if (block >= reft_entries(s))
		return 0;
	r = vd_meta_read(s->meta, 0, at, raw, sizeof(raw), 0, e);
	if (r < 0)
		return r;
	*block_off = vd_get_be64(raw);
	if (*block_off & QCOW2_REFT_RESERVED)
		return vd_qcow2_corrupt(s, e, at,
					"refcount table entry %" PRIu64 " is 0x%016" PRIx64 ", which has reserved bits set",
				     block, *block_off);
	return *block_off ? vd_qcow2_judge_cluster(s, *block_off, "refcount block", at, e) : 0;
}

/* The window that counts the cluster. */
static int load(const struct vd_qcow2 *s, uint64_t cluster, struct window *w, struct vd_error *e)
{
	size_t len = vd_min_u64(sizeof(w->raw), s->cluster_size);
	uint64_t n = (uint64_t)len * 8 >> s->h.refcount_order, block_off;
	int r = find_block(s, cluster / s->block_entries, &block_off, e);

	w->len = 0;
	w->first = vd_round_down(cluster, n);
	w->end = w->first + n;
	if (r < 0 || !block_off)
		return r;
	w->len = len;
	w->at = block_off + (w->first % s->block_entries << s->h.refcount_order) / 8;
	return vd_meta_read(s->meta, 0, w->at, w->raw, len, 0, e);
}

static uint64_t count_in(const struct vd_qcow2 *s, const struct window *w, uint64_t cluster)
{
	return vd_qcow2_count_get(w->raw, cluster - w->first, s->h.refcount_order);
}

int vd_qcow2_owners(const struct vd_qcow2 *s, uint64_t host_off, uint64_t *n, struct vd_error *e)
{
	uint64_t cluster = host_off / s->cluster_size;
	struct window w;
	int r = load(s, cluster, &w, e);

	*n = r == 0 && w.len ? count_in(s, &w, cluster) : 0;
	return r;
}

/* Writes the counts of n clusters back, the bytes that hold them and no others. */
static int store(struct vd_qcow2 *s, const struct window *w, uint64_t cluster, uint64_t n, struct vd_error *e)
{
	uint64_t from = (cluster - w->first) << s->h.refcount_order, to = from + (n << s->h.refcount_order);
	size_t byte = from / 8;

	return vd_meta_write(s->meta, 0, w->at + byte, w->raw + byte, (to + 7) / 8 - byte, VD_RANK_OWNER, e);
}

/* ---- counting ------------------------------------------------------------------------------------------- */

/* A change of counts. */
struct change {
	uint64_t by;
	bool up;
	bool to_host, in_clear;
	struct vd_space_batch *last;    /* down: not NULL takes the clusters that have no other owner, which they keep */
};

/* The last owner goes: what the cluster was known for is void. */
static int last_owner_goes(struct vd_qcow2 *s, uint64_t cluster, const struct change *c, struct vd_error *e)
{
	uint64_t off = cluster * s->cluster_size;

	vd_meta_forget(s->meta, 0, off, s->cluster_size);
	if (s->packed_next / s->cluster_size == cluster)
		s->packed_next = 0;
	if (c->last)
		return vd_space_batch_add(c->last, (struct vd_range){ .host_off = off, .len = s->cluster_size,
								      .to_host = c->to_host, .in_clear = c->in_clear }, e);
	s->next_free = vd_min_u64(s->next_free, vd_max_u64(cluster, s->floor));
	return 0;
}

static int step(struct vd_qcow2 *s, struct window *w, uint64_t cluster, const struct change *c, struct vd_error *e)
{
	uint32_t order = s->h.refcount_order;
	uint64_t count = count_in(s, w, cluster), now;

	if (c->by > (c->up ? vd_qcow2_count_max(order) - count : count))
		return vd_qcow2_corrupt(s, e, w->at,
					"the refcount of the cluster at %" PRIu64 " is %" PRIu64 " and should go %s by %" PRIu64,
				     cluster * s->cluster_size, count, c->up ? "up" : "down", c->by);
	now = c->up ? count + c->by : count - c->by;
	vd_qcow2_count_put(w->raw, cluster - w->first, order, now || !c->last ? now : 1);
	return now ? 0 : last_owner_goes(s, cluster, c, e);
}

static int adjust(struct vd_qcow2 *s, uint64_t cluster, uint64_t n, const struct change *c, struct vd_error *e)
{
	struct window w;

	while (n) {
		uint64_t part;
		int r = load(s, cluster, &w, e);

		if (r < 0)
			return r;
		if (!w.len)
			return vd_qcow2_corrupt(s, e, atomic_load(&s->reft_off),
						"nothing counts the cluster at %" PRIu64 ", which is in use",
					     cluster * s->cluster_size);
		part = vd_min_u64(n, w.end - cluster);
		for (uint64_t i = 0; i < part && r == 0; i++)
			r = step(s, &w, cluster + i, c, e);
		if (r == 0)
			r = store(s, &w, cluster, part, e);
		if (r < 0)
			return r;
		cluster += part;
		n -= part;
	}
	return 0;
}

static int drop(struct vd_qcow2 *s, const struct vd_range *range, struct vd_space_batch *last, struct vd_error *e)
{
	uint64_t first = range->host_off / s->cluster_size;
	uint64_t end = (range->host_off + range->len - 1) / s->cluster_size + 1;

	struct change c = { .by = range->owners ? range->owners : 1, .to_host = range->to_host,
			    .in_clear = range->in_clear, .last = last };

	return adjust(s, first, end - first, &c, e);
}

int vd_qcow2_drop(struct vd_qcow2 *s, uint64_t host_off, uint64_t len, struct vd_error *e)
{
	struct vd_range range = { .host_off = host_off, .len = len };

	if (!s->scrubs)
		return drop(s, &range, NULL, e);
	/* Bytes may be there that nothing ever pointed to. */
	vd_space_release(s->space, range);
	return 0;
}

/* Tables are in clear whatever the disk is: of an encrypted image none is left for a leak scan to find. */
void vd_qcow2_release_table(struct vd_qcow2 *s, uint64_t host_off, uint64_t len)
{
	vd_space_release(s->space, (struct vd_range){ .host_off = host_off, .len = len, .in_clear = s->h.crypt_method });
}

int vd_qcow2_freed(void *st, const struct vd_range *range, struct vd_error *e)
{
	return drop(st, range, NULL, e);
}

int vd_qcow2_disown(void *st, const struct vd_range *range, struct vd_space_batch *last, struct vd_error *e)
{
	return drop(st, range, last, e);
}

/* ---- room in the file ----------------------------------------------------------------------------------- */

/* Clusters about to be taken: not on anything else, and inside the file, which is made longer when need be. */
static int make_room(struct vd_qcow2 *s, uint64_t cluster, uint64_t n, struct vd_error *e)
{
	uint64_t off = cluster * s->cluster_size, len = n * s->cluster_size;
	const char *other = vd_qcow2_overlaps(s, off, len);
	int r;

	if (other)
		return vd_qcow2_corrupt(s, e, off, "the refcount of a cluster is 0, but the %s is there",
					other);
	if (off + len > s->host_limit)
		return vd_fail(e, VD_ENOSPC, "%s: the device is full", s->name);
	if (off + len <= atomic_load(&s->host_end))
		return 0;
	/* A cluster of zeros that the core need not write, or a table that is not written yet, must not lie past the end. */
	r = vd_io_truncate(vd_set_io(s->set, 0), off + len, e);
	if (r == 0)
		atomic_store(&s->host_end, off + len);
	return r;
}

/* A block in which n clusters from the index-th on have an owner. Nothing points at it yet. */
static int write_block(struct vd_qcow2 *s, uint64_t block_off, uint64_t index, uint64_t n, struct vd_error *e)
{
	uint64_t per_window = (uint64_t)QCOW2_BATCH_BYTES * 8 >> s->h.refcount_order, end = index + n;
	int r = vd_meta_zero(s->meta, 0, block_off, s->cluster_size, VD_RANK_OWNER, e);

	for (uint64_t part; index < end && r == 0; index += part) {
		uint64_t in_window = index % per_window;
		size_t byte = (in_window << s->h.refcount_order) / 8;
		uint8_t raw[QCOW2_BATCH_BYTES] = { 0 };

		part = vd_min_u64(per_window - in_window, end - index);
		for (uint64_t i = 0; i < part; i++)
			vd_qcow2_count_put(raw, in_window + i, s->h.refcount_order, 1);
		r = vd_meta_write(s->meta, 0, block_off + ((index - in_window) << s->h.refcount_order) / 8 + byte, raw + byte,
				  (((in_window + part) << s->h.refcount_order) + 7) / 8 - byte, VD_RANK_OWNER, e);
	}
	return r;
}

static int write_table_entry(struct vd_qcow2 *s, uint64_t table_off, uint64_t block, uint64_t block_off,
			     enum vd_meta_rank rank, struct vd_error *e)
{
	uint8_t raw[8];

	vd_put_be64(raw, block_off);
	return vd_meta_write(s->meta, 0, table_off + block * 8, raw, sizeof(raw), rank, e);
}

static int copy_table(struct vd_qcow2 *s, uint64_t to, struct vd_error *e)
{
	uint64_t from = atomic_load(&s->reft_off), len = atomic_load(&s->reft_end) - from;
	uint8_t raw[QCOW2_BATCH_BYTES];
	int r = 0;

	for (uint64_t done = 0, n; done < len && r == 0; done += n) {
		n = vd_min_u64(sizeof(raw), len - done);
		r = vd_meta_read(s->meta, 0, from + done, raw, n, 0, e);
		if (r == 0)
			r = vd_meta_write(s->meta, 0, to + done, raw, n, VD_RANK_OWNER, e);
	}
	return r;
}

/* The header's pointer, then what this handle knows; the old table's space goes the way of all space. */
static int switch_table(struct vd_qcow2 *s, uint64_t off, uint64_t clusters, struct vd_error *e)
{
	uint64_t old = atomic_load(&s->reft_off), old_end = atomic_load(&s->reft_end);
	uint8_t raw[12];
	int r;

	vd_put_be64(raw, off);
	vd_put_be32(raw + 8, clusters);
	r = vd_meta_write(s->meta, 0, QCOW2_AT_REFT_OFF, raw, sizeof(raw), VD_RANK_INDEX, e);
	if (r < 0)
		return r;
	/* In this order: see overlaps_reft(). */
	atomic_store(&s->reft_off, off);
	atomic_store(&s->reft_end, off + clusters * s->cluster_size);
	s->reft_has_moved = true;
	s->reft_born = vd_meta_n_snapshots(s->meta);
	vd_qcow2_release_table(s, old, old_end - old);
	return 0;
}

/*
 * Every cluster that the table reaches and that may be given out is in use: a table half as large again goes to the space
 * just past its reach and the floor, after the blocks that count that space.
 */
static int grow_table(struct vd_qcow2 *s, struct vd_error *e)
{
	uint64_t entries = vd_max_u64(reft_entries(s), vd_round_up(s->floor, s->block_entries) / s->block_entries);
	uint64_t first = entries * s->block_entries;
	uint64_t old_clusters = vd_round_up(entries * 8, s->cluster_size) / s->cluster_size;
	uint64_t n_table = vd_min_u64(old_clusters + old_clusters / 2 + 1,
				      QCOW2_REFT_BYTES_MAX / s->cluster_size);
	uint64_t n_blocks = (n_table - 1) / (s->block_entries - 1) + 1;
	uint64_t table_off = (first + n_blocks) * s->cluster_size;
	int r;

	if (entries + n_blocks > n_table * s->cluster_size / 8) {
		vd_fail(e, VD_ENOSPC, "%s: the refcount table cannot grow any more", s->name);
		return vd_hint(e, VD_ENOSPC, "convert the image to one with larger clusters");
	}
	r = make_room(s, first, n_blocks + n_table, e);
	if (r == 0)
		r = vd_meta_zero(s->meta, 0, table_off, n_table * s->cluster_size, VD_RANK_OWNER, e);
	if (r == 0)
		r = copy_table(s, table_off, e);
	for (uint64_t i = 0; i < n_blocks && r == 0; i++) {
		uint64_t block_off = (first + i) * s->cluster_size;
		uint64_t n_used = vd_min_u64(s->block_entries, n_blocks + n_table - i * s->block_entries);

		r = write_block(s, block_off, 0, n_used, e);
		if (r == 0)
			r = write_table_entry(s, table_off, entries + i, block_off, VD_RANK_OWNER, e);
	}
	return r < 0 ? r : switch_table(s, table_off, n_table, e);
}

/* Keeps R2. */
static int link_block(struct vd_qcow2 *s, uint64_t block, uint64_t off, struct vd_error *e)
{
	bool is_unlinked = s->reft_has_moved && s->reft_born == vd_meta_n_snapshots(s->meta);

	return write_table_entry(s, atomic_load(&s->reft_off), block, off, is_unlinked ? VD_RANK_OWNER : VD_RANK_INDEX, e);
}

/* For clusters that nothing counts yet (R3). */
static int add_block(struct vd_qcow2 *s, uint64_t block, struct vd_error *e)
{
	uint64_t cluster = vd_max_u64(block * s->block_entries, s->floor), off = cluster * s->cluster_size;
	int r;

	if (block >= reft_entries(s))
		return grow_table(s, e);
	r = make_room(s, cluster, 1, e);
	if (r == 0)
		r = write_block(s, off, cluster % s->block_entries, 1, e);
	return r < 0 ? r : link_block(s, block, off, e);
}

static const struct change one_more = { .by = 1, .up = true };

int vd_qcow2_share(struct vd_qcow2 *s, uint64_t host_off, uint64_t n_more, struct vd_error *e)
{
	return n_more ? adjust(s, host_off / s->cluster_size, 1, &(struct change){ .by = n_more, .up = true }, e) : 0;
}

/* ---- giving out ----------------------------------------------------------------------------------------- */

struct run {
	uint64_t first, n, wanted;
};

/* Looks through a window from *cluster on; true: the run is as long as it gets. */
static bool extend_run(const struct vd_qcow2 *s, const struct window *w, uint64_t *cluster, struct run *run)
{
	for (; *cluster < w->end; ++*cluster) {
		bool is_free = count_in(s, w, *cluster) == 0;

		if (!is_free && run->n)
			return true;
		if (!is_free)
			continue;
		if (!run->n)
			run->first = *cluster;
		if (++run->n == run->wanted)
			return true;
	}
	return false;
}

/* The first free clusters from next_free on, at most as many as wanted. */
static int find_free(struct vd_qcow2 *s, struct run *run, struct vd_error *e)
{
	uint64_t cluster = s->next_free, end = atomic_load(&s->host_end) / s->cluster_size;
	struct window w;

	for (;;) {
		int r = load(s, cluster, &w, e);

		if (r == 0 && cluster > end + STRAYS_MAX)
			r = vd_qcow2_corrupt(s, e, w.at, "the refcounts claim %" PRIu64 " clusters past the end of the file",
					     cluster - end);
		if (r == 0 && !w.len && run->n)
			return 0;
		if (r == 0 && !w.len)
			r = add_block(s, cluster / s->block_entries, e);
		else if (r == 0 && extend_run(s, &w, &cluster, run))
			return 0;
		if (r < 0)
			return r;
	}
}

int vd_qcow2_alloc(struct vd_qcow2 *s, uint64_t n_want, uint64_t *host_off, uint64_t *n_got, bool *is_fresh,
		   struct vd_error *e)
{
	struct run run = { .wanted = n_want };
	uint64_t limit = s->host_limit / s->cluster_size, old_end;
	int r = find_free(s, &run, e);

	if (r < 0)
		return r;
	if (run.first < limit)
		run.n = vd_min_u64(run.n, limit - run.first);
	old_end = atomic_load(&s->host_end);
	r = make_room(s, run.first, run.n, e);
	if (r == 0)
		r = adjust(s, run.first, run.n, &one_more, e);
	if (r < 0)
		return r;
	s->next_free = run.first + run.n;
	*host_off = run.first * s->cluster_size;
	*n_got = run.n;
	*is_fresh = *host_off >= old_end;
	return 0;
}

/* One owner more, if the count has room for it. */
static int share(struct vd_qcow2 *s, uint64_t cluster, bool *is_shared, struct vd_error *e)
{
	struct window w;
	uint64_t count;
	int r = load(s, cluster, &w, e);

	*is_shared = false;
	if (r < 0 || !w.len)
		return r;
	count = count_in(s, &w, cluster);
	if (!count || count == vd_qcow2_count_max(s->h.refcount_order))
		return 0;
	*is_shared = true;
	return adjust(s, cluster, 1, &one_more, e);
}

/* packed_next lies inside a cluster, never at its start. */
int vd_qcow2_alloc_packed(struct vd_qcow2 *s, uint64_t len, uint64_t *host_off, struct vd_error *e)
{
	uint64_t begun = s->packed_next, end = vd_round_up(begun, s->cluster_size), n;
	bool is_shared = false, is_fresh;
	int r = 0;

	*host_off = end;
	if (begun + len > end || !begun)
		r = vd_qcow2_alloc(s, 1, host_off, &n, &is_fresh, e);
	/* The begun cluster serves if the rest fits it, or goes on into the new one behind it. */
	if (r == 0 && begun && *host_off == end)
		r = share(s, begun / s->cluster_size, &is_shared, e);
	if (r < 0)
		return r;
	if (is_shared)
		*host_off = begun;
	else if (begun && begun + len <= end)
		r = vd_qcow2_alloc(s, 1, host_off, &n, &is_fresh, e);
	if (r == 0)
		s->packed_next = (*host_off + len) % s->cluster_size ? *host_off + len : 0;
	return r;
}

/* ---- the end -------------------------------------------------------------------------------------------- */

int vd_qcow2_last_used(const struct vd_qcow2 *s, uint64_t *end, struct vd_error *e)
{
	uint64_t cluster = atomic_load(&s->host_end) / s->cluster_size;
	struct window w;

	while (cluster) {
		int r = load(s, cluster - 1, &w, e);

		if (r < 0)
			return r;
		for (; w.len && cluster > w.first; cluster--)
			if (count_in(s, &w, cluster - 1)) {
				*end = cluster * s->cluster_size;
				return 0;
			}
		cluster = vd_min_u64(cluster, w.first);
	}
	*end = 0;
	return 0;
}

/* ---- side by side --------------------------------------------------------------------------------------- */

/* By what other calls would get; stretches that are too short are set aside and given back. */
static int find_stretch(struct vd_qcow2 *s, uint64_t n, uint64_t *host_off, struct vd_error *e)
{
	vd_auto_free struct vd_range *aside = NULL;
	uint64_t got = 0;
	size_t n_aside = 0;
	bool is_fresh;
	int r = 0;

	while (r == 0 && got < n) {
		r = vd_realloc(&aside, n_aside + 1, sizeof(*aside), e);
		if (r == 0)
			r = vd_qcow2_alloc(s, n, host_off, &got, &is_fresh, e);
		if (r == 0 && got < n)
			aside[n_aside++] = (struct vd_range){ .host_off = *host_off, .len = got * s->cluster_size };
	}
	for (size_t i = 0; i < n_aside; i++)
		if (vd_qcow2_drop(s, aside[i].host_off, aside[i].len, NULL) < 0)
			break;  /* leaks what is left */
	return r;
}

/* The first of n blocks in a row that do not exist, past the end of the file. */
static int find_unborn(struct vd_qcow2 *s, uint64_t n, uint64_t *first, struct vd_error *e)
{
	uint64_t off, per_block = s->block_entries * s->cluster_size, n_free = 0;
	int r = 0;

	*first = vd_round_up(atomic_load(&s->host_end), per_block) / per_block;
	while (r == 0 && n_free < n) {
		if (*first + n > reft_entries(s)) {
			r = grow_table(s, e);
			*first = vd_round_up(atomic_load(&s->host_end), per_block) / per_block;
			n_free = 0;
			continue;
		}
		r = find_block(s, *first + n_free, &off, e);
		if (r == 0 && off)
			*first += n_free + 1;
		n_free = off ? 0 : n_free + 1;
	}
	return r;
}

/* More than a block counts: behind all else, after blocks that count just this. */
static int make_stretch(struct vd_qcow2 *s, uint64_t n, uint64_t *host_off, struct vd_error *e)
{
	uint64_t n_blocks = (n - 1) / (s->block_entries - 1) + 1, block, first;
	int r = find_unborn(s, n_blocks, &block, e);

	if (r < 0)
		return r;
	first = block * s->block_entries;
	r = make_room(s, first, n_blocks + n, e);
	for (uint64_t i = 0; i < n_blocks && r == 0; i++) {
		uint64_t off = (first + i) * s->cluster_size;

		r = write_block(s, off, 0, vd_min_u64(s->block_entries, n_blocks + n - i * s->block_entries), e);
		if (r == 0)
			r = link_block(s, block + i, off, e);
	}
	*host_off = (first + n_blocks) * s->cluster_size;
	return r;
}

int vd_qcow2_alloc_stretch(struct vd_qcow2 *s, uint64_t n, uint64_t *host_off, struct vd_error *e)
{
	return n < s->block_entries ? find_stretch(s, n, host_off, e) : make_stretch(s, n, host_off, e);
}
