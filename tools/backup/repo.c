/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opens and makes repositories, and takes objects in and out. What they mean, and the store, are others'; locks are lock.c's. */
#include "backup/repo.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/jread.h"
#include "backup/keyfile.h"
#include "backup/polynomial.h"
#include "fail.h"
#include "locked.h"
#include "ui.h"

#define KEYS_TRIED 20                   /* as restic does: each costs a derivation */
#define OBJECT_MAX (256u << 20)         /* stored bytes of a small object; indexes have 8 MiB */
#define TEXT_MAX (1u << 30)             /* of it, unpacked */
#define VERSION_2_PREFIX 2              /* in front of what is compressed; plain JSON has none */

struct names {
	char (*at)[STORE_NAME_SIZE];
	size_t n, room;
};

struct repo {
	struct store *store;
	struct seal_key *key;           /* locked */
	char id[ID_HEX_SIZE];
	unsigned version;
	struct index *index;
	struct names indexes;           /* that were read */
	struct repo_lock *lock;
	pthread_mutex_t mutex;          /* of the benches that nobody uses */
	struct bench *benches[64];
	size_t n_benches;
};

/* ---- names ---------------------------------------------------------------------------------------------- */

static int add_name(void *ctx, const char *name, uint64_t size)
{
	struct names *all = ctx;

	(void)size;
	if (all->n == all->room) {
		all->room = all->room ? 2 * all->room : 32;
		all->at = reallocarray(all->at, all->room, STORE_NAME_SIZE);
		if (!all->at)
			ui_out_of_memory();
	}
	snprintf(all->at[all->n++], STORE_NAME_SIZE, "%s", name);
	return 0;
}

static bool has_name(const struct names *all, const char *name)
{
	for (size_t i = 0; i < all->n; i++)
		if (!strcmp(all->at[i], name))
			return true;
	return false;
}

/* ---- benches -------------------------------------------------------------------------------------------- */

static int take_bench(struct repo *r, struct bench **out, struct vd_error *e)
{
	*out = NULL;
	pthread_mutex_lock(&r->mutex);
	if (r->n_benches)
		*out = r->benches[--r->n_benches];
	pthread_mutex_unlock(&r->mutex);
	return *out ? 0 : bench_new(r->key, out, e);
}

static void give_back(struct repo *r, struct bench *b)
{
	pthread_mutex_lock(&r->mutex);
	if (b && r->n_benches < sizeof(r->benches) / sizeof(r->benches[0])) {
		r->benches[r->n_benches++] = b;
		b = NULL;
	}
	pthread_mutex_unlock(&r->mutex);
	bench_free(b);
}

/* ---- small objects -------------------------------------------------------------------------------------- */

static const char *kind_word(enum store_kind kind)
{
	static const char *const words[] = { "the config", "key", "lock", "snapshot", "index", "pack" };

	return words[kind];
}

/* As it lies there, and what its name says. */
static int fetch(struct repo *r, enum store_kind kind, const char *name, struct bytes *raw, struct vd_error *e)
{
	uint8_t id[ID_SIZE];
	char hex[ID_HEX_SIZE];
	uint64_t size;
	int c = store_size(r->store, kind, name, &size, e);

	if (c < 0)
		return c;
	if (size > OBJECT_MAX)
		return fail(e, VD_ECORRUPT, "%s %.8s: %llu bytes are too many", kind_word(kind), name, (unsigned long long)size);
	raw->at = malloc(size ? size : 1);
	if (!raw->at)
		ui_out_of_memory();
	raw->n = raw->room = size;
	c = store_get(r->store, kind, name, 0, raw->at, size, e);
	if (c < 0 || kind == STORE_CONFIG)
		return c;
	id_of(raw->at, raw->n, id);
	id_show(id, hex);
	return strcmp(hex, name) == 0 ? 0 : fail(e, VD_EAUTH, "%s %.8s: what lies there is not what its name says", kind_word(kind), name);
}

