/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * VHD by its bytes: which footer counts, whose size, what a bitmap and a parent's names mean, and each rule of header and
 * table broken once in an image that is good otherwise. What others make of it is tests/interop's.
 */
#include "tests/support/qcow2_bytes.h"

#include "formats/vhd/vhd.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/base/utf16.h"

#define vhd (&vd_format_vhd)
#define BLOCK 65536u
#define SIZE (10 * (uint64_t)BLOCK + 1536)
#define HEADER 512                      /* layout of what is made here: footer, header, table, footer */
#define TABLE 1536

static void make(const char *name, const char *kind, const char *parent)
{
	struct vd_create_opts o = disk_create_opts(vhd, SIZE);
	struct vd_image *img;

	o.subformat = kind;
	o.cluster_size = strcmp(kind, "fixed") ? BLOCK : 0;
	o.backing_file = parent;
	o.backing_format = parent ? "vhd" : NULL;
	img = disk_create(vhd, name, &o);
	disk_commit(img);
	disk_close(img);
}

static int try_open(const char *name, unsigned flags, struct vd_error *e)
{
	struct vd_open_opts opts = disk_open_opts(vhd, flags);
	struct vd_image *img = NULL;
	int r = vd_image_open_on(disks.host, vhd, name, &opts, &img, e);

	vd_image_abort(img);
	return r;
}

static void seal_footer(const char *name, uint64_t at)
{
	uint8_t raw[512];

	bytes_read(name, at, raw, sizeof(raw));
	bytes_put(name, at + VHD_AT_CHECKSUM, 4, vd_vhd_checksum(raw, sizeof(raw), VHD_AT_CHECKSUM));
}

static void seal_header(const char *name)
{
	uint8_t raw[1024];

	bytes_read(name, HEADER, raw, sizeof(raw));
	bytes_put(name, HEADER + VHD_AT_HEADER_CHECKSUM, 4, vd_vhd_checksum(raw, sizeof(raw), VHD_AT_HEADER_CHECKSUM));
}

static uint64_t footer_of(const char *name)
{
	return bytes_size(name) - 512;
}

static void fill(const char *name, uint64_t off, uint64_t len, uint8_t value)
{
	struct vd_image *img = disk_open(vhd, name, VD_OPEN_WRITE);

	disk_write(img, off, len, value);
	disk_close(img);
}

/* ---- the footer ----------------------------------------------------------------------------------------- */

static void the_size_follows_the_creator(void **state)
{
	/* 200 cylinders, 4 heads, 1 sector: less than the current size. */
	static const struct { const char *creator; uint32_t geometry; bool by_geometry; } cases[] = {
		{ "vpc ", 0x00c80401, true }, { "qemu", 0x00c80401, true }, { "win ", 0x00c80401, false },
		{ "qem2", 0x00c80401, false }, { "d2v\0", 0x00c80401, false }, { "vbox", 0x00c80401, false },
		{ "tap\0", 0x00c80401, false }, { "vpc ", 0xffff10ff, false }, { "vpc ", 0, false },
		/* More than the file holds. */
		{ "vpc ", 0xffff0401, false },
	};
	struct vd_image *img;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		make("d", "fixed", NULL);
		bytes_put("d", footer_of("d") + 28, 4, vd_get_be32(cases[i].creator));
		bytes_put("d", footer_of("d") + 56, 4, cases[i].geometry);
		seal_footer("d", footer_of("d"));
		img = disk_open(vhd, "d", 0);
		assert_int_equal(vd_image_size(img), cases[i].by_geometry ? 200 * 4 * 512 : SIZE);
		disk_close(img);
		disks.mem->unlink(disks.mem, "d", NULL);
	}
}

static void a_footer_of_511_bytes_is_read_and_not_written(void **state)
{
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	make("d", "dynamic", NULL);
	fill("d", 0, 3000, 7);
	bytes_truncate("d", bytes_size("d") - 1);
	img = disk_open(vhd, "d", 0);
	disk_expect(img, 0, 3000, 7);
	disk_close(img);
	expect_failure(try_open("d", VD_OPEN_WRITE, &e), VD_EREADONLY, &e, "511 bytes");
}

