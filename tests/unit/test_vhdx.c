/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * VHDX by its bytes: what each block state means, which header and table counts, and each rule broken once in an image
 * that is good otherwise. The log has test_vhdx_log.c; what others make of it all is tests/interop's.
 */
#include "tests/support/hostwalk.h"
#include "tests/support/vhdx_bytes.h"

#include "libvdisk/base/cleanup.h"

#define BLOCK (1u << 20)
#define SIZE (10 * (uint64_t)BLOCK + 1536)

static int try_open(const char *name, unsigned flags, struct vd_error *e)
{
	struct vd_open_opts opts = disk_open_opts(vhdx, flags);
	struct vd_image *img = NULL;
	int r = vd_image_open_on(disks.host, vhdx, name, &opts, &img, e);

	vd_image_abort(img);
	return r;
}

static void fill(const char *name, uint64_t off, uint64_t len, uint8_t value)
{
	struct vd_image *img = disk_open(vhdx, name, VD_OPEN_WRITE);

	disk_write(img, off, len, value);
	disk_close(img);
}

/* ---- block states --------------------------------------------------------------------------------------- */

static uint32_t flags_of(struct vd_image *img, uint64_t off)
{
	struct vd_extent x;
	size_t n;

	assert_int_equal(vd_image_extents(img, off, 1, &x, 1, &n, NULL), 0);
	return x.flags;
}

static void each_state_means_what_it_says(void **state)
{
	static const struct { uint64_t state; uint32_t flags; uint8_t value; bool is_parents; } cases[] = {
		{ 0, VD_EXTENT_DATA | VD_EXTENT_HOST, 1, true }, { 1, VD_EXTENT_ZERO, 0, false }, { 2, VD_EXTENT_ZERO, 0, false },
		{ 3, VD_EXTENT_ZERO, 0, false }, { 5, VD_EXTENT_ZERO, 0, false },
	};
	struct vd_image *img;

	(void)state;
	vhdx_make("p", SIZE, NULL, NULL);
	fill("p", 0, SIZE, 1);
	vhdx_make("c", SIZE, NULL, "p");
	fill("c", BLOCK, BLOCK, 2);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		le_put("c", vhdx_entry("c", 0), 8, cases[i].state);
		img = disk_open(vhdx, "c", 0);
		assert_int_equal(flags_of(img, 0), cases[i].flags);
		disk_expect(img, 0, BLOCK, cases[i].value);
		disk_expect(img, BLOCK, BLOCK, 2);
		disk_expect(img, 2 * BLOCK, 100, 1);
		disk_close(img);
	}
}

static void absent_blocks_without_a_parent_are_holes(void **state)
{
	struct vd_image *img;

	(void)state;
	vhdx_make("d", SIZE, NULL, NULL);
	fill("d", BLOCK, 1, 2);
	img = disk_open(vhdx, "d", 0);
	assert_int_equal(flags_of(img, 0), VD_EXTENT_HOLE);
	assert_int_equal(flags_of(img, BLOCK), VD_EXTENT_DATA | VD_EXTENT_HOST);
	disk_expect(img, BLOCK + 1, BLOCK - 1, 0);
	disk_close(img);
}

/* An unmapped block that kept its place: what is there does not count, and is not taken for zeros afterwards. */
static void the_place_of_an_unmapped_block_is_given_up(void **state)
{
	struct vd_image *img;
	uint64_t entry;

	(void)state;
	vhdx_make("d", SIZE, NULL, NULL);
	fill("d", 0, BLOCK, 7);
	entry = le_get("d", vhdx_entry("d", 0), 8);
	le_put("d", vhdx_entry("d", 0), 8, (entry & ~UINT64_C(7)) | 3);
	img = disk_open(vhdx, "d", VD_OPEN_WRITE);
	disk_expect(img, 0, BLOCK, 0);
	disk_write(img, 100, 100, 8);
	disk_expect(img, 0, 100, 0);
	disk_expect(img, 200, BLOCK - 200, 0);
	disk_flush(img);
	/* Free again, and a hole by now. */
	disk_write(img, 3 * BLOCK + 5, 1, 9);
	disk_close(img);
	assert_int_equal(le_get("d", vhdx_entry("d", 3), 8), entry);
	img = disk_open(vhdx, "d", 0);
	disk_expect(img, 3 * BLOCK, 5, 0);
	disk_expect(img, 3 * BLOCK + 6, BLOCK - 6, 0);
	disk_close(img);
}