static int unwrap(struct bench *w, struct bytes *raw, struct bytes *text, struct vd_error *e)
{
	size_t n = raw->n - SEAL_OVERHEAD;
	uint8_t *plain = raw->at + 16;
	int c = unseal(bench_sealer(w), raw->at, raw->n, plain, e);

	if (c < 0)
		return c;
	if (n && plain[0] == VERSION_2_PREFIX)
		return zpress_unpack_any(bench_zpress(w), plain + 1, n - 1, TEXT_MAX, text, e);
	bytes_add(text, plain, n);
	return 0;
}

int repo_load(struct repo *r, enum store_kind kind, const char *name, struct bytes *text, struct vd_error *e)
{
	struct bytes raw = { 0 };
	struct bench *w = NULL;
	int c = fetch(r, kind, name, &raw, e);

	if (c == 0)
		c = take_bench(r, &w, e);
	if (c == 0) {
		c = unwrap(w, &raw, text, e);
		if (c < 0)
			c = fail(e, c, "%s %.8s: %s", kind_word(kind), name, strdupa(e->message));
	}
	give_back(r, w);
	bytes_free(&raw);
	return c;
}

int repo_save(struct repo *r, enum store_kind kind, const struct bytes *text, char name[STORE_NAME_SIZE], struct vd_error *e)
{
	size_t room = zpress_bound(text->n) + 1, n = text->n;
	uint8_t *sealed = malloc(room + SEAL_OVERHEAD), *plain, id[ID_SIZE];
	struct bench *w = NULL;
	int c = take_bench(r, &w, e);

	if (!sealed)
		ui_out_of_memory();
	plain = sealed + 16;
	/* The config alone is never compressed. */
	if (c == 0 && kind != STORE_CONFIG && r->version >= 2) {
		plain[0] = VERSION_2_PREFIX;
		c = zpress_pack(bench_zpress(w), text->at, text->n, plain + 1, room - 1, &n, e);
		n++;
	} else if (c == 0) {
		memcpy(plain, text->at, n);
	}
	if (c == 0)
		c = seal(bench_sealer(w), plain, n, sealed, e);
	if (c == 0) {
		id_of(sealed, n + SEAL_OVERHEAD, id);
		id_show(id, name);
		if (kind == STORE_CONFIG)
			name[0] = '\0';
		c = store_put(r->store, kind, name, &(struct iovec){ sealed, n + SEAL_OVERHEAD }, 1, e);
	}
	give_back(r, w);
	free(sealed);
	return c;
}

/* ---- opening -------------------------------------------------------------------------------------------- */

static struct repo *new_repo(struct store *store)
{
	struct repo *r = calloc(1, sizeof(*r));

	if (!r)
		ui_out_of_memory();
	r->store = store;
	r->key = (struct seal_key *)(void *)locked_new(sizeof(*r->key));
	pthread_mutex_init(&r->mutex, NULL);
	return r;
}

void repo_close(struct repo *r)
{
	if (!r)
		return;
	repo_unlock(r);
	while (r->n_benches)
		bench_free(r->benches[--r->n_benches]);
	pthread_mutex_destroy(&r->mutex);
	index_free(r->index);
	free(r->indexes.at);
	locked_free((char *)r->key, sizeof(*r->key));
	free(r);
}

static int judge_config(struct repo *r, const struct bytes *text, struct vd_error *e)
{
	struct jread j = jread_of(text->at, text->n);
	uint8_t ignored[ID_SIZE];
	char key[32];

	if (jread_object(&j))
		while (jread_key(&j, key, sizeof(key))) {
			if (!strcmp(key, "version"))
				r->version = (unsigned)jread_u64(&j);
			else if (!strcmp(key, "id"))
				jread_text(&j, r->id, sizeof(r->id));
			else
				jread_skip(&j);
		}
	if (!jread_is_done(&j) || !id_read(r->id, ignored))
		return fail(e, VD_ECORRUPT, "%s: its config is not what one looks like", repo_where(r));
	if (r->version < 1 || r->version > 2)
		return fail(e, VD_EUNSUPPORTED, "%s: it is of version %u; known are 1 and 2", repo_where(r), r->version);
	return index_new(&r->index, e);
}

