/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Chi-square of the byte counts against equal counts. Over 64 KiB it tells AES from compressed data where entropy does
 * not: of 2 GiB of random bytes nothing, of gzip's output 97 % and of zstd's 97 % lie above RANDOM_BELOW. A cell of a
 * picture shows the worst of thousands of pieces, so random bytes must not be called compressed even once in a million.
 */
#include "classify.h"

#include <stdbool.h>
#include <string.h>

#define RANDOM_BELOW 400.0      /* random bytes exceed it twice in 10^8, with 255 degrees of freedom, of any length */
#define PACKED_BELOW 5000.0     /* at CLASSIFY_BYTES; what exceeds the expected 255 grows with the length */
#define EXPECTED 255.0

static bool is_zero(const uint8_t *bytes, size_t len)
{
	return len == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, len - 1) == 0);
}

static double chi_square(const uint8_t *bytes, size_t len)
{
	uint32_t counts[4][256] = { 0 };
	double expected = (double)len / 256, sum = 0;

	/* Four tables: increments of one byte value do not wait for each other. */
	for (size_t i = 0; i < len; i++)
		counts[i & 3][bytes[i]]++;
	for (int b = 0; b < 256; b++) {
		double d = (double)(counts[0][b] + counts[1][b] + counts[2][b] + counts[3][b]) - expected;

		sum += d * d;
	}
	return sum / expected;
}

enum content classify(const uint8_t *bytes, size_t len)
{
	double chi;

	if (is_zero(bytes, len))
		return CONTENT_ZERO;
	chi = chi_square(bytes, len);
	if (chi < RANDOM_BELOW)
		return CONTENT_RANDOM;
	if (chi < EXPECTED + (PACKED_BELOW - EXPECTED) * (double)len / CLASSIFY_BYTES)
		return CONTENT_PACKED;
	return CONTENT_PLAIN;
}