static void sectors_alternate_with_the_parents(void **state)
{
	struct vd_extent x[32];
	struct vd_image *img;
	uint64_t bitmap;
	size_t n;

	(void)state;
	vhdx_make("p", SIZE, NULL, NULL);
	fill("p", 0, BLOCK, 1);
	vhdx_make("c", SIZE, NULL, "p");
	img = disk_open(vhdx, "c", VD_OPEN_WRITE);
	for (int i = 0; i < 8; i++)
		disk_write(img, i * 1024, 512, 2);
	disk_write(img, 8192, 4096, 2);
	assert_int_equal(vd_image_extents(img, 0, BLOCK, x, 32, &n, NULL), 0);
	assert_int_equal(n, 18);
	assert_int_equal(x[16].len, 4096);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(x[i].depth, i % 2);
	disk_close(img);
	assert_int_equal(le_get("c", vhdx_entry("c", 0), 8) & 7, 7);
	bitmap = le_get("c", vhdx_bat("c") + vhdx_chunk_ratio("c") * 8, 8);
	assert_int_equal(bitmap & 7, 6);
	/* Least significant bit first. */
	assert_int_equal(le_get("c", bitmap & ~UINT64_C(0xfffff), 4), 0x00ff5555);
}

/* Bits that are left from an earlier life of the block would show another guest's sectors. */
static void a_block_begins_its_life_without_bits(void **state)
{
	struct vd_image *img;

	(void)state;
	vhdx_make("p", SIZE, NULL, NULL);
	fill("p", 0, 2 * BLOCK, 1);
	vhdx_make("c", SIZE, NULL, "p");
	fill("c", 0, BLOCK, 2);
	le_put("c", vhdx_entry("c", 0), 8, 0);
	fill("c", 512, 512, 3);
	img = disk_open(vhdx, "c", 0);
	disk_expect(img, 0, 512, 1);
	disk_expect(img, 512, 512, 3);
	disk_expect(img, 1024, BLOCK - 1024, 1);
	disk_close(img);
}

static void zeroed_blocks_mask_the_parent_and_are_used_again(void **state)
{
	struct vd_image *img;
	uint64_t size;

	(void)state;
	vhdx_make("p", SIZE, NULL, NULL);
	fill("p", 0, SIZE, 1);
	vhdx_make("c", SIZE, NULL, "p");
	fill("c", 0, 2 * BLOCK, 2);
	size = bytes_size("c");
	img = disk_open(vhdx, "c", VD_OPEN_WRITE);
	disk_zero(img, 0, 3 * BLOCK + 100);
	disk_flush(img);
	disk_write(img, 5 * BLOCK, 100, 3);
	disk_write(img, 100, 100, 4);
	disk_close(img);
	img = disk_open(vhdx, "c", 0);
	disk_expect(img, 0, 100, 0);
	disk_expect(img, 100, 100, 4);
	disk_expect(img, 200, 3 * BLOCK - 100, 0);
	disk_expect(img, 3 * BLOCK + 100, 2 * BLOCK - 100, 1);
	disk_expect(img, 5 * BLOCK, 100, 3);
	/* What shares a sector with it, too. */
	disk_expect(img, 5 * BLOCK + 100, BLOCK - 100, 1);
	disk_close(img);
	/* One block more, for the part of the fourth. */
	assert_int_equal(bytes_size("c"), size + BLOCK);
}

/* ---- MiB 0 ---------------------------------------------------------------------------------------------- */