static bool is_probed_as_vhd(const char *name)
{
	struct vd_open_opts opts = disk_open_opts(vhd, 0);
	struct vd_image *img = NULL;
	bool is_vhd;

	opts.format = NULL;
	assert_int_equal(vd_image_open_on(disks.host, NULL, name, &opts, &img, NULL), 0);
	is_vhd = img->format == vhd;
	vd_image_abort(img);
	return is_vhd;
}

static void a_fixed_disk_is_known_by_its_end(void **state)
{
	(void)state;
	make("d", "fixed", NULL);
	assert_true(is_probed_as_vhd("d"));
	bytes_truncate("d", bytes_size("d") - 1);
	assert_true(is_probed_as_vhd("d"));
	bytes_truncate("d", bytes_size("d") - 1);
	assert_false(is_probed_as_vhd("d"));
}

static void the_copy_counts_only_without_a_footer_at_the_end(void **state)
{
	struct vd_image *img;
	uint8_t copy[512];

	(void)state;
	make("d", "dynamic", NULL);
	bytes_read("d", 0, copy, sizeof(copy));
	/* The guest of a fixed disk writes what it likes. */
	make("f", "fixed", NULL);
	bytes_write("f", 0, copy, sizeof(copy));
	img = disk_open(vhd, "f", 0);
	assert_int_equal(img->info.unit, 1);
	disk_close(img);
	fill("d", 100, 700, 9);
	bytes_truncate("d", bytes_size("d") - 512);
	img = disk_open(vhd, "d", 0);
	disk_expect(img, 100, 700, 9);
	disk_close(img);
}

static void writing_puts_a_lost_footer_back(void **state)
{
	(void)state;
	make("d", "dynamic", NULL);
	fill("d", 0, 512, 1);
	bytes_truncate("d", bytes_size("d") - 512);
	fill("d", 3 * BLOCK, 512, 2);
	assert_int_equal(bytes_get("d", footer_of("d"), 8), 0x636f6e6563746978);
	assert_int_equal(bytes_size("d") % 512, 0);
	assert_int_equal(footer_of("d"), 2048 + 2 * (512 + BLOCK));
}

static void a_first_write_stamps_both_footers(void **state)
{
	uint64_t before;

	(void)state;
	make("d", "dynamic", NULL);
	before = bytes_get("d", 24, 4);
	fill("d", 0, 1, 1);
	assert_true(bytes_get("d", 24, 4) > before);
	assert_int_equal(bytes_get("d", 24, 4), bytes_get("d", footer_of("d") + 24, 4));
}

/* ---- rules broken --------------------------------------------------------------------------------------- */

static void broken_headers_are_refused(void **state)
{
	static const struct { uint64_t at; unsigned n; uint64_t value; int code; const char *words; bool is_header; } cases[] = {
		{ 12, 4, 0x00020000, VD_EUNSUPPORTED, "version 2", false },
		{ 60, 4, 5, VD_EUNSUPPORTED, "type 5", false },
		{ 48, 8, UINT64_MAX, VD_ECORRUPT, "by its footer", false },
		{ 16, 8, UINT64_MAX, VD_ECORRUPT, "header lies outside", false },
		{ 16, 8, 0, VD_ECORRUPT, "no dynamic header", false },
		{ 48, 8, 64 * (uint64_t)BLOCK, VD_ECORRUPT, "reaches less far", false },
		{ HEADER + 24, 4, 0x00030000, VD_EUNSUPPORTED, "version 3", true },
		{ HEADER + 32, 4, 0, VD_ECORRUPT, "blocks of 0", true },
		{ HEADER + 32, 4, 3 << 16, VD_ECORRUPT, "power of two", true },
		{ HEADER + 32, 4, 0x80000000, VD_ECORRUPT, "power of two", true },
		{ HEADER + 28, 4, UINT32_MAX, VD_ECORRUPT, "outside the file", true },
		{ HEADER + 16, 8, UINT64_MAX - 3, VD_ECORRUPT, "outside the file", true },
	};
	struct vd_error e;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		make("d", "dynamic", NULL);
		if (cases[i].is_header) {
			bytes_put("d", cases[i].at, cases[i].n, cases[i].value);
			seal_header("d");
		} else {
			bytes_put("d", footer_of("d") + cases[i].at, cases[i].n, cases[i].value);
			seal_footer("d", footer_of("d"));
		}
		expect_failure(try_open("d", 0, &e), cases[i].code, &e, cases[i].words);
		disks.mem->unlink(disks.mem, "d", NULL);
	}
	make("d", "dynamic", NULL);
	bytes_put("d", HEADER + 100, 1, 7);
	expect_failure(try_open("d", 0, &e), VD_ECORRUPT, &e, "right checksum");
}

