/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the qcow2 header may say: each rule broken once in an image that is good otherwise, and what has to be read
 * although it looks odd. Rules of the tables' entries are test_qcow2_entries.c's.
 */
#include "tests/support/qcow2_bytes.h"

#include <stdio.h>

#define qcow2 (&vd_format_qcow2)
#define SIZE (5u << 20)                 /* three L1 entries at clusters of 4 KiB */

#define AT_EXT 112                      /* first extension of a version 3 image */
#define AT_L1 0x3000                    /* layout: header, refcount table, refcount block, L1 table */

static void make_plain(const char *name)
{
	struct vd_create_opts o = disk_create_opts(qcow2, SIZE);
	struct vd_image *img;

	o.cluster_size = 4096;
	img = disk_create(qcow2, name, &o);
	disk_commit(img);
	disk_close(img);
}

static void make_v2(const char *name)
{
	struct vd_create_opts o = disk_create_opts(qcow2, SIZE);
	struct vd_image *img;

	o.flags = VD_CREATE_COMPAT_V2;
	img = disk_create(qcow2, name, &o);
	disk_commit(img);
	disk_close(img);
}

static void make_overlay(const char *name)
{
	struct vd_create_opts o = disk_create_opts(qcow2, SIZE);
	struct vd_image *img;

	disk_put_raw("base", 512, 1);
	o.cluster_size = 4096;
	o.backing_file = "base";
	o.backing_format = "raw";
	img = disk_create(qcow2, name, &o);
	disk_commit(img);
	disk_close(img);
}

static void make_data_file(const char *name)
{
	struct vd_create_opts o = disk_create_opts(qcow2, SIZE);
	struct vd_image *img;

	o.cluster_size = 4096;
	o.data_file = "data";
	img = disk_create(qcow2, name, &o);
	disk_commit(img);
	disk_close(img);
}

/* A key area in a new last cluster; what is in it is not the driver's concern. */
static void make_luks(const char *name)
{
	make_plain(name);
	bytes_put(name, 32, 4, 2);
	bytes_put(name, AT_EXT, 4, 0x0537be77);
	bytes_put(name, AT_EXT + 4, 4, 16);
	bytes_put(name, AT_EXT + 8, 8, 0x4000);
	bytes_put(name, AT_EXT + 16, 8, 2000);
	bytes_truncate(name, 0x4000 + 2000);
}

/* flags: VD_OPEN_METADATA or VD_OPEN_WRITE. */
static int open_it(const char *name, unsigned flags, struct vd_error *e)
{
	struct vd_open_opts opts = disk_open_opts(qcow2, flags);
	struct vd_image *img = NULL;
	int r = vd_image_open_on(disks.host, qcow2, name, &opts, &img, e);

	vd_image_abort(img);
	return r;
}

/* ---- every rule broken once --------------------------------------------------------------------------- */

