/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An open-addressing table of blobs by id. Reading index files from the store is repo.c's. */
#include "backup/index.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "backup/jread.h"
#include "fail.h"
#include "ui.h"

#define PACKS_MAX (1u << 28)
#define NOWHERE (PACKS_MAX - 1)         /* claimed, and not in a pack yet */

struct entry {
	uint8_t id[ID_SIZE];
	uint32_t off, len, raw_len;
	uint32_t pack_and_type;         /* pack * 2 + type, plus 1; 0: free */
};

struct index {
	pthread_mutex_t mutex;
	struct entry *at;
	size_t n, room;                 /* room: a power of two */
	uint8_t (*packs)[ID_SIZE];
	size_t n_packs, packs_room;
};

int index_new(struct index **out, struct vd_error *e)
{
	struct index *x = calloc(1, sizeof(*x));

	(void)e;
	if (!x)
		ui_out_of_memory();
	pthread_mutex_init(&x->mutex, NULL);
	*out = x;
	return 0;
}

void index_free(struct index *x)
{
	if (!x)
		return;
	pthread_mutex_destroy(&x->mutex);
	free(x->at);
	free(x->packs);
	free(x);
}

/* Ids are hashes: their first bytes are as good as any. */
static struct entry *slot_of(struct entry *at, size_t room, enum blob_type type, const uint8_t id[ID_SIZE])
{
	size_t i;

	memcpy(&i, id, sizeof(i));
	for (i &= room - 1;; i = (i + 1) & (room - 1)) {
		struct entry *x = &at[i];

		if (!x->pack_and_type || (((x->pack_and_type - 1) & 1) == (unsigned)type && !memcmp(x->id, id, ID_SIZE)))
			return x;
	}
}

static void grow(struct index *x)
{
	size_t room = x->room ? 2 * x->room : 4096;
	struct entry *at;

	if (x->room && x->n < x->room / 4 * 3)
		return;
	at = calloc(room, sizeof(*at));
	if (!at)
		ui_out_of_memory();
	for (size_t i = 0; i < x->room; i++)
		if (x->at[i].pack_and_type)
			*slot_of(at, room, (enum blob_type)((x->at[i].pack_and_type - 1) & 1), x->at[i].id) = x->at[i];
	free(x->at);
	x->at = at;
	x->room = room;
}

static uint32_t pack_of(const struct entry *x)
{
	return (x->pack_and_type - 1) >> 1;
}

static void set(struct entry *x, uint32_t pack, const struct blob *b)
{
	memcpy(x->id, b->id, ID_SIZE);
	x->off = b->off;
	x->len = b->len;
	x->raw_len = b->raw_len;
	x->pack_and_type = pack * 2 + (uint32_t)b->type + 1;
}

static uint32_t add_pack(struct index *x, const uint8_t pack[ID_SIZE])
{
	if (x->n_packs == x->packs_room) {
		x->packs_room = x->packs_room ? 2 * x->packs_room : 256;
		x->packs = reallocarray(x->packs, x->packs_room, ID_SIZE);
		if (!x->packs || x->packs_room >= NOWHERE)
			ui_out_of_memory();
	}
	memcpy(x->packs[x->n_packs], pack, ID_SIZE);
	return (uint32_t)x->n_packs++;
}

void index_add(struct index *x, const uint8_t pack[ID_SIZE], const struct blob *blobs, size_t n)
{
	uint32_t p;

	pthread_mutex_lock(&x->mutex);
	p = add_pack(x, pack);
	for (size_t i = 0; i < n; i++) {
		struct entry *s;

		grow(x);
		s = slot_of(x->at, x->room, blobs[i].type, blobs[i].id);
		x->n += !s->pack_and_type;
		if (!s->pack_and_type || pack_of(s) == NOWHERE)
			set(s, p, &blobs[i]);
	}
	pthread_mutex_unlock(&x->mutex);
}

bool index_find(struct index *x, enum blob_type type, const uint8_t id[ID_SIZE], struct blob *b, uint8_t pack[ID_SIZE])
{
	struct entry *s = NULL;
	bool found;

	pthread_mutex_lock(&x->mutex);
	if (x->room)
		s = slot_of(x->at, x->room, type, id);
	found = s && s->pack_and_type && pack_of(s) != NOWHERE;
	if (found) {
		*b = (struct blob){ .type = type, .off = s->off, .len = s->len, .raw_len = s->raw_len };
		memcpy(b->id, id, ID_SIZE);
		memcpy(pack, x->packs[pack_of(s)], ID_SIZE);
	}
	pthread_mutex_unlock(&x->mutex);
	return found;
}

bool index_claim(struct index *x, enum blob_type type, const uint8_t id[ID_SIZE])
{
	struct blob b = { .type = type };
	struct entry *s;
	bool is_new;

	pthread_mutex_lock(&x->mutex);
	grow(x);
	s = slot_of(x->at, x->room, type, id);
	is_new = !s->pack_and_type;
	if (is_new) {
		memcpy(b.id, id, ID_SIZE);
		set(s, NOWHERE, &b);
		x->n++;
	}
	pthread_mutex_unlock(&x->mutex);
	return is_new;
}

