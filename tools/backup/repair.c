/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * New packs, then the index that names them, then indexes that do not name the bad packs, then the old indexes go, and last the bad packs are put aside:
 * a crash in between leaves something twice, never something less. Finding what is bad is verify's.
 */
#include "backup/repair.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/disk.h"
#include "fail.h"
#include "ledger/files.h"
#include "signals.h"
#include "ui.h"

#define PACK_MAX (256u << 20)
#define STORES 2

struct work {
	struct repair *r;
	struct repo *repo;
	struct bench *bench;
	struct packer *packer;
	struct bytes text;              /* of the index of new packs */
	struct blob *wanted;            /* of the bad pack at hand */
	size_t n_wanted, room;
	size_t pack;                    /* its number in the index */
	struct index *lost, *again;     /* blobs that are in no pack any more; those that are in a new one */
	uint8_t *bytes;                 /* the pack, as far as it can be read */
	uint64_t size;
};

static int on_pack(void *ctx, const uint8_t pack[ID_SIZE], const struct blob *blobs, size_t n, uint64_t bytes, struct vd_error *e)
{
	struct work *w = ctx;

	(void)bytes, (void)e;
	index_write_pack(&w->text, pack, blobs, n);
	index_add(w->again, pack, blobs, n);
	return 0;
}

static int gather(void *ctx, size_t pack, const struct blob *b)
{
	struct work *w = ctx;

	if (memcmp(index_pack(repo_index(w->repo), pack), index_pack(repo_index(w->repo), w->pack), ID_SIZE) != 0)
		return 0;
	if (w->n_wanted == w->room) {
		w->room = w->room ? 2 * w->room : 256;
		w->wanted = reallocarray(w->wanted, w->room, sizeof(*w->wanted));
		if (!w->wanted)
			ui_out_of_memory();
	}
	w->wanted[w->n_wanted++] = *b;
	return 0;
}

/* Whatever is there of it: nothing, where it is missing. */
static int fetch(struct work *w, const char *name, struct vd_error *e)
{
	uint64_t size = 0;
	int r = store_size(repo_store(w->repo), STORE_PACK, name, &size, e);

	free(w->bytes);
	w->bytes = NULL;
	w->size = r == 0 && size <= PACK_MAX ? size : 0;
	if (!w->size)
		return r == VD_ENOENT ? 0 : r;
	w->bytes = malloc(w->size);
	if (!w->bytes)
		ui_out_of_memory();
	r = store_get(repo_store(w->repo), STORE_PACK, name, 0, w->bytes, w->size, e);
	if (r < 0 && r != VD_ECANCELLED)
		w->size = 0;
	return r == VD_ECANCELLED ? r : 0;
}

/* What is still whole is copied as it lies there. */
static int keep(struct work *w, const struct blob *b, struct vd_error *e)
{
	uint8_t *content = malloc(blob_size(b) + 1);
	struct vd_error why;
	bool is_whole;

	if (!content)
		ui_out_of_memory();
	is_whole = (uint64_t)b->off + b->len <= w->size && blob_open(w->bench, b, w->bytes + b->off, content, &why) == 0;
	free(content);
	if (is_whole) {
		w->r->kept++;
		return packer_add(w->packer, b, w->bytes + b->off, e);
	}
	index_add(w->lost, b->id, b, 1);
	w->r->lost++;
	return 0;
}

static int salvage(struct work *w, const uint8_t id[ID_SIZE], struct vd_error *e)
{
	struct index *x = repo_index(w->repo);
	char name[ID_HEX_SIZE];
	int r;

	id_show(id, name);
	r = fetch(w, name, e);
	w->n_wanted = 0;
	for (w->pack = 0; w->pack < index_packs(x) && memcmp(index_pack(x, w->pack), id, ID_SIZE) != 0;)
		w->pack++;
	if (r == 0 && w->pack < index_packs(x))
		index_each(x, gather, w);
	for (size_t i = 0; r == 0 && i < w->n_wanted; i++)
		r = keep(w, &w->wanted[i], e);
	return r;
}

/* ---- from the source ------------------------------------------------------------------------------------- */

static int remake(struct work *w, const void *content, size_t n, struct vd_error *e)
{
	struct blob b = { .type = BLOB_DATA }, other;
	uint8_t pack[ID_SIZE];
	const uint8_t *sealed;
	int r;

	id_of(content, n, b.id);
	if (!index_find(w->lost, BLOB_DATA, b.id, &other, pack) || index_find(w->again, BLOB_DATA, b.id, &other, pack) ||
	    !index_claim(w->again, BLOB_DATA, b.id))
		return 0;
	r = blob_close(w->bench, content, n, &b, &sealed, e);
	if (r == 0)
		r = packer_add(w->packer, &b, sealed, e);
	w->r->remade += r == 0;
	w->r->lost -= r == 0;
	return r;
}

/* By content: where in the disk a chunk is now does not matter. */
static int search(struct work *w, struct vd_error *e)
{
	struct vd_info info = { .struct_size = sizeof(info) };
	int r = vd_image_info(w->r->source, &info, e);
	uint32_t chunk = r == 0 ? disk_chunk(info.virtual_size) : 0;
	uint8_t *buf = calloc(1, chunk + 1);

	if (!buf)
		ui_out_of_memory();
	for (uint64_t off = 0; r == 0 && w->r->lost && off < info.virtual_size; off += chunk) {
		size_t n = info.virtual_size - off < chunk ? (size_t)(info.virtual_size - off) : chunk;

		r = vd_image_pread(w->r->source, buf, n, off, e);
		memset(buf + n, 0, chunk - n);
		if (r == 0)
			r = remake(w, buf, chunk, e);
		if (r == 0 && n < chunk)
			r = remake(w, buf, n, e);
		if (r == 0)
			r = signals_check(e);
	}
	free(buf);
	return r;
}

