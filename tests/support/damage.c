/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Walks a sound qcow2 file for its fields, then spoils some of them. Shares no code with the driver. */
#include "tests/support/damage.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libvdisk/base/bytes.h"
#include "libvdisk/base/checked.h"
#include "tests/support/model.h"

#define OFFSET UINT64_C(0x00fffffffffffe00)
#define COPIED (UINT64_C(1) << 63)
#define COMPRESSED (UINT64_C(1) << 62)
#define EXT_BITMAPS 0x23852875u
#define N_MAX 5

/* ---- the fields ----------------------------------------------------------------------------------------- */

static void add(struct damage_base *b, enum damage_field field, uint64_t at)
{
	if (!(b->n_spots & (b->n_spots - 1)))
		b->spots = realloc(b->spots, (b->n_spots ? b->n_spots * 2 : 1) * sizeof(*b->spots));
	b->spots[b->n_spots++] = (struct damage_spot){ field, at };
	b->of_kind[field]++;
}

static uint64_t word(const struct damage_base *b, uint64_t at)
{
	return at + 8 <= b->size ? vd_get_be64(b->bytes + at) : 0;
}

static void survey_l1(struct damage_base *b, uint64_t l1_off, uint32_t l1_size, bool is_snapshot)
{
	for (uint32_t i = 0; i < l1_size; i++) {
		uint64_t l2 = word(b, l1_off + i * 8) & OFFSET;

		add(b, is_snapshot ? DAMAGE_SNAPSHOT_L1 : DAMAGE_L1, l1_off + i * 8);
		for (uint64_t at = l2; l2 && at < l2 + b->cluster; at += b->entry_size) {
			/* Those in use, and some others. */
			if (!word(b, at) && at / b->entry_size % 64)
				continue;
			add(b, is_snapshot ? DAMAGE_SNAPSHOT_L2 : DAMAGE_L2, at);
			if (b->entry_size > 8)
				add(b, DAMAGE_L2_BITMAP, at + 8);
		}
	}
}

static void survey_snapshots(struct damage_base *b)
{
	uint64_t at = word(b, 64);

	for (uint32_t n = vd_get_be32(b->bytes + 60); n; n--) {
		const uint8_t *p = b->bytes + at;

		add(b, DAMAGE_SNAPSHOT, at);
		survey_l1(b, vd_get_be64(p), vd_get_be32(p + 8), true);
		at = vd_round_up(at + 40 + vd_get_be32(p + 36) + vd_get_be16(p + 12) + vd_get_be16(p + 14), 8);
	}
}

static void survey_refcounts(struct damage_base *b)
{
	uint64_t off = word(b, 48), len = vd_get_be32(b->bytes + 56) * b->cluster;

	for (uint64_t i = 0; i < len; i += 8)
		if (word(b, off + i) || i % 512 == 0)
			add(b, DAMAGE_REFT, off + i);
	for (uint64_t i = 0; i < b->n_clusters + 3; i++)
		add(b, DAMAGE_COUNT, i);
}

static void survey_bitmaps(struct damage_base *b)
{
	uint64_t at = b->version > 2 ? vd_get_be32(b->bytes + 100) : 72;

	for (; b->version > 2 && vd_get_be32(b->bytes + at); at += 8 + vd_round_up(vd_get_be32(b->bytes + at + 4), 8)) {
		uint64_t len = word(b, at + 16), dir = word(b, at + 24);

		if (vd_get_be32(b->bytes + at) != EXT_BITMAPS)
			continue;
		for (uint64_t i = 0; i < len; i += 8)
			add(b, DAMAGE_BITMAP_DIR, dir + i);
		/* Of the first bitmap. */
		for (uint32_t i = 0; i < vd_get_be32(b->bytes + dir + 8); i++)
			add(b, DAMAGE_BITMAP_TABLE, word(b, dir) + i * 8);
	}
}

