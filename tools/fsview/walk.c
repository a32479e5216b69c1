/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Many files at once: folders, whole trees, patterns. Memory grows with depth, never with how much a folder holds. */
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fail.h"
#include "fsview/backend.h"
#include "signals.h"

bool fsview_batch_add(struct fsview_batch *b, const char *name, size_t len, const struct fsview_stat *st)
{
	if (b->n == FSVIEW_BATCH || len + 1 > sizeof(b->names) - b->used)
		return false;
	memcpy(b->names + b->used, name, len);
	b->names[b->used + len] = '\0';
	b->at[b->n++] = (struct fsview_entry){ b->names + b->used, *st };
	b->used += len + 1;
	return true;
}

/* Of what is mounted on the entry, its root. */
static void look_through(struct fsview *v, const char *path, struct fsview_stat *st)
{
	struct fsview_found f;
	struct vd_error ignored;
	const char *below;
	const struct fsview_mount *m = fsview_mount_of(v, path, &below);

	if (!m || *below || v->backend->lookup(v->ctx, m->volume, "", &f, &ignored) < 0)
		return;
	*st = f.st;
	st->volume = (uint32_t)m->volume;
}

/* Folders that were entered: a damaged or hostile file system can have one in several places, or in itself. */
struct seen {
	uint64_t *at;                   /* 0: free */
	size_t n, room;                 /* a power of two */
};
#define SEEN_MAX ((size_t)4 << 20)

static size_t seen_slot(const uint64_t *at, size_t room, uint64_t key)
{
	size_t i = (size_t)(key * 0x9e3779b97f4a7c15ULL >> 20) & (room - 1);

	while (at[i] && at[i] != key)
		i = (i + 1) & (room - 1);
	return i;
}

static int grow_seen(struct seen *s, struct vd_error *e)
{
	size_t room = s->room ? s->room * 2 : 1024;
	uint64_t *more = calloc(room, sizeof(*more));

	if (!more)
		return fail(e, VD_ENOMEM, "not enough memory to go through folders");
	for (size_t i = 0; i < s->room; i++)
		if (s->at[i])
			more[seen_slot(more, room, s->at[i])] = s->at[i];
	free(s->at);
	s->at = more;
	s->room = room;
	return 0;
}

/* 1: it is new. 0: it was there. */
static int see(struct seen *s, const struct fsview_stat *st, struct vd_error *e)
{
	uint64_t key = (uint64_t)(st->volume + 1) << 54 ^ st->ino;
	size_t slot;

	if (2 * s->n >= s->room && grow_seen(s, e) < 0)
		return VD_ENOMEM;
	slot = seen_slot(s->at, s->room, key);
	if (s->at[slot])
		return 0;
	s->at[slot] = key;
	s->n++;
	return 1;
}

/* A folder that is being gone through. */
struct level {
	struct level *up;
	uint64_t cursor;
	size_t at, path_len;
	struct fsview_batch batch;
};
struct walk {
	struct fsview *v;
	char path[FSVIEW_PATH_MAX];
	size_t path_len;
	struct level *level;
	unsigned depth;
	struct seen seen;
	bool been[FSVIEW_VOLUMES_MAX];  /* in mounts */
	bool flat;                      /* one folder alone */
	int (*each)(void *ctx, const char *path, const struct fsview_stat *st);
	int (*each_entry)(void *ctx, const struct fsview_entry *entry);
	void *ctx;
};

static int push(struct walk *w, struct vd_error *e)
{
	struct level *l = malloc(sizeof(*l));

	if (!l)
		return fail(e, VD_ENOMEM, "not enough memory to go through folders");
	l->up = w->level;
	l->cursor = 0;
	l->at = l->batch.n = l->batch.used = 0;
	l->path_len = w->path_len;
	w->level = l;
	w->depth++;
	return 0;
}

static void pop(struct walk *w)
{
	struct level *l = w->level;

	w->level = l->up;
	w->depth--;
	free(l);
}

static const char *shown(const struct walk *w)
{
	return w->path[0] ? w->path : "/";
}

/* The next entries of the folder. False: there are none, or none that can be read. */
static int refill(struct walk *w, bool *more, struct vd_error *e)
{
	struct level *l = w->level;
	const char *below;
	const struct fsview_mount *m;
	int r = 0;

	w->path_len = l->path_len;
	w->path[w->path_len] = '\0';
	l->at = 0;
	l->batch.n = 0;
	m = fsview_mount_of(w->v, w->path, &below);
	while (r == 0 && m && !l->batch.n && l->cursor != FSVIEW_CURSOR_END) {
		l->batch.used = 0;
		r = w->v->backend->readdir(w->v->ctx, m->volume, below, &l->cursor, &l->batch, e);
		for (size_t i = 0; i < l->batch.n; i++)
			l->batch.at[i].st.volume = (uint32_t)m->volume;
		if (r == 0)
			r = signals_check(e);
	}
	*more = r == 0 && l->batch.n;
	if (r < 0)
		fsview_failed(w->v, shown(w), r, e);
	/* Of one folder the caller has asked; of a tree the rest is still to be seen. */
	return r == VD_ENOMEM || r == VD_ECANCELLED || w->flat ? r : 0;
}

