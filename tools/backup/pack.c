/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fills packs from many threads and puts them into the store from a few others. Data and trees have packs of their own, as version 2 wants it. Memory is a
 * fixed number of packs: who fills waits when all are on their way.
 */
#include "backup/pack.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"
#include "ui.h"

/* A header's entry: type, sealed length, plain length if compressed, id. */
#define ENTRY_RAW (1 + 4 + ID_SIZE)
#define ENTRY_PACKED (ENTRY_RAW + 4)
#define HEADER_MAX (64u << 20)
#define TAIL_SIZE 4             /* the header's length */
#define STORES_MAX 16

struct pack {
	struct bytes body;
	struct blob *blobs;
	size_t n, room;
	struct pack *next;
};

struct packer {
	pthread_mutex_t mutex;
	pthread_cond_t change;          /* of all below */
	struct store *store;
	const struct seal_key *key;
	int (*done)(void *ctx, const uint8_t pack[ID_SIZE], const struct blob *blobs, size_t n, uint64_t bytes, struct vd_error *e);
	void *ctx;
	struct pack *open[2];           /* being filled, by type */
	struct pack *spare, *full;      /* lists */
	unsigned n_packs, n_packs_max, n_busy;
	bool is_over;
	int failed;
	struct vd_error error;
	pthread_t threads[STORES_MAX];
	unsigned n_threads;
	pthread_mutex_t done_mutex;
};

static void put_u32(uint8_t *at, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		at[i] = (uint8_t)(v >> 8 * i);
}

static uint32_t get_u32(const uint8_t *at)
{
	return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* ---- one pack ------------------------------------------------------------------------------------------- */

static void pack_free(struct pack *k)
{
	if (!k)
		return;
	bytes_free(&k->body);
	free(k->blobs);
	free(k);
}

static void append(struct pack *k, const struct blob *b, const uint8_t *sealed)
{
	if (k->n == k->room) {
		k->room = k->room ? 2 * k->room : 64;
		k->blobs = reallocarray(k->blobs, k->room, sizeof(*k->blobs));
		if (!k->blobs)
			ui_out_of_memory();
	}
	k->blobs[k->n] = *b;
	k->blobs[k->n++].off = (uint32_t)k->body.n;
	bytes_add(&k->body, sealed, b->len);
}

/* Types 0 data, 1 tree, 2 and 3 the same compressed. */
static void write_entry(struct bytes *header, const struct blob *b)
{
	uint8_t entry[ENTRY_PACKED];
	size_t n = 5;

	entry[0] = (uint8_t)((b->type == BLOB_TREE ? 1 : 0) + (b->raw_len ? 2 : 0));
	put_u32(entry + 1, b->len);
	if (b->raw_len) {
		put_u32(entry + n, b->raw_len);
		n += 4;
	}
	memcpy(entry + n, b->id, ID_SIZE);
	bytes_add(header, entry, n + ID_SIZE);
}

static int close_pack(struct pack *k, struct sealer *sealer, struct vd_error *e)
{
	struct bytes header = { 0 };
	uint8_t *sealed, len[4];
	int r;

	for (size_t i = 0; i < k->n; i++)
		write_entry(&header, &k->blobs[i]);
	sealed = malloc(header.n + SEAL_OVERHEAD);
	if (!sealed)
		ui_out_of_memory();
	r = seal(sealer, header.at, header.n, sealed, e);
	if (r == 0) {
		put_u32(len, (uint32_t)(header.n + SEAL_OVERHEAD));
		bytes_add(&k->body, sealed, header.n + SEAL_OVERHEAD);
		bytes_add(&k->body, len, sizeof(len));
	}
	free(sealed);
	bytes_free(&header);
	return r;
}

static int put_pack(struct packer *p, struct sealer *sealer, struct pack *k, struct vd_error *e)
{
	char name[ID_HEX_SIZE];
	uint8_t id[ID_SIZE];
	int r = close_pack(k, sealer, e);

	if (r < 0)
		return r;
	id_of(k->body.at, k->body.n, id);
	id_show(id, name);
	r = store_put(p->store, STORE_PACK, name, &(struct iovec){ k->body.at, k->body.n }, 1, e);
	if (r < 0)
		return r;
	pthread_mutex_lock(&p->done_mutex);
	r = p->done(p->ctx, id, k->blobs, k->n, k->body.n, e);
	pthread_mutex_unlock(&p->done_mutex);
	return r;
}

/* ---- threads that store --------------------------------------------------------------------------------- */

static void note_failure(struct packer *p, int r, const struct vd_error *e)
{
	if (r < 0 && !p->failed) {
		p->failed = r;
		p->error = *e;
	}
}

static void *store_packs(void *arg)
{
	struct packer *p = arg;
	struct sealer *sealer = NULL;
	struct vd_error e = { 0 };
	int r = sealer_new(p->key, &sealer, &e);

	pthread_mutex_lock(&p->mutex);
	note_failure(p, r, &e);
	while (!p->is_over || p->full) {
		struct pack *k = p->full;

		if (!k) {
			pthread_cond_wait(&p->change, &p->mutex);
			continue;
		}
		p->full = k->next;
		p->n_busy++;
		if (!p->failed) {
			pthread_mutex_unlock(&p->mutex);
			r = put_pack(p, sealer, k, &e);
			pthread_mutex_lock(&p->mutex);
			note_failure(p, r, &e);
		}
		p->n_busy--;
		k->n = k->body.n = 0;
		k->next = p->spare;
		p->spare = k;
		pthread_cond_broadcast(&p->change);
	}
	pthread_mutex_unlock(&p->mutex);
	sealer_free(sealer);
	return NULL;
}

int packer_new(struct store *store, const struct seal_key *key, unsigned n_stores,
	       int (*done)(void *ctx, const uint8_t pack[ID_SIZE], const struct blob *blobs, size_t n, uint64_t bytes, struct vd_error *e), void *ctx,
	       struct packer **out, struct vd_error *e)
{
	struct packer *p = calloc(1, sizeof(*p));

	if (!p)
		ui_out_of_memory();
	*p = (struct packer){ .store = store, .key = key, .done = done, .ctx = ctx };
	pthread_mutex_init(&p->mutex, NULL);
	pthread_mutex_init(&p->done_mutex, NULL);
	pthread_cond_init(&p->change, NULL);
	n_stores = n_stores < 1 ? 1 : n_stores > STORES_MAX ? STORES_MAX : n_stores;
	/* One on its way for each thread, and one of data and one of trees that are filled. */
	p->n_packs_max = n_stores + 2;
	while (p->n_threads < n_stores && pthread_create(&p->threads[p->n_threads], NULL, store_packs, p) == 0)
		p->n_threads++;
	if (!p->n_threads) {
		packer_free(p);
		return fail(e, VD_ENOMEM, "no thread could be started");
	}
	*out = p;
	return 0;
}

void packer_free(struct packer *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->mutex);
	p->is_over = true;
	if (!p->failed)
		p->failed = VD_ECANCELLED;
	pthread_cond_broadcast(&p->change);
	pthread_mutex_unlock(&p->mutex);
	for (unsigned i = 0; i < p->n_threads; i++)
		pthread_join(p->threads[i], NULL);
	pack_free(p->open[0]);
	pack_free(p->open[1]);
	while (p->spare) {
		struct pack *next = p->spare->next;

		pack_free(p->spare);
		p->spare = next;
	}
	pthread_cond_destroy(&p->change);
	pthread_mutex_destroy(&p->mutex);
	pthread_mutex_destroy(&p->done_mutex);
	free(p);
}

