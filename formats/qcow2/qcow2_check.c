/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Checks an image's tables against each other and tells what is wrong. For each window of clusters a first visit counts who
 * names them (qcow2_tally.c) and the counts are held against the refcounts; where an entry is to blame a second visit
 * finds it. Mending is qcow2_mend.c's.
 */
#include "formats/qcow2/qcow2_check.h"

#include <stdarg.h>
#include <stdio.h>

#include "formats/qcow2/qcow2_shape.h"

struct check {
	const struct vd_qcow2 *s;
	struct vd_check *c;
	struct vd_qcow2_tally tally;
	struct vd_qcow2_snapshots snapshots;    /* for their names */
	struct vd_qcow2_visit visit;            /* the second one */
	uint64_t count_max;
	bool wants_entries;             /* the second visit has something to find */
	struct vd_finding run;          /* clusters side by side with the same fault */
	int result;                     /* of a callback that cannot fail itself */
	struct vd_error error;
	/* For the fragmentation: the cluster behind the last one of this table. */
	uint64_t next_off, table;
};

/* ---- telling -------------------------------------------------------------------------------------------- */

static const char *const kind_names[] = {
	[QCOW2_REF_HEADER] = "header", [QCOW2_REF_KEY_AREA] = "key area", [QCOW2_REF_REFT] = "refcount table",
	[QCOW2_REF_BLOCK] = "refcount block", [QCOW2_REF_SNAPSHOTS] = "snapshot table", [QCOW2_REF_L1] = "L1 table",
	[QCOW2_REF_L2] = "L2 table", [QCOW2_REF_CLUSTER] = "data cluster", [QCOW2_REF_BITMAP_DIR] = "bitmap directory",
	[QCOW2_REF_BITMAP_TABLE] = "bitmap table", [QCOW2_REF_BITMAP_BITS] = "bitmap's bits",
};

/* The first thing that a cluster is used for. */
static const char *use_name(uint16_t uses)
{
	if (uses & QCOW2_TALLY_L1_SNAPSHOT)
		uses |= 1u << QCOW2_REF_L1;
	if (uses & QCOW2_TALLY_L2_SNAPSHOT)
		uses |= 1u << QCOW2_REF_L2;
	for (size_t i = 0; i < sizeof(kind_names) / sizeof(kind_names[0]); i++)
		if (uses >> i & 1 && i != QCOW2_REF_CLUSTER)
			return kind_names[i];
	return uses & 1u << QCOW2_REF_CLUSTER ? kind_names[QCOW2_REF_CLUSTER] : "cluster";
}

static int tell(struct check *k, struct vd_finding *f, struct vd_error *e, const char *fmt, ...) VD_PRINTF(4, 5);
static int tell(struct check *k, struct vd_finding *f, struct vd_error *e, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(f->text, sizeof(f->text), fmt, ap);
	va_end(ap);
	f->n = vd_max_u64(f->n, 1);
	return k->c->found(k->c, f, e);
}

static const char *view_name(const struct check *k, uint32_t view)
{
	return view && view <= k->snapshots.n ? k->snapshots.at[view - 1].name : NULL;
}

/* A finding about one entry, with all that is known of it. */
static struct vd_finding about_entry(const struct check *k, const struct vd_qcow2_ref *ref, enum vd_finding_kind kind,
				     bool can_mend)
{
	struct vd_finding f = {
		.kind = kind, .severity = VD_SEVERITY_CORRUPTION, .can_mend = can_mend, .view = view_name(k, ref->view),
		.has_entry = ref->entry_off != VD_HOST_NOWHERE, .entry_off = ref->entry_off,
		.has_host = ref->len, .host_off = ref->host_off,
		.has_guest = ref->guest_off != VD_HOST_NOWHERE, .guest_off = ref->guest_off,
	};

	return f;
}

/* "the L2 entry at 262144, for byte 0 of the disk": `where` is room for it. */
static const char *entry_name(const struct vd_finding *f, const struct vd_qcow2_ref *ref, char where[160])
{
	static const char *const names[] = {
		[QCOW2_REF_BLOCK] = "refcount table entry", [QCOW2_REF_L2] = "L1 entry", [QCOW2_REF_CLUSTER] = "L2 entry",
	};
	const char *name = ref->kind < sizeof(names) / sizeof(names[0]) ? names[ref->kind] : NULL;
	int n = snprintf(where, 160, "the %s at %" PRIu64, name ? name : "entry", ref->entry_off);

	if (f->has_guest)
		n += snprintf(where + n, 160 - n, ", for byte %" PRIu64 " of %s", ref->guest_off, f->view ? "snapshot " : "the disk");
	if (f->has_guest && f->view)
		snprintf(where + n, 160 - n, "%.60s", f->view);
	return where;
}

