/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is told from ciphertext, and how seldom ciphertext is taken for something else: the bounds are computed here. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <zlib.h>

#include "libvdisk/core/noise.h"

/* ---- the bounds ----------------------------------------------------------------------------------------- */

#define PAIRS 1400              /* at most told apart; what has more is one */
static double law[PAIRS + 1];   /* of the number of equal pairs, in ever more cells */

/* Twice as many cells. All terms are positive, so the tail is exact but for the last digits. */
static void double_cells(void)
{
	double now[PAIRS + 1] = { 0 }, inside = 0;

	for (int i = 0; i < PAIRS; i++)
		inside += law[i];
	for (int i = 0; i < PAIRS; i++)
		for (int k = 0; law[i] > 0 && k < PAIRS; k++)
			now[i + k < PAIRS ? i + k : PAIRS] += law[i] * law[k];
	now[PAIRS] += law[PAIRS] * (2 * inside + law[PAIRS]);
	memcpy(law, now, sizeof(law));
}

/* The inequality in noise.h: P(pairs >= t) of n bytes, for each t down from PAIRS until it passes 2^-80. */
static unsigned least_bound(size_t n)
{
	double rate = (double)n / 256, p = exp(-rate), p_n = exp((double)n * log((double)n) - (double)n - lgamma((double)n + 1));
	unsigned t = PAIRS;
	double tail;

	memset(law, 0, sizeof(law));
	for (size_t c = 0; c <= n; p *= rate / (double)++c)
		law[c * (c - 1) / 2 < PAIRS ? c * (c - 1) / 2 : PAIRS] += p;
	for (int i = 0; i < 8; i++)
		double_cells();
	for (tail = law[PAIRS]; t && tail + law[t - 1] <= ldexp(p_n, -80); t--)
		tail += law[t - 1];
	return t;
}

static void bounds_keep_false_alarms_below_2_to_the_80th(void **state)
{
	(void)state;
	for (size_t n = 32; n <= VD_NOISE_SECTOR; n += 32) {
		unsigned want = least_bound(n);

		/* The last digit hangs on rounding. */
		assert_in_range(vd_noise_bound(n), want, want + 1);
		assert_int_equal(vd_noise_bound(n - 31), vd_noise_bound(n));
	}
}

static void the_bound_of_sums_keeps_the_same(void **state)
{
	const double g = VD_NOISE_NATS, df = 255;

	(void)state;
	assert_true(g > df);
	assert_true(-g + df * (1 + log(g / df)) <= -80 * log(2));
	assert_true(-(g - 1) + df * (1 + log((g - 1) / df)) > -80 * log(2));
}

/* ---- ciphertext ----------------------------------------------------------------------------------------- */

/* splitmix64: the same bytes in every run. */
static uint64_t seed;
static uint64_t next_random(void)
{
	uint64_t z = seed += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

static void fill_random(uint8_t *p, size_t len)
{
	for (size_t i = 0; i + 8 <= len; i += 8) {
		uint64_t r = next_random();

		memcpy(p + i, &r, 8);
	}
}

static void a_gib_of_random_bytes_is_noise(void **state)
{
	const uint64_t gib = getenv("VD_TEST_SECONDS") ? 64 : 1;
	static uint8_t piece[1 << 20];
	struct vd_noise all = { 0 };

	(void)state;
	seed = 1;
	for (uint64_t i = 0; i < gib << 10; i++) {
		struct vd_noise sum = { 0 };

		fill_random(piece, sizeof(piece));
		for (size_t at = 0; at < sizeof(piece); at += VD_NOISE_SECTOR)
			assert_true(vd_noise_sector(piece + at, VD_NOISE_SECTOR, &sum));
		assert_true(vd_noise_may_be(&sum));
		vd_noise_add(&all, &sum);
	}
	assert_true(vd_noise_may_be(&all));
}

static void short_random_pieces_are_noise(void **state)
{
	struct vd_noise sum = { 0 };
	uint8_t piece[512];

	(void)state;
	seed = 2;
	for (int round = 0; round < 2000; round++) {
		fill_random(piece, sizeof(piece));
		for (size_t len = VD_NOISE_LEAST; len <= sizeof(piece); len += 7)
			assert_true(vd_noise_sector(piece, len, &sum));
	}
	assert_true(vd_noise_may_be(&(struct vd_noise){ 0 }));
}

/* ---- what is none --------------------------------------------------------------------------------------- */

static void expect_seen(const char *what, const uint8_t *p, size_t len)
{
	struct vd_noise sum = { 0 };

	if (vd_noise_sector(p, len, &sum))
		fail_msg("%s: %zu bytes pass for noise", what, len);
}

static const char text[] =
	"Call me Ishmael. Some years ago - never mind how long precisely - having little or no money in my purse, and nothing "
	"particular to interest me on shore, I thought I would sail about a little and see the watery part of the world. It is "
	"a way I have of driving off the spleen and regulating the circulation. Whenever I find myself growing grim about the "
	"mouth; whenever it is a damp, drizzly November in my soul; whenever I find myself involuntarily pausing before coffin "
	"warehouses, and bringing up the rear of every funeral I meet; and especially whenever my hypos get such an upper hand";

static void text_is_seen(void **state)
{
	uint8_t wide[512];

	(void)state;
	for (size_t i = 0; i < 256; i++) {
		wide[2 * i] = (uint8_t)text[i];
		wide[2 * i + 1] = 0;
	}
	expect_seen("text", (const uint8_t *)text, 512);
	expect_seen("text", (const uint8_t *)text, 96);
	expect_seen("UTF-16", wide, 512);
}

static void base64_of_random_bytes_is_seen(void **state)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	uint8_t sector[512];

	(void)state;
	seed = 3;
	for (int round = 0; round < 10000; round++) {
		for (size_t i = 0; i < sizeof(sector); i++)
			sector[i] = (uint8_t)digits[next_random() & 63];
		expect_seen("base64", sector, sizeof(sector));
	}
}

