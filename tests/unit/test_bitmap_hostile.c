/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Bitmaps that break a rule: each broken once in an image that is good otherwise, and many at random, where the sanitizers
 * watch. Whatever bitmaps are like, the disk is read and written, and none that holds misses the write. VD_RANDOM_OPS:
 * how many images; VD_RANDOM_SEED: others.
 */
#include "libvdisk/base/checked.h"
#include "tests/support/bitmaps.h"
#include "tests/support/model.h"
#include "tests/support/qcow2_bytes.h"

#include <stdio.h>

#define qcow2 (&vd_format_qcow2)
#define SIZE (4u << 20)
#define CLUSTER 4096
#define AT_AUTOCLEAR 88
#define AT_EXT 120                      /* data of the bitmaps extension */
#define IMAGES 1500

static uint64_t setting(const char *name, uint64_t otherwise)
{
	const char *value = getenv(name);

	return value ? strtoull(value, NULL, 0) : otherwise;
}

/* Two bitmaps, "a" and "b"; in "a" a part is dirty. */
static void make(void)
{
	struct vd_create_opts o = disk_create_opts(qcow2, SIZE);
	struct vd_image *img;

	o.cluster_size = CLUSTER;
	o.flags = VD_CREATE_REPLACE;
	img = disk_create(qcow2, "d", &o);
	disk_commit(img);
	disk_close(img);
	img = disk_open(qcow2, "d", VD_OPEN_WRITE);
	bitmap_make(img, "a", 512);
	disk_write(img, 0, 5000, 1);
	bitmap_make(img, "b", 65536);
	disk_close(img);
}

static uint64_t directory(void)
{
	return bytes_get("d", AT_EXT + 16, 8);
}

static uint64_t table(void)
{
	return bytes_get("d", directory(), 8);
}

/* ---- one rule at a time ----------------------------------------------------------------------------------- */

enum where { EXT, DIR, TABLE };
static const struct {
	const char *name;
	enum where where;
	uint64_t off;
	unsigned n_bytes;
	uint64_t value;
	const char *words;      /* of the failure of all, or of why "a" is unusable */
	bool all;
} rules[] = {
	{ "too many", EXT, 0, 4, 65536, "too many", true },
	{ "more than its bytes hold", EXT, 0, 4, 3, "cannot be that of", true },
	{ "fewer than there are", EXT, 0, 4, 1, "past its last entry", true },
	{ "a directory without end", EXT, 8, 8, UINT64_C(1) << 62, "cannot be that of", true },
	{ "a directory that is larger than the file", EXT, 8, 8, 60 << 20, "where none can be", true },
	{ "a directory off a cluster", EXT, 16, 8, 520, "where none can be", true },
	{ "a directory past the end", EXT, 16, 8, UINT64_C(1) << 40, "where none can be", true },
	{ "a directory at the end of numbers", EXT, 16, 8, UINT64_MAX - 4095, "where none can be", true },
	{ "a directory on the header", EXT, 16, 8, 0, "lies on the header", true },
	{ "no name", DIR, 18, 2, 0, "a bitmap's name of 0 bytes", true },
	{ "a long name", DIR, 18, 2, 1024, "beyond the end", true },
	{ "a NUL in a name", DIR, 24, 1, 0, "NUL", true },
	{ "two of a name", DIR, 24, 1, 'b', "two bitmaps have the name 'b'", true },
	{ "extra data past the end", DIR, 20, 4, UINT32_MAX, "beyond the end", true },
	{ "an unknown flag", DIR, 12, 4, 2 | 8, "of a kind", false },
	{ "an unknown flag of one that does not record", DIR, 12, 4, 8, "of a kind", false },
	{ "an unknown type", DIR, 16, 1, 2, "of a kind", false },
	{ "a granularity of 256", DIR, 17, 1, 8, "granularity is impossible", false },
	{ "a granularity of 2^63", DIR, 17, 1, 63, "granularity is impossible", false },
	{ "a granularity of 2^255", DIR, 17, 1, 255, "granularity is impossible", false },
	{ "a table that is too short", DIR, 8, 4, 0, "does not fit", false },
	{ "a table that is too long", DIR, 8, 4, 2, "does not fit", false },
	{ "a table of all numbers", DIR, 8, 4, UINT32_MAX, "too large", false },
	{ "a table nowhere", DIR, 0, 8, 0, "where none can be", false },
	{ "a table off a cluster", DIR, 0, 8, 513, "where none can be", false },
	{ "a table past the end", DIR, 0, 8, UINT64_C(1) << 55, "where none can be", false },
	{ "a word with reserved bits", TABLE, 0, 8, UINT64_C(1) << 56, "table breaks a rule", false },
	{ "a word with low bits", TABLE, 0, 8, 2, "table breaks a rule", false },
	{ "a word of ones and an offset", TABLE, 0, 8, 3 * CLUSTER + 1, "table breaks a rule", false },
	{ "bits past the end", TABLE, 0, 8, UINT64_C(1) << 40, "table breaks a rule", false },
	{ "bits off a cluster", TABLE, 0, 8, 3 * CLUSTER + 512, "table breaks a rule", false },
	{ "bits on the header", TABLE, 0, 8, 0x200, "table breaks a rule", false },
};
#define N_RULES (sizeof(rules) / sizeof(rules[0]))