static void broken_entries_are_refused_where_they_are_used(void **state)
{
	static const struct { uint32_t entry; const char *words; } cases[] = {
		{ 0, "own tables" }, { 2, "own tables" }, { 3, "own tables" }, { 0xfffffffe, "outside the file" },
		{ 1 << 20, "outside the file" },
	};
	struct vd_image *img;
	struct vd_error e;
	uint8_t byte;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		make("d", "dynamic", NULL);
		fill("d", 0, 512, 1);
		bytes_put("d", TABLE + 4, 4, cases[i].entry);
		img = disk_open(vhd, "d", VD_OPEN_WRITE);
		disk_expect(img, 0, 512, 1);
		expect_failure(vd_image_pread(img, &byte, 1, BLOCK, &e), VD_ECORRUPT, &e, cases[i].words);
		expect_failure(vd_image_pwrite(img, "x", 1, BLOCK, &e), VD_ECORRUPT, &e, cases[i].words);
		vd_image_abort(img);
		disks.mem->unlink(disks.mem, "d", NULL);
	}
}

/* A block that would lie on the footer is read and never written. */
static void a_block_over_the_end_is_not_written(void **state)
{
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	make("d", "dynamic", NULL);
	fill("d", 0, 512, 1);
	bytes_put("d", TABLE + 4, 4, bytes_get("d", TABLE, 4) + 64);
	img = disk_open(vhd, "d", VD_OPEN_WRITE);
	expect_failure(vd_image_pwrite(img, "x", 1, BLOCK, &e), VD_ECORRUPT, &e, "past the end of the data");
	vd_image_abort(img);
}

/* ---- bitmaps -------------------------------------------------------------------------------------------- */

static void sectors_that_are_not_there_are_the_parents(void **state)
{
	struct vd_extent x[32];
	struct vd_image *img;
	size_t n;

	(void)state;
	make("p", "dynamic", NULL);
	fill("p", 0, BLOCK, 1);
	make("c", "differencing", "p");
	img = disk_open(vhd, "c", VD_OPEN_WRITE);
	for (int i = 0; i < 8; i++)
		disk_write(img, i * 1024, 512, 2);
	disk_write(img, 8192, 4096, 2);
	assert_int_equal(vd_image_extents(img, 0, BLOCK, x, 32, &n, NULL), 0);
	/* Seven pairs, two that meet, and the rest. */
	assert_int_equal(n, 18);
	assert_int_equal(x[16].len, 4096);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(x[i].depth, i % 2);
	for (int i = 0; i < 8; i++) {
		disk_expect(img, i * 1024, 512, 2);
		disk_expect(img, i * 1024 + 512, 512, 1);
	}
	disk_close(img);
	/* Most significant bit first: every other one of two bytes, and eight in a row. */
	assert_int_equal(bytes_get("c", bytes_get("c", TABLE, 4) * 512, 4), 0xaaaaff00);
}

static void zeros_mask_the_parent(void **state)
{
	struct vd_image *img;

	(void)state;
	make("p", "fixed", NULL);
	fill("p", 0, SIZE, 1);
	make("c", "differencing", "p");
	img = disk_open(vhd, "c", VD_OPEN_WRITE);
	disk_zero(img, 700, 2 * BLOCK);
	disk_close(img);
	img = disk_open(vhd, "c", 0);
	disk_expect(img, 0, 700, 1);
	disk_expect(img, 700, 2 * BLOCK, 0);
	disk_expect(img, 700 + 2 * BLOCK, 700, 1);
	disk_close(img);
}

