/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What all levels have alike: telling of faults, and which snapshots they hit. */
#include "backup/verify.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/snapshot.h"
#include "backup/tree.h"
#include "signals.h"
#include "ui.h"

#define DEPTH_MAX 256

static const struct {
	const char *name;
	bool is_harmless;
} kinds[] = {
#define VERIFY_ROW(sym, name, harmless) [sym] = { name, harmless },
	VERIFY_FAULT_TABLE(VERIFY_ROW)
#undef VERIFY_ROW
};

const char *verify_fault_name(enum verify_kind kind)
{
	return kinds[kind].name;
}

void verify_begin(struct verify *v)
{
	struct vd_error e;

	pthread_mutex_init(&v->mutex, NULL);
	if (index_new(&v->bad, &e) < 0 || index_new(&v->bad_whole, &e) < 0)
		ui_out_of_memory();
}

void verify_end(struct verify *v)
{
	index_free(v->bad);
	index_free(v->bad_whole);
	free(v->bad_packs);
	pthread_mutex_destroy(&v->mutex);
}

void verify_tell(struct verify *v, enum verify_kind kind, const char *object, const char *fmt, ...)
{
	struct verify_fault f = { .kind = kind, .is_harmless = kinds[kind].is_harmless };
	va_list ap;

	snprintf(f.object, sizeof(f.object), "%s", object);
	va_start(ap, fmt);
	vsnprintf(f.text, sizeof(f.text), fmt, ap);
	va_end(ap);
	pthread_mutex_lock(&v->mutex);
	*(f.is_harmless ? &v->harmless : &v->faults) += 1;
	v->found(v->ctx, &f);
	pthread_mutex_unlock(&v->mutex);
}

static bool has(struct index *x, enum blob_type type, const uint8_t id[ID_SIZE])
{
	uint8_t pack[ID_SIZE];
	struct blob b;

	return index_find(x, type, id, &b, pack);
}

static void remember(struct index *x, enum blob_type type, const uint8_t id[ID_SIZE])
{
	struct blob b = { .type = type, .len = 1 };

	memcpy(b.id, id, ID_SIZE);
	index_add(x, id, &b, 1);
}

void verify_note_bad(struct verify *v, const uint8_t pack[ID_SIZE], bool is_whole)
{
	size_t i = 0;

	pthread_mutex_lock(&v->mutex);
	while (i < v->n_bad_packs && memcmp(v->bad_packs[i].id, pack, ID_SIZE) != 0)
		i++;
	if (i == v->n_bad_packs) {
		v->bad_packs = reallocarray(v->bad_packs, ++v->n_bad_packs, sizeof(*v->bad_packs));
		if (!v->bad_packs)
			ui_out_of_memory();
		v->bad_packs[i].is_whole = false;
		memcpy(v->bad_packs[i].id, pack, ID_SIZE);
	}
	v->bad_packs[i].is_whole |= is_whole;
	pthread_mutex_unlock(&v->mutex);
	if (is_whole)
		remember(v->bad_whole, BLOB_DATA, pack);
}

/* ---- which snapshots are hit ----------------------------------------------------------------------------- */

struct hits {
	struct verify *v;
	struct index *clean, *dirty;    /* trees that were walked */
};

static bool is_bad(struct hits *h, enum blob_type type, const uint8_t id[ID_SIZE])
{
	uint8_t pack[ID_SIZE];
	struct blob b;

	if (has(h->v->bad, type, id) || !index_find(repo_index(h->v->repo), type, id, &b, pack))
		return true;
	return has(h->v->bad_whole, BLOB_DATA, pack);
}

static bool is_hit(struct hits *h, const uint8_t id[ID_SIZE], unsigned depth);

static bool is_node_hit(struct hits *h, const struct node *n, unsigned depth)
{
	if (n->type == NODE_FOLDER)
		return is_hit(h, n->subtree, depth + 1);
	for (size_t i = 0; n->type == NODE_FILE && i < n->n_content; i++)
		if (is_bad(h, BLOB_DATA, n->content[i]))
			return true;
	return false;
}

static bool is_hit(struct hits *h, const uint8_t id[ID_SIZE], unsigned depth)
{
	struct vd_error why;
	struct tree t;
	bool hit = false;

	if (has(h->clean, BLOB_TREE, id))
		return false;
	if (has(h->dirty, BLOB_TREE, id) || depth == DEPTH_MAX || is_bad(h, BLOB_TREE, id) || tree_load(h->v->repo, id, &t, &why) < 0)
		return true;
	for (size_t i = 0; i < t.n && !hit; i++)
		hit = is_node_hit(h, &t.at[i], depth);
	tree_free(&t);
	remember(hit ? h->dirty : h->clean, BLOB_TREE, id);
	return hit;
}

static void pass_over(void *ctx, const char *name, const struct vd_error *why)
{
	verify_tell(ctx, VERIFY_HIT, name, "%s", why->message);
}

static void tell_hit(struct verify *v, const struct snapshot *s)
{
	char when[40];

	time_show(s->sec, s->nsec, when);
	verify_tell(v, VERIFY_HIT, s->name, "snapshot %.8s of %.19s, %s%s, cannot be restored whole", s->name, when, s->n_paths ? s->paths[0] : "",
		    s->n_paths > 1 ? " and others" : "");
}

int verify_hits(struct verify *v, struct vd_error *e)
{
	struct hits h = { .v = v };
	struct snapshots all = { 0 };
	int r = index_new(&h.clean, e);

	if (r == 0)
		r = index_new(&h.dirty, e);
	if (r == 0)
		r = snapshots_load(v->repo, pass_over, v, &all, e);
	for (size_t i = 0; r == 0 && i < all.n; i++) {
		r = signals_check(e);
		if (r == 0 && is_hit(&h, all.at[i].tree, 0))
			tell_hit(v, &all.at[i]);
	}
	snapshots_free(&all);
	index_free(h.clean);
	index_free(h.dirty);
	return r;
}
