/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Makes a disk's folder, and reads what it says. Which chunks there are, content.c finds out. */
#include "backup/disk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backup/jread.h"
#include "fail.h"
#include "json.h"
#include "ui.h"

#define CHUNK_MIN (256u << 10)
#define CHUNK_MAX (8u << 20)
#define CHUNKS_MAX (4u << 20)           /* beyond, chunks are larger */
#define PART_CHUNKS 65536               /* a tree of 4.4 MB, and 16 GiB of a disk with the smallest chunks */
#define SECTOR 512
#define FACTS_MAX (1u << 20)
#define FILE_PIECE (1u << 20)           /* of small files */

uint32_t disk_chunk(uint64_t size)
{
	uint32_t chunk = CHUNK_MIN;

	while (chunk < CHUNK_MAX && size / chunk > CHUNKS_MAX)
		chunk *= 2;
	return chunk;
}

/* ---- image.json ----------------------------------------------------------------------------------------- */

void disk_write_facts(const struct disk_facts *f, struct bytes *out)
{
	struct json_object *j = json_new();

	json_put_u64(j, "vdisk-image", 1);
	json_put_text(j, "source", f->source);
	json_put_text(j, "format", f->format);
	if (f->subformat[0])
		json_put_text(j, "subformat", f->subformat);
	json_put_text(j, "encryption", f->encryption);
	json_put_bool(j, "opaque", f->is_opaque);
	json_put_bool(j, "consistent", f->is_consistent);
	json_put_u64(j, "size", f->size);
	json_put_u64(j, "chunk-size", f->chunk);
	if (!f->is_opaque) {
		json_put_u64(j, "part-size", f->part);
		json_put_u64(j, "parts", f->n_parts);
	}
	if (f->mark[0])
		json_put_text(j, "mark", f->mark);
	json_put_text(j, "content-root", f->root);
	bytes_text(out, json_object_to_json_string_ext(j, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));
	bytes_text(out, "\n");
	json_object_put(j);
}

static void read_fact(struct jread *j, const char *key, struct disk_facts *f, uint64_t *version)
{
	if (!strcmp(key, "vdisk-image"))
		*version = jread_u64(j);
	else if (!strcmp(key, "source"))
		jread_text(j, f->source, sizeof(f->source));
	else if (!strcmp(key, "format"))
		jread_text(j, f->format, sizeof(f->format));
	else if (!strcmp(key, "subformat"))
		jread_text(j, f->subformat, sizeof(f->subformat));
	else if (!strcmp(key, "encryption"))
		jread_text(j, f->encryption, sizeof(f->encryption));
	else if (!strcmp(key, "opaque"))
		f->is_opaque = jread_bool(j);
	else if (!strcmp(key, "consistent"))
		f->is_consistent = jread_bool(j);
	else if (!strcmp(key, "size"))
		f->size = jread_u64(j);
	else if (!strcmp(key, "chunk-size"))
		f->chunk = (uint32_t)jread_u64(j);
	else if (!strcmp(key, "part-size"))
		f->part = jread_u64(j);
	else if (!strcmp(key, "parts"))
		f->n_parts = (uint32_t)jread_u64(j);
	else if (!strcmp(key, "mark"))
		jread_text(j, f->mark, sizeof(f->mark));
	else if (!strcmp(key, "content-root"))
		jread_text(j, f->root, sizeof(f->root));
	else
		jread_skip(j);
}

static bool is_power_of_two(uint64_t v)
{
	return v && !(v & (v - 1));
}

static bool holds(const struct disk_facts *f)
{
	if (!is_power_of_two(f->chunk) || f->chunk < 4096 || f->chunk > BLOB_DATA_MAX)
		return false;
	if (f->is_opaque)
		return true;
	return f->part && f->part % f->chunk == 0 && f->part / f->chunk <= CHUNKS_MAX && f->size <= INT64_MAX &&
	       f->n_parts == f->size / f->part + (f->size % f->part != 0);
}

int disk_read_facts(const void *json, size_t n, struct disk_facts *out, struct vd_error *e)
{
	struct jread j = jread_of(json, n);
	uint64_t version = 0;
	char key[32];

	*out = (struct disk_facts){ 0 };
	if (jread_object(&j))
		while (jread_key(&j, key, sizeof(key)))
			read_fact(&j, key, out, &version);
	if (jread_is_done(&j) && version > 1)
		return fail(e, VD_EUNSUPPORTED, "image.json is of version %llu, which a newer vdisk wrote", (unsigned long long)version);
	return jread_is_done(&j) && version && holds(out) ? 0 : fail(e, VD_ECORRUPT, "image.json is not what it should be");
}

/* ---- small files and folders ---------------------------------------------------------------------------- */

static struct node *add_node(struct tree *folder, const char *name, enum node_type type, int64_t mtime)
{
	struct node *n = tree_add(folder, name, type);

	n->mode = type == NODE_FOLDER ? 0700 : 0600;
	n->mtime = mtime;
	n->uid = geteuid();
	n->gid = getegid();
	return n;
}

