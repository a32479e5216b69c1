/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The shape transaction: changes that touch many tables at once come into force by one write of the header's first
 * sector. What an act is, its file says (qcow2_snapshot.c, qcow2_resize.c); here it is carried out.
 *
 *  S1  No table in force is edited. The new L1 table, copies of those L2 tables whose is_copied flags change, the new
 *      snapshot table, refcount table and refcount blocks lie side by side in space that has no owner yet: the area.
 *  S2  The new refcounts are those after the act: they count the area, and no more what it takes the place of.
 *  S3  The area is durable before the header is written, the header before success is told. So a crash leaves the image
 *      wholly as it was or wholly as it is to be, and in either case its refcounts are exact.
 *      Where freed space is to be scrubbed, that with no owner left keeps a count of one, and passes through the core
 *      afterwards (qcow2_orphans.c): a crash in between leaks it. Else, in an encrypted image, old tables are overwritten
 *      (qcow2_remains.c): free space has no bytes in clear.
 *  S4  The cache of tables is emptied afterwards, dirty pages too: by then all that was committed is older than the act,
 *      and what was not (owners that fell since) is in the new blocks.
 */
#include "formats/qcow2/qcow2_shape.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

#define HEADER_BYTES 512                /* written at once: the unit in which storage is whole or old */
#define AT_L1_SIZE 36
#define AT_N_SNAPSHOTS 60
#define AT_REFCOUNT_ORDER 96
#define N_DEAD 4

/* Parts of the area, in clusters, in the order in which they lie. */
struct area {
	uint64_t first, n;
	uint64_t n_l1, n_snap, n_l2, n_reft, n_blocks;
};

struct shape {
	struct vd_qcow2 *s;
	const struct vd_qcow2_act *act;
	uint64_t *old_blocks;           /* the refcount table that is in force */
	uint64_t n_old;
	uint64_t *blocks;               /* and the new one */
	uint64_t n_entries;
	uint32_t order;                 /* width of the new counts */
	uint64_t per_block;             /* so many of them */
	uint64_t *l1;                   /* the new L1 table: offsets, at last with flags */
	bool *is_copied;                /* for each L2 table: it moves to the area */
	uint64_t n_before, n_clusters;  /* all that are counted, before and after */
	struct area area;
	struct vd_qcow2_area dead[N_DEAD];
	struct vd_qcow2_counts counts;
};

static uint64_t clusters_of(const struct vd_qcow2 *s, uint64_t len)
{
	return len / s->cluster_size + (len % s->cluster_size != 0);
}

/* ---- trees ---------------------------------------------------------------------------------------------- */

int vd_qcow2_tree_read(const struct vd_qcow2 *s, uint64_t l1_off, uint32_t l1_size, struct vd_qcow2_tree *t,
		       struct vd_error *e)
{
	uint64_t len = (uint64_t)l1_size * 8;
	vd_auto_free uint8_t *raw = NULL;
	int r;

	if (l1_off % s->cluster_size || !vd_range_inside(l1_off, len, atomic_load(&s->host_end)))
		return vd_qcow2_corrupt(s, e, l1_off, "the L1 table of %" PRIu64 " bytes at %" PRIu64 " lies outside the file",
					len, l1_off);
	t->l1_off = l1_off;
	t->l1_size = l1_size;
	r = vd_alloc(l1_size, sizeof(*t->l2), &t->l2, e);
	if (r == 0)
		r = vd_alloc(len, 1, &raw, e);
	if (r == 0)
		r = vd_meta_read(s->meta, 0, l1_off, raw, len, 0, e);
	for (uint32_t i = 0; i < l1_size && r == 0; i++) {
		uint64_t word = vd_get_be64(raw + i * UINT64_C(8)), at = l1_off + i * UINT64_C(8);

		if (word & QCOW2_L1_RESERVED)
			return vd_qcow2_corrupt(s, e, at, "L1 entry 0x%016" PRIx64 " has reserved bits set", word);
		t->l2[i] = word & QCOW2_OFFSET_MASK;
		if (t->l2[i])
			r = vd_qcow2_judge_cluster(s, t->l2[i], "L2 table", at, e);
	}
	return r;
}