static const struct broken {
	void (*make)(const char *name);
	uint64_t off;                   /* these bytes are overwritten ... */
	unsigned n_bytes;
	uint64_t value;
	int code;                       /* ... and this is what has to be said, of this place */
	const char *words;
	uint64_t at;
} broken[] = {
	{ make_plain, 0, 4, 0x514649fa, VD_ECORRUPT, "no qcow2 image", 0 },
	{ make_plain, 4, 4, 1, VD_EUNSUPPORTED, "qcow version 1", 4 },
	{ make_plain, 4, 4, 4, VD_EUNSUPPORTED, "qcow version 4", 4 },
	{ make_plain, 20, 4, 8, VD_ECORRUPT, "cluster_bits is 8", 20 },
	{ make_plain, 20, 4, 22, VD_ECORRUPT, "cluster_bits is 22", 20 },
	{ make_plain, 20, 4, 0xffffffff, VD_ECORRUPT, "cluster_bits is 4294967295", 20 },
	{ make_plain, 24, 8, UINT64_C(1) << 63, VD_ECORRUPT, "is too large", 24 },
	{ make_plain, 24, 8, SIZE + (2u << 20), VD_ECORRUPT, "L1 table of 3 entries is too small", 36 },
	{ make_plain, 24, 8, INT64_MAX, VD_ECORRUPT, "L1 table of 3 entries is too small", 36 },
	{ make_plain, 32, 4, 3, VD_EUNSUPPORTED, "encryption method 3", 32 },
	{ make_plain, 32, 4, 2, VD_ECORRUPT, "does not say where the key area is", 32 },
	{ make_plain, 36, 4, 2, VD_ECORRUPT, "too small", 36 },
	{ make_plain, 36, 4, 0xffffffff, VD_ECORRUPT, "4294967295 entries is too large", 36 },
	{ make_plain, 36, 4, (4u << 20) + 1, VD_ECORRUPT, "4194305 entries is too large", 36 },
	{ make_plain, 36, 4, 513, VD_ECORRUPT, "L1 table of 4104 bytes at 12288 reaches beyond the end", 40 },
	{ make_plain, 40, 8, 0x3200, VD_ECORRUPT, "L1 table at 12800 does not begin at a cluster", 40 },
	{ make_plain, 40, 8, 0x4000, VD_ECORRUPT, "beyond the end of the file", 40 },
	{ make_plain, 40, 8, UINT64_MAX - 4095, VD_ECORRUPT, "beyond the end of the file", 40 },
	{ make_plain, 40, 8, 0, VD_ECORRUPT, "L1 table at 0 lies on the header", 40 },
	{ make_plain, 48, 8, 0x1008, VD_ECORRUPT, "refcount table at 4104 does not begin", 48 },
	{ make_plain, 48, 8, 0, VD_ECORRUPT, "refcount table at 0 lies on the header", 48 },
	{ make_plain, 48, 8, AT_L1, VD_ECORRUPT, "refcount table at 12288 lies on the L1 table", 48 },
	{ make_plain, 48, 8, UINT64_C(1) << 62, VD_ECORRUPT, "beyond the end of the file", 48 },
	{ make_plain, 56, 4, 0, VD_ECORRUPT, "no refcount table", 56 },
	{ make_plain, 56, 4, 4, VD_ECORRUPT, "refcount table of 16384 bytes at 4096 reaches beyond", 48 },
	{ make_plain, 56, 4, 0x80000000, VD_ECORRUPT, "2147483648 clusters is too large", 56 },
	{ make_plain, 60, 4, 65537, VD_ECORRUPT, "65537 snapshots", 60 },
	{ make_plain, 60, 4, 1, VD_ECORRUPT, "snapshot table at 0 lies on the header", 64 },
	{ make_plain, 60, 4, 65536, VD_ECORRUPT, "snapshot table of 2621440 bytes at 0 reaches beyond", 64 },
	{ make_plain, 72, 8, 1ull << 60, VD_EUNSUPPORTED, "unsupported qcow2 feature(s): unnamed feature, bit 60", 72 },
	{ make_plain, 72, 8, 3ull << 62, VD_EUNSUPPORTED, "bit 62, unnamed feature, bit 63", 72 },
	{ make_plain, 72, 8, 4, VD_ECORRUPT, "does not name it", 72 },
	{ make_plain, 72, 8, 8, VD_ECORRUPT, "compression type 0, but its incompatible feature bit is set", 104 },
	{ make_plain, 72, 8, 16, VD_ECORRUPT, "extended L2 entries need cluster_bits of 14", 20 },
	{ make_plain, 96, 4, 7, VD_ECORRUPT, "refcount_order is 7", 96 },
	{ make_plain, 96, 4, 0xffffffff, VD_ECORRUPT, "refcount_order is 4294967295", 96 },
	{ make_plain, 100, 4, 96, VD_ECORRUPT, "header_length is 96", 100 },
	{ make_plain, 100, 4, 107, VD_ECORRUPT, "header_length is 107", 100 },
	{ make_plain, 100, 4, 4104, VD_ECORRUPT, "header_length 4104 is more than a cluster", 100 },
	{ make_plain, 104, 1, 1, VD_ECORRUPT, "compression type 1, but its incompatible feature bit is clear", 104 },
	{ make_plain, 104, 1, 2, VD_EUNSUPPORTED, "compression type 2", 104 },
	{ make_plain, AT_EXT, 8, 0x7777777700001000, VD_ECORRUPT, "extension 0x77777777 of 4096 bytes leaves", AT_EXT },
	{ make_plain, AT_EXT, 8, 0x77777777ffffffff, VD_ECORRUPT, "of 4294967295 bytes leaves", AT_EXT },
	{ make_plain, AT_EXT, 8, 0x23852875u * 0x100000000ull + 16, VD_ECORRUPT, "bitmaps extension has 16", AT_EXT + 8 },
	{ make_plain, AT_EXT, 8, 0x0537be77u * 0x100000000ull + 16, VD_ECORRUPT, "crypt_method is 0", AT_EXT + 8 },
	{ make_plain, AT_EXT, 8, 0xe2792acau * 0x100000000ull, VD_ECORRUPT, "backing format has 0 bytes", AT_EXT + 8 },
	{ make_v2, 24, 8, UINT64_C(1) << 40, VD_ECORRUPT, "too small", 36 },
	{ make_overlay, 8, 8, 8, VD_ECORRUPT, "file name at 8 lies outside", 8 },
	{ make_overlay, 8, 8, 4093, VD_ECORRUPT, "file name at 4093 lies outside", 8 },
	{ make_overlay, 8, 8, UINT64_MAX, VD_ECORRUPT, "lies outside the header cluster", 8 },
	{ make_overlay, 16, 4, 1024, VD_ECORRUPT, "1024 bytes, must be at most 1023", 16 },
	{ make_overlay, 16, 4, 0, VD_ECORRUPT, "backing file name has 0 bytes", 0x88 },
	{ make_overlay, 0x89, 1, 0, VD_ECORRUPT, "backing file name has a NUL byte", 0x88 },
	{ make_overlay, AT_EXT + 9, 1, 0, VD_ECORRUPT, "backing format has a NUL byte", AT_EXT + 8 },
	{ make_data_file, AT_EXT + 9, 1, 0, VD_ECORRUPT, "data file name has a NUL byte", AT_EXT + 8 },
	{ make_data_file, 60, 4, 1, VD_ECORRUPT, "cannot have snapshots", 60 },
	{ make_luks, AT_EXT + 4, 4, 24, VD_ECORRUPT, "LUKS extension has 24 bytes", AT_EXT + 8 },
	{ make_luks, AT_EXT + 8, 8, 0x4200, VD_ECORRUPT, "LUKS key area at 16896 does not begin", 72 },
	{ make_luks, AT_EXT + 8, 8, 0x1000, VD_ECORRUPT, "lies on the LUKS key area", 48 },
	{ make_luks, AT_EXT + 8, 8, 0x3000, VD_ECORRUPT, "LUKS key area at 12288 lies on the L1 table", 72 },
	{ make_luks, AT_EXT + 16, 8, 5000, VD_ECORRUPT, "LUKS key area of 5000 bytes at 16384 reaches beyond", 72 },
	{ make_luks, AT_EXT + 16, 8, UINT64_MAX, VD_ECORRUPT, "reaches beyond", 72 },
	{ make_luks, AT_EXT + 16, 8, 0, VD_ECORRUPT, "does not say where the key area is", 32 },
};