/* One key file with each secret. */
static int try_key(struct repo *r, const char *name, struct vd_key *const *secrets, size_t n, struct vd_error *e)
{
	struct bytes text = { 0 };
	int c = fetch(r, STORE_KEY, name, &text, e);

	if (c == 0)
		c = VD_EKEY;
	for (size_t i = 0; i < n && c == VD_EKEY; i++)
		c = keyfile_open(name, &text, secrets[i], r->key, e);
	bytes_free(&text);
	return c;
}

/* A key file that is damaged does not stop another from opening. */
static int unlock(struct repo *r, struct vd_key *const *secrets, size_t n, struct vd_error *e)
{
	struct names keys = { 0 };
	int c = store_list(r->store, STORE_KEY, add_name, &keys, e), other = 0;
	struct vd_error why = { 0 }, one;

	for (size_t i = 0; c == 0 && i < keys.n && i < KEYS_TRIED; i++) {
		int t = try_key(r, keys.at[i], secrets, n, &one);

		if (t == 0) {
			free(keys.at);
			return 0;
		}
		if (t != VD_EKEY && !other) {
			other = t;
			why = one;
		}
	}
	if (c == 0 && other) {
		*e = why;
		c = other;
	} else if (c == 0 && !keys.n) {
		c = fail(e, VD_ENOENT, "%s: no repository is there", repo_where(r));
		fail_hint(e, c, "make one: vdisk repo init --repo %s", repo_where(r));
	} else if (c == 0) {
		c = fail(e, VD_EKEY, "%s: no secret that was given opens this repository", repo_where(r));
	}
	free(keys.at);
	return c;
}

int repo_open(struct store *store, struct vd_key *const *secrets, size_t n, struct repo **out, struct vd_error *e)
{
	struct repo *r = new_repo(store);
	struct bytes text = { 0 };
	uint64_t size;
	int c = store_size(store, STORE_CONFIG, "", &size, e);

	if (c == VD_ENOENT) {
		fail(e, c, "%s: no repository is there", store_where(store));
		fail_hint(e, c, "make one: vdisk repo init --repo %s", store_where(store));
	}
	if (c == 0)
		c = unlock(r, secrets, n, e);
	if (c == 0)
		c = repo_load(r, STORE_CONFIG, "", &text, e);
	if (c == 0)
		c = judge_config(r, &text, e);
	bytes_free(&text);
	if (c < 0) {
		repo_close(r);
		return c;
	}
	*out = r;
	return 0;
}

/* ---- making --------------------------------------------------------------------------------------------- */

static int put_key(struct repo *r, const struct vd_key *secret, struct vd_error *e)
{
	struct bytes text = { 0 };
	char name[ID_HEX_SIZE];
	uint8_t id[ID_SIZE];
	int c = keyfile_write(secret, r->key, &text, e);

	if (c == 0) {
		id_of(text.at, text.n, id);
		id_show(id, name);
		c = store_put(r->store, STORE_KEY, name, &(struct iovec){ text.at, text.n }, 1, e);
	}
	bytes_free(&text);
	return c;
}

static int put_config(struct repo *r, struct vd_error *e)
{
	struct bytes text = { 0 };
	char name[STORE_NAME_SIZE];
	uint8_t id[ID_SIZE];
	int c;

	seal_random(id, sizeof(id));
	id_show(id, r->id);
	r->version = 2;
	bytes_format(&text, "{\"version\":2,\"id\":\"%s\",\"chunker_polynomial\":\"%llx\"}", r->id, (unsigned long long)polynomial_random());
	c = repo_save(r, STORE_CONFIG, &text, name, e);
	bytes_free(&text);
	return c;
}