/* ---- filling -------------------------------------------------------------------------------------------- */

static void send(struct packer *p, enum blob_type type)
{
	struct pack **last = &p->full;

	while (*last)
		last = &(*last)->next;
	*last = p->open[type];
	p->open[type]->next = NULL;
	p->open[type] = NULL;
	pthread_cond_broadcast(&p->change);
}

/* With room for what a pack holds, so that it need not grow. */
static struct pack *new_pack(void)
{
	struct pack *k = calloc(1, sizeof(*k));

	if (k)
		k->body = (struct bytes){ .at = malloc(PACK_TARGET + PACK_TARGET / 8), .room = PACK_TARGET + PACK_TARGET / 8 };
	if (!k || !k->body.at)
		ui_out_of_memory();
	return k;
}

/* A pack to fill is in p->open[type], or something has failed. */
static void provide(struct packer *p, enum blob_type type)
{
	while (!p->failed && !p->open[type]) {
		if (p->spare) {
			p->open[type] = p->spare;
			p->spare = p->spare->next;
		} else if (p->n_packs < p->n_packs_max) {
			p->open[type] = new_pack();
			p->n_packs++;
		} else {
			pthread_cond_wait(&p->change, &p->mutex);
		}
	}
}

static int failure(const struct packer *p, struct vd_error *e)
{
	if (p->failed && e)
		*e = p->error;
	return p->failed;
}