static void make_content(struct node *n, uint64_t size, uint64_t n_chunks)
{
	n->size = size;
	n->n_content = n_chunks;
	n->content = calloc(n_chunks ? n_chunks : 1, ID_SIZE);
	if (!n->content)
		ui_out_of_memory();
}

int disk_store_bytes(struct writer *w, const struct bytes *content, struct tree *folder, const char *name, int64_t mtime, struct vd_error *e)
{
	struct node *n = add_node(folder, name, NODE_FILE, mtime);
	int r = 0;

	make_content(n, content->n, content_chunks(content->n, FILE_PIECE));
	for (size_t i = 0; i < n->n_content && r == 0; i++) {
		size_t off = i * FILE_PIECE, len = content->n - off < FILE_PIECE ? content->n - off : FILE_PIECE;

		r = writer_add(w, 0, BLOB_DATA, content->at + off, len, n->content[i], e);
	}
	return r;
}

int disk_store_folder(struct writer *w, struct tree *of, struct tree *folder, const char *name, int64_t mtime, struct vd_error *e)
{
	uint8_t id[ID_SIZE];
	int r = writer_add_tree(w, of, id, e);

	if (r == 0)
		memcpy(add_node(folder, name, NODE_FOLDER, mtime)->subtree, id, ID_SIZE);
	return r;
}

/* ---- the base ------------------------------------------------------------------------------------------- */

static int load_file(struct repo *r, const struct node *n, size_t max, struct bytes *out, struct vd_error *e)
{
	int c = 0;

	for (size_t i = 0; i < n->n_content && c == 0; i++) {
		c = repo_load_blob(r, BLOB_DATA, n->content[i], out, e);
		if (c == 0 && out->n > max)
			c = fail(e, VD_ECORRUPT, "%s is larger than %zu bytes", n->name, max);
	}
	return c;
}

int disk_of_folder(struct repo *r, const uint8_t id[ID_SIZE], struct disk_base *out, struct vd_error *e)
{
	struct bytes text = { 0 };
	struct node *node;
	int c;

	*out = (struct disk_base){ 0 };
	c = tree_load(r, id, &out->folder, e);
	node = c == 0 ? tree_find(&out->folder, "image.json") : NULL;
	if (c == 0 && (!node || node->type != NODE_FILE))
		c = fail(e, VD_ENOENT, "this is no disk's folder");
	if (c == 0)
		c = load_file(r, node, FACTS_MAX, &text, e);
	if (c == 0)
		c = disk_read_facts(text.at, text.n, &out->facts, e);
	bytes_free(&text);
	if (c < 0)
		disk_close_base(out);
	return c;
}

int disk_open_base(struct repo *r, const uint8_t root[ID_SIZE], const char *name, struct disk_base *out, struct vd_error *e)
{
	struct tree holder = { 0 };
	struct node *node;
	int c = tree_walk(r, root, name, &holder, &node, e);

	if (c < 0)
		return c;
	c = node->type == NODE_FOLDER ? disk_of_folder(r, node->subtree, out, e) : fail(e, VD_ENOENT, "%s is no disk's folder", name);
	tree_free(&holder);
	return c;
}

void disk_close_base(struct disk_base *b)
{
	tree_free(&b->folder);
}

static void part_name(uint32_t i, char name[32])
{
	snprintf(name, 32, "part-%05u", i);
}

static uint64_t part_length(const struct disk_facts *f, uint32_t i)
{
	uint64_t left = f->size - i * f->part, len = left < f->part ? left : f->part;

	/* Of a disk in a VMDK there are whole sectors. */
	return (len + SECTOR - 1) / SECTOR * SECTOR;
}

static struct node *base_part(const struct disk_base *b, uint32_t i)
{
	char name[32];
	struct node *n;

	part_name(i, name);
	n = b && i < b->facts.n_parts ? tree_find(&b->folder, name) : NULL;
	return n && n->type == NODE_FOLDER ? n : NULL;
}

int disk_load_part(struct repo *r, const struct disk_base *b, uint32_t i, struct tree *holder, struct node **out, struct vd_error *e)
{
	struct node *folder = base_part(b, i);
	int c = folder ? tree_load(r, folder->subtree, holder, e) : fail(e, VD_ECORRUPT, "part %u of the disk is not there", i);

	if (c < 0)
		return c;
	*out = tree_find(holder, "flat");
	if (*out && (*out)->size == part_length(&b->facts, i))
		return 0;
	tree_free(holder);
	return fail(e, VD_ECORRUPT, "part %u of the disk is not what it should be", i);
}

/* ---- content -------------------------------------------------------------------------------------------- */

static bool has_tree(struct writer *w, const uint8_t id[ID_SIZE])
{
	uint8_t pack[ID_SIZE];
	struct blob b;

	return index_find(repo_index(writer_repo(w)), BLOB_TREE, id, &b, pack);
}