static void the_other_header_counts_when_one_is_damaged(void **state)
{
	struct vd_error e;

	(void)state;
	vhdx_make("d", SIZE, NULL, NULL);
	for (int i = 0; i < 2; i++) {
		le_put("d", (65536 << i) + 100, 1, 1);
		assert_int_equal(try_open("d", 0, &e), 0);
		le_put("d", (65536 << i) + 100, 1, 0);
	}
	le_put("d", 65536 + 100, 1, 1);
	le_put("d", 131072 + 100, 1, 1);
	expect_failure(try_open("d", 0, &e), VD_ECORRUPT, &e, "neither of its two headers");
}

static void headers_of_one_sequence_are_the_same(void **state)
{
	uint8_t raw[4096];
	struct vd_error e;

	(void)state;
	vhdx_make("d", SIZE, NULL, NULL);
	bytes_read("d", 65536, raw, sizeof(raw));
	bytes_write("d", 131072, raw, sizeof(raw));
	assert_int_equal(try_open("d", 0, &e), 0);
	le_put("d", 131072 + 16, 4, 1);
	crc_put("d", 131072, 4096);
	expect_failure(try_open("d", 0, &e), VD_ECORRUPT, &e, "contradict");
}

static void writing_changes_both_identifiers_in_both_headers(void **state)
{
	uint8_t before[32], after[2][32];

	(void)state;
	vhdx_make("d", SIZE, NULL, NULL);
	bytes_read("d", 65536 + 16, before, 32);
	fill("d", 0, 1, 1);
	for (int i = 0; i < 2; i++) {
		bytes_read("d", (65536 << i) + 16, after[i], 32);
		assert_memory_not_equal(before, after[i], 16);
		assert_memory_not_equal(before + 16, after[i] + 16, 16);
		/* The log has ended. */
		assert_int_equal(le_get("d", (65536 << i) + 48, 8), 0);
	}
	assert_memory_equal(after[0], after[1], 32);
}

static void broken_headers_are_refused(void **state)
{
	static const struct { unsigned at, n; uint64_t value; int code; const char *words; } cases[] = {
		{ 66, 2, 2, VD_EUNSUPPORTED, "version 2" },
		{ 68, 4, 0, VD_ECORRUPT, "whole MiB" },
		{ 68, 4, 4096, VD_ECORRUPT, "whole MiB" },
		{ 68, 4, 0x40000000, VD_ECORRUPT, "whole MiB" },
		{ 72, 8, 0, VD_ECORRUPT, "whole MiB" },
		{ 72, 8, UINT64_C(1) << 60, VD_ECORRUPT, "whole MiB" },
		{ 72, 8, 3 << 20, VD_ECORRUPT, "meets the log" },
	};
	struct vd_error e;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		vhdx_make("d", SIZE, NULL, NULL);
		le_put("d", 131072 + cases[i].at, cases[i].n, cases[i].value);
		crc_put("d", 131072, 4096);
		expect_failure(try_open("d", 0, &e), cases[i].code, &e, cases[i].words);
		disks.mem->unlink(disks.mem, "d", NULL);
	}
}

static void the_second_region_table_counts_when_the_first_is_damaged(void **state)
{
	struct vd_error e;

	(void)state;
	vhdx_make("d", SIZE, NULL, NULL);
	le_put("d", 196608 + 60000, 1, 1);
	assert_int_equal(try_open("d", 0, &e), 0);
	le_put("d", 262144 + 60000, 1, 1);
	expect_failure(try_open("d", 0, &e), VD_ECORRUPT, &e, "neither of its two region tables");
}

