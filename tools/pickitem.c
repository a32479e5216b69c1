/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Walks the folders of a snapshot. What a disk's folder holds, tools/backup/disk.c says. */
#include "pickitem.h"

#include <stdio.h>
#include <string.h>

#include "fail.h"

#define DEPTH_MAX 64

/* ---- all that there is ---------------------------------------------------------------------------------- */

struct walk {
	struct repo *repo;
	int (*each)(void *ctx, const char *path, bool is_disk, uint64_t size);
	void *ctx;
	char path[4096];
};

static int walk_tree(struct walk *w, const uint8_t id[ID_SIZE], unsigned depth, struct vd_error *e);

static int walk_node(struct walk *w, const struct node *n, unsigned depth, struct vd_error *e)
{
	size_t len = strlen(w->path);
	int r = 0;

	if (len + strlen(n->name) + 2 > sizeof(w->path))
		return fail(e, VD_ECORRUPT, "%s/...: folders are too deep", w->path);
	snprintf(w->path + len, sizeof(w->path) - len, "%s%s", len ? "/" : "", n->name);
	if (n->type == NODE_FOLDER)
		r = walk_tree(w, n->subtree, depth + 1, e);
	else if (n->type == NODE_FILE)
		r = w->each(w->ctx, w->path, false, n->size);
	w->path[len] = '\0';
	return r;
}

static int walk_tree(struct walk *w, const uint8_t id[ID_SIZE], unsigned depth, struct vd_error *e)
{
	struct disk_base disk;
	struct vd_error ignored;
	struct tree t = { 0 };
	int r = depth > DEPTH_MAX ? fail(e, VD_ECORRUPT, "%s: folders are too deep", w->path) : tree_load(w->repo, id, &t, e);

	if (r == 0 && tree_find(&t, "image.json") && disk_of_folder(w->repo, id, &disk, &ignored) == 0) {
		r = w->each(w->ctx, w->path, true, disk.facts.size);
		disk_close_base(&disk);
		tree_free(&t);
		return r;
	}
	for (size_t i = 0; r == 0 && i < t.n; i++)
		r = walk_node(w, &t.at[i], depth, e);
	tree_free(&t);
	return r;
}

int pickitem_each(struct repo *r, const uint8_t root[ID_SIZE], int (*each)(void *ctx, const char *path, bool is_disk, uint64_t size), void *ctx,
		  struct vd_error *e)
{
	struct walk w = { .repo = r, .each = each, .ctx = ctx };

	return walk_tree(&w, root, 0, e);
}

/* ---- one of it ------------------------------------------------------------------------------------------ */

struct choice {
	size_t n[2];                    /* files, disks */
	char first[2][4096];
	char list[400];                 /* for the message */
};

static int note(void *ctx, const char *path, bool is_disk, uint64_t size)
{
	struct choice *c = ctx;
	size_t len = strlen(c->list);

	(void)size;
	if (!c->n[is_disk]++)
		snprintf(c->first[is_disk], sizeof(c->first[0]), "%s", path);
	snprintf(c->list + len, sizeof(c->list) - len, "%s%s", len ? ", " : "", path);
	return 0;
}

static int choose(struct repo *r, const uint8_t root[ID_SIZE], char path[4096], struct vd_error *e)
{
	struct choice c = { 0 };
	int f = pickitem_each(r, root, note, &c, e);

	if (f < 0)
		return f;
	if (c.n[1] == 1 || (!c.n[1] && c.n[0] == 1)) {
		snprintf(path, 4096, "%s", c.first[c.n[1] == 1]);
		return 0;
	}
	if (!c.n[0] && !c.n[1])
		return fail(e, VD_ENOENT, "there is nothing in this snapshot");
	fail(e, VD_EARG, "the snapshot has several: %s", c.list);
	return fail_hint(e, VD_EARG, "--path says which");
}

/* The one file that an opaque backup consists of. */
static int pick_opaque(struct repo *r, struct item *out, struct vd_error *e)
{
	struct node *files = tree_find(&out->disk.folder, "files");
	int c = files && files->type == NODE_FOLDER ? tree_load(r, files->subtree, &out->holder, e) :
						      fail(e, VD_ECORRUPT, "%s: its files are not there", out->path);

	if (c < 0)
		return c;
	if (out->holder.n != 1 || out->holder.at[0].type != NODE_FILE) {
		fail(e, VD_EARG, "%s consists of %zu files", out->path, out->holder.n);
		return fail_hint(e, VD_EARG, "restore them one by one: --path %s/files/NAME; vdisk backups show lists them", out->path);
	}
	out->file = &out->holder.at[0];
	return 0;
}

int pickitem(struct repo *r, const uint8_t root[ID_SIZE], const char *path, struct item *out, struct vd_error *e)
{
	struct vd_error ignored;
	int c = 0;

	*out = (struct item){ 0 };
	if (path)
		snprintf(out->path, sizeof(out->path), "%s", path);
	else
		c = choose(r, root, out->path, e);
	if (c < 0)
		return c;
	if (disk_open_base(r, root, out->path, &out->disk, &ignored) == 0) {
		out->size = out->disk.facts.size;
		out->is_verbatim = out->disk.facts.is_opaque;
		return out->is_verbatim ? pick_opaque(r, out, e) : 0;
	}
	c = tree_walk(r, root, out->path, &out->holder, &out->file, e);
	if (c == 0 && out->file->type != NODE_FILE) {
		c = fail(e, VD_EARG, "%s is neither a disk nor a file", out->path);
		fail_hint(e, c, "vdisk backups show lists what is there");
	}
	if (c == 0) {
		out->is_verbatim = true;
		out->size = out->file->size;
	}
	return c;
}

void pickitem_free(struct item *x)
{
	disk_close_base(&x->disk);
	tree_free(&x->holder);
}
