/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What an implementation of the view has to answer: about one volume at a time, by paths in it. Links, mounts, walks and the list
 * of shortfalls are the view's own. A path here has no "." and no "..", no slash at either end, and is "" for the root.
 */
#ifndef TOOLS_FSVIEW_BACKEND_H
#define TOOLS_FSVIEW_BACKEND_H

#include "fsview/fsview.h"

#define FSVIEW_BATCH 512
#define FSVIEW_BATCH_NAMES 32768
#define FSVIEW_CURSOR_END UINT64_MAX

/* Entries of a folder, from a cursor on. */
struct fsview_batch {
	size_t n, used;
	struct fsview_entry at[FSVIEW_BATCH];
	char names[FSVIEW_BATCH_NAMES];
};
/* False: no room, the next batch begins with this one. `name` is copied. */
bool fsview_batch_add(struct fsview_batch *b, const char *name, size_t len, const struct fsview_stat *st);

/* As far as a path could be gone without following links: all of it, or the first link in it, which ends at `used`. */
struct fsview_found {
	struct fsview_stat st;
	size_t used;
};

/* Any of them may be NULL but the first four: VD_EUNSUPPORTED. Negative codes, or what a callback returned. */
struct fsview_backend {
	int (*lookup)(void *ctx, size_t volume, const char *path, struct fsview_found *f, struct vd_error *e);
	int (*readlink)(void *ctx, size_t volume, const char *path, char *buf, size_t size, struct vd_error *e);
	/* *cursor 0: from the start; FSVIEW_CURSOR_END afterwards: that was all. An empty batch in between is allowed. */
	int (*readdir)(void *ctx, size_t volume, const char *path, uint64_t *cursor, struct fsview_batch *b, struct vd_error *e);
	int (*read)(void *ctx, size_t volume, const char *path, void *buf, size_t len, uint64_t off, size_t *got, struct vd_error *e);
	int (*xattr)(void *ctx, size_t volume, const char *path, const char *name, void *buf, size_t size, size_t *got,
		     struct vd_error *e);
	int (*blocks)(void *ctx, size_t volume, const char *path, int (*each)(void *, const struct fsview_block *), void *each_ctx,
		      struct vd_error *e);
	int (*free_ranges)(void *ctx, size_t volume, int (*each)(void *, const struct fsview_range *), void *each_ctx, struct vd_error *e);
	int (*deleted)(void *ctx, size_t volume, int (*each)(void *, const struct fsview_deleted *), void *each_ctx, struct vd_error *e);
	int (*volume_read)(void *ctx, size_t volume, void *buf, size_t len, uint64_t off, struct vd_error *e);
	int (*volume_place)(void *ctx, size_t volume, struct fsview_range where, int (*each)(void *, const struct fsview_range *),
			    void *each_ctx, struct vd_error *e);
	int (*gaps)(void *ctx, int (*each)(void *, const struct fsview_range *), void *each_ctx, struct vd_error *e);
	void (*close)(void *ctx);
};

struct fsview_mount {
	char path[256];                 /* "" for the root, else "/boot" */
	size_t volume;
};
#define FSVIEW_SHORTFALLS_MAX 256
#define FSVIEW_NOTES_MAX 64
struct fsview {
	const struct fsview_backend *backend;
	void *ctx;
	const char *table;
	size_t n_volumes, n_mounts;
	struct fsview_volume *volumes;  /* FSVIEW_VOLUMES_MAX */
	struct fsview_mount mounts[FSVIEW_VOLUMES_MAX];
	size_t n_shortfalls, n_notes;
	uint64_t total_shortfalls;
	struct fsview_shortfall shortfalls[FSVIEW_SHORTFALLS_MAX];
	char notes[FSVIEW_NOTES_MAX][320];
};

/* A view without volumes; fsview_close() frees it, and closes `ctx` by the backend. */
int fsview_new(const struct fsview_backend *backend, void *ctx, struct fsview **out, struct vd_error *e);
void fsview_add_note(struct fsview *v, const char *fmt, ...) VD_PRINTF(2, 3);
/* Records a failure as a shortfall, where it is one. Returns the code. */
int fsview_failed(struct fsview *v, const char *where, int code, const struct vd_error *e);

/* The volume whose tree has the resolved path, and what the path is in it; NULL: none. */
const struct fsview_mount *fsview_mount_of(const struct fsview *v, const char *path, const char **below);
void fsview_add_mount(struct fsview *v, const char *path, size_t volume);
/* The path with all its links resolved, but the last one's if !follow, and what is there. */
struct fsview_place {
	char path[FSVIEW_PATH_MAX];     /* in the tree; "" for the root */
	const char *below;              /* in its volume */
	size_t volume;
	struct fsview_stat st;
};
int fsview_follow(struct fsview *v, const char *path, bool follow, struct fsview_place *p, struct vd_error *e);

/* Finds the system's volume and mounts all others (mounts.c). */
int fsview_mount_all(struct fsview *v, struct vd_error *e);

#endif