static void bits_of_xens_first_tools_begin_at_the_other_end(void **state)
{
	struct vd_image *img;

	(void)state;
	make("d", "dynamic", NULL);
	fill("d", 0, BLOCK, 3);
	bytes_put("d", bytes_get("d", TABLE, 4) * 512, 1, 0x03);
	bytes_put("d", footer_of("d") + 28, 4, 0x74617000);
	bytes_put("d", footer_of("d") + 32, 4, 1);
	seal_footer("d", footer_of("d"));
	img = disk_open(vhd, "d", 0);
	disk_expect(img, 0, 1024, 3);
	disk_expect(img, 1024, 3072, 0);
	disk_expect(img, 4096, 512, 3);
	disk_close(img);
}

/* ---- parents -------------------------------------------------------------------------------------------- */

static void a_parent_is_known_by_identifier_and_time(void **state)
{
	struct vd_error e;

	(void)state;
	make("p", "dynamic", NULL);
	make("c", "differencing", "p");
	assert_int_equal(try_open("c", 0, &e), 0);
	/* An older stamp is the rule where the file's time was noted. */
	bytes_put("c", HEADER + 56, 4, bytes_get("c", HEADER + 56, 4) + 100);
	seal_header("c");
	assert_int_equal(try_open("c", 0, &e), 0);
	bytes_put("c", HEADER + 56, 4, bytes_get("p", 24, 4) - 1);
	seal_header("c");
	expect_failure(try_open("c", 0, &e), VD_EREFERENCE, &e, "was written after");
	bytes_put("c", HEADER + 40, 4, 7);
	seal_header("c");
	expect_failure(try_open("c", 0, &e), VD_EREFERENCE, &e, "but p is the disk");
	assert_int_equal(try_open("c", VD_OPEN_METADATA, &e), 0);
	disks.mem->unlink(disks.mem, "p", NULL);
	expect_failure(try_open("c", 0, &e), VD_ENOENT, &e, "backing chain of c");
}

/* One locator of this kind, its text at the end of the file before the footer moves there. */
static void put_locator(const char *name, int slot, uint32_t code, const char *text)
{
	uint8_t raw[512], footer[512];
	uint64_t at = footer_of(name), entry = HEADER + 576 + 24 * slot;
	size_t len = strlen(text);

	if (code == VHD_MACX)
		memcpy(raw, text, len);
	else
		assert_true(vd_utf16_encode(text, VD_UTF16_LE, raw, sizeof(raw), &len));
	bytes_read(name, at, footer, sizeof(footer));
	bytes_write(name, at, raw, sizeof(raw));
	bytes_write(name, at + 512, footer, sizeof(footer));
	bytes_put(name, entry, 4, code);
	/* Windows 10 writes bytes here, others sectors. */
	bytes_put(name, entry + 4, 4, slot ? 65536 : 1);
	bytes_put(name, entry + 8, 4, len);
	bytes_put(name, entry + 16, 8, at);
	seal_header(name);
}

static const char *const *names_of(const char *name, struct vd_image **img)
{
	*img = disk_open(vhd, name, VD_OPEN_METADATA);
	assert_string_equal((*img)->info.backing_format, "vhd");
	return (*img)->info.backing_others;
}

static void names_of_the_parent_are_told_in_order(void **state)
{
	struct vd_image *img;
	const char *const *others;

	(void)state;
	make("p", "dynamic", NULL);
	make("c", "differencing", "p");
	put_locator("c", 0, VHD_MACX, "file:///Volumes/vms/mac.vhd");
	put_locator("c", 1, VHD_W2KU, "C:\\VMs\\Windows 7\\abs.vhd");
	put_locator("c", 2, VHD_W2RU, "..\\sub\\rel.vhd");
	put_locator("c", 3, 0x57693272, "Wi2r is no text any more");
	others = names_of("c", &img);
	assert_string_equal(img->info.backing_file, "../sub/rel.vhd");
	assert_string_equal(others[0], "rel.vhd");
	assert_string_equal(others[1], "abs.vhd");
	assert_string_equal(others[2], "p");
	assert_string_equal(others[3], "/Volumes/vms/mac.vhd");
	assert_string_equal(others[4], "mac.vhd");
	assert_null(others[5]);
	disk_close(img);
}