static int read_reft(struct shape *sh, struct vd_error *e)
{
	struct vd_qcow2 *s = sh->s;
	uint64_t off = atomic_load(&s->reft_off), len = atomic_load(&s->reft_end) - off;
	int r;

	sh->n_old = len / 8;
	r = vd_alloc(sh->n_old, 8, &sh->old_blocks, e);
	if (r == 0)
		r = vd_meta_read(s->meta, 0, off, sh->old_blocks, len, 0, e);
	for (uint64_t i = 0; i < sh->n_old && r == 0; i++) {
		uint64_t block = vd_get_be64(&sh->old_blocks[i]);

		sh->old_blocks[i] = block;
		if (block & QCOW2_REFT_RESERVED)
			r = vd_qcow2_corrupt(s, e, off + i * 8, "refcount table entry %" PRIu64 " has reserved bits set", i);
		else if (block)
			r = vd_qcow2_judge_cluster(s, block, "refcount block", off + i * 8, e);
	}
	return r;
}

/* The L2 tables that stay reachable; what lies wholly past the cut is gone from here on. */
static int plan_l1(struct shape *sh, struct vd_error *e)
{
	const struct vd_qcow2_act *act = sh->act;
	uint64_t n_l2 = act->n_kept / sh->s->l2_entries + (act->n_kept % sh->s->l2_entries != 0);
	uint64_t n = vd_min_u64(vd_min_u64(n_l2, act->active->l1_size), act->l1_size);
	int r = vd_alloc(act->l1_size, sizeof(*sh->l1), &sh->l1, e);

	if (r == 0)
		r = vd_alloc(act->l1_size, sizeof(*sh->is_copied), &sh->is_copied, e);
	if (r == 0 && n)
		memcpy(sh->l1, act->active->l2, n * sizeof(*sh->l1));
	return r;
}

/* ---- flags ---------------------------------------------------------------------------------------------- */

/* Whether the entry says something else than the counts of this window; *word becomes what it is to say. */
static bool fix_flag(const struct shape *sh, const struct vd_qcow2_cluster *c, uint64_t *word)
{
	uint64_t cluster = c->host_off / sh->s->cluster_size, old = *word;

	if (c->is_packed || !c->has_host || sh->s->payload_file || !vd_qcow2_counts_has(&sh->counts, cluster))
		return false;
	*word &= ~QCOW2_COPIED;
	if (sh->counts.count[cluster - sh->counts.first] == 1)
		*word |= QCOW2_COPIED;
	return *word != old;
}

/* A batch of entries of the active tree, which `raw` holds; true when any changes. Those past the cut become nothing. */
static int fix_batch(const struct shape *sh, uint64_t first, uint64_t n, uint64_t entry_off, uint8_t *raw, bool *changes,
		     struct vd_error *e)
{
	const struct vd_qcow2 *s = sh->s;
	int r = 0;

	*changes = false;
	for (uint64_t i = 0; i < n && r == 0; i++) {
		uint8_t *entry = raw + i * s->entry_size;
		uint64_t word = vd_get_be64(entry);
		struct vd_qcow2_cluster c;

		if (first + i >= sh->act->n_kept) {
			*changes |= !vd_is_zero(entry, s->entry_size);
			memset(entry, 0, s->entry_size);
			continue;
		}
		r = vd_qcow2_decode(s, entry, (first + i) * s->cluster_size, entry_off + i * s->entry_size, &c, e);
		if (r == 0 && fix_flag(sh, &c, &word)) {
			*changes = true;
			vd_put_be64(entry, word);
		}
	}
	return r;
}