static void broken_regions_are_refused(void **state)
{
	static const struct { unsigned at, n; uint64_t value; int code; const char *words; } cases[] = {
		{ 8, 4, 2048, VD_ECORRUPT, "2048 entries" },
		{ 8, 4, 1, VD_ECORRUPT, "names no metadata" },
		{ 16, 1, 0, VD_EUNSUPPORTED, "must be understood" },
		{ 32, 8, 3 << 19, VD_ECORRUPT, "whole MiB" },
		{ 32, 8, UINT64_C(1) << 63, VD_ECORRUPT, "whole MiB" },
		{ 32, 8, 1 << 20, VD_ECORRUPT, "meets the log" },
		{ 40, 4, 0, VD_ECORRUPT, "whole MiB" },
		{ 64, 8, 3 << 20, VD_ECORRUPT, "meets the block allocation table" },
	};
	struct vd_error e;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		vhdx_make("d", SIZE, NULL, NULL);
		le_put("d", 196608 + cases[i].at, cases[i].n, cases[i].value);
		crc_put("d", 196608, 65536);
		expect_failure(try_open("d", 0, &e), cases[i].code, &e, cases[i].words);
		disks.mem->unlink(disks.mem, "d", NULL);
	}
}

static void unknown_regions_and_items_that_are_not_required_are_passed_over(void **state)
{
	struct vd_error e;

	(void)state;
	vhdx_make("d", SIZE, NULL, NULL);
	le_put("d", 196608 + 8, 4, 3);
	le_put("d", 196608 + 80, 8, 77);
	crc_put("d", 196608, 65536);
	le_put("d", vhdx_metadata("d") + 10, 2, 6);
	le_put("d", vhdx_metadata("d") + 6 * 32, 8, 77);
	assert_int_equal(try_open("d", 0, &e), 0);
	le_put("d", vhdx_metadata("d") + 6 * 32 + 24, 4, 4);
	expect_failure(try_open("d", 0, &e), VD_EUNSUPPORTED, &e, "must be understood");
}

/* ---- metadata and table --------------------------------------------------------------------------------- */

static void broken_metadata_is_refused(void **state)
{
	static const struct { unsigned at, n; uint64_t value; const char *words; } cases[] = {
		{ 0, 1, 0, "no metadata table" },
		{ 10, 2, 2048, "no metadata table" },
		{ 10, 2, 0, "has no file parameters" },
		{ 32 + 16, 4, 100, "cannot be" },
		{ 32 + 16, 4, UINT32_MAX, "cannot be" },
		{ 32 + 20, 4, 4, "cannot be" },
		{ 65536, 4, 0, "blocks of 0" },
		{ 65536, 4, 3 << 20, "power of two" },
		{ 65536, 4, 512 << 20, "power of two" },
		{ 65536 + 8, 8, 0, "whole sectors" },
		{ 65536 + 8, 8, 1000, "whole sectors" },
		{ 65536 + 8, 8, UINT64_C(65) << 40, "whole sectors" },
		{ 65536 + 8, 8, UINT64_C(1) << 40, "too short" },
		{ 65536 + 32, 4, 0, "sectors of 0" },
		{ 65536 + 32, 4, 1024, "sectors of 1024" },
		{ 65536 + 4, 4, 2, "without a parent locator" },
	};
	struct vd_error e;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		vhdx_make("d", SIZE, NULL, NULL);
		le_put("d", vhdx_metadata("d") + cases[i].at, cases[i].n, cases[i].value);
		expect_failure(try_open("d", 0, &e), VD_ECORRUPT, &e, cases[i].words);
		disks.mem->unlink(disks.mem, "d", NULL);
	}
}

