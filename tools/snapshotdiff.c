/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Goes through two trees side by side. */
#include "snapshotdiff.h"

#include <stdio.h>
#include <string.h>

#include "fail.h"

#define DEPTH_MAX 64

struct diffing {
	struct repo *repo;
	int (*each)(void *ctx, const struct snapshotdiff_item *d);
	void *ctx;
	char path[4096];
};

static int diff_trees(struct diffing *d, const uint8_t *a, const uint8_t *b, unsigned depth, struct vd_error *e);

/* Chunks of the same number are at the same place where they have the same length, as ours have; else more is told than differs. */
static uint64_t bytes_of_others(const struct diffing *d, const struct node *a, const struct node *b)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < b->n_content; i++) {
		uint8_t pack[ID_SIZE];
		struct blob x;

		if (i < a->n_content && !memcmp(a->content[i], b->content[i], ID_SIZE))
			continue;
		if (index_find(repo_index(d->repo), BLOB_DATA, b->content[i], &x, pack))
			bytes += blob_size(&x);
	}
	return bytes;
}

static int diff_files(struct diffing *d, const struct node *a, const struct node *b)
{
	struct snapshotdiff_item x = { .path = d->path, .how = DIFF_SAME, .size = b ? b->size : a->size };

	if (!a || !b) {
		x.how = a ? DIFF_REMOVED : DIFF_ADDED;
		x.bytes = x.size;
	} else if (a->size != b->size || a->n_content != b->n_content || memcmp(a->content, b->content, a->n_content * ID_SIZE) != 0) {
		x.how = DIFF_DIFFERS;
		x.bytes = bytes_of_others(d, a, b);
	}
	return x.how == DIFF_SAME ? 0 : d->each(d->ctx, &x);
}

/* Of the same name; one of them may be NULL. A folder that has become a file is told as both. */
static int diff_nodes(struct diffing *d, const struct node *a, const struct node *b, unsigned depth, struct vd_error *e)
{
	const struct node *n = b ? b : a, *file_a = a && a->type == NODE_FILE ? a : NULL, *file_b = b && b->type == NODE_FILE ? b : NULL;
	const uint8_t *tree_a = a && a->type == NODE_FOLDER ? a->subtree : NULL, *tree_b = b && b->type == NODE_FOLDER ? b->subtree : NULL;
	size_t len = strlen(d->path);
	int r = 0;

	if (len + strlen(n->name) + 2 > sizeof(d->path) || depth > DEPTH_MAX)
		return fail(e, VD_ECORRUPT, "%s/...: folders are too deep", d->path);
	snprintf(d->path + len, sizeof(d->path) - len, "%s%s", len ? "/" : "", n->name);
	if (file_a || file_b)
		r = diff_files(d, file_a, file_b);
	if (r == 0 && (tree_a || tree_b))
		r = diff_trees(d, tree_a, tree_b, depth + 1, e);
	d->path[len] = '\0';
	return r;
}

static int diff_trees(struct diffing *d, const uint8_t *a, const uint8_t *b, unsigned depth, struct vd_error *e)
{
	struct tree x = { 0 }, y = { 0 };
	int r = 0;

	if (a && b && !memcmp(a, b, ID_SIZE))
		return 0;
	if (a)
		r = tree_load(d->repo, a, &x, e);
	if (r == 0 && b)
		r = tree_load(d->repo, b, &y, e);
	for (size_t i = 0; r == 0 && i < x.n; i++)
		r = diff_nodes(d, &x.at[i], tree_find(&y, x.at[i].name), depth, e);
	for (size_t i = 0; r == 0 && i < y.n; i++)
		if (!tree_find(&x, y.at[i].name))
			r = diff_nodes(d, NULL, &y.at[i], depth, e);
	tree_free(&x);
	tree_free(&y);
	return r;
}

int snapshotdiff(struct repo *r, const uint8_t a[ID_SIZE], const uint8_t b[ID_SIZE], int (*each)(void *ctx, const struct snapshotdiff_item *d), void *ctx,
		 struct vd_error *e)
{
	struct diffing d = { .repo = r, .each = each, .ctx = ctx };

	return diff_trees(&d, a, b, 0, e);
}