static int enter(struct walk *w, const struct fsview_stat *st, struct vd_error *e)
{
	int r = w->flat ? 1 : see(&w->seen, st, e);

	if (r < 0)
		return r;
	if (r == 0 || w->seen.n > SEEN_MAX) {
		fsview_fall_short(w->v, r ? FSVIEW_LIMIT : FSVIEW_DAMAGED, shown(w), r ? "there are more folders than are gone through" :
				  "a folder is in several places, and is looked at in one");
		return 0;
	}
	if (w->depth >= FSVIEW_DEPTH_MAX) {
		fsview_fall_short(w->v, FSVIEW_LIMIT, w->path, "folders are nested deeper than %d", FSVIEW_DEPTH_MAX);
		return 0;
	}
	for (size_t i = 0; i < w->v->n_mounts; i++)
		if (!strcmp(w->v->mounts[i].path, w->path))
			w->been[i] = true;
	return push(w, e);
}

static int visit(struct walk *w, const struct fsview_entry *entry, struct vd_error *e)
{
	size_t len = strlen(entry->name);
	struct fsview_entry shown_entry = *entry;
	int r;

	w->path_len = w->level->path_len;
	if (w->path_len + 1 + len >= sizeof(w->path)) {
		w->path[w->path_len] = '\0';
		fsview_fall_short(w->v, FSVIEW_LIMIT, w->path, "paths below it are longer than %d bytes", FSVIEW_PATH_MAX - 1);
		return 0;
	}
	w->path[w->path_len] = '/';
	memcpy(w->path + w->path_len + 1, entry->name, len + 1);
	w->path_len += 1 + len;
	if (S_ISDIR(entry->st.mode))
		look_through(w->v, w->path, &shown_entry.st);
	if (w->flat)
		return w->each_entry(w->ctx, &shown_entry);
	r = w->each(w->ctx, w->path, &shown_entry.st);
	if (r == FSVIEW_SKIP)
		return 0;
	return r == 0 && S_ISDIR(shown_entry.st.mode) ? enter(w, &shown_entry.st, e) : r;
}

static int go(struct walk *w, const struct fsview_stat *st, struct vd_error *e)
{
	int r = enter(w, st, e);
	bool more;

	while (r == 0 && w->level) {
		struct level *l = w->level;

		if (l->at < l->batch.n) {
			r = visit(w, &l->batch.at[l->at++], e);
			continue;
		}
		r = refill(w, &more, e);
		if (r == 0 && !more)
			pop(w);
	}
	while (w->level)
		pop(w);
	return r;
}

int fsview_readdir(struct fsview *v, const char *path, int (*each)(void *ctx, const struct fsview_entry *entry), void *ctx,
		   struct vd_error *e)
{
	struct walk w = { .v = v, .flat = true, .each_entry = each, .ctx = ctx };
	struct fsview_place p;
	int r = fsview_failed(v, path, fsview_follow(v, path, true, &p, e), e);

	if (r < 0)
		return r;
	if (!S_ISDIR(p.st.mode))
		return fail(e, VD_ENOENT, "%s: is no folder", path);
	w.path_len = (size_t)snprintf(w.path, sizeof(w.path), "%s", p.path);
	return go(&w, &p.st, e);
}

/* Mounted below the path, at places that the walk did not come by: the folder is missing there, or there never was one. */
static int go_unseen(struct walk *w, const char *top, struct vd_error *e)
{
	size_t len = strlen(top);
	struct fsview_found f;
	int r = 0;

	for (size_t i = 0; i < w->v->n_mounts && r == 0; i++) {
		const struct fsview_mount *m = &w->v->mounts[i];

		if (w->been[i] || strncmp(m->path, top, len) != 0 || m->path[len] != '/')
			continue;
		w->path_len = (size_t)snprintf(w->path, sizeof(w->path), "%s", m->path);
		r = w->v->backend->lookup(w->v->ctx, m->volume, "", &f, e);
		f.st.volume = (uint32_t)m->volume;
		r = r < 0 ? (fsview_failed(w->v, w->path, r, e), 0) : go(w, &f.st, e);
	}
	return r;
}

int fsview_walk(struct fsview *v, const char *path, int (*each)(void *ctx, const char *path, const struct fsview_stat *st),
		void *ctx, struct vd_error *e)
{
	struct walk w = { .v = v, .each = each, .ctx = ctx };
	struct fsview_place p;
	int r = fsview_failed(v, path, fsview_follow(v, path, true, &p, e), e);

	if (r < 0 && !(r == VD_ENOENT && !strcmp(path, "/")))
		return r;
	if (r == 0 && !S_ISDIR(p.st.mode))
		return fail(e, VD_ENOENT, "%s: is no folder", path);
	w.path_len = (size_t)snprintf(w.path, sizeof(w.path), "%s", p.path);
	if (r == 0)
		r = go(&w, &p.st, e);
	else
		r = 0;
	if (r == 0)
		r = go_unseen(&w, p.path, e);
	free(w.seen.at);
	return r;
}

