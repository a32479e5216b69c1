/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Paths in the tree: through mounts and symbolic links, never out of it. What has been gone is kept without links, so
 * that ".." is the folder above in the tree, and the text of a path tells in which mount it is.
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "fail.h"
#include "fsview/backend.h"

#define LINKS_MAX 40            /* as Linux has it */

void fsview_add_mount(struct fsview *v, const char *path, size_t volume)
{
	struct fsview_mount *m = &v->mounts[v->n_mounts];

	if (v->n_mounts == FSVIEW_VOLUMES_MAX || strlen(path) >= sizeof(m->path))
		return;
	m->volume = volume;
	snprintf(m->path, sizeof(m->path), "%s", path);
	snprintf(v->volumes[volume].mounted_at, sizeof(v->volumes[volume].mounted_at), "%s", path[0] ? path : "/");
	v->n_mounts++;
}

const struct fsview_mount *fsview_mount_of(const struct fsview *v, const char *path, const char **below)
{
	const struct fsview_mount *best = NULL;
	size_t best_len = 0;

	for (size_t i = 0; i < v->n_mounts; i++) {
		size_t len = strlen(v->mounts[i].path);

		if (strncmp(path, v->mounts[i].path, len) != 0 || (path[len] && path[len] != '/') || (best && len < best_len))
			continue;
		best = &v->mounts[i];
		best_len = len;
	}
	if (best)
		*below = path + best_len + (path[best_len] == '/');
	return best;
}

struct way {
	struct fsview *v;
	struct fsview_place *p;
	char rest[FSVIEW_PATH_MAX];     /* what is still to go */
	unsigned links;
};

static int too_long(struct vd_error *e)
{
	return fail(e, VD_ENOSPC, "a path, its links resolved, is longer than %d bytes", FSVIEW_PATH_MAX - 1);
}

/* The number of bytes at the beginning of s that are parts by name, up to the first "..", or "." or doubled slash. */
static size_t plain_run(const char *s)
{
	size_t end = 0;

	while (s[end]) {
		size_t from = end + (end > 0), len = strcspn(s + from, "/");

		if (!len || (len <= 2 && !strncmp(s + from, "..", len)))
			break;
		end = from + len;
	}
	return end;
}

/* Takes slashes, "." and ".." from the front of the rest. */
static void take_dots(struct way *w)
{
	char *s = w->rest, *slash;

	for (;;) {
		size_t len;

		s += strspn(s, "/");
		len = strcspn(s, "/");
		if (!len || len > 2 || strncmp(s, "..", len) != 0)
			break;
		slash = len == 2 ? strrchr(w->p->path, '/') : NULL;
		if (slash)
			*slash = '\0';
		s += len;
	}
	memmove(w->rest, s, strlen(s) + 1);
}

static int look(struct way *w, struct fsview_found *f, struct vd_error *e)
{
	const struct fsview_mount *m = fsview_mount_of(w->v, w->p->path, &w->p->below);
	int r;

	if (!m)
		return fail(e, VD_ENOENT, "no file system is mounted there");
	w->p->volume = m->volume;
	r = w->v->backend->lookup(w->v->ctx, m->volume, w->p->below, f, e);
	f->st.volume = (uint32_t)m->volume;
	return r;
}

/* The link ends at `end` of the path so far, of which the rest has still to be gone. */
static int follow_link(struct way *w, size_t end, struct vd_error *e)
{
	char target[FSVIEW_PATH_MAX], rest[FSVIEW_PATH_MAX], *path = w->p->path;
	char *slash;
	int n, r;

	if (++w->links > LINKS_MAX)
		return fail(e, VD_ENOENT, "symbolic links lead round, or over more than %d others", LINKS_MAX);
	n = snprintf(rest, sizeof(rest), "%s/%s", path + end, w->rest);
	path[end] = '\0';
	r = w->v->backend->readlink(w->v->ctx, w->p->volume, w->p->below, target, sizeof(target), e);
	if (r < 0)
		return r;
	if (n < 0 || (size_t)n >= sizeof(rest))
		return too_long(e);
	n = snprintf(w->rest, sizeof(w->rest), "%s/%s", target, rest);
	if (n < 0 || (size_t)n >= sizeof(w->rest))
		return too_long(e);
	slash = target[0] == '/' ? path : strrchr(path, '/');
	if (slash)
		*slash = '\0';
	return 0;
}

/* One stretch of parts by name, or the first link in it. *done: the last part was reached. */
static int step(struct way *w, bool follow, bool *done, struct vd_error *e)
{
	struct fsview_found f = { 0 };
	size_t len = strlen(w->p->path), run = plain_run(w->rest), end;
	int r;

	if (len + 1 + run >= sizeof(w->p->path))
		return too_long(e);
	if (run) {
		w->p->path[len] = '/';
		memcpy(w->p->path + len + 1, w->rest, run);
		w->p->path[len + 1 + run] = '\0';
		memmove(w->rest, w->rest + run, strlen(w->rest + run) + 1);
	}
	r = look(w, &f, e);
	if (r < 0)
		return r;
	end = (size_t)(w->p->below - w->p->path) + f.used;
	if (end > strlen(w->p->path))
		return fail(e, VD_EFAILED, "the reader of files answers what was not asked");
	w->p->st = f.st;
	*done = !w->rest[strspn(w->rest, "/")];
	if (S_ISLNK(f.st.mode) && (w->p->path[end] || !*done || follow)) {
		*done = false;
		return follow_link(w, end, e);
	}
	if (!*done && !S_ISDIR(f.st.mode))
		return fail(e, VD_ENOENT, "a part of the path is no folder");
	return 0;
}

int fsview_follow(struct fsview *v, const char *path, bool follow, struct fsview_place *p, struct vd_error *e)
{
	struct way w = { .v = v, .p = p };
	bool done = false;
	int r = 0;

	*p = (struct fsview_place){ 0 };
	if (path[0] != '/' || strlen(path) >= sizeof(w.rest))
		return path[0] != '/' ? fail(e, VD_EARG, "%s: a path in an image begins with '/'", path) : too_long(e);
	snprintf(w.rest, sizeof(w.rest), "%s", path);
	while (r == 0 && !done) {
		take_dots(&w);
		r = step(&w, follow, &done, e);
	}
	return r;
}

int fsview_resolve(struct fsview *v, const char *path, char *buf, size_t size, struct vd_error *e)
{
	struct fsview_place p;
	const char *slash = strrchr(path, '/');
	char folder[FSVIEW_PATH_MAX];
	int n, r = fsview_follow(v, path, true, &p, e);

	if (r == VD_ENOENT && slash && slash[1]) {
		n = snprintf(folder, sizeof(folder), "%.*s/", (int)(slash - path), path);
		r = n < 0 || (size_t)n >= sizeof(folder) ? too_long(e) : fsview_follow(v, folder, true, &p, e);
		n = snprintf(buf, size, "%s/%s", p.path, slash + 1);
	} else {
		n = snprintf(buf, size, "%s", p.path[0] ? p.path : "/");
	}
	return r == 0 && (n < 0 || (size_t)n >= size) ? fail(e, VD_ERANGE, "%s: leads to a longer path", path) : r;
}