static void broken_entries_are_refused_where_they_are_used(void **state)
{
	static const struct { uint64_t entry; const char *words; } cases[] = {
		{ 4, "unknown state 4" }, { 6, "outside the file" }, { 6 | 1 << 20, "on the log" },
		{ 6 | 2 << 20, "on the metadata" }, { 6 | 3 << 20, "on the block allocation" }, { 14, "reserved bits" },
		{ 6 | UINT64_C(1) << 40, "outside the file" }, { UINT64_MAX << 20 | 6, "outside the file" },
		{ 7 | 4 << 20, "no parent" },
	};
	struct vd_image *img;
	struct vd_error e;
	uint8_t byte;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		vhdx_make("d", SIZE, NULL, NULL);
		fill("d", 0, 512, 1);
		le_put("d", vhdx_entry("d", 1), 8, cases[i].entry);
		img = disk_open(vhdx, "d", VD_OPEN_WRITE);
		disk_expect(img, 0, 512, 1);
		expect_failure(vd_image_pread(img, &byte, 1, BLOCK, &e), VD_ECORRUPT, &e, cases[i].words);
		expect_failure(vd_image_pwrite(img, "x", 1, BLOCK, &e), VD_ECORRUPT, &e, cases[i].words);
		vd_image_abort(img);
		disks.mem->unlink(disks.mem, "d", NULL);
	}
}

static void disks_of_4096_byte_sectors_have_longer_chunks(void **state)
{
	struct vd_image *img;
	uint64_t size = 8 * (uint64_t)BLOCK;

	(void)state;
	vhdx_make("p", size, NULL, NULL);
	le_put("p", vhdx_metadata("p") + 65536 + 32, 4, 4096);
	fill("p", 0, size, 1);
	vhdx_make("c", size, NULL, "p");
	assert_int_equal(vhdx_chunk_ratio("c"), 32768);
	img = disk_open(vhdx, "c", VD_OPEN_WRITE);
	assert_int_equal(img->info.fill_unit, 4096);
	disk_write(img, 4096 + 100, 100, 2);
	disk_close(img);
	img = disk_open(vhdx, "c", 0);
	disk_expect(img, 0, 4196, 1);
	disk_expect(img, 4196, 100, 2);
	disk_expect(img, 4296, BLOCK - 4296, 1);
	disk_close(img);
	assert_int_equal(le_get("c", le_get("c", vhdx_bat("c") + vhdx_chunk_ratio("c") * 8, 8) & ~UINT64_C(0xfffff), 8), 2);
}

/* ---- parents -------------------------------------------------------------------------------------------- */

static void a_parent_is_known_by_its_content(void **state)
{
	struct vd_error e;

	(void)state;
	vhdx_make("p", SIZE, NULL, NULL);
	vhdx_make("c", SIZE, NULL, "p");
	assert_int_equal(try_open("c", 0, &e), 0);
	fill("p", 0, 1, 1);
	expect_failure(try_open("c", 0, &e), VD_EREFERENCE, &e, "identifier");
	assert_int_equal(try_open("c", VD_OPEN_METADATA, &e), 0);
	disks.mem->unlink(disks.mem, "p", NULL);
	expect_failure(try_open("c", 0, &e), VD_ENOENT, &e, "backing chain of c");
}

/* Where the locator's item lies: behind five items of 8, 8, 16, 4 and 4 bytes, in steps of 8. */
#define LOCATOR(name) (vhdx_metadata(name) + 65536 + 8 + 8 + 16 + 8 + 8)

static void broken_locators_are_refused(void **state)
{
	static const struct { unsigned at, n; uint64_t value; int code; const char *words; } cases[] = {
		{ 0, 1, 0, VD_EUNSUPPORTED, "type" },
		{ 18, 2, 65535, VD_ECORRUPT, "too short" },
		{ 18, 2, 0, VD_ECORRUPT, "no parent_linkage" },
		{ 18, 2, 1, VD_ECORRUPT, "names no file" },
		{ 20, 4, UINT32_MAX, VD_ECORRUPT, "no parent_linkage" },
		{ 24, 4, UINT32_MAX, VD_ECORRUPT, "no text" },
		{ 30, 2, 4, VD_ECORRUPT, "no identifier" },
	};
	struct vd_error e;

	(void)state;
	vhdx_make("p", SIZE, NULL, NULL);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		vhdx_make("c", SIZE, NULL, "p");
		le_put("c", LOCATOR("c") + cases[i].at, cases[i].n, cases[i].value);
		expect_failure(try_open("c", 0, &e), cases[i].code, &e, cases[i].words);
		disks.mem->unlink(disks.mem, "c", NULL);
	}
}

