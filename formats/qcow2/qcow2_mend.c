/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Mends an image: what entries name is the truth, and refcounts and flags are made to follow it. What is wrong, qcow2_check.c
 * has told.
 *
 *  F1  No entry is led to another place, so the guest reads what it read before. An entry that leads nowhere stays.
 *  F2  Single words that have only one right reading are put right where they are, in tables that are in nobody's way: each
 *      is one write inside one sector, and good whether the others happen or not.
 *  F3  All else comes into force by one write of the header: a new L1 table, copies of L2 tables whose flags change or whose
 *      place somebody else has, too, and a new refcount table with its blocks. They lie in the area: clusters that nothing names
 *      and nothing counts, or behind the end of the file, but never where an entry leads that is taken to lead nowhere.
 *  F4  No cluster is given back by the repair that meets an entry which may have lost what it was for: one that leads nowhere,
 *      to a table, or to a cluster that others count on. What looks unused may be that. The next repair gives it back.
 *  F5  An L2 table on the refcount table or the L1 table is known for wrong by that alone; moving those away would make it
 *      look right. Then only F2 is done.
 */
#include "formats/qcow2/qcow2_check.h"

#include <stdlib.h>

#include "formats/qcow2/qcow2_shape.h"
#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

/* Clusters behind the end of the file that are counted when entries name them, so that they are not given out next. */
#define BEYOND_MAX 65536

#define BIT(kind) (1u << QCOW2_REF_##kind)
#define MOVES (BIT(REFT) | BIT(BLOCK) | BIT(L1))

/* In clusters, in the order in which they lie. */
struct area {
	uint64_t first, n;
	uint64_t n_l1, n_l2, n_reft, n_blocks;
};

struct mend {
	struct vd_qcow2 *s;
	struct vd_check *c;
	struct vd_qcow2_tally tally;    /* its refs become the counts that are to be */
	struct vd_qcow2_visit visit;
	uint64_t count_max;
	bool keeps;                     /* F4 */
	bool is_blocked;                /* F5 */
	bool changes;                   /* the image is not as it is to be */
	uint64_t *l1;                   /* the L1 table as words */
	bool *is_copied;                /* for each of them: its L2 table gets a copy */
	bool *has_block;
	uint64_t n_blocks;              /* refcount blocks that there can be */
	uint64_t *blocks;               /* the new refcount table */
	uint64_t n_entries;
	uint64_t run, gap_first, gap;   /* the largest stretch of free clusters, and the one that goes on */
	struct area area;
	int result;                     /* of a callback that cannot fail itself */
	struct vd_error error;
};

static uint64_t clusters_of(const struct vd_qcow2 *s, uint64_t len)
{
	return len / s->cluster_size + (len % s->cluster_size != 0);
}

/* ---- single words --------------------------------------------------------------------------------------- */

static int write_word(struct mend *m, const struct vd_qcow2_ref *ref, struct vd_qcow2_word word, struct vd_error *e)
{
	uint8_t raw[QCOW2_ENTRY_MAX];

	vd_put_be64(raw, word.first);
	vd_put_be64(raw + 8, word.bitmap);
	m->c->report->changed = true;
	return vd_set_pwrite(m->s->set, 0, raw, ref->kind == QCOW2_REF_CLUSTER ? m->s->entry_size : 8, ref->entry_off, e);
}

static int mend_word(struct mend *m, const struct vd_qcow2_ref *ref, struct vd_error *e)
{
	struct vd_qcow2_fault faults[QCOW2_FAULTS_MAX];
	struct vd_qcow2_word word, right;
	int r;

	if (!vd_qcow2_tally_has(&m->tally, ref->entry_off / m->s->cluster_size) ||
	    !vd_qcow2_table_is_alone(&m->tally, ref->entry_off))
		return 0;
	r = vd_qcow2_word_read(m->s, ref, &word, e);
	if (r < 0)
		return r;
	vd_qcow2_entry_faults(m->s, ref, word, faults, &right);
	return right.first != word.first || right.bitmap != word.bitmap ? write_word(m, ref, right, e) : 0;
}

static void word_finding(void *ctx, enum vd_qcow2_kind kind, uint64_t entry_off, const struct vd_error *what)
{
	struct mend *m = ctx;

	(void)entry_off;
	(void)what;
	if (m->result == 0 && (kind == QCOW2_REF_CLUSTER || kind == QCOW2_REF_L2))
		m->result = mend_word(m, m->visit.about, &m->error);
}