/* This program: machine code, symbols, tables. */
static void code_is_seen(void **state)
{
	FILE *f = fopen("/proc/self/exe", "rb");
	uint8_t sector[512];
	unsigned n = 0;

	(void)state;
	assert_non_null(f);
	for (; fread(sector, 1, sizeof(sector), f) == sizeof(sector); n++)
		expect_seen("code", sector, sizeof(sector));
	fclose(f);
	assert_true(n > 50);
}

static void few_foreign_bytes_among_random_ones_are_seen(void **state)
{
	uint8_t sector[512];

	(void)state;
	seed = 4;
	for (int round = 0; round < 1000; round++) {
		fill_random(sector, sizeof(sector));
		memcpy(sector + 64, text, 256);
		expect_seen("half a sector of text", sector, sizeof(sector));
		fill_random(sector, sizeof(sector));
		memset(sector + 100, 0, 64);
		expect_seen("64 zeros", sector, sizeof(sector));
	}
}

static void blocks_that_repeat_are_seen(void **state)
{
	uint8_t sector[512];

	(void)state;
	seed = 5;
	for (int round = 0; round < 1000; round++) {
		fill_random(sector, 16);
		for (size_t i = 16; i < sizeof(sector); i += 16)
			memcpy(sector + i, sector, 16);
		expect_seen("a block of 16 bytes, 32 times", sector, sizeof(sector));
	}
}

/* Numbers as text, packed: no sector of it shows, all together does. */
static void deflate_shows_in_sums(void **state)
{
	static uint8_t plain[2 << 20], packed[2 << 20];
	struct vd_noise sum = { 0 };
	uLongf len = sizeof(packed);

	(void)state;
	seed = 6;
	for (size_t i = 0; i + 21 <= sizeof(plain); i += 20)
		snprintf((char *)plain + i, 21, "%.40s %010u\n", "a number", (unsigned)(next_random() % 100000000));
	assert_int_equal(compress2(packed, &len, plain, sizeof(plain), 6), Z_OK);
	assert_true(len > 512 * 1024);
	for (size_t at = 512; at + 512 <= 512 * 1024; at += 512)
		(void)vd_noise_sector(packed + at, 512, &sum);
	assert_false(vd_noise_may_be(&sum));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bounds_keep_false_alarms_below_2_to_the_80th),
		cmocka_unit_test(the_bound_of_sums_keeps_the_same),
		cmocka_unit_test(a_gib_of_random_bytes_is_noise),
		cmocka_unit_test(short_random_pieces_are_noise),
		cmocka_unit_test(text_is_seen),
		cmocka_unit_test(base64_of_random_bytes_is_seen),
		cmocka_unit_test(code_is_seen),
		cmocka_unit_test(few_foreign_bytes_among_random_ones_are_seen),
		cmocka_unit_test(blocks_that_repeat_are_seen),
		cmocka_unit_test(deflate_shows_in_sums),
	};

	return cmocka_run_group_tests_name("noise", tests, NULL, NULL);
}