/* ---- growth --------------------------------------------------------------------------------------------- */

static void growing_past_the_table_moves_it(void **state)
{
	uint64_t size = UINT64_C(100) << 30, more = UINT64_C(300) << 30, bat;
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	vhdx_make("d", size, NULL, NULL);
	fill("d", 12345 * (uint64_t)BLOCK, BLOCK, 4);
	bat = vhdx_bat("d");
	img = disk_open(vhdx, "d", VD_OPEN_CONTROL);
	expect_ok(vd_image_resize(img, more, 0, &e), &e);
	disk_close(img);
	assert_int_not_equal(vhdx_bat("d"), bat);
	fill("d", more - 10, 10, 6);
	img = disk_open(vhdx, "d", 0);
	assert_int_equal(vd_image_size(img), more);
	disk_expect(img, 12345 * (uint64_t)BLOCK, BLOCK, 4);
	disk_expect(img, size - BLOCK, 3 * BLOCK, 0);
	disk_expect(img, more - 10, 10, 6);
	assert_int_equal(le_get("d", 131072 + 48, 8), 0);
	disk_close(img);
}

static void a_fixed_disk_stays_fixed(void **state)
{
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	vhdx_make("d", 2 * BLOCK, "fixed", NULL);
	fill("d", 0, 2 * BLOCK, 1);
	img = disk_open(vhdx, "d", VD_OPEN_WRITE);
	disk_zero(img, 0, BLOCK);
	expect_ok(vd_image_resize(img, 5 * BLOCK, 0, &e), &e);
	disk_close(img);
	for (int i = 0; i < 5; i++)
		assert_int_equal(le_get("d", vhdx_entry("d", i), 8) & 7, 6);
	img = disk_open(vhdx, "d", 0);
	disk_expect(img, 0, BLOCK, 0);
	disk_expect(img, BLOCK, BLOCK, 1);
	disk_expect(img, 2 * BLOCK, 3 * BLOCK, 0);
	disk_close(img);
}

static void what_was_cut_does_not_come_back(void **state)
{
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	vhdx_make("d", 6 * BLOCK, "fixed", NULL);
	fill("d", 0, 6 * BLOCK, 1);
	img = disk_open(vhdx, "d", VD_OPEN_WRITE);
	expect_failure(vd_image_resize(img, 2 * BLOCK, VD_RESIZE_SHRINK, &e), VD_EUNSUPPORTED, &e, "holds data past");
	disk_zero(img, 2 * BLOCK, 4 * BLOCK);
	expect_ok(vd_image_resize(img, 2 * BLOCK, VD_RESIZE_SHRINK, &e), &e);
	disk_close(img);
	for (int i = 0; i < 6; i++)
		assert_int_equal(le_get("d", vhdx_entry("d", i), 8) & 7, i < 2 ? 6 : 0);
	img = disk_open(vhdx, "d", VD_OPEN_WRITE);
	expect_ok(vd_image_resize(img, 6 * BLOCK, 0, &e), &e);
	disk_expect(img, 0, 2 * BLOCK, 1);
	disk_expect(img, 2 * BLOCK, 4 * BLOCK, 0);
	disk_close(img);
}