static int no_ref(struct vd_qcow2_visit *v, const struct vd_qcow2_ref *ref, struct vd_error *e)
{
	(void)v;
	(void)ref;
	(void)e;
	return 0;
}

static void no_finding(void *ctx, enum vd_qcow2_kind kind, uint64_t entry_off, const struct vd_error *what)
{
	(void)ctx;
	(void)kind;
	(void)entry_off;
	(void)what;
}

static int visit(struct mend *m, uint32_t file, int (*ref)(struct vd_qcow2_visit *, const struct vd_qcow2_ref *,
							   struct vd_error *), struct vd_error *e)
{
	m->visit = (struct vd_qcow2_visit){
		.file = file, .end = UINT64_MAX, .ref = ref, .finding = ref == no_ref ? word_finding : no_finding, .ctx = m,
	};
	return vd_qcow2_visit(m->s, &m->visit, e);
}

/* F4, beside what the check found no cure for. */
static int look_for_losers(struct mend *m, struct vd_error *e)
{
	struct vd_qcow2_tally *t = &m->tally;
	uint64_t count;
	int r = 0;

	for (uint64_t at = t->first; at < t->end && r == 0 && !m->keeps; at++) {
		uint64_t refs = t->refs[at - t->first];

		if (refs > 1)
			r = vd_qcow2_tally_refcount(t, at, &count, e);
		m->keeps |= refs > 1 && r == 0 && ((count && count < refs) || vd_qcow2_use_clashes(t->uses[at - t->first]));
	}
	return r;
}

static int mend_words(struct mend *m, struct vd_error *e)
{
	int r = 0;

	for (uint64_t first = 0; first < m->tally.n_clusters && r == 0; first += vd_qcow2_tally_window) {
		r = vd_qcow2_tally_count(&m->tally, first, e);
		if (r == 0)
			r = look_for_losers(m, e);
		if (r == 0 && m->tally.n_findings)
			r = visit(m, 0, no_ref, e);
		if (r == 0 && m->result < 0) {
			r = m->result;
			if (e)
				*e = m->error;
		}
	}
	return r < 0 ? r : vd_set_flush(m->s->set, e);
}

/* ---- counts as they are to be --------------------------------------------------------------------------- */

static bool is_free(const struct mend *m, uint64_t cluster, uint64_t count)
{
	uint64_t block = cluster / m->s->block_entries;

	return !count && !m->tally.refs[cluster - m->tally.first] && block < m->tally.blocks.n && m->tally.blocks.off[block];
}

static void look_for_gap(struct mend *m, uint64_t cluster, uint64_t count)
{
	m->run = is_free(m, cluster, count) ? m->run + 1 : 0;
	if (m->run > m->gap) {
		m->gap = m->run;
		m->gap_first = cluster + 1 - m->run;
	}
}

/* Before anything moves. What is counted behind the end of the file, and named by nothing, is not kept. */
static int hold_against_counts(struct mend *m, struct vd_error *e)
{
	struct vd_qcow2_tally *t = &m->tally;
	uint64_t end = vd_min_u64(t->end, atomic_load(&m->s->host_end) / m->s->cluster_size), count;
	int r = 0;

	for (uint64_t at = t->first; at < end && r == 0; at++) {
		uint32_t *refs = &t->refs[at - t->first];
		uint16_t uses = t->uses[at - t->first];

		r = vd_qcow2_tally_refcount(t, at, &count, e);
		if (r < 0)
			break;
		look_for_gap(m, at, count);
		if (m->keeps && count > *refs)
			*refs = vd_min_u64(count, UINT32_MAX);
		m->changes |= count != vd_min_u64(*refs, m->count_max);
		m->changes |= vd_qcow2_use_clashes(uses) && vd_qcow2_clash_is_mendable(uses);
		m->is_blocked |= vd_qcow2_clash_blocks(uses);
	}
	return r;
}

static void release(struct mend *m, const struct vd_qcow2_ref *ref)
{
	struct vd_qcow2_tally *t = &m->tally;
	uint64_t end, at = vd_qcow2_tally_clusters(m->s, ref, &end);

	for (at = vd_max_u64(at, t->first); at < vd_min_u64(end, t->end); at++)
		if (t->refs[at - t->first])
			t->refs[at - t->first]--;
}