/* ---- indexes --------------------------------------------------------------------------------------------- */

static bool is_bad(const struct work *w, const uint8_t pack[ID_SIZE])
{
	const struct verify *v = w->r->v;

	for (size_t i = 0; i < v->n_bad_packs; i++)
		if (!memcmp(v->bad_packs[i].id, pack, ID_SIZE))
			return true;
	return false;
}

struct of_pack {
	size_t pack;
	struct blob *at;
	size_t n;
};

static int pick(void *ctx, size_t pack, const struct blob *b)
{
	struct of_pack *p = ctx;

	if (pack == p->pack)
		p->at[p->n++] = *b;
	return 0;
}

static int write_others(struct work *w, struct index *x, struct vd_error *e)
{
	struct of_pack p = { .at = calloc(index_count(x) + 1, sizeof(*p.at)) };
	struct bytes text = { 0 };
	char name[STORE_NAME_SIZE];
	int r = 0;

	if (!p.at)
		ui_out_of_memory();
	for (p.pack = 0; p.pack < index_packs(x); p.pack++) {
		p.n = 0;
		index_each(x, pick, &p);
		if (p.n && !is_bad(w, index_pack(x, p.pack)))
			index_write_pack(&text, index_pack(x, p.pack), p.at, p.n);
	}
	if (text.n) {
		index_write_end(&text);
		r = repo_save(w->repo, STORE_INDEX, &text, name, e);
	}
	bytes_free(&text);
	free(p.at);
	return r;
}

static int rewrite(struct work *w, const char *name, struct vd_error *e)
{
	struct bytes text = { 0 };
	struct index *x = NULL;
	bool names_bad = false;
	int r = repo_load(w->repo, STORE_INDEX, name, &text, e);

	if (r == 0)
		r = index_new(&x, e);
	if (r == 0)
		r = index_read(x, name, text.at, text.n, e);
	for (size_t i = 0; r == 0 && i < index_packs(x); i++)
		names_bad |= is_bad(w, index_pack(x, i));
	if (r == 0 && names_bad)
		r = write_others(w, x, e);
	if (r == 0 && names_bad)
		r = store_remove(repo_store(w->repo), STORE_INDEX, name, e);
	index_free(x);
	bytes_free(&text);
	return r;
}

struct names {
	struct bytes at;
};

static int note_name(void *ctx, const char *name, uint64_t size)
{
	(void)size;
	bytes_add(&((struct names *)ctx)->at, name, STORE_NAME_SIZE);
	return 0;
}

/* ---- all of it ------------------------------------------------------------------------------------------- */

static int put_aside(struct work *w, const uint8_t id[ID_SIZE], struct vd_error *e)
{
	char name[ID_HEX_SIZE], path[4096];
	struct bytes content;
	int r;

	id_show(id, name);
	r = fetch(w, name, e);
	if (r < 0 || !w->size)
		return r;
	if ((size_t)snprintf(path, sizeof(path), "%s/%s", w->r->quarantine, name) >= sizeof(path))
		return fail(e, VD_EARG, "%s: the name is too long", w->r->quarantine);
	content = bytes_over(w->bytes, w->size);
	content.n = w->size;
	r = file_write(path, &content, 0400, true, e);
	if (r == 0)
		r = store_remove(repo_store(w->repo), STORE_PACK, name, e);
	w->r->put_aside += r == 0;
	return r;
}

static int mend(struct work *w, struct vd_error *e)
{
	const struct verify *v = w->r->v;
	char name[STORE_NAME_SIZE];
	struct names names = { 0 };
	int r = 0;

	for (size_t i = 0; r == 0 && i < v->n_bad_packs; i++)
		r = salvage(w, v->bad_packs[i].id, e);
	if (r == 0 && w->r->source && w->r->lost)
		r = search(w, e);
	if (r == 0)
		r = packer_flush(w->packer, e);
	/* The old indexes, before there is a new one. */
	if (r == 0)
		r = store_list(repo_store(w->repo), STORE_INDEX, note_name, &names, e);
	if (r == 0 && w->text.n) {
		index_write_end(&w->text);
		r = repo_save(w->repo, STORE_INDEX, &w->text, name, e);
	}
	for (size_t off = 0; r == 0 && off < names.at.n; off += STORE_NAME_SIZE)
		r = rewrite(w, (char *)names.at.at + off, e);
	for (size_t i = 0; r == 0 && i < v->n_bad_packs; i++)
		r = put_aside(w, v->bad_packs[i].id, e);
	bytes_free(&names.at);
	return r;
}

int repair_run(struct repair *r, struct vd_error *e)
{
	struct work w = { .r = r, .repo = r->v->repo };
	int c = repo_still_locked(w.repo, e);

	if (c == 0)
		c = bench_new(repo_key(w.repo), &w.bench, e);
	if (c == 0)
		c = index_new(&w.lost, e);
	if (c == 0)
		c = index_new(&w.again, e);
	if (c == 0)
		c = packer_new(repo_store(w.repo), repo_key(w.repo), STORES, on_pack, &w, &w.packer, e);
	if (c == 0)
		c = mend(&w, e);
	packer_free(w.packer);
	bench_free(w.bench);
	index_free(w.lost);
	index_free(w.again);
	bytes_free(&w.text);
	free(w.wanted);
	free(w.bytes);
	return c;
}
