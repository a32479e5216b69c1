/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The set as a table of chunks of bits, made when one of their bits is first set. What is written where and when it is
 * stored, bitmap.c knows.
 *
 * D1  A chunk is nothing, all ones without memory, or memory; it goes from nothing to one of the others and stays.
 * D2  For want of memory a chunk becomes all ones: too much is safe, too little is not.
 */
#include "libvdisk/core/dirty.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"

#define CHUNK_WORDS 512u                /* 4 KiB: 2 GiB of the disk in pieces of 64 KiB */
#define CHUNK_BITS (CHUNK_WORDS * UINT64_C(64))

typedef _Atomic uint64_t word_t;

struct vd_dirty {
	uint64_t size, n_bits, n_chunks;
	unsigned bits;
	_Atomic(word_t *) chunks[];
};

/* Stands for a chunk of ones; never looked into. */
static word_t all_ones[1];

int vd_dirty_new(uint64_t size, unsigned bits, struct vd_dirty **out, struct vd_error *e)
{
	uint64_t n_bits = vd_round_up(size, UINT64_C(1) << bits) >> bits;
	uint64_t n_chunks = vd_round_up(n_bits, CHUNK_BITS) / CHUNK_BITS;
	struct vd_dirty *d;
	int r = vd_alloc(1, sizeof(*d) + n_chunks * sizeof(d->chunks[0]), &d, e);

	if (r < 0)
		return r;
	d->size = size;
	d->bits = bits;
	d->n_bits = n_bits;
	d->n_chunks = n_chunks;
	*out = d;
	return 0;
}

static void free_chunk(word_t *chunk)
{
	if (chunk != all_ones)
		free(chunk);
}

void vd_dirty_free(struct vd_dirty *d)
{
	if (!d)
		return;
	for (uint64_t i = 0; i < d->n_chunks; i++)
		free_chunk(atomic_load(&d->chunks[i]));
	free(d);
}

/* ---- marking ---------------------------------------------------------------------------------------------- */

/* What is there, or `fresh` if nothing is. */
static word_t *settle_chunk(struct vd_dirty *d, uint64_t i, word_t *fresh)
{
	word_t *there = NULL;

	if (atomic_compare_exchange_strong(&d->chunks[i], &there, fresh))
		return fresh;
	free_chunk(fresh);
	return there;
}

static word_t *chunk_for(struct vd_dirty *d, uint64_t i, bool is_whole)
{
	word_t *chunk = atomic_load(&d->chunks[i]), *fresh = all_ones;

	if (chunk)
		return chunk;
	if (!is_whole && vd_alloc(CHUNK_WORDS, sizeof(*fresh), &fresh, NULL) < 0)
		fresh = all_ones;
	return settle_chunk(d, i, fresh);
}

/* Ones from bit a to before bit b of a word. */
static uint64_t ones(uint64_t a, uint64_t b)
{
	return UINT64_MAX << a & UINT64_MAX >> (64 - b);
}

/* Bits [a, b) of the chunk, b above a. Looking first keeps the line shared among those who write to one place. */
static void set_bits(word_t *chunk, uint64_t a, uint64_t b)
{
	for (uint64_t i = a / 64; i <= (b - 1) / 64; i++) {
		uint64_t mask = ones(i == a / 64 ? a % 64 : 0, i == (b - 1) / 64 ? (b - 1) % 64 + 1 : 64);

		if ((atomic_load_explicit(&chunk[i], memory_order_relaxed) & mask) != mask)
			atomic_fetch_or(&chunk[i], mask);
	}
}

void vd_dirty_mark(struct vd_dirty *d, uint64_t off, uint64_t len)
{
	uint64_t first, end;

	if (off >= d->size || !len)
		return;
	first = off >> d->bits;
	end = ((vd_min_u64(len, d->size - off) + off - 1) >> d->bits) + 1;
	for (uint64_t n; first < end; first += n) {
		uint64_t i = first / CHUNK_BITS, a = first % CHUNK_BITS;
		word_t *chunk;

		n = vd_min_u64(end - first, CHUNK_BITS - a);
		/* The last chunk is whole when all the bits that it is for are there. */
		chunk = chunk_for(d, i, !a && (n == CHUNK_BITS || first + n == d->n_bits));
		if (chunk != all_ones)
			set_bits(chunk, a, a + n);
	}
}

/* ---- looking ---------------------------------------------------------------------------------------------- */

/* The first bit from `at` on, before `end`, that is set or clear as asked; `end`: none. */
static uint64_t find_bit(const struct vd_dirty *d, uint64_t at, uint64_t end, bool set)
{
	while (at < end) {
		word_t *chunk = atomic_load(&d->chunks[at / CHUNK_BITS]);
		uint64_t word;

		if (!chunk || chunk == all_ones) {
			if (set == (chunk == all_ones))
				return at;
			at = (at / CHUNK_BITS + 1) * CHUNK_BITS;
			continue;
		}
		word = atomic_load(&chunk[at % CHUNK_BITS / 64]);
		word = (set ? word : ~word) & UINT64_MAX << at % 64;
		if (word)
			return vd_min_u64(end, vd_round_down(at, 64) + (uint64_t)__builtin_ctzll(word));
		at = vd_round_down(at, 64) + 64;
	}
	return end;
}

bool vd_dirty_next(const struct vd_dirty *d, uint64_t off, uint64_t end, uint64_t *from, uint64_t *to)
{
	uint64_t last, a, b;

	end = vd_min_u64(end, d->size);
	if (off >= end)
		return false;
	last = ((end - 1) >> d->bits) + 1;
	a = find_bit(d, off >> d->bits, last, true);
	if (a == last)
		return false;
	b = find_bit(d, a, last, false);
	*from = vd_max_u64(off, a << d->bits);
	*to = b == last ? end : b << d->bits;
	return true;
}

/* Bits [a, b). */
static void set_raw(uint8_t *raw, uint64_t a, uint64_t b)
{
	for (; a < b && a % 8; a++)
		raw[a / 8] |= 1u << a % 8;
	if (b - a >= 8)
		memset(raw + a / 8, 0xff, (b - a) / 8);
	for (a += (b - a) / 8 * 8; a < b; a++)
		raw[a / 8] |= 1u << a % 8;
}

void vd_dirty_add_to(const struct vd_dirty *d, unsigned bits, uint64_t first, uint64_t n, uint8_t *raw)
{
	uint64_t at = first << bits, end = (first + n) << bits, from, to;

	/* The last bit may reach past all that a number can say, and does past the disk. */
	if (end >> bits != first + n)
		end = UINT64_MAX;
	for (; vd_dirty_next(d, at, end, &from, &to); at = to)
		set_raw(raw, (from >> bits) - first, ((to - 1) >> bits) + 1 - first);
}
