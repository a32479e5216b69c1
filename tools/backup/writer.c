/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Puts hashing, index, compression and packs in their order. The order of what lies in the store is packs, then index: the snapshot is the caller's. */
#include "backup/writer.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "backup/crew.h"
#include "fail.h"
#include "ui.h"

#define INDEX_TEXT (4u << 20)   /* an index file is written when it has as much: below restic's own 8 MiB */
#define STORES 4                /* of which most wait for the disk */

struct writer {
	struct repo *repo;
	struct packer *packer;
	struct bench *benches[CREW_MAX];
	unsigned n;
	struct bytes index;             /* text of the next index file */
	struct writer_counts counts;
	pthread_mutex_t mutex;          /* of the counts */
};

static int write_index(struct writer *w, struct vd_error *e)
{
	char name[STORE_NAME_SIZE];
	int r;

	if (!w->index.n)
		return 0;
	index_write_end(&w->index);
	r = repo_save(w->repo, STORE_INDEX, &w->index, name, e);
	w->index.n = 0;
	return r;
}

/* One at a time, from the packer. */
static int on_pack(void *ctx, const uint8_t pack[ID_SIZE], const struct blob *blobs, size_t n, uint64_t bytes, struct vd_error *e)
{
	struct writer *w = ctx;

	index_add(repo_index(w->repo), pack, blobs, n);
	index_write_pack(&w->index, pack, blobs, n);
	pthread_mutex_lock(&w->mutex);
	w->counts.bytes_stored += bytes;
	pthread_mutex_unlock(&w->mutex);
	return w->index.n >= INDEX_TEXT ? write_index(w, e) : 0;
}

int writer_new(struct repo *r, unsigned n, struct writer **out, struct vd_error *e)
{
	struct writer *w = calloc(1, sizeof(*w));
	int c = 0;

	if (!w)
		ui_out_of_memory();
	w->repo = r;
	w->n = n;
	pthread_mutex_init(&w->mutex, NULL);
	if (repo_version(r) < 2) {
		c = fail(e, VD_EUNSUPPORTED, "%s: it is of version 1, which is only read", repo_where(r));
		fail_hint(e, c, "restic makes it one of version 2: restic migrate upgrade_repo_v2");
	}
	for (unsigned i = 0; i < n && c == 0; i++)
		c = bench_new(repo_key(r), &w->benches[i], e);
	if (c == 0)
		c = packer_new(repo_store(r), repo_key(r), STORES, on_pack, w, &w->packer, e);
	if (c < 0) {
		writer_free(w);
		return c;
	}
	*out = w;
	return 0;
}

void writer_free(struct writer *w)
{
	if (!w)
		return;
	packer_free(w->packer);
	for (unsigned i = 0; i < w->n; i++)
		bench_free(w->benches[i]);
	bytes_free(&w->index);
	pthread_mutex_destroy(&w->mutex);
	free(w);
}

struct repo *writer_repo(const struct writer *w)
{
	return w->repo;
}

unsigned writer_threads(const struct writer *w)
{
	return w->n;
}

int writer_add(struct writer *w, unsigned who, enum blob_type type, const void *content, size_t n, uint8_t id[ID_SIZE], struct vd_error *e)
{
	struct blob b = { .type = type };
	const uint8_t *sealed;
	int r;

	id_of(content, n, id);
	if (!index_claim(repo_index(w->repo), type, id))
		return 0;
	memcpy(b.id, id, ID_SIZE);
	r = blob_close(w->benches[who], content, n, &b, &sealed, e);
	if (r == 0)
		r = packer_add(w->packer, &b, sealed, e);
	pthread_mutex_lock(&w->mutex);
	w->counts.blobs_new++;
	w->counts.bytes_new += n;
	pthread_mutex_unlock(&w->mutex);
	return r;
}

int writer_add_tree(struct writer *w, struct tree *t, uint8_t id[ID_SIZE], struct vd_error *e)
{
	struct bytes text = { 0 };
	int r;

	tree_write(t, &text);
	if (text.n > BLOB_TREE_MAX)
		r = fail(e, VD_EUNSUPPORTED, "a folder of %zu bytes of names and chunks is too large", text.n);
	else
		r = writer_add(w, 0, BLOB_TREE, text.at, text.n, id, e);
	bytes_free(&text);
	return r;
}

int writer_finish(struct writer *w, struct vd_error *e)
{
	int r = packer_flush(w->packer, e);

	return r < 0 ? r : write_index(w, e);
}

struct writer_counts writer_counts(const struct writer *w)
{
	return w->counts;
}