/* The names that lead nowhere are passed over, one that no gate lets pass, too. */
static int gate_of_some(void *ctx, enum vd_reference_kind kind, const char *image, const char *name, const char *format,
			char *path, size_t path_len, struct vd_error *e)
{
	if (strcmp(name, "abs.vhd"))
		return vd_fail(e, VD_ENOENT, "there is no %s", name);
	return disks_gate(ctx, kind, image, "p", format, path, path_len, e);
}

static void the_first_name_that_is_a_file_counts(void **state)
{
	struct vd_open_opts opts = disk_open_opts(vhd, 0);
	struct vd_image *img = NULL;
	struct vd_error e;

	(void)state;
	make("p", "dynamic", NULL);
	fill("p", 0, 512, 5);
	make("c", "differencing", "p");
	put_locator("c", 1, VHD_W2KU, "C:\\VMs\\abs.vhd");
	opts.gate = gate_of_some;
	expect_ok(vd_image_open_on(disks.host, vhd, "c", &opts, &img, &e), &e);
	disk_expect(img, 0, 512, 5);
	disk_close(img);
	put_locator("c", 1, VHD_W2KU, "C:\\VMs\\other.vhd");
	img = NULL;
	expect_failure(vd_image_open_on(disks.host, vhd, "c", &opts, &img, &e), VD_ENOENT, &e, "there is no p");
}

static void names_that_are_no_text_are_passed_over(void **state)
{
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	make("p", "dynamic", NULL);
	make("c", "differencing", "p");
	/* A surrogate alone, and a locator that is too long to be a name. */
	bytes_put("c", HEADER + 64, 2, 0xd800);
	bytes_put("c", HEADER + 576 + 8, 4, UINT32_MAX);
	seal_header("c");
	expect_failure(try_open("c", 0, &e), VD_ECORRUPT, &e, "names no parent");
	bytes_put("c", HEADER + 64, 4, 0x00700000);
	seal_header("c");
	names_of("c", &img);
	assert_string_equal(img->info.backing_file, "p");
	disk_close(img);
}

static void a_child_needs_a_parent_of_its_format(void **state)
{
	struct vd_create_opts o = disk_create_opts(vhd, SIZE);
	struct vd_image *img = NULL;
	struct vd_error e;

	(void)state;
	disk_put_raw("r", SIZE, 1);
	o.backing_file = "r";
	o.backing_format = "raw";
	expect_failure(vd_image_create_on(disks.host, NULL, "c", &o, &img, &e), VD_EUNSUPPORTED, &e, "is a VHD, not raw");
	o.backing_file = NULL;
	o.subformat = "differencing";
	expect_failure(vd_image_create_on(disks.host, vhd, "c", &o, &img, &e), VD_EARG, &e, "needs a backing file");
}

/* ---- the check ------------------------------------------------------------------------------------------ */

static int note_finding(void *ctx, const struct vd_finding *f)
{
	uint64_t *kinds = ctx;

	*kinds |= UINT64_C(1) << f->kind;
	return 0;
}

static uint64_t findings_of(const char *name)
{
	struct vd_check_report rep = { .struct_size = sizeof(rep) };
	struct vd_image *img = disk_open(vhd, name, VD_OPEN_METADATA);
	uint64_t kinds = 0;
	struct vd_error e;

	expect_ok(vd_image_check(img, VD_REPAIR_NONE, note_finding, &kinds, NULL, &rep, &e), &e);
	disk_close(img);
	return kinds;
}