void damage_survey(struct damage_base *b, uint8_t *bytes, uint64_t size)
{
	*b = (struct damage_base){ .bytes = bytes, .size = size };
	b->version = vd_get_be32(bytes + 4);
	b->cluster = UINT64_C(1) << vd_get_be32(bytes + 20);
	b->n_clusters = vd_round_up(size, b->cluster) / b->cluster;
	b->order = b->version > 2 ? vd_get_be32(bytes + 96) : 4;
	b->entry_size = b->version > 2 && bytes[79] & 16 ? 16 : 8;
	survey_refcounts(b);
	survey_l1(b, word(b, 40), vd_get_be32(bytes + 36), false);
	survey_snapshots(b);
	survey_bitmaps(b);
}

void damage_free(struct damage_base *b)
{
	free(b->bytes);
	free(b->spots);
}

/* ---- spoiling them -------------------------------------------------------------------------------------- */

struct spoiler {
	const struct damage_base *b;
	uint8_t *copy;
	uint64_t *size;
	uint64_t chance;
	char *story;
	size_t left;
};

static uint64_t below(struct spoiler *x, uint64_t n)
{
	return chance_below(&x->chance, n);
}

static void tell(struct spoiler *x, const char *fmt, ...) VD_PRINTF(2, 3);
static void tell(struct spoiler *x, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(x->story, x->left, fmt, ap);
	va_end(ap);
	n = n < (int)x->left ? n : (int)x->left - 1;
	x->story += n;
	x->left -= n;
}

/* Kinds come up alike, however many fields there are of each. */
static const struct damage_spot *draw(struct spoiler *x, enum damage_field field)
{
	size_t nth = below(x, x->b->of_kind[field]);

	for (size_t i = 0; i < x->b->n_spots; i++)
		if (x->b->spots[i].field == field && !nth--)
			return &x->b->spots[i];
	return NULL;
}

static void put(struct spoiler *x, uint64_t at, uint64_t value, unsigned n_bytes)
{
	for (unsigned i = 0; i < n_bytes && at + i < x->b->size; i++)
		x->copy[at + i] = value >> 8 * (n_bytes - 1 - i);
}

static uint64_t any_cluster(struct spoiler *x)
{
	return below(x, x->b->n_clusters) * x->b->cluster;
}

/* Another word of the same kind, as it is in the sound file. */
static uint64_t neighbour(struct spoiler *x, enum damage_field field)
{
	uint64_t value = 0;

	for (int i = 0; i < 8 && !value; i++)
		value = word(x->b, draw(x, field)->at);
	return value;
}

static uint64_t spoilt(struct spoiler *x, enum damage_field field, uint64_t old)
{
	uint64_t flags = old & ~OFFSET;

	switch (below(x, 10)) {
	case 0: return old ^ UINT64_C(1) << below(x, 64);
	case 1: return old ^ COPIED;
	case 2: return neighbour(x, field);
	case 3: return flags | any_cluster(x);
	case 4: return flags | ((old & OFFSET) + 512);
	case 5: return flags | (x->b->n_clusters + below(x, 40)) * x->b->cluster;
	case 6: return flags | UINT64_C(0x00f0000000000000);
	case 7: return 0;
	case 8: return old | UINT64_C(1) << (56 + below(x, 6)) | below(x, 2) << below(x, 9);
	default: return COPIED | any_cluster(x);
	}
}

static void spoil_word(struct spoiler *x, const struct damage_spot *spot)
{
	static const char *const names[] = {
		[DAMAGE_REFT] = "refcount table", [DAMAGE_L1] = "L1", [DAMAGE_L2] = "L2", [DAMAGE_SNAPSHOT_L1] = "snapshot's L1",
		[DAMAGE_SNAPSHOT_L2] = "snapshot's L2", [DAMAGE_L2_BITMAP] = "subcluster bits", [DAMAGE_BITMAP_DIR] = "bitmap directory",
		[DAMAGE_BITMAP_TABLE] = "bitmap table",
	};
	uint64_t old = word(x->b, spot->at), new = spot->field == DAMAGE_L2_BITMAP || spot->field == DAMAGE_BITMAP_DIR ?
		old ^ UINT64_C(1) << below(x, 64) : spoilt(x, spot->field, old);

	tell(x, "%s word at %" PRIu64 ": %016" PRIx64 " -> %016" PRIx64 "; ", names[spot->field], spot->at, old, new);
	put(x, spot->at, new, 8);
}