int repo_create(struct store *store, const struct vd_key *secret, struct repo **out, struct vd_error *e)
{
	struct repo *r;
	uint64_t size;
	int c = store_size(store, STORE_CONFIG, "", &size, e);

	if (c != VD_ENOENT)
		return c < 0 ? c : fail(e, VD_EEXIST, "%s: a repository is there already", store_where(store));
	r = new_repo(store);
	seal_new_key(r->key);
	c = put_key(r, secret, e);
	if (c == 0)
		c = put_config(r, e);
	if (c == 0)
		c = index_new(&r->index, e);
	if (c < 0) {
		repo_close(r);
		return c;
	}
	*out = r;
	return 0;
}

/* ---- what it has ---------------------------------------------------------------------------------------- */

struct store *repo_store(const struct repo *r)
{
	return r->store;
}

const char *repo_where(const struct repo *r)
{
	return store_where(r->store);
}

const char *repo_id(const struct repo *r)
{
	return r->id;
}

unsigned repo_version(const struct repo *r)
{
	return r->version;
}

const struct seal_key *repo_key(const struct repo *r)
{
	return r->key;
}

struct index *repo_index(struct repo *r)
{
	return r->index;
}

struct repo_lock **repo_lock_slot(struct repo *r)
{
	return &r->lock;
}

int repo_load_index(struct repo *r, struct vd_error *e)
{
	struct names found = { 0 };
	int c = store_list(r->store, STORE_INDEX, add_name, &found, e);

	for (size_t i = 0; i < found.n && c == 0; i++) {
		struct bytes text = { 0 };

		if (has_name(&r->indexes, found.at[i]))
			continue;
		c = repo_load(r, STORE_INDEX, found.at[i], &text, e);
		if (c == 0)
			c = index_read(r->index, found.at[i], text.at, text.n, e);
		if (c == 0)
			add_name(&r->indexes, found.at[i], 0);
		bytes_free(&text);
	}
	free(found.at);
	return c;
}

static int load_once(struct repo *r, struct bench *w, const struct blob *b, const char *pack, uint8_t *out, struct vd_error *e)
{
	uint8_t *sealed = bench_room(w, b->len);
	int c = store_get(r->store, STORE_PACK, pack, b->off, sealed, b->len, e);

	return c < 0 ? c : blob_open(w, b, sealed, out, e);
}

int repo_load_blob(struct repo *r, enum blob_type type, const uint8_t id[ID_SIZE], struct bytes *out, struct vd_error *e)
{
	size_t max = type == BLOB_TREE ? BLOB_TREE_MAX : BLOB_DATA_MAX;
	char hex[ID_HEX_SIZE], name[ID_HEX_SIZE];
	uint8_t pack[ID_SIZE], *content;
	struct bench *w = NULL;
	struct blob b;
	int c;

	id_show(id, hex);
	if (!index_find(r->index, type, id, &b, pack))
		return fail(e, VD_ENOENT, "blob %.8s: no index names it", hex);
	id_show(pack, name);
	if (blob_size(&b) > max)
		return fail(e, VD_ECORRUPT, "blob %.8s: %zu bytes are too many", hex, blob_size(&b));
	c = take_bench(r, &w, e);
	content = malloc(blob_size(&b) + 1);
	if (!content)
		ui_out_of_memory();
	if (c == 0)
		c = load_once(r, w, &b, name, content, e);
	/* What the memory or the cable has spoilt is well the second time. */
	if (c == VD_EAUTH || c == VD_ECORRUPT)
		c = load_once(r, w, &b, name, content, e);
	if (c < 0)
		c = fail(e, c, "blob %.8s of pack %.8s: %s", hex, name, strdupa(e->message));
	else
		bytes_add(out, content, blob_size(&b));
	free(content);
	give_back(r, w);
	return c;
}