/* Where the file holds nothing of the table, a reader does not look; a writer does. */
static void a_huge_disk_maps_alike_to_reader_and_writer(void **state)
{
	static const uint64_t blocks[] = { 0, 4095, 4096, 4097, 9000, 131072, 131073, 299999, 307199 };
	uint64_t size = UINT64_C(300) << 30;
	struct vd_extent x[2][64];
	size_t n[2] = { 0, 0 };
	struct vd_error e;

	(void)state;
	vhdx_make("d", size, NULL, NULL);
	for (size_t i = 0; i < sizeof(blocks) / sizeof(blocks[0]); i++)
		fill("d", blocks[i] * BLOCK + 512, 512, 1 + i);
	for (int i = 0; i < 2; i++) {
		struct vd_image *img = disk_open(vhdx, "d", i ? VD_OPEN_WRITE : 0);

		for (uint64_t at = 0; at < size; at = x[i][n[i] - 1].off + x[i][n[i] - 1].len) {
			size_t got;

			expect_ok(vd_image_extents(img, at, size - at, x[i] + n[i], 64 - n[i], &got, &e), &e);
			n[i] += got;
		}
		disk_close(img);
	}
	assert_true(n[0] >= 11);
	assert_int_equal(n[0], n[1]);
	for (size_t i = 0; i < n[0]; i++) {
		assert_int_equal(x[0][i].off, x[1][i].off);
		assert_int_equal(x[0][i].len, x[1][i].len);
		assert_int_equal(x[0][i].flags, x[1][i].flags);
	}
}

/* ---- the host walk -------------------------------------------------------------------------------------- */

static void everything_in_the_file_has_its_owner(void **state)
{
	struct vd_image *img;

	(void)state;
	vhdx_make("p", SIZE, NULL, NULL);
	vhdx_make("c", SIZE, NULL, "p");
	img = disk_open(vhdx, "c", VD_OPEN_WRITE);
	disk_write(img, 512, 1024, 1);
	disk_write(img, SIZE - 512, 512, 1);
	disk_zero(img, BLOCK, BLOCK);
	disk_flush(img);
	walk_host(img, 64);
	assert_int_equal(walked.n_findings, 0);
	assert_int_equal(walked_bytes(VD_OWNER_JOURNAL, VD_N_WHYS), 1 << 20);
	assert_int_equal(walked_bytes(VD_OWNER_COPY, VD_N_WHYS), 4096 + 65536);
	assert_int_equal(walked_bytes(VD_OWNER_DATA, VD_N_WHYS), 1024 + 512);
	assert_int_equal(walked_bytes(VD_OWNER_SLACK, VD_SLACK_ABSENT), BLOCK - 1024 + 1024);
	assert_int_equal(walked_bytes(VD_OWNER_SLACK, VD_SLACK_PAST_END), BLOCK - 1536);
	assert_int_equal(walked_bytes(VD_OWNER_TABLE, VD_TABLE_SECTORS), SIZE / 512 / 8 + 1);
	assert_int_equal(walked_bytes(VD_OWNER_TABLE, VD_TABLE_LEAF), 4097 * 8);
	walk_free();
	disk_close(img);
}

static void two_entries_for_one_block_are_told(void **state)
{
	struct vd_image *img;

	(void)state;
	vhdx_make("d", SIZE, NULL, NULL);
	fill("d", 0, 2 * BLOCK, 1);
	le_put("d", vhdx_entry("d", 1), 8, le_get("d", vhdx_entry("d", 0), 8));
	le_put("d", vhdx_entry("d", 2), 8, 6 | 1 << 20);
	img = disk_open(vhdx, "d", 0);
	walk_host(img, 64);
	assert_true(walked.n_findings >= 1);
	assert_int_equal(walked_bytes(VD_OWNER_CORRUPT, VD_N_WHYS), 2 * BLOCK);
	walk_free();
	disk_close(img);
}

static int note_finding(void *ctx, const struct vd_finding *f)
{
	uint64_t *kinds = ctx;

	*kinds |= UINT64_C(1) << f->kind;
	return 0;
}

static uint64_t findings_of(const char *name)
{
	struct vd_check_report rep = { .struct_size = sizeof(rep) };
	struct vd_image *img = disk_open(vhdx, name, VD_OPEN_METADATA);
	uint64_t kinds = 0;
	struct vd_error e;

	expect_ok(vd_image_check(img, VD_REPAIR_NONE, note_finding, &kinds, NULL, &rep, &e), &e);
	disk_close(img);
	return kinds;
}