static void break_it(const struct broken *b)
{
	struct vd_error e;
	uint64_t tick;
	int r;

	disks.mem->unlink(disks.mem, "x", NULL);
	disks.mem->unlink(disks.mem, "data", NULL);
	b->make("x");
	r = open_it("x", VD_OPEN_METADATA, &e);
	/* The core wants more of a key area than the driver. */
	if (b->make != make_luks)
		expect_ok(r, &e);
	else
		expect_failure(r, VD_ECORRUPT, &e, "no LUKS header where the image says");
	bytes_put("x", b->off, b->n_bytes, b->value);
	tick = vd_record_tick(disks.record);
	r = open_it("x", VD_OPEN_METADATA, &e);
	if (r != b->code || strncmp(e.message, "x: ", 3) || !strstr(e.message, b->words) || !e.has_offset || e.offset != b->at)
		fail_msg("%u bytes at %llu made 0x%llx: wanted %s, '%s', at %llu; got %s: %s", b->n_bytes,
			 (unsigned long long)b->off, (unsigned long long)b->value, vd_code_name(b->code), b->words,
			 (unsigned long long)b->at, vd_code_name(r), r ? e.message : "");
	if (r == VD_ECORRUPT)
		assert_non_null(strstr(e.hint, "backup"));
	assert_int_equal(disks_count(CHANGES, tick), 0);
}

