/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One bit a block. The blocks of a large disk are larger, so that the bits never take more than BITS_MAX / 8 bytes. */
#include "backup/blockset.h"

#include <stdlib.h>
#include <string.h>

#define SHIFT_MIN 16
#define BITS_MAX (UINT64_C(1) << 27)    /* 16 MiB: blocks of 64 KiB up to 8 TiB */

unsigned blockset_shift(uint64_t size)
{
	unsigned shift = SHIFT_MIN;

	while (size >> shift >= BITS_MAX)
		shift++;
	return shift;
}

bool blockset_init(struct blockset *s, uint64_t size)
{
	*s = (struct blockset){ .size = size, .shift = blockset_shift(size) };
	s->n_blocks = size ? ((size - 1) >> s->shift) + 1 : 0;
	s->bits = calloc(s->n_blocks / 64 + 1, sizeof(*s->bits));
	return s->bits;
}

void blockset_fini(struct blockset *s)
{
	free(s->bits);
	*s = (struct blockset){ 0 };
}

void blockset_put(struct blockset *s, uint64_t off, uint64_t len)
{
	uint64_t last;

	if (!len || off >= s->size)
		return;
	if (len > s->size - off)
		len = s->size - off;
	last = (off + len - 1) >> s->shift;
	for (uint64_t b = off >> s->shift; b <= last; b++) {
		/* Whole words at once: a disk that is all dirty has many. */
		if (b % 64 == 0 && last - b >= 63) {
			s->bits[b / 64] = UINT64_MAX;
			b += 63;
			continue;
		}
		s->bits[b / 64] |= UINT64_C(1) << b % 64;
	}
}

/* The first block from b on whose bit is `value`; n_blocks: none. */
static uint64_t seek(const struct blockset *s, uint64_t b, bool value)
{
	uint64_t flip = value ? 0 : UINT64_MAX, word;

	while (b < s->n_blocks) {
		word = (s->bits[b / 64] ^ flip) >> b % 64;
		if (word) {
			b += (unsigned)__builtin_ctzll(word);
			break;
		}
		b = (b / 64 + 1) * 64;
	}
	return b < s->n_blocks ? b : s->n_blocks;
}

void blockset_next(const struct blockset *s, uint64_t off, uint64_t *start, uint64_t *len)
{
	uint64_t from, to, end;

	*start = *len = 0;
	if (off >= s->size)
		return;
	from = seek(s, off >> s->shift, true);
	if (from == s->n_blocks)
		return;
	to = seek(s, from, false);
	end = to == s->n_blocks ? s->size : to << s->shift;
	*start = from << s->shift < off ? off : from << s->shift;
	*len = end - *start;
}

uint64_t blockset_bytes(const struct blockset *s)
{
	uint64_t sum = 0, start, len;

	for (uint64_t at = 0;; at = start + len) {
		blockset_next(s, at, &start, &len);
		if (!len)
			return sum;
		sum += len;
	}
}