static uint64_t l1_index(const struct mend *m, const struct vd_qcow2_ref *ref)
{
	return ref->guest_off / m->s->l2_span;
}

/* Somebody else is where this table is, who does not move away by himself. */
static bool is_in_the_way(const struct mend *m, const struct vd_qcow2_ref *ref)
{
	uint64_t cluster = ref->host_off / m->s->cluster_size;

	return vd_qcow2_tally_has(&m->tally, cluster) && m->tally.refs[cluster - m->tally.first] &&
	       vd_qcow2_use_clashes(m->tally.uses[cluster - m->tally.first] & ~(MOVES | QCOW2_TALLY_TWICE));
}

/* Takes what will not be where it is any more out of the counts. */
static int leave_ref(struct vd_qcow2_visit *v, const struct vd_qcow2_ref *ref, struct vd_error *e)
{
	struct mend *m = v->ctx;
	bool is_table = ref->kind == QCOW2_REF_L2 && !ref->view &&
			vd_qcow2_judge_cluster(m->s, ref->host_off, "L2 table", ref->entry_off, NULL) == 0;

	(void)e;
	if (is_table && is_in_the_way(m, ref))
		m->is_copied[l1_index(m, ref)] = true;
	if (vd_qcow2_tally_use(ref) & MOVES || (is_table && m->is_copied[l1_index(m, ref)]))
		release(m, ref);
	return 0;
}

static int count_window(struct mend *m, uint64_t first, struct vd_error *e)
{
	int r = vd_qcow2_tally_count(&m->tally, first, e);

	if (r == 0)
		r = hold_against_counts(m, e);
	return r < 0 ? r : visit(m, 0, leave_ref, e);
}

/* ---- the plan ------------------------------------------------------------------------------------------- */

/* Whether the flag of what leads to this cluster is to be set; *is_known false: another window knows. */
static bool wants_copied(const struct mend *m, uint64_t host_off, bool *is_known)
{
	const struct vd_qcow2_tally *t = &m->tally;
	uint64_t cluster = host_off / m->s->cluster_size;

	/* What nothing counts is never written in place. */
	*is_known = vd_qcow2_tally_has(t, cluster) || (cluster >= t->n_clusters && !t->first);
	return vd_qcow2_tally_has(t, cluster) && vd_min_u64(t->refs[cluster - t->first], m->count_max) == 1;
}

static int flag_ref(struct vd_qcow2_visit *v, const struct vd_qcow2_ref *ref, struct vd_error *e)
{
	struct mend *m = v->ctx;
	bool is_known, wanted;

	(void)e;
	if (ref->view || (ref->kind != QCOW2_REF_L2 && ref->kind != QCOW2_REF_CLUSTER) ||
	    (ref->kind == QCOW2_REF_CLUSTER && ref->cluster->is_packed))
		return 0;
	wanted = ref->file || wants_copied(m, ref->host_off, &is_known);
	if (!ref->file && !is_known)
		return 0;
	/* The L1 table is new in any case. */
	if (wanted != ref->is_copied && ref->kind == QCOW2_REF_CLUSTER)
		m->is_copied[l1_index(m, ref)] = true;
	m->changes |= wanted != ref->is_copied && !(ref->kind == QCOW2_REF_L2 && m->is_copied[l1_index(m, ref)]);
	return 0;
}

static int read_l1(struct mend *m, struct vd_error *e)
{
	const struct vd_qcow2 *s = m->s;
	int r = vd_alloc(s->h.l1_size, 8, &m->l1, e);

	if (r == 0)
		r = vd_alloc(s->h.l1_size, 1, &m->is_copied, e);
	if (r == 0)
		r = vd_set_pread(s->set, 0, m->l1, s->h.l1_size * UINT64_C(8), s->h.l1_off, e);
	for (uint32_t i = 0; i < s->h.l1_size && r == 0; i++)
		m->l1[i] = vd_get_be64(&m->l1[i]);
	return r;
}