static void each_broken_rule_is_told_with_its_place(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++)
		break_it(&broken[i]);
}

static void a_file_cut_anywhere_in_its_tables_is_refused(void **state)
{
	struct vd_error e;

	(void)state;
	make_plain("x");
	for (uint64_t size = AT_L1; ; size = size > 512 ? size - 512 : size - 1) {
		bytes_truncate("x", size);
		assert_int_equal(open_it("x", VD_OPEN_METADATA, &e), VD_ECORRUPT);
		if (!size)
			break;
	}
	expect_failure(open_it("x", VD_OPEN_METADATA, &e), VD_ECORRUPT, &e, "a file of 0 bytes");
}

/* ---- what is read although it looks odd --------------------------------------------------------------- */

static void an_unknown_feature_is_called_by_the_images_own_name(void **state)
{
	struct vd_create_opts o = disk_create_opts(qcow2, SIZE);
	struct vd_image *img = disk_create(qcow2, "x", &o);
	struct vd_error e;

	(void)state;
	disk_commit(img);
	disk_close(img);
	/* The first of the names, which qemu's table gives to the dirty bit. */
	bytes_write("x", AT_EXT + 8, "\0\x3c" "in conversion\033[2J", 20);
	bytes_put("x", 72, 8, 1ull << 60);
	expect_failure(open_it("x", VD_OPEN_METADATA, &e), VD_EUNSUPPORTED, &e, "unsupported qcow2 feature(s): in conversion?[2J");
}

static void the_last_table_may_lack_its_padding(void **state)
{
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	make_plain("x");
	bytes_truncate("x", AT_L1 + 24);
	expect_ok(open_it("x", VD_OPEN_METADATA, &e), &e);
	img = disk_open(qcow2, "x", VD_OPEN_WRITE);
	disk_write(img, 0, 10000, 7);
	disk_close(img);
	img = disk_open(qcow2, "x", 0);
	disk_expect(img, 0, 10000, 7);
	disk_close(img);
	expect_sound("x");
}

static void a_longer_header_and_unknown_extensions_are_kept(void **state)
{
	uint8_t before[512], after[512];
	struct vd_image *img;

	(void)state;
	make_plain("x");
	bytes_put("x", 100, 4, 120);
	bytes_write("x", 112, "\xff\xff\xff\xff\xff\xff\xff\xff\x12\x34\x56\x78\0\0\0\x05" "abcde\0\0\0\0\0\0\0\0\0\0", 32);
	bytes_put("x", 80, 8, 0x8000000000000000);
	bytes_read("x", 0, before, sizeof(before));
	img = disk_open(qcow2, "x", VD_OPEN_WRITE);
	disk_write(img, 0, 10000, 7);
	disk_close(img);
	bytes_read("x", 0, after, sizeof(after));
	assert_memory_equal(before, after, sizeof(before));
}

static void writing_clears_autoclear_bits_once_and_first(void **state)
{
	struct vd_image *img;
	uint64_t tick;

	(void)state;
	make_plain("x");
	bytes_put("x", 88, 8, 0x8000000000000003);
	img = disk_open(qcow2, "x", 0);
	disk_expect(img, 0, 512, 0);
	disk_close(img);
	assert_true(bytes_get("x", 88, 8) == 0x8000000000000003);
	tick = vd_record_tick(disks.record);
	img = disk_open(qcow2, "x", VD_OPEN_WRITE);
	assert_int_equal(disks_count(CHANGES, tick), 0);
	disk_write(img, 0, 512, 1);
	assert_true(bytes_get("x", 88, 8) == 0);
	/* Durable before the payload is even written: the second event is the flush. */
	for (size_t i = 0; ; i++) {
		const struct vd_event *ev = vd_record_event(disks.record, i);

		if (ev->begin <= tick)
			continue;
		assert_true(ev->kind == VD_OP_WRITE && ev->off == 88 && ev->len == 8);
		assert_true(vd_record_event(disks.record, i + 1)->kind == VD_OP_FLUSH);
		break;
	}
	disk_close(img);
}