static void break_rule(size_t i)
{
	uint64_t base;

	make();
	base = rules[i].where == EXT ? AT_EXT : rules[i].where == DIR ? directory() : table();
	bytes_put("d", base + rules[i].off, rules[i].n_bytes, rules[i].value);
}

/* NULL: it can be used. */
static const char *why_unusable(struct vd_image *img, const char *name)
{
	static char why[sizeof(((struct vd_error *)0)->message)];
	struct vd_bitmap *list;
	struct vd_error e;
	size_t n;
	int r = vd_bitmap_list(img, &list, &n, &e);
	bool usable = false;

	if (r < 0) {
		assert_int_equal(r, VD_EBITMAP);
		snprintf(why, sizeof(why), "%s", e.message);
		return why;
	}
	for (size_t i = 0; i < n; i++)
		if (!strcmp(list[i].name, name)) {
			usable = !list[i].unusable;
			snprintf(why, sizeof(why), "%s", usable ? "" : list[i].unusable);
		}
	vd_bitmap_list_free(list);
	return usable ? NULL : why;
}

static void what_breaks_a_rule_is_told(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_RULES; i++) {
		struct vd_image *img;
		const char *why;
		struct vd_extent x;
		struct vd_error e;
		size_t n;

		break_rule(i);
		img = disk_open(qcow2, "d", 0);
		why = why_unusable(img, "a");
		if (!why || !strstr(why, rules[i].words))
			fail_msg("%s: wanted ...%s..., got %s", rules[i].name, rules[i].words, why ? why : "a bitmap that holds");
		if (vd_image_extents_since(img, "a", 0, SIZE, &x, 1, &n, &e) != VD_EBITMAP)
			fail_msg("%s: what changed is told", rules[i].name);
		if (!rules[i].all && why_unusable(img, "b"))
			fail_msg("%s: the other bitmap is unusable, too", rules[i].name);
		disk_expect(img, 0, 5000, 1);
		disk_close(img);
	}
}

/* After a write, bitmaps that cannot have recorded it do not hold for any reader. */
static void broken_ones_hold_for_nobody_after_a_write(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_RULES; i++) {
		struct vd_image *img;

		break_rule(i);
		img = disk_open(qcow2, "d", VD_OPEN_WRITE);
		disk_write(img, 100000, 1, 7);
		disk_close(img);
		if (bytes_get("d", AT_AUTOCLEAR, 8) & 1 && !(bytes_get("d", directory() + 12, 4) & 1))
			fail_msg("%s: it is said to hold", rules[i].name);
		img = disk_open(qcow2, "d", 0);
		disk_expect(img, 100000, 1, 7);
		if (!rules[i].all)
			assert_string_equal(dirty_since(img, "b"), "65536+65536");
		disk_close(img);
	}
}

/* One that is broken by itself does not stand in the way of others, and can be removed. */
static void broken_ones_can_be_removed(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_RULES; i++) {
		struct vd_image *img;
		struct vd_error e;

		if (rules[i].all)
			continue;
		break_rule(i);
		img = disk_open(qcow2, "d", VD_OPEN_WRITE);
		expect_ok(vd_bitmap_remove(img, "a", &e), &e);
		bitmap_make(img, "a", 512);
		disk_write(img, 100000, 1, 7);
		assert_string_equal(dirty_since(img, "a"), "99840+512");
		assert_string_equal(dirty_since(img, "b"), "65536+65536");
		disk_close(img);
	}
}