static int tell_unreadable(struct check *k, uint64_t entry_off, const char *why, struct vd_error *e)
{
	struct vd_finding f = {
		.kind = VD_FOUND_UNREADABLE, .severity = VD_SEVERITY_UNKNOWN, .has_entry = true, .entry_off = entry_off,
	};

	return tell(k, &f, e, "the table that the entry at %" PRIu64 " leads to: %.200s", entry_off, why);
}

/* ---- what nothing but the counts say -------------------------------------------------------------------- */

static int end_run(struct check *k, struct vd_error *e)
{
	struct vd_finding *f = &k->run;
	uint64_t end = f->host_off + f->n * k->s->cluster_size;
	const char *what = f->kind == VD_FOUND_LEAK ? "counted more often than named" :
			   f->kind == VD_FOUND_COUNT_LOW ? "named more often than counted" : "named more often than can be counted";
	int r = 0;

	/* A single one has its words already. */
	if (f->n == 1)
		r = k->c->found(k->c, f, e);
	else if (f->n)
		r = tell(k, f, e, "%" PRIu64 " clusters from %" PRIu64 " to %" PRIu64 ": %s", f->n, f->host_off, end, what);
	f->n = 0;
	return r;
}

static int add_to_run(struct check *k, enum vd_finding_kind kind, uint64_t cluster, uint64_t count, struct vd_error *e)
{
	struct vd_finding *f = &k->run;
	uint64_t off = cluster * k->s->cluster_size, i = cluster - k->tally.first;
	int r = 0;

	if (f->n && f->kind == kind && f->host_off + f->n * k->s->cluster_size == off) {
		f->n++;
		return 0;
	}
	r = end_run(k, e);
	*f = (struct vd_finding){
		.kind = kind, .severity = kind == VD_FOUND_LEAK ? VD_SEVERITY_LEAK : VD_SEVERITY_CORRUPTION,
		.can_mend = kind != VD_FOUND_COUNT_WIDTH, .n = 1, .has_host = true, .host_off = off,
	};
	snprintf(f->text, sizeof(f->text), "the %s at %" PRIu64 ": counted %" PRIu64 " time%s, named %" PRIu32 " time%s",
		 use_name(k->tally.uses[i]), off, count, count == 1 ? "" : "s", k->tally.refs[i], k->tally.refs[i] == 1 ? "" : "s");
	return r;
}

static int compare_count(struct check *k, uint64_t cluster, uint64_t count, struct vd_error *e)
{
	uint64_t refs = k->tally.refs[cluster - k->tally.first];

	if (count > refs)
		return add_to_run(k, VD_FOUND_LEAK, cluster, count, e);
	if (refs > k->count_max)
		return add_to_run(k, VD_FOUND_COUNT_WIDTH, cluster, count, e);
	return count < refs ? add_to_run(k, VD_FOUND_COUNT_LOW, cluster, count, e) : 0;
}

static bool needs_entries(const struct check *k, uint64_t i, uint64_t count)
{
	uint16_t uses = k->tally.uses[i];
	bool copied = vd_qcow2_wants_copied(k->tally.refs[i], count, k->count_max);

	return vd_qcow2_use_clashes(uses) || uses & (copied ? QCOW2_TALLY_NOT_COPIED : QCOW2_TALLY_COPIED);
}

/* A refcount block that the host cannot read: nothing is known of the clusters that it counts, to the last one, *at. */
static int skip_block(struct check *k, uint64_t *at, int result, const struct vd_error *why, struct vd_error *e)
{
	uint64_t block = *at / k->s->block_entries;

	if (result != VD_EIO) {
		if (e)
			*e = *why;
		return result;
	}
	*at = (block + 1) * k->s->block_entries - 1;
	return tell_unreadable(k, atomic_load(&k->s->reft_off) + block * 8, why->message, e);
}