static void a_raw_data_file_stays_raw(void **state)
{
	struct vd_create_opts o = disk_create_opts(qcow2, SIZE);
	struct vd_image *img;

	(void)state;
	o.data_file = "data";
	o.flags = VD_CREATE_DATA_FILE_RAW;
	img = disk_create(qcow2, "x", &o);
	disk_commit(img);
	disk_close(img);
	bytes_put("x", 88, 8, 3);
	img = disk_open(qcow2, "x", VD_OPEN_WRITE);
	disk_write(img, 0, 512, 1);
	disk_close(img);
	assert_true(bytes_get("x", 88, 8) == 2);
}

static void marked_images_are_read_and_not_written(void **state)
{
	static const struct { uint64_t off; unsigned n_bytes; uint64_t value; const char *words, *hint; } marks[] = {
		{ 72, 8, 1, "not closed cleanly", "vdisk check --repair=all" },
		{ 72, 8, 2, "marked corrupt", "vdisk check --repair=all" },
		{ 32, 4, 1, "AES-CBC", "LUKS" },
	};
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		disks.mem->unlink(disks.mem, "x", NULL);
		make_plain("x");
		bytes_put("x", marks[i].off, marks[i].n_bytes, marks[i].value);
		expect_ok(open_it("x", VD_OPEN_METADATA, &e), &e);
		expect_failure(open_it("x", VD_OPEN_WRITE, &e), VD_EREADONLY, &e, marks[i].words);
		assert_non_null(strstr(e.hint, marks[i].hint));
		if (marks[i].off == 32)
			continue;
		img = disk_open(qcow2, "x", 0);
		disk_expect(img, 0, SIZE, 0);
		disk_close(img);
	}
}

static void info_tells_the_header(void **state)
{
	struct vd_info i = { .struct_size = sizeof(i) };
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	make_overlay("x");
	bytes_put("x", 72, 8, 1);
	bytes_put("x", 80, 8, 1);
	img = disk_open(qcow2, "x", VD_OPEN_METADATA);
	expect_ok(vd_image_info(img, &i, &e), &e);
	assert_string_equal(i.backing_file, "base");
	assert_string_equal(i.backing_format, "raw");
	assert_true(i.is_dirty && !i.is_corrupt && i.lazy_refcounts && !i.extended_l2);
	assert_int_equal(i.qcow2_version, 3);
	assert_int_equal(i.refcount_bits, 16);
	assert_int_equal(i.cluster_size, 4096);
	assert_string_equal(i.compression_type, "deflate");
	assert_null(i.data_file);
	disk_close(img);
}

static void the_key_area_is_where_the_header_says(void **state)
{
	struct vd_open_opts opts = disk_open_opts(qcow2, VD_OPEN_METADATA);
	struct vd_image *img = NULL;
	struct vd_error e;

	(void)state;
	make_luks("x");
	/* Zeros are no LUKS header: what the core says of it shows where it looked. */
	bytes_put("x", AT_EXT + 16, 8, 4096);
	expect_failure(vd_image_open_on(disks.host, qcow2, "x", &opts, &img, &e), VD_ECORRUPT, &e, "LUKS header");
	assert_true(e.has_offset && e.offset == 0x4000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(each_broken_rule_is_told_with_its_place, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(a_file_cut_anywhere_in_its_tables_is_refused, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(an_unknown_feature_is_called_by_the_images_own_name, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(the_last_table_may_lack_its_padding, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(a_longer_header_and_unknown_extensions_are_kept, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(writing_clears_autoclear_bits_once_and_first, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(a_raw_data_file_stays_raw, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(marked_images_are_read_and_not_written, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(info_tells_the_header, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(the_key_area_is_where_the_header_says, disks_start, disks_stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
