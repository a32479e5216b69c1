/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Walks from snapshots to packs, each tree once. */
#include "backup/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/snapshot.h"
#include "backup/tree.h"
#include "fail.h"
#include "signals.h"
#include "ui.h"

#define DEPTH_MAX 256           /* of folders: no path of a file is longer */

struct pack {
	uint8_t id[ID_SIZE];
	uint64_t size;
	bool is_named;
};

struct checking {
	struct repo *repo;
	int (*found)(void *ctx, const struct check_fault *f);
	void *ctx;
	const struct vd_job *job;
	struct check_report *report;
	struct pack *packs;
	size_t n_packs, room;
	struct index *seen;             /* trees that were walked */
	uint64_t n_trees;
	const char *snapshot;           /* that is walked */
	int result;
};

const char *check_fault_name(enum check_kind kind)
{
	static const char *const names[] = {
#define CHECK_NAME(sym, name) [sym] = name,
		CHECK_FAULT_TABLE(CHECK_NAME)
#undef CHECK_NAME
	};

	return names[kind];
}

static void VD_PRINTF(3, 4) tell(struct checking *k, enum check_kind kind, const char *fmt, ...)
{
	struct check_fault f = { .kind = kind, .is_harmless = kind == CHECK_UNNAMED };
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(f.text, sizeof(f.text), fmt, ap);
	va_end(ap);
	k->report->faults += !f.is_harmless;
	if (!k->result)
		k->result = k->found(k->ctx, &f);
}

/* ---- packs ---------------------------------------------------------------------------------------------- */

static int add_pack(void *ctx, const char *name, uint64_t size)
{
	struct checking *k = ctx;

	if (k->n_packs == k->room) {
		k->room = k->room ? 2 * k->room : 256;
		k->packs = reallocarray(k->packs, k->room, sizeof(*k->packs));
		if (!k->packs)
			ui_out_of_memory();
	}
	k->packs[k->n_packs] = (struct pack){ .size = size };
	if (id_read(name, k->packs[k->n_packs].id))
		k->n_packs++;
	k->report->stored += size;
	return 0;
}

static int by_id(const void *a, const void *b)
{
	return memcmp(((const struct pack *)a)->id, ((const struct pack *)b)->id, ID_SIZE);
}

static struct pack *find_pack(struct checking *k, const uint8_t id[ID_SIZE])
{
	struct pack key;

	memcpy(key.id, id, ID_SIZE);
	return k->n_packs ? bsearch(&key, k->packs, k->n_packs, sizeof(key), by_id) : NULL;
}

/* Where the blobs that the index knows of each pack end. */
struct ends {
	uint64_t *at;
};

static int note_end(void *ctx, size_t pack, const struct blob *b)
{
	struct ends *ends = ctx;
	uint64_t end = (uint64_t)b->off + b->len;

	if (end > ends->at[pack])
		ends->at[pack] = end;
	return 0;
}

static int check_packs(struct checking *k, struct vd_error *e)
{
	struct index *x = repo_index(k->repo);
	struct ends ends = { calloc(index_packs(x) + 1, sizeof(*ends.at)) };
	char hex[ID_HEX_SIZE];
	int r = store_list(repo_store(k->repo), STORE_PACK, add_pack, k, e);

	if (!ends.at)
		ui_out_of_memory();
	if (k->n_packs)
		qsort(k->packs, k->n_packs, sizeof(*k->packs), by_id);
	index_each(x, note_end, &ends);
	for (size_t i = 0; r == 0 && i < index_packs(x); i++) {
		struct pack *p = find_pack(k, index_pack(x, i));

		id_show(index_pack(x, i), hex);
		if (p)
			p->is_named = true;
		if (!p && ends.at[i])
			tell(k, CHECK_PACK, "pack %.8s is not there", hex);
		else if (p && p->size < ends.at[i] + SEAL_OVERHEAD + 4)
			tell(k, CHECK_SHORT, "pack %.8s has %llu bytes and should have more than %llu", hex, (unsigned long long)p->size,
			     (unsigned long long)ends.at[i]);
	}
	for (size_t i = 0; r == 0 && i < k->n_packs; i++) {
		id_show(k->packs[i].id, hex);
		if (!k->packs[i].is_named)
			tell(k, CHECK_UNNAMED, "pack %.8s is in no index: restic prune takes it away", hex);
	}
	k->report->packs = k->n_packs;
	k->report->blobs = index_count(x);
	free(ends.at);
	return r;
}

/* ---- trees ---------------------------------------------------------------------------------------------- */

static void check_content(struct checking *k, const struct node *n)
{
	struct index *x = repo_index(k->repo);
	uint8_t pack[ID_SIZE];
	struct blob b;
	size_t missing = 0;

	for (size_t i = 0; i < n->n_content; i++)
		missing += !index_find(x, BLOB_DATA, n->content[i], &b, pack);
	if (missing)
		tell(k, CHECK_BLOB, "snapshot %.8s: %zu of %zu chunks of %s are in no index", k->snapshot, missing, n->n_content, n->name);
}

static int check_tree(struct checking *k, const uint8_t id[ID_SIZE], unsigned depth, struct vd_error *e)
{
	struct vd_progress p = { "check", ++k->n_trees, k->n_trees };
	struct tree t;
	struct vd_error why;
	int r = signals_check(e);

	if (r < 0 || !index_claim(k->seen, BLOB_TREE, id))
		return r;
	if (k->job->progress)
		k->job->progress(k->job->ctx, &p);
	if (depth == DEPTH_MAX || tree_load(k->repo, id, &t, &why) < 0) {
		tell(k, CHECK_TREE, "snapshot %.8s: %s", k->snapshot, depth == DEPTH_MAX ? "folders are too deep" : why.message);
		return k->result;
	}
	for (size_t i = 0; i < t.n && r == 0 && !k->result; i++) {
		if (t.at[i].type == NODE_FOLDER)
			r = check_tree(k, t.at[i].subtree, depth + 1, e);
		else if (t.at[i].type == NODE_FILE)
			check_content(k, &t.at[i]);
	}
	tree_free(&t);
	return r;
}

static void bad_snapshot(void *ctx, const char *name, const struct vd_error *why)
{
	(void)name;
	tell(ctx, CHECK_SNAPSHOT, "%s", why->message);
}

int check_run(struct repo *r, int (*found)(void *ctx, const struct check_fault *f), void *ctx, const struct vd_job *job, struct check_report *report,
	      struct vd_error *e)
{
	struct checking k = { .repo = r, .found = found, .ctx = ctx, .job = job, .report = report };
	struct snapshots all = { 0 };
	int c = repo_load_index(r, e);

	*report = (struct check_report){ 0 };
	if (c == 0)
		c = index_new(&k.seen, e);
	if (c == 0)
		c = check_packs(&k, e);
	if (c == 0)
		c = snapshots_load(r, bad_snapshot, &k, &all, e);
	for (size_t i = 0; i < all.n && c == 0 && !k.result; i++) {
		k.snapshot = all.at[i].name;
		c = check_tree(&k, all.at[i].tree, 0, e);
	}
	report->snapshots = all.n;
	snapshots_free(&all);
	index_free(k.seen);
	free(k.packs);
	return c ? c : k.result;
}