static void a_check_finds_what_is_wrong(void **state)
{
	(void)state;
	vhdx_make("p", SIZE, NULL, NULL);
	vhdx_make("d", SIZE, NULL, "p");
	fill("d", 0, 3 * BLOCK, 1);
	assert_int_equal(findings_of("d"), 0);
	le_put("d", vhdx_entry("d", 1), 8, le_get("d", vhdx_entry("d", 0), 8));
	assert_int_equal(findings_of("d"), 1 << VD_FOUND_OVERLAP);
	le_put("d", vhdx_entry("d", 1), 8, 6 | 1 << 20);
	assert_int_equal(findings_of("d"), 1 << VD_FOUND_TABLE);
	le_put("d", vhdx_entry("d", 1), 8, 0);
	le_put("d", vhdx_bat("d") + vhdx_chunk_ratio("d") * 8, 8, 0);
	assert_int_equal(findings_of("d"), 1 << VD_FOUND_TABLE);
}

/* New blocks are taken for zeros (X5). */
static void what_was_scrubbed_is_zeros_when_it_is_given_out(void **state)
{
	struct vd_image *img;
	uint64_t n = 0;
	struct vd_error e;

	(void)state;
	vhdx_make("d", 40 * (uint64_t)BLOCK, NULL, NULL);
	img = disk_open(vhdx, "d", VD_OPEN_WRITE);
	/* The file is made longer by some blocks at once: two are left. */
	disk_write(img, 0, 18 * BLOCK, 1);
	disk_zero(img, 0, BLOCK);
	disk_flush(img);
	walk_host(img, 64);
	for (size_t i = 0; i < walked.n; i++) {
		const struct vd_host_run *r = &walked.runs[i];

		if (r->owner != VD_OWNER_FREE && r->owner != VD_OWNER_TAIL && r->owner != VD_OWNER_HOSTHOLE)
			continue;
		/* A host that knows no holes. */
		for (uint64_t at = r->off; at < r->off + r->len; at += 512)
			expect_ok(vd_set_pwrite(img->set, 0, "SCRUB", 5, at, &e), &e);
		n += r->len;
	}
	walk_free();
	assert_int_equal(n, 3 * BLOCK);
	for (int i = 20; i < 30; i++) {
		disk_write(img, i * (uint64_t)BLOCK + 77, 1, 2);
		disk_expect(img, i * (uint64_t)BLOCK, 77, 0);
		disk_expect(img, i * (uint64_t)BLOCK + 78, BLOCK - 78, 0);
	}
	disk_close(img);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, disks_start, disks_stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(each_state_means_what_it_says),
		CASE(absent_blocks_without_a_parent_are_holes),
		CASE(the_place_of_an_unmapped_block_is_given_up),
		CASE(sectors_alternate_with_the_parents),
		CASE(a_block_begins_its_life_without_bits),
		CASE(zeroed_blocks_mask_the_parent_and_are_used_again),
		CASE(the_other_header_counts_when_one_is_damaged),
		CASE(headers_of_one_sequence_are_the_same),
		CASE(writing_changes_both_identifiers_in_both_headers),
		CASE(broken_headers_are_refused),
		CASE(the_second_region_table_counts_when_the_first_is_damaged),
		CASE(broken_regions_are_refused),
		CASE(unknown_regions_and_items_that_are_not_required_are_passed_over),
		CASE(broken_metadata_is_refused),
		CASE(broken_entries_are_refused_where_they_are_used),
		CASE(disks_of_4096_byte_sectors_have_longer_chunks),
		CASE(a_parent_is_known_by_its_content),
		CASE(broken_locators_are_refused),
		CASE(growing_past_the_table_moves_it),
		CASE(a_fixed_disk_stays_fixed),
		CASE(what_was_cut_does_not_come_back),
		CASE(a_huge_disk_maps_alike_to_reader_and_writer),
		CASE(everything_in_the_file_has_its_owner),
		CASE(two_entries_for_one_block_are_told),
		CASE(a_check_finds_what_is_wrong),
		CASE(what_was_scrubbed_is_zeros_when_it_is_given_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
