/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Trees: folders as restic keeps them, each a blob of JSON; files in them name the chunks of their content. */
#ifndef TOOLS_BACKUP_TREE_H
#define TOOLS_BACKUP_TREE_H

#include "backup/repo.h"

enum node_type { NODE_FILE, NODE_FOLDER, NODE_OTHER };
struct node {
	char *name;                     /* one component, never "", ".", ".." or with a '/' */
	enum node_type type;
	uint32_t mode;                  /* permission bits */
	int64_t mtime;                  /* seconds since 1970 */
	uint32_t uid, gid;
	uint64_t size;
	uint8_t subtree[ID_SIZE];       /* of a folder */
	uint8_t (*content)[ID_SIZE];    /* of a file: its chunks */
	size_t n_content;
};
struct tree {
	struct node *at;
	size_t n, room;
};
void tree_free(struct tree *t);
/* A new node, zeroed but for a copy of the name; valid until the next. */
struct node *tree_add(struct tree *t, const char *name, enum node_type type);
struct node *tree_find(const struct tree *t, const char *name);
/* Takes names of hostile origin: what is no component of a path is VD_ECORRUPT. */
int tree_read(const void *json, size_t n, struct tree *out, struct vd_error *e);
/* Sorts the nodes by name, as restic wants them. */
void tree_write(struct tree *t, struct bytes *out);

int tree_load(struct repo *r, const uint8_t id[ID_SIZE], struct tree *out, struct vd_error *e);
/* The node at "a/b/c" below a tree; *holder keeps it alive. VD_ENOENT. */
int tree_walk(struct repo *r, const uint8_t root[ID_SIZE], const char *path, struct tree *holder, struct node **out, struct vd_error *e);

#endif