/* The table in force: does it need a copy? */
static int judge_l2(struct shape *sh, uint64_t l1_index, struct vd_error *e)
{
	const struct vd_qcow2 *s = sh->s;
	uint64_t l2_off = sh->l1[l1_index], per_batch = vd_min_u64(QCOW2_BATCH_BYTES / s->entry_size, s->l2_entries);
	uint8_t raw[QCOW2_BATCH_BYTES];
	int r = 0;

	for (uint64_t i = 0; i < s->l2_entries && r == 0 && !sh->is_copied[l1_index]; i += per_batch) {
		uint64_t at = l2_off + i * s->entry_size;

		r = vd_meta_read(s->meta, 0, at, raw, per_batch * s->entry_size, 0, e);
		if (r == 0)
			r = fix_batch(sh, l1_index * s->l2_entries + i, per_batch, at, raw, &sh->is_copied[l1_index], e);
	}
	return r;
}

/* The copy, in the area: as this window wants it. The first time it is still the table in force that is read. */
static int write_l2(struct shape *sh, uint64_t l1_index, uint64_t from, uint64_t to, struct vd_error *e)
{
	const struct vd_qcow2 *s = sh->s;
	vd_auto_free uint8_t *raw = NULL;
	bool changes;
	int r = vd_alloc(s->cluster_size, 1, &raw, e);

	if (r == 0 && from == to)
		r = vd_set_pread(s->set, 0, raw, s->cluster_size, to, e);
	else if (r == 0)
		r = vd_meta_read(s->meta, 0, from, raw, s->cluster_size, 0, e);
	if (r == 0)
		r = fix_batch(sh, l1_index * s->l2_entries, s->l2_entries, to, raw, &changes, e);
	if (r == 0 && (changes || from != to))
		r = vd_set_pwrite(s->set, 0, raw, s->cluster_size, to, e);
	return r;
}

/* ---- counting ------------------------------------------------------------------------------------------- */

/* What the new tables take the place of. While the old header is in force. */
static void list_dead(struct shape *sh)
{
	const struct vd_qcow2 *s = sh->s;
	const struct vd_qcow2_act *act = sh->act;

	sh->dead[0] = act->dead[0];
	sh->dead[1] = act->dead[1];
	sh->dead[2] = (struct vd_qcow2_area){ "refcount table", atomic_load(&s->reft_off), atomic_load(&s->reft_end) };
	sh->dead[3] = (struct vd_qcow2_area){ "snapshot table", s->h.snap_off, s->h.snap_off + act->old_snap_len };
}

static int drop_old_tables(struct shape *sh, struct vd_error *e)
{
	const struct vd_qcow2 *s = sh->s;
	int r = 0;

	for (size_t i = 0; i < N_DEAD && r == 0; i++)
		r = vd_qcow2_counts_step(&sh->counts, sh->dead[i].off / s->cluster_size,
					 clusters_of(s, sh->dead[i].end - sh->dead[i].off), false, e);
	for (uint64_t i = 0; i < sh->n_old && r == 0; i++)
		if (sh->old_blocks[i])
			r = vd_qcow2_counts_step(&sh->counts, sh->old_blocks[i] / s->cluster_size, 1, false, e);
	return r;
}

/* Up before down: a cluster that changes hands must not pass 0 on the way. */
static int count_window(struct shape *sh, uint64_t first, struct vd_error *e)
{
	const struct vd_qcow2_act *act = sh->act;
	uint64_t end = vd_min_u64(first + vd_qcow2_window, sh->n_clusters);
	int r = vd_qcow2_counts_load(&sh->counts, first, end, e);

	if (r == 0)
		r = vd_qcow2_counts_tree(&sh->counts, act->gains, 0, QCOW2_ALL, true, e);
	if (r == 0)
		r = vd_qcow2_counts_tree(&sh->counts, act->loses, act->loses_from, QCOW2_ALL, false, e);
	if (r == 0)
		r = drop_old_tables(sh, e);
	return r < 0 ? r : vd_qcow2_counts_judge(&sh->counts, sh->order, e);
}

/* Which L2 tables the act leaves with flags that are not true. */
static int find_copies(struct shape *sh, struct vd_error *e)
{
	int r = 0;

	for (uint64_t first = 0; first < sh->n_clusters && r == 0; first += vd_qcow2_window) {
		r = count_window(sh, first, e);
		for (uint32_t i = 0; i < sh->act->l1_size && r == 0; i++)
			if (sh->l1[i] && !sh->is_copied[i])
				r = judge_l2(sh, i, e);
	}
	for (uint32_t i = 0; i < sh->act->l1_size && r == 0; i++)
		sh->area.n_l2 += sh->is_copied[i];
	return r;
}

