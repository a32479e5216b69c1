/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Chi-square of the byte counts against equal counts. Random bytes stay under RANDOM_BELOW however many there are; what
 * has a little structure exceeds it the further, the more of it is looked at together. Plain data shows in a small
 * block already, where much ciphertext around it would hide it: so blocks are judged for that one by one.
 */
#include "classify.h"

#include <stdbool.h>
#include <string.h>

/*
 * Random samples exceed it twice in 10^8, with 255 degrees of freedom: a cell shows the worst of up to thousands of
 * samples, and ciphertext must not be drawn as compressed by chance. Of gzip's and zstd's output, 256 KiB at a time,
 * 0.1 % lie below.
 */
#define RANDOM_BELOW 400.0
#define BLOCK 65536
#define PACKED_BELOW 5000.0     /* of a whole block; what exceeds the expected 255 grows with the length */
#define EXPECTED 255.0

static bool is_zero(const uint8_t *bytes, size_t len)
{
	return bytes[0] == 0 && memcmp(bytes, bytes + 1, len - 1) == 0;
}

static void count(const uint8_t *bytes, size_t len, uint32_t counts[256])
{
	uint32_t part[4][256] = { 0 };

	/* Four tables: increments of one byte value do not wait for each other. */
	for (size_t i = 0; i < len; i++)
		part[i & 3][bytes[i]]++;
	for (int b = 0; b < 256; b++)
		counts[b] = part[0][b] + part[1][b] + part[2][b] + part[3][b];
}

static double chi_square(const uint32_t counts[256], size_t len)
{
	double expected = (double)len / 256, sum = 0;

	for (int b = 0; b < 256; b++)
		sum += (counts[b] - expected) * (counts[b] - expected);
	return sum / expected;
}

static bool is_plain(const uint32_t counts[256], size_t len)
{
	double chi = chi_square(counts, len);

	return chi >= RANDOM_BELOW && chi >= EXPECTED + (PACKED_BELOW - EXPECTED) * (double)len / BLOCK;
}

enum content classify(const uint8_t *bytes, size_t len)
{
	uint32_t counts[256], all[256] = { 0 };
	size_t seen = 0;

	for (size_t at = 0; at < len; at += BLOCK) {
		size_t n = len - at < BLOCK ? len - at : BLOCK;

		if (is_zero(bytes + at, n))
			continue;
		count(bytes + at, n, counts);
		if (is_plain(counts, n))
			return CONTENT_PLAIN;
		for (int b = 0; b < 256; b++)
			all[b] += counts[b];
		seen += n;
	}
	if (!seen)
		return CONTENT_ZERO;
	return chi_square(all, seen) < RANDOM_BELOW ? CONTENT_RANDOM : CONTENT_PACKED;
}