static int read_part(struct writer *w, struct content *c, const struct disk_base *base, const struct disk_facts *f, uint32_t i, uint8_t id[ID_SIZE],
		     struct vd_error *e)
{
	struct tree old = { 0 }, part = { 0 };
	uint64_t len = part_length(f, i);
	struct node *n = add_node(&part, "flat", NODE_FILE, 0), *before = NULL;
	struct vd_error ignored;
	int r;

	make_content(n, len, content_chunks(len, f->chunk));
	/* A base that cannot be read is none. */
	if (base && disk_load_part(writer_repo(w), base, i, &old, &before, &ignored) == 0 && before->n_content != n->n_content)
		before = NULL;
	r = content_read(c, i * f->part, len, before ? (const uint8_t (*)[ID_SIZE])before->content : NULL, n->content, e);
	if (r == 0)
		r = writer_add_tree(w, &part, id, e);
	tree_free(&old);
	tree_free(&part);
	return r;
}

static int store_part(struct writer *w, struct content *c, const struct disk_base *base, const struct disk_facts *f, uint32_t i, struct tree *folder,
		      struct bytes *trees, struct vd_error *e)
{
	struct node *before = base_part(base, i);
	uint64_t len = part_length(f, i);
	uint8_t id[ID_SIZE];
	char name[32];
	int r;

	if (before && content_is_same(c, i * f->part, len) && has_tree(w, before->subtree)) {
		memcpy(id, before->subtree, ID_SIZE);
		r = content_skip(c, len, e);
	} else {
		r = read_part(w, c, base, f, i, id, e);
	}
	if (r < 0)
		return r;
	part_name(i, name);
	memcpy(add_node(folder, name, NODE_FOLDER, 0)->subtree, id, ID_SIZE);
	bytes_add(trees, id, ID_SIZE);
	return 0;
}

/* A VMDK of flat extents, in folders of their own: qemu takes the names as they are, relative to the descriptor. */
static int store_descriptor(struct writer *w, const struct disk_facts *f, struct tree *folder, struct vd_error *e)
{
	uint64_t sectors = (f->size + SECTOR - 1) / SECTOR;
	struct bytes text = { 0 };
	char name[32];
	int r;

	bytes_text(&text, "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"twoGbMaxExtentFlat\"\n\n# Extent description\n");
	for (uint32_t i = 0; i < f->n_parts; i++) {
		part_name(i, name);
		bytes_format(&text, "RW %llu FLAT \"%s/flat\" 0\n", (unsigned long long)(part_length(f, i) / SECTOR), name);
	}
	bytes_format(&text, "\n# The Disk Data Base\n#DDB\n\nddb.virtualHWVersion = \"4\"\nddb.geometry.cylinders = \"%llu\"\n"
			    "ddb.geometry.heads = \"255\"\nddb.geometry.sectors = \"63\"\nddb.adapterType = \"lsilogic\"\n",
		     (unsigned long long)(sectors / (255 * 63)));
	r = disk_store_bytes(w, &text, folder, "disk.vmdk", 0, e);
	bytes_free(&text);
	return r;
}

static bool fits(const struct disk_base *b, const struct disk_facts *f)
{
	return b && !b->facts.is_opaque && b->facts.chunk == f->chunk && b->facts.part == f->part && b->facts.size == f->size;
}

int disk_store_content(struct writer *w, struct vd_image *img, const struct changes *changes, const struct disk_base *base, struct disk_facts *f,
		       struct tree *folder, const struct vd_job *job, struct content_counts *counts, struct vd_error *e)
{
	struct content *c = NULL;
	struct bytes trees = { 0 };
	uint8_t id[ID_SIZE];
	int r;

	f->part = (uint64_t)f->chunk * PART_CHUNKS;
	f->n_parts = (uint32_t)(f->size / f->part + (f->size % f->part != 0));
	if (!fits(base, f))
		changes = NULL;
	r = content_new(w, img, f->chunk, changes, job, f->size, &c, e);
	for (uint32_t i = 0; i < f->n_parts && r == 0; i++)
		r = store_part(w, c, changes ? base : NULL, f, i, folder, &trees, e);
	if (r == 0)
		r = store_descriptor(w, f, folder, e);
	if (r == 0) {
		id_of(trees.at, trees.n, id);
		id_show(id, f->root);
		*counts = content_counts(c);
	}
	content_free(c);
	bytes_free(&trees);
	return r;
}

int disk_store_file(struct writer *w, struct vd_image *img, uint32_t chunk, struct tree *folder, const char *name, const struct vd_job *job,
		    struct content_counts *counts, struct vd_error *e)
{
	uint64_t size = vd_image_size(img);
	struct node *n = add_node(folder, name, NODE_FILE, 0);
	struct content *c = NULL;
	int r = content_new(w, img, chunk, NULL, job, size, &c, e);

	if (r < 0)
		return r;
	make_content(n, size, content_chunks(size, chunk));
	r = content_read(c, 0, size, NULL, n->content, e);
	*counts = content_counts(c);
	content_free(c);
	return r;
}