static void spoil_count(struct spoiler *x, uint64_t cluster)
{
	const struct damage_base *b = x->b;
	uint64_t bit = cluster % (b->cluster * 8 >> b->order) << b->order, bits = UINT64_C(1) << b->order;
	uint64_t block = word(b, word(b, 48) + cluster / (b->cluster * 8 >> b->order) * 8), at = block + bit / 8;
	uint64_t new = below(x, 4) ? below(x, 4) : chance_next(&x->chance);

	if (!block)
		return;
	tell(x, "refcount of %" PRIu64 " -> %" PRIu64 " (%u bits); ", cluster * b->cluster, new, (unsigned)bits);
	if (bits >= 8)
		put(x, at, new, bits / 8);
	else
		x->copy[at] = (x->copy[at] & ~(((1u << bits) - 1) << bit % 8)) | (new & ((1u << bits) - 1)) << bit % 8;
}

static void spoil_snapshot(struct spoiler *x, uint64_t at)
{
	static const struct { unsigned off, len; } fields[] = { { 0, 8 }, { 8, 4 }, { 12, 2 }, { 14, 2 }, { 36, 4 }, { 48, 8 } };
	size_t i = below(x, sizeof(fields) / sizeof(fields[0]));
	uint64_t value = fields[i].off ? below(x, 3) ? below(x, 200) : chance_next(&x->chance) : spoilt(x, DAMAGE_L1, word(x->b, at));

	tell(x, "snapshot entry at %" PRIu64 ": %u bytes at %u -> %" PRIx64 "; ", at, fields[i].len, fields[i].off, value);
	put(x, at + fields[i].off, value, fields[i].len);
}

static void spoil_header(struct spoiler *x)
{
	uint64_t nth = below(x, 6), at = 0, value = 0;

	switch (x->b->version > 2 ? nth : 1 + nth % 4) {
	case 0: at = 79; value = x->copy[79] ^ (1 + below(x, 2)); break;       /* dirty, corrupt */
	case 1: at = 39; value = x->copy[39] + below(x, 4); break;             /* L1 size */
	case 2: at = 59; value = x->copy[59] + below(x, 3); break;             /* refcount table's size */
	case 3: at = 63; value = below(x, 4); break;                           /* snapshots */
	case 4: at = 70; value = x->copy[70] ^ 1 << below(x, 8); break;        /* and their table */
	case 5: at = 95; value = x->copy[95] ^ 1; break;                       /* bitmaps hold */
	}
	tell(x, "header byte at %" PRIu64 ": %u -> %u; ", at, x->copy[at], (unsigned)value & 0xff);
	put(x, at, value, 1);
}

static void cut(struct spoiler *x)
{
	uint64_t by = 1 + below(x, 3 * x->b->cluster);

	if (by < *x->size / 2)
		*x->size -= by;
	tell(x, "cut to %" PRIu64 "; ", *x->size);
}

void damage_apply(const struct damage_base *b, uint8_t *copy, uint64_t *size, uint64_t seed, char *story, size_t story_len)
{
	struct spoiler x = { .b = b, .copy = copy, .size = size, .chance = seed * 2 + 1, .story = story, .left = story_len };

	*size = b->size;
	memcpy(copy, b->bytes, b->size);
	for (uint64_t n = 1 + below(&x, N_MAX); n; n--) {
		uint64_t kind = below(&x, DAMAGE_KINDS + 2);
		const struct damage_spot *spot = kind < DAMAGE_KINDS && b->of_kind[kind] ? draw(&x, kind) : NULL;

		if (kind == DAMAGE_KINDS)
			spoil_header(&x);
		else if (kind > DAMAGE_KINDS && !below(&x, 4))
			cut(&x);
		else if (!spot || spot->field == DAMAGE_COUNT)
			spoil_count(&x, spot ? spot->at : below(&x, b->n_clusters));
		else if (spot->field == DAMAGE_SNAPSHOT)
			spoil_snapshot(&x, spot->at);
		else
			spoil_word(&x, spot);
	}
}