/* Entries of the refcount table that lead to no possible place, or two to one. */
static int judge_blocks(struct mend *m, struct vd_error *e)
{
	const struct vd_qcow2 *s = m->s;
	uint64_t off = atomic_load(&s->reft_off), n = (atomic_load(&s->reft_end) - off) / 8;
	vd_auto_free uint64_t *raw = NULL;
	int r = vd_alloc(n, 8, &raw, e);

	if (r == 0)
		r = vd_set_pread(s->set, 0, raw, n * 8, off, e);
	for (uint64_t i = 0; i < n && r == 0; i++)
		m->changes |= vd_get_be64(&raw[i]) != m->tally.blocks.off[i];
	return r;
}

static int plan_window(struct mend *m, uint64_t first, struct vd_error *e)
{
	struct vd_qcow2_tally *t = &m->tally;
	int r = count_window(m, first, e);

	if (r == 0)
		r = visit(m, 0, flag_ref, e);
	for (uint64_t i = 0; i < t->end - t->first && r == 0; i++)
		if (t->refs[i])
			m->has_block[(t->first + i) / m->s->block_entries] = true;
	return r;
}

static int plan(struct mend *m, struct vd_error *e)
{
	const struct vd_qcow2 *s = m->s;
	int r = read_l1(m, e);

	m->n_blocks = m->tally.n_clusters / s->block_entries + 1;
	if (m->n_blocks > QCOW2_REFT_BYTES_MAX / 8)
		return vd_fail(e, VD_EUNSUPPORTED, "%s: the file is too large for its refcounts", s->name);
	if (r == 0)
		r = vd_alloc(m->n_blocks, 1, &m->has_block, e);
	if (r == 0)
		r = judge_blocks(m, e);
	for (uint64_t first = 0; first < m->tally.n_clusters && r == 0; first += vd_qcow2_tally_window) {
		r = plan_window(m, first, e);
		if (r == 0)
			r = m->c->progress(m->c, first, 2 * m->tally.n_clusters, e);
	}
	if (r == 0 && s->payload_file)
		r = visit(m, s->payload_file, flag_ref, e);
	for (uint32_t i = 0; i < s->h.l1_size && r == 0; i++)
		m->area.n_l2 += m->is_copied[i];
	m->area.n_l1 = clusters_of(s, s->h.l1_size * UINT64_C(8));
	return r;
}

/* ---- the area's place ----------------------------------------------------------------------------------- */

static bool counts_area(const struct area *a, const struct vd_qcow2 *s, uint64_t block)
{
	return block >= a->first / s->block_entries && block <= (a->first + a->n - 1) / s->block_entries;
}

/* How large it is when it begins there: it has the blocks and the table that count itself. */
static void measure(struct mend *m, uint64_t first)
{
	const struct vd_qcow2 *s = m->s;
	struct area *a = &m->area;
	uint64_t before;

	a->first = first;
	a->n_reft = a->n_blocks = 0;
	a->n = a->n_l1 + a->n_l2 + 1;
	do {
		uint64_t last = (first + a->n - 1) / s->block_entries;

		before = a->n;
		a->n_blocks = 0;
		for (uint64_t b = 0; b < m->n_blocks || b <= last; b++) {
			bool has = (b < m->n_blocks && m->has_block[b]) || counts_area(a, s, b);

			a->n_blocks += has;
			if (has)
				a->n_reft = vd_max_u64(a->n_reft, clusters_of(s, (b + 1) * 8));
		}
		a->n = a->n_l1 + a->n_l2 + a->n_reft + a->n_blocks;
	} while (a->n != before);
}

static int place(struct mend *m, struct vd_error *e)
{
	struct vd_qcow2 *s = m->s;
	const struct area *a = &m->area;
	uint64_t end;
	int r;

	measure(m, m->gap_first);
	if (a->n <= m->gap)
		return 0;
	measure(m, atomic_load(&s->host_end) / s->cluster_size);
	end = (a->first + a->n) * s->cluster_size;
	if (a->n_reft > QCOW2_REFT_BYTES_MAX / s->cluster_size || end > s->host_limit)
		return vd_fail(e, VD_ENOSPC, "%s: there is no room for new tables of %" PRIu64 " bytes", s->name,
			       a->n * s->cluster_size);
	if (end > m->tally.beyond) {
		vd_fail(e, VD_ECORRUPT, "%s: new tables of %" PRIu64 " bytes would lie where entries of the disk lead, past the end "
			"of the file", s->name, a->n * s->cluster_size);
		return vd_hint(e, VD_ECORRUPT, "the file was cut short: get the whole of it, and check that");
	}
	r = vd_io_truncate(vd_set_io(s->set, 0), end, e);
	if (r == 0)
		atomic_store(&s->host_end, end);
	return r;
}

