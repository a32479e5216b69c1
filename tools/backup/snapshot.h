/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Snapshot objects: when, of what, by whom, and the tree that holds it. */
#ifndef TOOLS_BACKUP_SNAPSHOT_H
#define TOOLS_BACKUP_SNAPSHOT_H

#include "backup/repo.h"

#define SNAPSHOT_PATHS_MAX 64
#define SNAPSHOT_TAGS_MAX 64

struct snapshot {
	char name[STORE_NAME_SIZE];     /* the object's: its id */
	uint8_t tree[ID_SIZE];
	bool has_parent;
	char parent[STORE_NAME_SIZE];
	int64_t sec;                    /* since 1970, UTC */
	uint32_t nsec;
	char *host, *user;              /* never NULL */
	char *paths[SNAPSHOT_PATHS_MAX], *tags[SNAPSHOT_TAGS_MAX];
	size_t n_paths, n_tags;
	uint32_t uid, gid;
};
void snapshot_free(struct snapshot *s);

/* What its text says. VD_ECORRUPT: it breaks a rule; then there is nothing to free. */
int snapshot_read(const char *name, const void *json, size_t n, struct snapshot *out, struct vd_error *e);
/* Reads one. VD_ECORRUPT: it breaks a rule. */
int snapshot_load(struct repo *r, const char *name, struct snapshot *out, struct vd_error *e);
/* Commits: after this it is there. Fills s->name. */
int snapshot_save(struct repo *r, struct snapshot *s, struct vd_error *e);

/* All that can be read, newest first; what cannot be is told to `bad` (NULL: is an error), and passed over. */
struct snapshots {
	struct snapshot *at;
	size_t n;
};
int snapshots_load(struct repo *r, void (*bad)(void *ctx, const char *name, const struct vd_error *why), void *ctx, struct snapshots *out,
		   struct vd_error *e);
void snapshots_free(struct snapshots *all);
/* By "latest", or the first digits of an id. VD_ENOENT, VD_EARG: none, or several. */
int snapshots_find(const struct snapshots *all, const char *word, const struct snapshot **out, struct vd_error *e);

/* RFC 3339, in UTC. */
void time_show(int64_t sec, uint32_t nsec, char out[40]);
bool time_read(const char *text, int64_t *sec, uint32_t *nsec);

#endif