static int compare_window(struct check *k, struct vd_error *e)
{
	struct vd_qcow2_tally *t = &k->tally;
	uint64_t in_file = atomic_load(&k->s->host_end) / k->s->cluster_size, end = vd_min_u64(t->end, in_file), count;
	int r = 0;

	k->wants_entries = t->n_findings;
	for (uint64_t at = t->first; at < end && r == 0; at++) {
		uint64_t i = at - t->first;
		struct vd_error what;

		r = vd_qcow2_tally_refcount(t, at, &count, &what);
		if (r < 0) {
			r = skip_block(k, &at, r, &what, e);
			continue;
		}
		if (!count && !t->refs[i])
			continue;
		k->c->report->image_end_offset = (at + 1) * k->s->cluster_size;
		r = compare_count(k, at, count, e);
		k->wants_entries |= needs_entries(k, i, count);
	}
	return r < 0 ? r : end_run(k, e);
}

/* ---- what entries are to blame for ---------------------------------------------------------------------- */

/* Tables before data, and those first that others depend on. */
static unsigned rank(uint16_t use)
{
	return use & 1u << QCOW2_REF_CLUSTER ? 16 : __builtin_ctz(use);
}

static int tell_clash(struct check *k, const struct vd_qcow2_ref *ref, uint16_t uses, struct vd_error *e)
{
	uint16_t use = vd_qcow2_tally_use(ref), others = uses & QCOW2_TALLY_USES & ~use;
	bool is_first = !others || rank(use) <= rank(others & ~(1u << QCOW2_REF_CLUSTER) ? others & ~(1u << QCOW2_REF_CLUSTER) : others);
	struct vd_finding f = about_entry(k, ref, VD_FOUND_OVERLAP, vd_qcow2_clash_is_mendable(uses));
	char where[160];

	/* Which one is right nobody can know; the more important one is taken to be. */
	if (is_first && !(uses & QCOW2_TALLY_TWICE && ref->kind != QCOW2_REF_CLUSTER))
		return 0;
	return tell(k, &f, e, "%s leads to a place that has another use: %s", entry_name(&f, ref, where), use_name(others ? others : use));
}

static int judge_flag(struct check *k, const struct vd_qcow2_ref *ref, uint64_t cluster, struct vd_error *e)
{
	struct vd_finding f = about_entry(k, ref, VD_FOUND_COPIED, true);
	uint64_t count;
	char where[160];
	bool wanted;
	int r = vd_qcow2_tally_refcount(&k->tally, cluster, &count, e);

	/* That block is told already. */
	if (r == VD_EIO)
		return 0;
	if (r < 0 || ref->view || ref->host_off >= atomic_load(&k->s->host_end))
		return r;
	wanted = vd_qcow2_wants_copied(k->tally.refs[cluster - k->tally.first], count, k->count_max);
	if (wanted == ref->is_copied)
		return 0;
	return tell(k, &f, e, "%s %s the copied flag, but what it leads to has %s", entry_name(&f, ref, where),
		    wanted ? "lacks" : "has", wanted ? "no other owner" : "other owners, too");
}

static int second_ref(struct vd_qcow2_visit *v, const struct vd_qcow2_ref *ref, struct vd_error *e)
{
	struct check *k = v->ctx;
	uint64_t end, at = vd_qcow2_tally_clusters(k->s, ref, &end);
	bool has_flag = ref->kind == QCOW2_REF_L2 || (ref->kind == QCOW2_REF_CLUSTER && !ref->cluster->is_packed);
	int r = 0;

	if (k->result < 0) {
		*e = k->error;
		return k->result;
	}
	if (has_flag && at < end && vd_qcow2_tally_has(&k->tally, at))
		r = judge_flag(k, ref, at, e);
	for (at = vd_max_u64(at, k->tally.first); at < vd_min_u64(end, k->tally.end) && r == 0; at++) {
		uint16_t uses = k->tally.uses[at - k->tally.first];

		/* Once for each entry. */
		if (vd_qcow2_use_clashes(uses))
			return tell_clash(k, ref, uses, e);
	}
	return r;
}