static int lay_out(struct mend *m, struct vd_error *e)
{
	const struct vd_qcow2 *s = m->s;
	const struct area *a = &m->area;
	uint64_t next = a->first + a->n_l1 + a->n_l2 + a->n_reft;
	int r;

	m->n_entries = a->n_reft * s->cluster_size / 8;
	r = vd_alloc(m->n_entries, 8, &m->blocks, e);
	for (uint64_t b = 0; b < m->n_entries && r == 0; b++)
		if ((b < m->n_blocks && m->has_block[b]) || counts_area(a, s, b))
			m->blocks[b] = next++ * s->cluster_size;
	return r;
}

/* ---- writing -------------------------------------------------------------------------------------------- */

static void count_area(struct mend *m)
{
	struct vd_qcow2_tally *t = &m->tally;
	const struct area *a = &m->area;

	for (uint64_t at = vd_max_u64(a->first, t->first); at < vd_min_u64(a->first + a->n, t->end); at++)
		t->refs[at - t->first] = 1;
}

/* n clusters of one block, which is new. */
static int write_block(struct mend *m, uint64_t cluster, uint64_t n, struct vd_error *e)
{
	const struct vd_qcow2 *s = m->s;
	uint32_t order = s->h.refcount_order;
	uint64_t off = m->blocks[cluster / s->block_entries] + (cluster % s->block_entries << order) / 8;
	size_t len = (n << order) / 8;
	vd_auto_free uint8_t *raw = NULL;
	int r = vd_alloc(len, 1, &raw, e);

	for (uint64_t i = 0; i < n && r == 0; i++)
		if (vd_qcow2_tally_has(&m->tally, cluster + i))
			vd_qcow2_count_put(raw, i, order,
					   vd_min_u64(m->tally.refs[cluster + i - m->tally.first], m->count_max));
	return r < 0 ? r : vd_set_pwrite(s->set, 0, raw, len, off, e);
}

/* To the end of the last block, which the last window may not reach. */
static int write_blocks(struct mend *m, struct vd_error *e)
{
	const struct vd_qcow2 *s = m->s;
	uint64_t end = m->tally.first + vd_qcow2_tally_window;
	int r = 0;

	for (uint64_t at = m->tally.first, n; at < end && r == 0; at += n) {
		uint64_t block = at / s->block_entries;

		n = vd_min_u64(end, (block + 1) * s->block_entries) - at;
		if (block >= m->n_entries)
			break;
		if (m->blocks[block])
			r = write_block(m, at, n, e);
	}
	return r;
}

static void fix_flags(const struct mend *m, uint8_t *raw)
{
	const struct vd_qcow2 *s = m->s;

	for (uint64_t i = 0; i < s->l2_entries; i++) {
		uint8_t *entry = raw + i * s->entry_size;
		struct vd_qcow2_cluster c;
		bool is_known = true, wanted;

		vd_qcow2_parse(s, entry, &c);
		if (c.is_packed || !c.has_host)
			continue;
		wanted = s->payload_file || wants_copied(m, c.host_off, &is_known);
		if (is_known)
			vd_put_be64(entry, (vd_get_be64(entry) & ~QCOW2_COPIED) | (wanted ? QCOW2_COPIED : 0));
	}
}

/* The first window makes the copies, the others go over them. */
static int write_copies(struct mend *m, struct vd_error *e)
{
	const struct vd_qcow2 *s = m->s;
	uint64_t to = (m->area.first + m->area.n_l1) * s->cluster_size;
	vd_auto_free uint8_t *raw = NULL;
	int r = vd_alloc(s->cluster_size, 1, &raw, e);

	for (uint32_t i = 0; i < s->h.l1_size && r == 0; i++) {
		if (!m->is_copied[i])
			continue;
		r = vd_set_pread(s->set, 0, raw, s->cluster_size, m->tally.first ? to : m->l1[i] & QCOW2_OFFSET_MASK, e);
		if (r < 0)
			break;
		fix_flags(m, raw);
		r = vd_set_pwrite(s->set, 0, raw, s->cluster_size, to, e);
		m->l1[i] = to | QCOW2_COPIED;
		to += s->cluster_size;
	}
	return r;
}