int packer_add(struct packer *p, const struct blob *b, const uint8_t *sealed, struct vd_error *e)
{
	int r;

	pthread_mutex_lock(&p->mutex);
	provide(p, b->type);
	r = failure(p, e);
	if (r == 0) {
		append(p->open[b->type], b, sealed);
		if (p->open[b->type]->body.n >= PACK_TARGET)
			send(p, b->type);
	}
	pthread_mutex_unlock(&p->mutex);
	return r;
}

int packer_flush(struct packer *p, struct vd_error *e)
{
	int r;

	pthread_mutex_lock(&p->mutex);
	for (int type = BLOB_DATA; type <= BLOB_TREE; type++)
		if (p->open[type] && p->open[type]->n)
			send(p, (enum blob_type)type);
	while (p->full || p->n_busy)
		pthread_cond_wait(&p->change, &p->mutex);
	r = failure(p, e);
	pthread_mutex_unlock(&p->mutex);
	return r;
}

/* ---- reading -------------------------------------------------------------------------------------------- */

static int read_entries(const char *name, const uint8_t *at, size_t left, uint64_t body, struct blob **blobs, size_t *n, struct vd_error *e)
{
	struct blob *all = calloc(left / ENTRY_RAW + 1, sizeof(*all));
	uint64_t off = 0;

	if (!all)
		ui_out_of_memory();
	for (*n = 0; left; (*n)++) {
		bool is_packed = at[0] & 2;
		size_t len = is_packed ? ENTRY_PACKED : ENTRY_RAW;
		struct blob *b = &all[*n];

		if (at[0] > 3 || left < len || off > body)
			break;
		*b = (struct blob){ .type = at[0] & 1 ? BLOB_TREE : BLOB_DATA, .off = (uint32_t)off, .len = get_u32(at + 1) };
		b->raw_len = is_packed ? get_u32(at + 5) : 0;
		memcpy(b->id, at + len - ID_SIZE, ID_SIZE);
		off += b->len;
		at += len;
		left -= len;
	}
	if (!left && off == body) {
		*blobs = all;
		return 0;
	}
	free(all);
	return fail(e, VD_ECORRUPT, "pack %.8s: its header contradicts itself", name);
}

static int judge_size(const char *name, uint64_t size, struct vd_error *e)
{
	if (size >= SEAL_OVERHEAD + TAIL_SIZE && size <= UINT32_MAX)
		return 0;
	return fail(e, VD_ECORRUPT, "pack %.8s: %llu bytes are no pack", name, (unsigned long long)size);
}

static int judge_tail(const char *name, uint64_t size, const uint8_t tail[TAIL_SIZE], uint32_t *len, struct vd_error *e)
{
	*len = get_u32(tail);
	if (*len >= SEAL_OVERHEAD && *len <= HEADER_MAX && *len <= size - TAIL_SIZE)
		return 0;
	return fail(e, VD_ECORRUPT, "pack %.8s: its header would have %u bytes", name, *len);
}

/* `header`: as it lies there. */
static int open_entries(struct bench *w, const char *name, uint8_t *header, uint32_t len, uint64_t body, struct blob **blobs, size_t *n,
			struct vd_error *e)
{
	int r = unseal(bench_sealer(w), header, len, header + 16, e);

	if (r < 0)
		return fail(e, r, "pack %.8s: its header does not hold", name);
	return read_entries(name, header + 16, len - SEAL_OVERHEAD, body, blobs, n, e);
}

int pack_read_header(struct store *store, struct bench *w, const char *name, uint64_t size, struct blob **blobs, size_t *n, struct vd_error *e)
{
	uint8_t tail[TAIL_SIZE], *header;
	uint32_t len;
	int r = judge_size(name, size, e);

	if (r == 0)
		r = store_get(store, STORE_PACK, name, size - TAIL_SIZE, tail, TAIL_SIZE, e);
	if (r == 0)
		r = judge_tail(name, size, tail, &len, e);
	if (r < 0)
		return r;
	header = bench_room(w, len);
	r = store_get(store, STORE_PACK, name, size - TAIL_SIZE - len, header, len, e);
	return r < 0 ? r : open_entries(w, name, header, len, size - TAIL_SIZE - len, blobs, n, e);
}

int pack_open_header(struct bench *w, const char *name, uint8_t *pack, uint64_t size, struct blob **blobs, size_t *n, struct vd_error *e)
{
	uint32_t len;
	int r = judge_size(name, size, e);

	if (r == 0)
		r = judge_tail(name, size, pack + size - TAIL_SIZE, &len, e);
	return r < 0 ? r : open_entries(w, name, pack + size - TAIL_SIZE - len, len, size - TAIL_SIZE - len, blobs, n, e);
}