static int tell_faults(struct check *k, const struct vd_qcow2_ref *ref, struct vd_error *e)
{
	struct vd_qcow2_fault faults[QCOW2_FAULTS_MAX];
	struct vd_qcow2_word word, right;
	char where[160];
	size_t n = 0;
	int r = vd_qcow2_word_read(k->s, ref, &word, e);

	if (r == 0)
		n = vd_qcow2_entry_faults(k->s, ref, word, faults, &right);
	for (size_t i = 0; i < n && r == 0; i++) {
		struct vd_finding f = about_entry(k, ref, faults[i].kind,
						  faults[i].has_right && vd_qcow2_table_is_alone(&k->tally, ref->entry_off));

		r = tell(k, &f, e, "%s %s", entry_name(&f, ref, where), faults[i].text);
	}
	return r;
}

static int tell_block(struct check *k, const struct vd_qcow2_ref *ref, struct vd_error *e)
{
	struct vd_finding f = about_entry(k, ref, VD_FOUND_RESERVED, true);
	struct vd_qcow2_word word;
	char where[160];
	uint64_t off;
	int r = vd_qcow2_word_read(k->s, ref, &word, e);

	off = word.first & ~QCOW2_REFT_RESERVED;
	if (r < 0)
		return r;
	if (word.first & QCOW2_REFT_RESERVED)
		return tell(k, &f, e, "%s has reserved bits set", entry_name(&f, ref, where));
	f.kind = off % k->s->cluster_size ? VD_FOUND_UNALIGNED : VD_FOUND_OUTSIDE;
	/* On the header and its like: a clash of uses, which is told as such. */
	if (f.kind == VD_FOUND_OUTSIDE && off < atomic_load(&k->s->host_end))
		return 0;
	return tell(k, &f, e, "%s leads %s", entry_name(&f, ref, where),
		    f.kind == VD_FOUND_OUTSIDE ? "outside the file" : "into the middle of a cluster");
}

/* What the visitor has words for. */
static int tell_broken(struct check *k, const struct vd_qcow2_ref *ref, const struct vd_error *what, struct vd_error *e)
{
	struct vd_finding f = about_entry(k, ref, VD_FOUND_TABLE, false);
	size_t len = strlen(k->s->name);
	const char *text = what->message;

	if (!strncmp(text, k->s->name, len) && text[len] == ':')
		text += len + 2;
	return tell(k, &f, e, "%.300s", text);
}

static void second_finding(void *ctx, enum vd_qcow2_kind kind, uint64_t entry_off, const struct vd_error *what)
{
	struct check *k = ctx;
	const struct vd_qcow2_ref *about = k->visit.about;
	uint64_t at = entry_off == VD_HOST_NOWHERE ? 0 : entry_off / k->s->cluster_size;

	if (k->result < 0 || !vd_qcow2_tally_has(&k->tally, at))
		return;
	if (what->code == VD_EIO)
		k->result = tell_unreadable(k, about->entry_off, what->message, &k->error);
	else if (kind == QCOW2_REF_CLUSTER || kind == QCOW2_REF_L2)
		k->result = tell_faults(k, about, &k->error);
	else if (kind == QCOW2_REF_BLOCK)
		k->result = tell_block(k, about, &k->error);
	else
		k->result = tell_broken(k, about, what, &k->error);
}

static int find_entries(struct check *k, struct vd_error *e)
{
	int r;

	k->visit = (struct vd_qcow2_visit){
		.end = UINT64_MAX, .goes_on = true, .ref = second_ref, .finding = second_finding, .ctx = k,
	};
	r = vd_qcow2_visit(k->s, &k->visit, e);
	if (r == 0 && k->result < 0) {
		r = k->result;
		if (e)
			*e = k->error;
	}
	return r;
}

/* ---- statistics, and data files ------------------------------------------------------------------------- */

/* As qemu counts: of the disk alone; compressed clusters are never in line. */
static void count_use(struct check *k, const struct vd_qcow2_ref *ref)
{
	struct vd_check_report *rep = k->c->report;
	uint64_t table = vd_round_down(ref->entry_off, k->s->cluster_size);

	if (ref->view || ref->kind != QCOW2_REF_CLUSTER)
		return;
	rep->allocated_clusters++;
	if (ref->cluster->is_packed) {
		rep->compressed_clusters++;
		rep->fragmented_clusters++;
		return;
	}
	if (k->table == table && k->next_off && ref->host_off != k->next_off)
		rep->fragmented_clusters++;
	k->table = table;
	k->next_off = ref->host_off + k->s->cluster_size;
}

static int first_ref(void *ctx, const struct vd_qcow2_ref *ref, struct vd_error *e)
{
	(void)e;
	count_use(ctx, ref);
	return 0;
}