static void flag_l1(struct mend *m)
{
	for (uint32_t i = 0; i < m->s->h.l1_size; i++) {
		bool is_known = false, wanted;

		if (m->is_copied[i] || !(m->l1[i] & QCOW2_OFFSET_MASK))
			continue;
		wanted = wants_copied(m, m->l1[i] & QCOW2_OFFSET_MASK, &is_known);
		if (is_known)
			m->l1[i] = (m->l1[i] & ~QCOW2_COPIED) | (wanted ? QCOW2_COPIED : 0);
	}
}

static int write_window(struct mend *m, uint64_t first, struct vd_error *e)
{
	int r = count_window(m, first, e);

	if (r < 0)
		return r;
	count_area(m);
	r = write_blocks(m, e);
	if (r == 0)
		r = write_copies(m, e);
	if (r == 0)
		flag_l1(m);
	return r;
}

static int write_area(struct mend *m, struct vd_error *e)
{
	struct vd_qcow2 *s = m->s;
	const struct area *a = &m->area;
	uint64_t n = m->tally.n_clusters;
	int r = 0;

	for (uint64_t first = 0; first < n && r == 0; first += vd_qcow2_tally_window) {
		r = write_window(m, first, e);
		if (r == 0)
			r = m->c->progress(m->c, n + first, 2 * n, e);
	}
	if (r == 0)
		r = vd_qcow2_words_write(s, m->l1, s->h.l1_size, a->first, a->n_l1, e);
	if (r == 0)
		r = vd_qcow2_words_write(s, m->blocks, m->n_entries, a->first + a->n_l1 + a->n_l2, a->n_reft, e);
	return r < 0 ? r : vd_set_flush(s->set, e);
}

/* ---- the whole ------------------------------------------------------------------------------------------ */

/* The area may have made the file longer. */
static int start_tally(struct mend *m, struct vd_error *e)
{
	uint64_t beyond = m->tally.beyond;
	int r;

	vd_qcow2_tally_fini(&m->tally);
	m->tally = (struct vd_qcow2_tally){ 0 };
	r = vd_qcow2_tally_init(&m->tally, m->s, BEYOND_MAX, e);
	if (beyond)
		m->tally.beyond = beyond;
	return r;
}

static int bring_into_force(struct mend *m, struct vd_qcow2_header *h, struct vd_error *e)
{
	int r = place(m, e);

	if (r == 0)
		r = start_tally(m, e);
	if (r == 0)
		r = lay_out(m, e);
	if (r == 0)
		r = write_area(m, e);
	h->l1_off = m->area.first * m->s->cluster_size;
	h->reft_off = (m->area.first + m->area.n_l1 + m->area.n_l2) * m->s->cluster_size;
	h->reft_clusters = m->area.n_reft;
	return r;
}

static void free_mend(struct mend *m)
{
	vd_qcow2_tally_fini(&m->tally);
	free(m->l1);
	free(m->is_copied);
	free(m->has_block);
	free(m->blocks);
}

int vd_qcow2_mend(void *st, enum vd_repair repair, struct vd_check *c, struct vd_error *e)
{
	struct vd_qcow2 *s = st;
	__attribute__((cleanup(free_mend))) struct mend m = {
		.s = s, .c = c, .count_max = vd_qcow2_count_max(s->h.refcount_order), .keeps = c->report->not_mendable,
	};
	struct vd_qcow2_header h = s->h;
	int r = start_tally(&m, e);

	/* The visitor reads past the cache. */
	vd_meta_forget_all(s->meta);
	if (r == 0 && repair == VD_REPAIR_ALL)
		r = mend_words(&m, e);
	if (r == 0)
		r = plan(&m, e);
	if (r < 0 || m.is_blocked)
		return r;
	h.incompat &= ~(QCOW2_INCOMPAT_DIRTY | (c->report->not_mendable ? 0 : QCOW2_INCOMPAT_CORRUPT));
	if (vd_qcow2_snap_off_is_odd(&h))
		h.snap_off = 0;
	if (m.changes)
		r = bring_into_force(&m, &h, e);
	if (r < 0 || (!m.changes && h.incompat == s->h.incompat && h.snap_off == s->h.snap_off))
		return r;
	c->report->changed = true;
	return vd_qcow2_switch(s, &h, e);
}