size_t index_count(const struct index *x)
{
	return x->n;
}

size_t index_packs(const struct index *x)
{
	return x->n_packs;
}

const uint8_t *index_pack(const struct index *x, size_t i)
{
	return x->packs[i];
}

int index_each(struct index *x, int (*each)(void *ctx, size_t pack, const struct blob *b), void *ctx)
{
	int r = 0;

	for (size_t i = 0; i < x->room && r == 0; i++) {
		const struct entry *s = &x->at[i];
		struct blob b = { .off = s->off, .len = s->len, .raw_len = s->raw_len };

		if (!s->pack_and_type || pack_of(s) == NOWHERE)
			continue;
		b.type = (enum blob_type)((s->pack_and_type - 1) & 1);
		memcpy(b.id, s->id, ID_SIZE);
		r = each(ctx, pack_of(s), &b);
	}
	return r;
}

/* ---- the text of an index file -------------------------------------------------------------------------- */

static enum blob_type read_type(struct jread *j)
{
	char word[8];

	jread_text(j, word, sizeof(word));
	if (strcmp(word, "data") != 0 && strcmp(word, "tree") != 0)
		j->is_bad = true;
	return word[0] == 't' ? BLOB_TREE : BLOB_DATA;
}

static uint32_t read_u32(struct jread *j)
{
	uint64_t v = jread_u64(j);

	if (v > UINT32_MAX)
		j->is_bad = true;
	return (uint32_t)v;
}

static void read_blob(struct jread *j, struct blob *b)
{
	char key[32];

	if (!jread_object(j))
		j->is_bad = true;
	while (jread_key(j, key, sizeof(key))) {
		if (!strcmp(key, "id"))
			jread_id(j, b->id);
		else if (!strcmp(key, "type"))
			b->type = read_type(j);
		else if (!strcmp(key, "offset"))
			b->off = read_u32(j);
		else if (!strcmp(key, "length"))
			b->len = read_u32(j);
		else if (!strcmp(key, "uncompressed_length"))
			b->raw_len = read_u32(j);
		else
			jread_skip(j);
	}
	/* No pack is larger than its own places can say. */
	if (b->len < SEAL_OVERHEAD || b->off > UINT32_MAX - b->len)
		j->is_bad = true;
}

/* Blobs of one pack, in memory that is used again for the next. */
struct blobs {
	struct blob *at;
	size_t n, room;
};

static void read_pack(struct jread *j, struct blobs *all, uint8_t pack[ID_SIZE])
{
	char key[32];

	all->n = 0;
	while (jread_key(j, key, sizeof(key))) {
		if (!strcmp(key, "id")) {
			jread_id(j, pack);
			continue;
		}
		if (strcmp(key, "blobs") != 0 || !jread_array(j)) {
			if (strcmp(key, "blobs") != 0)
				jread_skip(j);
			continue;
		}
		while (jread_item(j)) {
			if (all->n == all->room) {
				all->room = all->room ? 2 * all->room : 256;
				all->at = reallocarray(all->at, all->room, sizeof(*all->at));
				if (!all->at)
					ui_out_of_memory();
			}
			all->at[all->n] = (struct blob){ 0 };
			read_blob(j, &all->at[all->n++]);
		}
	}
}

/* "packs" of an index; what it supersedes is gone from the repository when it counts. */
static void read_packs(struct index *x, struct jread *j)
{
	struct blobs all = { 0 };

	if (jread_array(j))
		while (jread_item(j)) {
			uint8_t pack[ID_SIZE] = { 0 };

			if (jread_object(j))
				read_pack(j, &all, pack);
			if (!j->is_bad)
				index_add(x, pack, all.at, all.n);
		}
	free(all.at);
}

int index_read(struct index *x, const char *name, const void *json, size_t n, struct vd_error *e)
{
	struct jread j = jread_of(json, n);
	char key[32];

	if (jread_object(&j))
		while (jread_key(&j, key, sizeof(key))) {
			if (!strcmp(key, "packs"))
				read_packs(x, &j);
			else
				jread_skip(&j);
		}
	return jread_is_done(&j) ? 0 : fail(e, VD_ECORRUPT, "index %.8s: it is not what an index looks like", name);
}

void index_write_pack(struct bytes *text, const uint8_t pack[ID_SIZE], const struct blob *blobs, size_t n)
{
	char hex[ID_HEX_SIZE];

	id_show(pack, hex);
	bytes_format(text, "%s{\"id\":\"%s\",\"blobs\":[", text->n ? "," : "{\"packs\":[", hex);
	for (size_t i = 0; i < n; i++) {
		const struct blob *b = &blobs[i];

		id_show(b->id, hex);
		bytes_format(text, "%s{\"id\":\"%s\",\"type\":\"%s\",\"offset\":%u,\"length\":%u", i ? "," : "", hex,
			     b->type == BLOB_TREE ? "tree" : "data", b->off, b->len);
		if (b->raw_len)
			bytes_format(text, ",\"uncompressed_length\":%u", b->raw_len);
		bytes_text(text, "}");
	}
	bytes_text(text, "]}");
}

void index_write_end(struct bytes *text)
{
	bytes_text(text, text->n ? "]}" : "{\"packs\":[]}");
}