/* Known to be harmless: it is kept, and the bitmap used. */
static void extra_data_that_is_said_to_be_compatible_is_kept(void **state)
{
	static const uint8_t tail[] = "EXTRA...a";
	struct vd_image *img;
	uint64_t at;

	(void)state;
	make();
	img = disk_open(qcow2, "d", VD_OPEN_WRITE);
	expect_ok(vd_bitmap_remove(img, "b", NULL), NULL);
	disk_close(img);
	at = directory();
	bytes_write("d", at + 24, tail, 9);
	bytes_put("d", at + 20, 4, 8);
	bytes_put("d", at + 12, 4, 6);
	bytes_put("d", AT_EXT + 8, 8, 40);
	img = disk_open(qcow2, "d", VD_OPEN_WRITE);
	disk_write(img, 100000, 1, 7);
	disk_close(img);
	assert_int_not_equal(directory(), at);
	assert_int_equal(bytes_get("d", directory() + 24, 5), 0x4558545241);
	assert_int_equal(bytes_get("d", directory() + 12, 4), 6);
	img = disk_open(qcow2, "d", 0);
	assert_string_equal(dirty_since(img, "a"), "0+5120 99840+512");
	disk_close(img);
	bytes_put("d", directory() + 12, 4, 2);
	img = disk_open(qcow2, "d", 0);
	assert_non_null(strstr(why_unusable(img, "a"), "extra data"));
	disk_close(img);
}

/* A directory of `n` bitmaps, each with a table of one word of its own, behind all that the image has. */
static void forge(uint32_t n)
{
	uint64_t dir = vd_round_up(bytes_size("d"), 512), len = n * UINT64_C(32), tables = vd_round_up(dir + len, 512);
	uint8_t *raw = calloc(n, 32);

	for (uint32_t i = 0; i < n; i++) {
		char name[9];

		snprintf(name, sizeof(name), "%08x", i);
		vd_put_be64(raw + i * 32, tables + i * UINT64_C(512));
		vd_put_be32(raw + i * 32 + 8, 1);
		raw[i * 32 + 16] = 1;
		raw[i * 32 + 17] = 16;
		vd_put_be16(raw + i * 32 + 18, 8);
		memcpy(raw + i * 32 + 24, name, 8);
	}
	bytes_write("d", dir, raw, len);
	bytes_truncate("d", tables + n * UINT64_C(512));
	bytes_put("d", AT_EXT, 4, n);
	bytes_put("d", AT_EXT + 8, 8, len);
	bytes_put("d", AT_EXT + 16, 8, dir);
	free(raw);
}

static void as_many_as_qemu_takes_are_listed_and_no_more_are_made(void **state)
{
	struct vd_create_opts o = disk_create_opts(qcow2, SIZE);
	struct vd_bitmap *list;
	struct vd_image *img;
	struct vd_error e;
	size_t n;

	(void)state;
	o.cluster_size = 512;
	img = disk_create(qcow2, "d", &o);
	disk_commit(img);
	disk_close(img);
	img = disk_open(qcow2, "d", VD_OPEN_WRITE);
	bitmap_make(img, "a", 0);
	disk_close(img);
	forge(65535);
	img = disk_open(qcow2, "d", VD_OPEN_WRITE);
	expect_ok(vd_bitmap_list(img, &list, &n, &e), &e);
	assert_int_equal(n, 65535);
	assert_string_equal(list[65534].name, "0000fffe");
	assert_null(list[65534].unusable);
	vd_bitmap_list_free(list);
	expect_failure(vd_bitmap_create(img, "one more", 0, 0, &e), VD_EUNSUPPORTED, &e, "more than the format can hold");
	disk_close(img);
}