/* ---- the area's place ----------------------------------------------------------------------------------- */

static bool has_old_block(const struct shape *sh, uint64_t block)
{
	return block < sh->n_old && sh->old_blocks[block];
}

/* Whether a new block has something to count that an old one does; past the file's end nothing is. */
static bool counts_before(const struct shape *sh, uint64_t block)
{
	uint64_t first = block * sh->per_block, end = vd_min_u64(first + sh->per_block, sh->n_before);
	uint64_t per_old = sh->s->block_entries;

	for (uint64_t i = first / per_old; first < end && i <= (end - 1) / per_old; i++)
		if (has_old_block(sh, i))
			return true;
	return false;
}

/* How large the area is when it begins at this cluster: it has the blocks and the table that count itself. */
static void measure_area(struct shape *sh, uint64_t first)
{
	const struct vd_qcow2 *s = sh->s;
	struct area *a = &sh->area;
	uint64_t n_old_blocks = 0, before, n_needed = (sh->n_before - 1) / sh->per_block + 1;

	for (uint64_t b = 0; b < n_needed; b++)
		n_old_blocks += counts_before(sh, b);
	a->first = first;
	a->n_reft = vd_max_u64(sh->n_old * 8 / s->cluster_size, clusters_of(s, n_needed * 8));
	a->n_blocks = n_old_blocks;
	a->n = a->n_l1 + a->n_snap + a->n_l2 + a->n_reft + a->n_blocks;
	do {
		uint64_t last = (first + a->n - 1) / sh->per_block;

		before = a->n;
		a->n_blocks = n_old_blocks;
		for (uint64_t b = first / sh->per_block; b <= last; b++)
			a->n_blocks += !counts_before(sh, b);
		a->n_reft = vd_max_u64(a->n_reft, clusters_of(s, (last + 1) * 8));
		a->n = a->n_l1 + a->n_snap + a->n_l2 + a->n_reft + a->n_blocks;
	} while (a->n != before);
}

/* A stretch without owners inside the file, so that acts that follow each other do not make it grow. */
static int find_gap(struct shape *sh, uint64_t end, uint64_t wanted, uint64_t *gap, struct vd_error *e)
{
	const struct vd_qcow2 *s = sh->s;
	uint64_t run = 0;
	int r = 0;

	for (uint64_t first = vd_round_down(s->floor, vd_qcow2_window); first < end && r == 0; first += vd_qcow2_window) {
		r = vd_qcow2_counts_load(&sh->counts, first, vd_min_u64(first + vd_qcow2_window, sh->n_clusters), e);
		for (uint64_t i = vd_max_u64(first, s->floor); i < vd_min_u64(end, sh->counts.end) && r == 0; i++) {
			bool is_free = !sh->counts.count[i - first] && has_old_block(sh, i / s->block_entries);

			run = is_free ? run + 1 : 0;
			*gap = i + 1 - wanted;
			if (run >= wanted && !vd_qcow2_overlaps(s, *gap * s->cluster_size, wanted * s->cluster_size))
				return 0;
		}
	}
	*gap = end;
	return r;
}

static int place_area(struct shape *sh, struct vd_error *e)
{
	struct vd_qcow2 *s = sh->s;
	struct area *a = &sh->area;
	uint64_t end = atomic_load(&s->host_end) / s->cluster_size, gap = 0, area_end;
	int r;

	measure_area(sh, 0);
	r = find_gap(sh, end, a->n, &gap, e);
	if (r < 0)
		return r;
	measure_area(sh, gap);
	if (a->n_reft > QCOW2_REFT_BYTES_MAX / s->cluster_size) {
		vd_fail(e, VD_ENOSPC, "%s: the refcount table cannot grow any more", s->name);
		return vd_hint(e, VD_ENOSPC, "convert the image to one with larger clusters");
	}
	area_end = (a->first + a->n) * s->cluster_size;
	if (area_end > s->host_limit)
		return vd_fail(e, VD_ENOSPC, "%s: the device is full: the new tables need %" PRIu64 " bytes", s->name,
			       a->n * s->cluster_size);
	if (area_end > atomic_load(&s->host_end)) {
		r = vd_io_truncate(vd_set_io(s->set, 0), area_end, e);
		if (r == 0)
			atomic_store(&s->host_end, area_end);
	}
	return r;
}