static void a_check_finds_what_is_wrong(void **state)
{
	(void)state;
	make("d", "dynamic", NULL);
	fill("d", 0, 3 * BLOCK, 1);
	assert_int_equal(findings_of("d"), 0);
	bytes_put("d", TABLE + 4, 4, bytes_get("d", TABLE, 4) + 3);
	assert_int_equal(findings_of("d"), 1 << VD_FOUND_OVERLAP);
	bytes_put("d", TABLE + 4, 4, 1);
	assert_int_equal(findings_of("d"), 1 << VD_FOUND_TABLE);
	bytes_put("d", TABLE + 4, 4, UINT32_MAX);
	bytes_put("d", 100, 1, 7);
	assert_int_equal(findings_of("d"), 1 << VD_FOUND_CONTRADICTION);
	bytes_put("d", 100, 1, 0);
	bytes_truncate("d", bytes_size("d") - 512);
	assert_int_equal(findings_of("d"), 1 << VD_FOUND_DIRTY);
}

/* ---- growth --------------------------------------------------------------------------------------------- */

/* The footer goes ahead of the blocks: durable before what was its place is written over. */
static void no_block_is_written_over_a_footer_that_counts(void **state)
{
	const struct vd_event *ev;
	struct vd_image *img;
	uint64_t old, moved = 0;

	(void)state;
	make("d", "dynamic", NULL);
	old = footer_of("d");
	img = disk_open(vhd, "d", VD_OPEN_WRITE);
	disk_write(img, 0, BLOCK, 1);
	for (size_t i = 0; (ev = vd_record_event(disks.record, i)); i++) {
		bool is_write = ev->kind == VD_OP_WRITE;

		if (is_write && ev->off > old && ev->len == 512 && !memcmp(ev->data, "conectix", 8))
			moved = 1;
		if (ev->kind == VD_OP_FLUSH && moved == 1)
			moved = 2;
		/* Payload in the place of the block, which begins with its bitmap where the footer was. */
		if (is_write && ev->off == old + 512 && ev->len == BLOCK)
			assert_int_equal(moved, 2);
	}
	assert_int_equal(moved, 2);
	disk_close(img);
	assert_int_equal(footer_of("d"), old + 512 + BLOCK);
}

static void growing_moves_the_table(void **state)
{
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	make("d", "dynamic", NULL);
	fill("d", 5 * BLOCK, BLOCK, 4);
	img = disk_open(vhd, "d", VD_OPEN_CONTROL);
	expect_ok(vd_image_resize(img, 3000 * (uint64_t)BLOCK, 0, &e), &e);
	disk_close(img);
	assert_true(bytes_get("d", HEADER + 16, 8) > TABLE);
	assert_int_equal(bytes_get("d", HEADER + 28, 4), 3000);
	fill("d", 2999 * (uint64_t)BLOCK, BLOCK, 6);
	img = disk_open(vhd, "d", 0);
	disk_expect(img, 5 * BLOCK, BLOCK, 4);
	disk_expect(img, 6 * BLOCK, 20 * BLOCK, 0);
	disk_expect(img, 2999 * (uint64_t)BLOCK, BLOCK, 6);
	disk_close(img);
}

/* By the geometry it could not have this size. */
static void a_size_is_exact_whoever_made_the_disk(void **state)
{
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	make("d", "fixed", NULL);
	bytes_put("d", footer_of("d") + 28, 4, vd_get_be32("qemu"));
	bytes_put("d", footer_of("d") + 56, 4, 0x00c80401);
	seal_footer("d", footer_of("d"));
	img = disk_open(vhd, "d", VD_OPEN_WRITE);
	assert_int_equal(vd_image_size(img), 200 * 4 * 512);
	expect_ok(vd_image_resize(img, 20 * BLOCK + 1024, 0, &e), &e);
	disk_close(img);
	img = disk_open(vhd, "d", 0);
	assert_int_equal(vd_image_size(img), 20 * BLOCK + 1024);
	disk_close(img);
}