/* Each is small, all of them together would be read for ever. */
static void tables_that_many_share_are_not_read(void **state)
{
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	make();
	bytes_put("d", directory() + 32, 8, table());
	bytes_put("d", directory() + 32 + 17, 1, 9);
	img = disk_open(qcow2, "d", VD_OPEN_WRITE);
	assert_string_equal(why_unusable(img, "a"), "its table lies on that of another");
	assert_string_equal(why_unusable(img, "b"), "its table lies on that of another");
	disk_write(img, 100000, 1, 7);
	expect_ok(vd_bitmap_remove(img, "a", &e), &e);
	expect_ok(vd_bitmap_remove(img, "b", &e), &e);
	disk_close(img);
	/* The last one that is left gives back what they shared; nothing leads to the table that b had. */
	expect_leaks("d", 1);
}

/* ---- many at a time --------------------------------------------------------------------------------------- */

/* A number that means something there, or noise. */
static void damage(uint64_t dir, uint64_t tab, uint64_t *chance)
{
	const uint64_t values[] = {
		0, 1, 2, 3, CLUSTER, 2 * CLUSTER, tab, dir, UINT32_MAX, UINT64_MAX, UINT64_C(1) << 56, UINT64_C(1) << 63,
		bytes_size("d"), 512, 9, 31,
	};
	const uint64_t bases[] = { 104, AT_EXT - 8, dir, tab, dir, tab };
	uint64_t at = bases[chance_below(chance, 6)] + chance_below(chance, 64);
	unsigned n_bytes = 1u << chance_below(chance, 4);

	if (at + 8 < bytes_size("d"))
		bytes_put("d", at, n_bytes, chance_below(chance, 3) ? values[chance_below(chance, 16)] : chance_next(chance));
}

static void try_all(uint64_t *chance)
{
	const char *const sources[] = { "b" };
	struct vd_open_opts opts = disk_open_opts(qcow2, VD_OPEN_WRITE);
	struct vd_image *img = NULL;
	struct vd_extent x[8];
	struct vd_bitmap *list;
	struct vd_error e;
	size_t n;

	if (vd_image_open_on(disks.mem, qcow2, "d", &opts, &img, &e) < 0)
		return;
	if (vd_bitmap_list(img, &list, &n, &e) == 0)
		vd_bitmap_list_free(list);
	(void)!vd_image_extents_since(img, "a", 0, SIZE, x, 8, &n, &e);
	if (chance_below(chance, 2))
		(void)!vd_image_write_zeroes(img, 0, 100000, 0, &e);
	switch (chance_below(chance, 6)) {
	case 0: (void)!vd_bitmap_create(img, "c", 0, 0, &e); break;
	case 1: (void)!vd_bitmap_remove(img, "a", &e); break;
	case 2: (void)!vd_bitmap_merge(img, "a", NULL, sources, 1, &e); break;
	case 3: (void)!vd_bitmap_clear(img, "a", &e); break;
	case 4: (void)!vd_image_resize(img, SIZE / 2, VD_RESIZE_SHRINK, &e); break;
	default: (void)!vd_bitmap_disable(img, "b", &e);
	}
	(void)!vd_image_close(img, &e);
}

static void damaged_bitmaps_end_in_an_error_or_are_taken(void **state)
{
	uint64_t chance = setting("VD_RANDOM_SEED", 1), n = setting("VD_RANDOM_OPS", IMAGES), size, dir, tab;
	uint8_t *good;

	(void)state;
	print_message("# VD_RANDOM_SEED=%llu\n", (unsigned long long)chance);
	make();
	dir = directory();
	tab = table();
	size = bytes_size("d");
	good = malloc(size);
	bytes_read("d", 0, good, size);
	for (uint64_t i = 0; i < n; i++) {
		assert_int_equal(vd_mem_put(disks.mem, "d", good, size, NULL), 0);
		for (uint64_t k = 1 + chance_below(&chance, 3); k; k--)
			damage(dir, tab, &chance);
		try_all(&chance);
	}
	free(good);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, disks_start, disks_stop)
	const struct CMUnitTest tests[] = {
		T(what_breaks_a_rule_is_told),
		T(broken_ones_hold_for_nobody_after_a_write),
		T(broken_ones_can_be_removed),
		T(as_many_as_qemu_takes_are_listed_and_no_more_are_made),
		T(tables_that_many_share_are_not_read),
		T(extra_data_that_is_said_to_be_compatible_is_kept),
		T(damaged_bitmaps_end_in_an_error_or_are_taken),
	};

	return cmocka_run_group_tests_name("bitmap hostile", tests, NULL, NULL);
}
