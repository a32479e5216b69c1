/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Takes a blob from content to what lies in a pack, and back. The pack around it is pack.c's. */
#include "backup/blob.h"

#include <stdlib.h>
#include <string.h>

#include "fail.h"
#include "ui.h"

struct room {
	uint8_t *at;
	size_t n;
};

struct bench {
	struct sealer *sealer;
	struct zpress *zpress;
	struct room sealed;             /* what blob_close() made */
	struct room plain;              /* compressed, not sealed any more */
	struct room fetched;            /* bench_room() */
};

static uint8_t *grow(struct room *r, size_t n)
{
	if (r->n < n) {
		free(r->at);
		r->at = malloc(n);
		r->n = n;
		if (!r->at)
			ui_out_of_memory();
	}
	return r->at;
}

void bench_free(struct bench *b)
{
	if (!b)
		return;
	sealer_free(b->sealer);
	zpress_free(b->zpress);
	free(b->sealed.at);
	free(b->plain.at);
	free(b->fetched.at);
	free(b);
}

int bench_new(const struct seal_key *key, struct bench **out, struct vd_error *e)
{
	struct bench *b = calloc(1, sizeof(*b));
	int r;

	if (!b)
		ui_out_of_memory();
	r = sealer_new(key, &b->sealer, e);
	if (r == 0)
		r = zpress_new(&b->zpress, e);
	if (r < 0) {
		bench_free(b);
		return r;
	}
	*out = b;
	return 0;
}

struct sealer *bench_sealer(struct bench *b)
{
	return b->sealer;
}

struct zpress *bench_zpress(struct bench *b)
{
	return b->zpress;
}

uint8_t *bench_room(struct bench *b, size_t n)
{
	return grow(&b->fetched, n ? n : 1);
}

size_t blob_size(const struct blob *b)
{
	return b->raw_len ? b->raw_len : b->len > SEAL_OVERHEAD ? b->len - SEAL_OVERHEAD : 0;
}

int blob_close(struct bench *w, const void *content, size_t n, struct blob *b, const uint8_t **sealed, struct vd_error *e)
{
	size_t room = zpress_bound(n), packed;
	uint8_t *out = grow(&w->sealed, room + SEAL_OVERHEAD);
	int r = zpress_pack(w->zpress, content, n, out + 16, room, &packed, e);

	if (r < 0)
		return r;
	/* What does not shrink lies as it is, as restic reads it, too. */
	b->raw_len = packed < n ? (uint32_t)n : 0;
	if (packed >= n)
		packed = n;
	r = seal(w->sealer, b->raw_len ? out + 16 : content, packed, out, e);
	b->len = (uint32_t)(packed + SEAL_OVERHEAD);
	*sealed = out;
	return r;
}

static int judge(const struct blob *b, struct vd_error *e)
{
	size_t max = b->type == BLOB_TREE ? BLOB_TREE_MAX : BLOB_DATA_MAX;

	if (b->len < SEAL_OVERHEAD || blob_size(b) > max || b->len > max + max / 128 + 1024)
		return fail(e, VD_ECORRUPT, "a blob of %u bytes (%zu of content) is not one of a repository", b->len, blob_size(b));
	return 0;
}

int blob_open(struct bench *w, const struct blob *b, const uint8_t *sealed, void *content, struct vd_error *e)
{
	uint8_t id[ID_SIZE], *plain = content;
	int r = judge(b, e);

	if (r < 0)
		return r;
	if (b->raw_len)
		plain = grow(&w->plain, b->len);
	r = unseal(w->sealer, sealed, b->len, plain, e);
	if (r == 0 && b->raw_len)
		r = zpress_unpack(w->zpress, plain, b->len - SEAL_OVERHEAD, content, b->raw_len, e);
	if (r < 0)
		return r;
	id_of(content, blob_size(b), id);
	return memcmp(id, b->id, ID_SIZE) == 0 ? 0 : fail(e, VD_EAUTH, "another blob lies in its place");
}