/* The footer lies where the disk ends, and the file ends there. */
static void a_fixed_disk_is_cut(void **state)
{
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	make("d", "fixed", NULL);
	fill("d", 0, 3 * BLOCK, 4);
	img = disk_open(vhd, "d", VD_OPEN_WRITE);
	expect_failure(vd_image_resize(img, 3 * BLOCK - 512, VD_RESIZE_SHRINK, &e), VD_EUNSUPPORTED, &e, "holds data past");
	expect_ok(vd_image_resize(img, 3 * BLOCK, VD_RESIZE_SHRINK, &e), &e);
	disk_close(img);
	assert_int_equal(bytes_size("d"), 3 * BLOCK + 512);
	img = disk_open(vhd, "d", 0);
	assert_int_equal(vd_image_size(img), 3 * BLOCK);
	disk_expect(img, 0, 3 * BLOCK, 4);
	disk_close(img);
}

/* Entries behind a smaller disk's end are gone, not waiting. */
static void what_was_cut_does_not_come_back(void **state)
{
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	make("d", "dynamic", NULL);
	fill("d", 0, 8 * BLOCK, 4);
	img = disk_open(vhd, "d", VD_OPEN_WRITE);
	disk_zero(img, 2 * BLOCK + 512, 8 * BLOCK);
	expect_ok(vd_image_resize(img, 2 * BLOCK + 512, VD_RESIZE_SHRINK, &e), &e);
	disk_close(img);
	assert_int_equal(bytes_get("d", HEADER + 28, 4), 3);
	assert_int_equal(findings_of("d"), 0);
	img = disk_open(vhd, "d", VD_OPEN_WRITE);
	expect_ok(vd_image_resize(img, SIZE, 0, &e), &e);
	disk_expect(img, 0, 2 * BLOCK + 512, 4);
	disk_expect(img, 2 * BLOCK + 512, SIZE - 2 * BLOCK - 512, 0);
	disk_close(img);
}

static void a_disk_has_2040_gib_at_most(void **state)
{
	struct vd_create_opts o = disk_create_opts(vhd, VHD_SIZE_MAX + 512);
	struct vd_image *img = NULL;
	struct vd_error e;

	(void)state;
	expect_failure(vd_image_create_on(disks.host, vhd, "d", &o, &img, &e), VD_EARG, &e, "2040 GiB");
	assert_null(vd_mem_name(disks.mem, 0));
	o.size = VHD_SIZE_MAX;
	img = disk_create(vhd, "d", &o);
	disk_write(img, VHD_SIZE_MAX - 10, 10, 1);
	disk_commit(img);
	disk_close(img);
	img = disk_open(vhd, "d", VD_OPEN_CONTROL);
	expect_failure(vd_image_resize(img, VHD_SIZE_MAX + 512, 0, &e), VD_EARG, &e, "2040 GiB");
	disk_close(img);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, disks_start, disks_stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(the_size_follows_the_creator),
		CASE(a_footer_of_511_bytes_is_read_and_not_written),
		CASE(a_fixed_disk_is_known_by_its_end),
		CASE(the_copy_counts_only_without_a_footer_at_the_end),
		CASE(writing_puts_a_lost_footer_back),
		CASE(a_first_write_stamps_both_footers),
		CASE(broken_headers_are_refused),
		CASE(broken_entries_are_refused_where_they_are_used),
		CASE(a_block_over_the_end_is_not_written),
		CASE(sectors_that_are_not_there_are_the_parents),
		CASE(zeros_mask_the_parent),
		CASE(bits_of_xens_first_tools_begin_at_the_other_end),
		CASE(a_parent_is_known_by_identifier_and_time),
		CASE(names_of_the_parent_are_told_in_order),
		CASE(the_first_name_that_is_a_file_counts),
		CASE(names_that_are_no_text_are_passed_over),
		CASE(a_child_needs_a_parent_of_its_format),
		CASE(a_check_finds_what_is_wrong),
		CASE(no_block_is_written_over_a_footer_that_counts),
		CASE(growing_moves_the_table),
		CASE(a_size_is_exact_whoever_made_the_disk),
		CASE(a_fixed_disk_is_cut),
		CASE(what_was_cut_does_not_come_back),
		CASE(a_disk_has_2040_gib_at_most),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