/* ---- patterns --------------------------------------------------------------------------------------------- */

struct names {
	char **at;
	size_t n, room;
};
struct glob {
	struct fsview *v;
	size_t max, n;
	bool is_full;
	int (*each)(void *ctx, const char *path);
	void *ctx;
};

static int match(struct glob *g, const char *base, const char *pattern, unsigned depth, struct vd_error *e);

static bool has_magic(const char *part, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (strchr("*?[\\", part[i]))
			return true;
	return false;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

struct collect {
	struct glob *g;
	const char *part;
	bool folders_only;
	struct names names;
};

static int collect(void *ctx, const struct fsview_entry *entry)
{
	struct collect *c = ctx;
	struct names *n = &c->names;

	if (c->part && fnmatch(c->part, entry->name, FNM_PERIOD) != 0)
		return 0;
	if (c->folders_only && !S_ISDIR(entry->st.mode))
		return 0;
	if (n->n >= c->g->max) {
		c->g->is_full = true;
		return 0;
	}
	if (n->n == n->room) {
		char **more = realloc(n->at, (n->room * 2 + 16) * sizeof(*more));

		if (!more)
			return VD_ENOMEM;
		n->at = more;
		n->room = n->room * 2 + 16;
	}
	n->at[n->n] = strdup(entry->name);
	return n->at[n->n++] ? 0 : VD_ENOMEM;
}

static void free_names(struct names *n)
{
	for (size_t i = 0; i < n->n; i++)
		free(n->at[i]);
	free(n->at);
}

static int found(struct glob *g, const char *path, struct vd_error *e)
{
	struct fsview_stat st;

	if (fsview_lstat(g->v, path, &st, e) < 0)
		return 0;
	if (g->n == g->max) {
		g->is_full = true;
		return 0;
	}
	g->n++;
	return g->each(g->ctx, path);
}

/* The pattern's first part stood for `name` in `base`: on with the rest of it. */
static int go_on(struct glob *g, const char *base, const char *name, const char *rest, unsigned depth, struct vd_error *e)
{
	char path[FSVIEW_PATH_MAX];
	int n = snprintf(path, sizeof(path), "%s/%s", base, name);

	if (n < 0 || (size_t)n >= sizeof(path))
		return 0;
	return *rest ? match(g, path, rest, depth + 1, e) : found(g, path, e);
}

static int match_magic(struct glob *g, const char *base, const char *part, const char *rest, unsigned depth, struct vd_error *e)
{
	bool any_depth = !strcmp(part, "**");
	struct collect c = { .g = g, .part = any_depth ? NULL : part, .folders_only = any_depth };
	/* "**" alone at the end is everything below. */
	const char *then = any_depth && !*rest ? "*" : rest;
	int r = fsview_readdir(g->v, base[0] ? base : "/", collect, &c, e);

	if (r == VD_ENOMEM)
		fail(e, r, "not enough memory for what a pattern matches");
	else if (r < 0 && r != VD_ECANCELLED)
		r = 0;
	if (c.names.n)
		qsort(c.names.at, c.names.n, sizeof(*c.names.at), by_name);
	if (r == 0 && any_depth)
		r = match(g, base, then, depth + 1, e);
	for (size_t i = 0; i < c.names.n && r == 0; i++) {
		char again[FSVIEW_PATH_MAX];

		snprintf(again, sizeof(again), "**/%s", then);
		r = go_on(g, base, c.names.at[i], any_depth ? again : rest, depth, e);
	}
	free_names(&c.names);
	return r;
}

static int match(struct glob *g, const char *base, const char *pattern, unsigned depth, struct vd_error *e)
{
	size_t len = strcspn(pattern, "/");
	char part[FSVIEW_NAME_MAX];
	const char *rest = pattern + len + strspn(pattern + len, "/");

	if (len >= sizeof(part) || depth > FSVIEW_DEPTH_MAX) {
		fsview_fall_short(g->v, FSVIEW_LIMIT, base, "a pattern leads deeper than %d folders", FSVIEW_DEPTH_MAX);
		return 0;
	}
	snprintf(part, sizeof(part), "%.*s", (int)len, pattern);
	return has_magic(part, len) ? match_magic(g, base, part, rest, depth, e) : go_on(g, base, part, rest, depth, e);
}

int fsview_glob(struct fsview *v, const char *pattern, size_t max, int (*each)(void *ctx, const char *path), void *ctx,
		struct vd_error *e)
{
	struct glob g = { .v = v, .max = max, .each = each, .ctx = ctx };
	int r;

	if (pattern[0] != '/' || strlen(pattern) >= FSVIEW_NAME_MAX)
		return fail(e, VD_EARG, "%s: a pattern begins with '/' and has less than %d bytes", pattern, FSVIEW_NAME_MAX);
	r = match(&g, "", pattern + strspn(pattern, "/"), 0, e);
	if (g.is_full)
		fsview_fall_short(v, FSVIEW_LIMIT, pattern, "matches more than %zu files: the rest is not looked at", max);
	return r;
}
