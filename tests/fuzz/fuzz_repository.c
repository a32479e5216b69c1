/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What lies in a repository, or a server says of it: the first byte says as what the rest is taken. What is accepted keeps the promises of the headers:
 * blobs lie within their pack, names are components of a path, lists hold no more than their text has room for.
 *
 * The corpus: what restic and vdisk write, and each with one rule broken.
 */
#include <stdlib.h>
#include <string.h>

#include "backup/disk.h"
#include "backup/jread.h"
#include "backup/rest_list.h"
#include "backup/snapshot.h"
#include "backup/tree.h"
#include "ledger/crypto.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define NAME "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void must(bool holds)
{
	if (!holds)
		abort();
}

/* Whole, and cut into pieces as they come over a wire: the same comes out. */
static void read_list(const uint8_t *data, size_t len)
{
	struct rest_list whole = { 0 }, pieces = { 0 };
	bool is_good = rest_list_feed(&whole, (const char *)data, len), still = true;

	rest_list_begin(&pieces);
	for (size_t i = 0; i < len && still; i++)
		still = rest_list_feed(&pieces, (const char *)data + i, 1);
	must(is_good == still && whole.n == pieces.n && whole.n <= len / 64);
	must(rest_list_is_done(&whole) == rest_list_is_done(&pieces));
	rest_list_free(&whole);
	rest_list_free(&pieces);
}

static int look_at(void *ctx, size_t pack, const struct blob *b)
{
	must(pack < index_packs(ctx) && b->len >= SEAL_OVERHEAD && (uint64_t)b->off + b->len <= UINT32_MAX);
	return 0;
}

static void read_index(const uint8_t *data, size_t len)
{
	struct index *x = NULL;
	struct vd_error e;

	must(index_new(&x, &e) == 0);
	if (index_read(x, NAME, data, len, &e) == 0)
		index_each(x, look_at, x);
	must(index_count(x) <= len / 64);
	index_free(x);
}

static void read_snapshot(const uint8_t *data, size_t len)
{
	struct snapshot s;
	struct vd_error e;

	if (snapshot_read(NAME, data, len, &s, &e) < 0)
		return;
	must(s.host && s.user && s.n_paths <= SNAPSHOT_PATHS_MAX && s.n_tags <= SNAPSHOT_TAGS_MAX && s.nsec < 1000000000);
	snapshot_free(&s);
}

static void read_tree(const uint8_t *data, size_t len)
{
	struct vd_error e;
	struct tree t;

	if (tree_read(data, len, &t, &e) < 0)
		return;
	for (size_t i = 0; i < t.n; i++) {
		const struct node *n = &t.at[i];

		must(n->name[0] && strcmp(n->name, ".") != 0 && strcmp(n->name, "..") != 0 && !strchr(n->name, '/'));
		must(n->n_content <= len / 64);
	}
	tree_free(&t);
}

static void read_facts(const uint8_t *data, size_t len)
{
	struct disk_facts f;
	struct vd_error e;

	if (disk_read_facts(data, len, &f, &e) == 0)
		must(memchr(f.source, 0, sizeof(f.source)) && memchr(f.format, 0, sizeof(f.format)) && memchr(f.root, 0, sizeof(f.root)));
}

/* The bytes are what lies under the seal: an attacker may have the key, too. Before them there is room for blobs. */
static void read_pack(const uint8_t *data, size_t len)
{
	static const struct seal_key key;
	struct bench *w = NULL;
	struct vd_error e;
	struct blob *blobs = NULL;
	size_t n = 0, body = len ? data[0] * 16u : 0, size = body + len + SEAL_OVERHEAD + 4;
	uint8_t *pack = calloc(1, size);

	must(pack && bench_new(&key, &w, &e) == 0 && seal(bench_sealer(w), data, len, pack + body, &e) == 0);
	for (int i = 0; i < 4; i++)
		pack[size - 4 + (size_t)i] = (uint8_t)((len + SEAL_OVERHEAD) >> 8 * i);
	if (pack_open_header(w, NAME, pack, size, &blobs, &n, &e) == 0)
		for (size_t i = 0; i < n; i++)
			must((uint64_t)blobs[i].off + blobs[i].len <= body);
	free(blobs);
	bench_free(w);
	free(pack);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static void (*const readers[])(const uint8_t *, size_t) = { read_list, read_index, read_snapshot, read_tree, read_facts, read_pack };

	crypto_setup();
	if (len)
		readers[(data[0] - '0') % 6u](data + 1, len - 1);
	return 0;
}