/* Gives each part its place. */
static int lay_out(struct shape *sh, struct vd_error *e)
{
	struct vd_qcow2 *s = sh->s;
	const struct area *a = &sh->area;
	uint64_t next = a->first + a->n_l1 + a->n_snap + a->n_l2 + a->n_reft;
	uint64_t last = (a->first + a->n - 1) / sh->per_block;
	int r;

	sh->n_entries = a->n_reft * s->cluster_size / 8;
	r = vd_alloc(sh->n_entries, 8, &sh->blocks, e);
	if (r < 0)
		return r;
	for (uint64_t b = 0; b < sh->n_entries; b++)
		if (counts_before(sh, b) || (b >= a->first / sh->per_block && b <= last))
			sh->blocks[b] = next++ * s->cluster_size;
	sh->n_clusters = vd_max_u64(sh->n_clusters, (last + 1) * sh->per_block);
	return 0;
}

/* ---- writing -------------------------------------------------------------------------------------------- */

/* What only shows now: the tables that have a copy lose an owner, the area has its one. */
static int count_area(struct shape *sh, struct vd_error *e)
{
	const struct area *a = &sh->area;
	struct vd_qcow2_counts *c = &sh->counts;
	int r = 0;

	for (uint32_t i = 0; i < sh->act->l1_size && r == 0; i++)
		if (sh->is_copied[i])
			r = vd_qcow2_counts_step(c, sh->act->active->l2[i] / sh->s->cluster_size, 1, false, e);
	for (uint64_t i = vd_max_u64(a->first, c->first); i < vd_min_u64(a->first + a->n, c->end); i++)
		c->count[i - c->first] = 1;
	return r;
}

static int write_copies(struct shape *sh, bool is_first, struct vd_error *e)
{
	const struct vd_qcow2 *s = sh->s;
	uint64_t next = (sh->area.first + sh->area.n_l1 + sh->area.n_snap) * s->cluster_size;
	int r = 0;

	for (uint32_t i = 0; i < sh->act->l1_size && r == 0; i++) {
		if (!sh->is_copied[i])
			continue;
		r = write_l2(sh, i, is_first ? sh->l1[i] : next, next, e);
		if (is_first)
			sh->l1[i] = next;
		next += s->cluster_size;
	}
	return r;
}

static void flag_l1(struct shape *sh)
{
	for (uint32_t i = 0; i < sh->act->l1_size; i++) {
		uint64_t cluster = (sh->l1[i] & QCOW2_OFFSET_MASK) / sh->s->cluster_size;

		if (cluster && vd_qcow2_counts_has(&sh->counts, cluster) &&
		    sh->counts.count[cluster - sh->counts.first] == 1)
			sh->l1[i] |= QCOW2_COPIED;
	}
}

static int write_counts_and_l2(struct shape *sh, struct vd_error *e)
{
	int r = 0;

	for (uint64_t first = 0; first < sh->n_clusters && r == 0; first += vd_qcow2_window) {
		r = count_window(sh, first, e);
		if (r == 0)
			r = count_area(sh, e);
		vd_qcow2_counts_keep_orphans(&sh->counts);
		if (r == 0)
			r = vd_qcow2_counts_store(&sh->counts, sh->blocks, sh->order, e);
		if (r == 0)
			r = write_copies(sh, first == 0, e);
		if (r == 0)
			flag_l1(sh);
	}
	return r;
}