static int progress(void *ctx, uint64_t done, uint64_t total, struct vd_error *e)
{
	struct check *k = ctx;

	return k->c->progress(k->c, vd_min_u64(done, total), total, e);
}

/* Nothing counts the clusters of a data file: each has its one owner, and its entry has to say so. */
static int external_ref(struct vd_qcow2_visit *v, const struct vd_qcow2_ref *ref, struct vd_error *e)
{
	struct check *k = v->ctx;
	struct vd_finding f = about_entry(k, ref, VD_FOUND_COPIED, true);
	char where[160];

	count_use(k, ref);
	if (ref->is_copied || ref->kind != QCOW2_REF_CLUSTER)
		return 0;
	return tell(k, &f, e, "%s lacks the copied flag", entry_name(&f, ref, where));
}

static void no_finding(void *ctx, enum vd_qcow2_kind kind, uint64_t entry_off, const struct vd_error *what)
{
	(void)ctx;
	(void)kind;
	(void)entry_off;
	(void)what;
}

static int check_external(struct check *k, struct vd_error *e)
{
	struct vd_qcow2_visit v = {
		.file = k->s->payload_file, .end = UINT64_MAX, .ref = external_ref, .finding = no_finding, .ctx = k,
	};

	return k->s->payload_file ? vd_qcow2_visit(k->s, &v, e) : 0;
}

/* ---- the whole ------------------------------------------------------------------------------------------ */

static int check_header(struct check *k, struct vd_error *e)
{
	struct vd_finding f = {
		.kind = VD_FOUND_CONTRADICTION, .severity = VD_SEVERITY_CORRUPTION, .can_mend = true, .has_entry = true,
		.entry_off = QCOW2_AT_SNAP_OFF,
	};
	int r = 0;

	if (vd_qcow2_snap_off_is_odd(&k->s->h))
		r = tell(k, &f, e, "the header has no snapshots, but a place for their table, inside a cluster");
	f.kind = VD_FOUND_DIRTY;
	f.entry_off = QCOW2_AT_INCOMPAT;
	if (r == 0 && k->s->h.incompat & QCOW2_INCOMPAT_DIRTY)
		r = tell(k, &f, e, "the image was not closed cleanly: its refcounts are not to be trusted");
	f.kind = VD_FOUND_CORRUPT;
	/* It goes with the last fault. */
	f.can_mend = !k->c->report->not_mendable;
	if (r == 0 && k->s->h.incompat & QCOW2_INCOMPAT_CORRUPT)
		r = tell(k, &f, e, "the image is marked corrupt: a program met a fault and stopped writing");
	return r;
}

static int check_windows(struct check *k, struct vd_error *e)
{
	int r = 0;

	for (uint64_t first = 0; first < k->tally.n_clusters && r == 0; first += vd_qcow2_tally_window) {
		r = vd_qcow2_tally_count(&k->tally, first, e);
		if (r == 0)
			r = compare_window(k, e);
		if (r == 0 && k->wants_entries)
			r = find_entries(k, e);
	}
	return r;
}

static void free_check(struct check *k)
{
	vd_qcow2_tally_fini(&k->tally);
	vd_qcow2_snapshots_free(&k->snapshots);
}

int vd_qcow2_check(void *st, struct vd_check *c, struct vd_error *e)
{
	const struct vd_qcow2 *s = st;
	__attribute__((cleanup(free_check))) struct check k = {
		.s = s, .c = c, .count_max = vd_qcow2_count_max(s->h.refcount_order),
		.tally = { .goes_on = true, .each = first_ref, .progress = progress },
	};
	int r;

	k.tally.ctx = &k;
	/* What cannot be read of them the visit tells. */
	(void)!vd_qcow2_snapshots_read(s, &k.snapshots, NULL);
	c->report->has_clusters = true;
	c->report->total_clusters = s->h.size / s->cluster_size + (s->h.size % s->cluster_size != 0);
	r = vd_qcow2_tally_init(&k.tally, s, 0, e);
	if (r == 0)
		r = check_windows(&k, e);
	if (r == 0)
		r = check_external(&k, e);
	if (r == 0)
		r = check_header(&k, e);
	return r < 0 ? r : c->progress(c, atomic_load(&s->host_end), atomic_load(&s->host_end), e);
}