int vd_qcow2_words_write(struct vd_qcow2 *s, const uint64_t *words, uint64_t n, uint64_t cluster, uint64_t n_clusters,
			 struct vd_error *e)
{
	uint64_t cluster_size = s->cluster_size;
	vd_auto_free uint8_t *raw = NULL;
	int r = vd_alloc(n_clusters, cluster_size, &raw, e);

	for (uint64_t i = 0; i < n && r == 0; i++)
		vd_put_be64(raw + i * 8, words[i]);
	return r < 0 ? r : vd_set_pwrite(s->set, 0, raw, n_clusters * cluster_size, cluster * cluster_size, e);
}

static int write_area(struct shape *sh, const uint8_t *snap, size_t snap_len, struct vd_error *e)
{
	struct vd_qcow2 *s = sh->s;
	const struct area *a = &sh->area;
	int r = write_counts_and_l2(sh, e);

	if (r == 0)
		r = vd_qcow2_words_write(s, sh->l1, sh->act->l1_size, a->first, a->n_l1, e);
	if (r == 0 && snap_len)
		r = vd_set_pwrite(s->set, 0, snap, snap_len, (a->first + a->n_l1) * s->cluster_size, e);
	if (r == 0)
		r = vd_qcow2_words_write(s, sh->blocks, sh->n_entries, a->first + a->n_l1 + a->n_snap + a->n_l2,
					 a->n_reft, e);
	return r < 0 ? r : vd_set_flush(s->set, e);
}

/* ---- the switch ----------------------------------------------------------------------------------------- */

static struct vd_qcow2_header header_after(const struct shape *sh)
{
	const struct vd_qcow2 *s = sh->s;
	const struct area *a = &sh->area;
	struct vd_qcow2_header h = s->h;

	h.size = sh->act->size;
	h.l1_size = sh->act->l1_size;
	h.l1_off = a->first * s->cluster_size;
	h.n_snapshots = sh->act->snapshots->n;
	h.snap_off = h.n_snapshots ? (a->first + a->n_l1) * s->cluster_size : 0;
	h.reft_off = (a->first + a->n_l1 + a->n_snap + a->n_l2) * s->cluster_size;
	h.reft_clusters = a->n_reft;
	h.refcount_order = sh->order;
	if (sh->act->ends_autoclear)
		h.autoclear = vd_qcow2_autoclear_kept(s);
	return h;
}

/* The rest of the sector stays: extensions may begin in it. */
static void put_header(uint8_t *sector, const struct vd_qcow2_header *h)
{
	vd_put_be64(sector + QCOW2_AT_SIZE, h->size);
	vd_put_be32(sector + AT_L1_SIZE, h->l1_size);
	vd_put_be64(sector + AT_L1_SIZE + 4, h->l1_off);
	vd_put_be64(sector + QCOW2_AT_REFT_OFF, h->reft_off);
	vd_put_be32(sector + QCOW2_AT_REFT_OFF + 8, h->reft_clusters);
	vd_put_be32(sector + AT_N_SNAPSHOTS, h->n_snapshots);
	vd_put_be64(sector + AT_N_SNAPSHOTS + 4, h->snap_off);
	if (h->version > 2) {
		vd_put_be64(sector + QCOW2_AT_INCOMPAT, h->incompat);
		vd_put_be64(sector + QCOW2_AT_AUTOCLEAR, h->autoclear);
		vd_put_be32(sector + AT_REFCOUNT_ORDER, h->refcount_order);
	}
}

int vd_qcow2_unsure(const struct vd_qcow2 *s, struct vd_error *e)
{
	vd_fail(e, VD_EPOISONED, "%s: writing the header failed: the change has either happened or not", s->name);
	return vd_hint(e, VD_EPOISONED, "make sure that its disk works, open the image again and look");
}

/* From here on this handle works with the new tables. */
static int adopt(struct vd_qcow2 *s, const struct vd_qcow2_header *h, struct vd_error *e)
{
	uint64_t size = 0;
	int r;

	s->h = *h;
	s->block_entries = s->cluster_size * 8 >> h->refcount_order;
	s->next_free = s->floor;
	s->packed_next = 0;
	s->reft_has_moved = false;
	vd_meta_forget_all(s->meta);
	r = vd_io_size(vd_set_io(s->set, 0), &size, e);
	return r < 0 ? r : vd_qcow2_judge_tables(s, size, e);
}

int vd_qcow2_switch(struct vd_qcow2 *s, const struct vd_qcow2_header *h, struct vd_error *e)
{
	uint8_t sector[HEADER_BYTES];
	int r = vd_set_pread(s->set, 0, sector, sizeof(sector), 0, e);

	if (r < 0)
		return r;
	put_header(sector, h);
	r = vd_set_pwrite(s->set, 0, sector, sizeof(sector), 0, NULL);
	if (r == 0)
		r = vd_set_flush(s->set, NULL);
	if (r == 0)
		r = adopt(s, h, NULL);
	return r < 0 ? vd_qcow2_unsure(s, e) : 0;
}

/* ---- the whole ------------------------------------------------------------------------------------------ */

static void free_shape(struct shape *sh)
{
	free(sh->old_blocks);
	free(sh->blocks);
	free(sh->l1);
	free(sh->is_copied);
	free(sh->counts.count);
	free(sh->counts.is_orphan);
}

static int prepare(struct shape *sh, struct vd_error *e)
{
	struct vd_qcow2 *s = sh->s;
	int r = read_reft(sh, e);

	if (r == 0)
		r = plan_l1(sh, e);
	if (r < 0)
		return r;
	sh->area.n_l1 = clusters_of(s, (uint64_t)sh->act->l1_size * 8);
	sh->order = sh->act->refcount_bits ? (uint32_t)__builtin_ctz(sh->act->refcount_bits) : s->h.refcount_order;
	sh->per_block = s->cluster_size * 8 >> sh->order;
	sh->n_before = vd_round_up(atomic_load(&s->host_end) / s->cluster_size, vd_max_u64(s->block_entries, sh->per_block));
	sh->n_clusters = sh->n_before;
	sh->counts = (struct vd_qcow2_counts){
		.s = s, .blocks = sh->old_blocks, .n_blocks = sh->n_old, .order = s->h.refcount_order,
	};
	list_dead(sh);
	r = vd_alloc(vd_qcow2_window, sizeof(*sh->counts.count), &sh->counts.count, e);
	if (r == 0 && s->scrubs)
		r = vd_alloc(vd_qcow2_window, sizeof(*sh->counts.is_orphan), &sh->counts.is_orphan, e);
	return r;
}

/* The act is in force. */
static int clean_up(struct shape *sh, struct vd_error *e)
{
	struct vd_qcow2_lost lost = {
		.act = sh->act, .counts = &sh->counts, .n_clusters = sh->n_before, .is_moved = sh->is_copied,
	};

	memcpy(lost.dead, sh->dead, sizeof(lost.dead));
	if (sh->s->scrubs)
		return vd_qcow2_free_orphans(sh->s, &lost, e);
	return sh->s->h.crypt_method ? vd_qcow2_wipe_tables(sh->s, &lost, e) : 0;
}

int vd_qcow2_shape(struct vd_qcow2 *s, const struct vd_qcow2_act *act, struct vd_error *e)
{
	__attribute__((cleanup(free_shape))) struct shape sh = { .s = s, .act = act };
	struct vd_qcow2_header after;
	vd_auto_free uint8_t *snap = NULL;
	size_t snap_len = 0;
	int r = prepare(&sh, e);

	if (r == 0)
		r = vd_qcow2_snapshots_encode(s, act->snapshots, &snap, &snap_len, e);
	if (r < 0)
		return r;
	sh.area.n_snap = snap_len / s->cluster_size;
	r = find_copies(&sh, e);
	if (r == 0)
		r = place_area(&sh, e);
	if (r == 0)
		r = lay_out(&sh, e);
	if (r == 0)
		r = write_area(&sh, snap, snap_len, e);
	if (r < 0)
		return r;
	after = header_after(&sh);
	r = vd_qcow2_switch(s, &after, e);
	return r < 0 ? r : clean_up(&sh, e);
}
