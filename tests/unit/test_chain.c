/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Overlays and what lies below them: sizes that differ, circles, gates, formats that are not named. */
#include "tests/support/disks.h"

#include <stdio.h>

#define BLOCK TOY_BLOCK
#define SIZE (3 * BLOCK)
#define toy (&vd_format_toy)
#define raw (&vd_format_raw)

/* A toy disk as a stranger could have made it: an empty table, any name of a parent. */
static void put_toy(const char *name, uint64_t size, const char *backing, const char *format)
{
	uint8_t file[1024] = { 0 };
	struct toy_header h = { .magic = TOY_MAGIC, .size = size, .block_size = BLOCK };

	snprintf(h.backing_file, sizeof(h.backing_file), "%s", backing);
	snprintf(h.backing_format, sizeof(h.backing_format), "%s", format);
	memcpy(file, &h, sizeof(h));
	assert_int_equal(vd_mem_put(disks.mem, name, file, sizeof(file), NULL), 0);
}

static int open_toy(const char *name, unsigned flags, struct vd_image **img, struct vd_error *e)
{
	struct vd_open_opts opts = disk_open_opts(toy, flags);

	return vd_image_open_on(disks.host, toy, name, &opts, img, e);
}

static void expect_open_fails(const char *name, int code, const char *words)
{
	struct vd_image *img = NULL;
	struct vd_error e;

	expect_failure(open_toy(name, 0, &img, &e), code, &e, words);
	assert_null(img);
}

/* ---- what an overlay reads ---------------------------------------------------------------------------- */

static void hole_reads_the_parent(void **state)
{
	struct vd_image *img;

	(void)state;
	disk_put_raw("r", SIZE, 5);
	put_toy("d", SIZE, "r", "raw");
	img = disk_open(toy, "d", VD_OPEN_WRITE);
	disk_expect(img, 0, SIZE, 5);
	disk_write(img, 1000, 1, 9);
	disk_expect(img, 0, 1000, 5);
	disk_expect(img, 1000, 1, 9);
	disk_expect(img, 1001, SIZE - 1001, 5);
	disk_close(img);
	img = disk_open(raw, "r", 0);
	disk_expect(img, 0, SIZE, 5);
	disk_close(img);
}

static void beyond_a_shorter_parent_are_zeros(void **state)
{
	static const uint64_t sizes[] = { 0, 1, 511, 512, 513, 1000, BLOCK - 1, BLOCK, BLOCK + 1, SIZE - 1, SIZE };

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint64_t size = sizes[i];
		struct vd_image *img;

		disk_put_raw("r", size, 5);
		put_toy("d", SIZE, "r", "raw");
		img = disk_open(toy, "d", VD_OPEN_WRITE);
		disk_expect(img, 0, size, 5);
		disk_expect(img, size, SIZE - size, 0);
		/* One byte past its end: the sector is filled from both. */
		if (size < SIZE - 1)
			disk_write(img, size + 1, 1, 9);
		disk_expect(img, 0, size, 5);
		disk_expect(img, size, size < SIZE, 0);
		disk_close(img);
	}
}

static void longer_parent_is_cut(void **state)
{
	struct vd_image *img;
	struct vd_error e;
	uint8_t byte;

	(void)state;
	disk_put_raw("r", SIZE, 5);
	put_toy("d", BLOCK + 512, "r", "raw");
	img = disk_open(toy, "d", VD_OPEN_WRITE);
	assert_int_equal(vd_image_size(img), BLOCK + 512);
	disk_expect(img, 0, BLOCK + 512, 5);
	expect_failure(vd_image_pread(img, &byte, 1, BLOCK + 512, &e), VD_ERANGE, &e, "outside");
	disk_zero(img, BLOCK, 512);
	disk_expect(img, BLOCK, 512, 0);
	disk_close(img);
}

static void zeros_in_an_overlay_hide_the_parent(void **state)
{
	struct vd_image *img;

	(void)state;
	disk_put_raw("r", SIZE, 5);
	put_toy("d", SIZE, "r", "raw");
	img = disk_open(toy, "d", VD_OPEN_WRITE);
	disk_zero(img, 100, 2 * BLOCK);
	disk_close(img);
	img = disk_open(toy, "d", VD_OPEN_WRITE);
	disk_expect(img, 0, 100, 5);
	disk_expect(img, 100, 2 * BLOCK, 0);
	/* A write into the zeros must not uncover what they hide. */
	disk_write(img, BLOCK + 5000, 1, 9);
	disk_expect(img, 100, BLOCK + 4900, 0);
	disk_expect(img, BLOCK + 5001, BLOCK - 4901, 0);
	disk_expect(img, 2 * BLOCK + 100, BLOCK - 100, 5);
	disk_close(img);
}

static void three_layers_each_show_their_own(void **state)
{
	struct vd_image *img;

	(void)state;
	disk_put_raw("r", SIZE, 5);
	put_toy("b", SIZE, "r", "raw");
	img = disk_open(toy, "b", VD_OPEN_WRITE);
	disk_write(img, 512, 512, 6);
	disk_close(img);
	put_toy("d", SIZE, "b", "toy");
	img = disk_open(toy, "d", VD_OPEN_WRITE);
	disk_write(img, 1024, 512, 7);
	disk_expect(img, 0, 512, 5);
	disk_expect(img, 512, 512, 6);
	disk_expect(img, 1024, 512, 7);
	disk_expect(img, 1536, SIZE - 1536, 5);
	assert_string_equal(vd_image_parent(img)->path, "b");
	assert_string_equal(vd_image_parent(vd_image_parent(img))->path, "r");
	assert_null(vd_image_parent(vd_image_parent(vd_image_parent(img))));
	disk_close(img);
}

static void parents_are_open_for_reading_only(void **state)
{
	struct vd_image *img, *again;
	struct vd_error e;

	(void)state;
	disk_put_raw("r", SIZE, 5);
	put_toy("d", SIZE, "r", "raw");
	img = disk_open(toy, "d", VD_OPEN_WRITE);
	expect_failure(vd_image_pwrite(vd_image_parent(img), "x", 1, 0, &e), VD_EREADONLY, &e, "r is open for reading");
	again = disk_open(raw, "r", 0);
	disk_close(again);
	disk_close(img);
}

/* ---- what is refused ---------------------------------------------------------------------------------- */

static void circles_are_refused(void **state)
{
	(void)state;
	put_toy("d", SIZE, "d", "toy");
	expect_open_fails("d", VD_ECORRUPT, "runs in a circle");
	put_toy("d", SIZE, "d", "raw");
	expect_open_fails("d", VD_ECORRUPT, "runs in a circle");
	put_toy("a", SIZE, "b", "toy");
	put_toy("b", SIZE, "a", "toy");
	vd_fault_arm(disks.fault, &(struct vd_fault_plan){ .kinds = VD_OP_OPEN });
	expect_open_fails("a", VD_ECORRUPT, "runs in a circle");
	/* Noticed when it closes, not at the limit of depth. */
	assert_int_equal(vd_fault_seen(disks.fault), 3);
}

static void circle_is_refused_for_writing(void **state)
{
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	put_toy("d", SIZE, "d", "toy");
	expect_failure(open_toy("d", VD_OPEN_WRITE, &img, &e), VD_EBUSY, &e, "backing chain of d: d");
}

static void chain_is_as_deep_as_the_limit_and_no_deeper(void **state)
{
	char name[32], below[32] = "";
	struct vd_image *img;

	(void)state;
	for (int i = 1; i <= 129; i++) {
		snprintf(name, sizeof(name), "%d", i);
		put_toy(name, SIZE, below, i > 1 ? "toy" : "");
		memcpy(below, name, sizeof(below));
	}
	img = disk_open(toy, "128", 0);
	disk_expect(img, 0, SIZE, 0);
	disk_close(img);
	expect_open_fails("129", VD_ECORRUPT, "backing chain of 129: 2: the chain of backing files is longer than 128");
}

static void parent_of_unnamed_format_needs_it_said(void **state)
{
	struct vd_open_opts opts = disk_open_opts(toy, 0);
	struct vd_image *img = NULL;
	struct vd_error e;

	(void)state;
	disk_put_raw("r", SIZE, 5);
	put_toy("d", SIZE, "r", "");
	expect_failure(open_toy("d", 0, &img, &e), VD_EREFERENCE, &e,
		       "does not say which format its backing file r has");
	assert_true(strstr(e.hint, "--backing-format"));
	opts.backing_format = "raw";
	expect_ok(vd_image_open_on(disks.host, toy, "d", &opts, &img, &e), &e);
	disk_expect(img, 0, SIZE, 5);
	disk_close(img);
	/* What is said of the first parent does not hold for the next. */
	put_toy("b", SIZE, "r", "");
	put_toy("d", SIZE, "b", "");
	opts.backing_format = "toy";
	expect_failure(vd_image_open_on(disks.host, toy, "d", &opts, &img, &e), VD_EREFERENCE, &e, "b does not say");
	assert_true(strstr(e.message, "backing chain of d: "));
}

static void parent_of_unknown_format_is_refused(void **state)
{
	(void)state;
	disk_put_raw("r", SIZE, 5);
	put_toy("d", SIZE, "r", "qed");
	expect_open_fails("d", VD_EUNSUPPORTED, "unknown format 'qed'");
}

static void parent_named_raw_is_raw_whatever_it_holds(void **state)
{
	struct vd_image *img;

	(void)state;
	put_toy("r", SIZE, "no such file", "raw");
	put_toy("d", SIZE, "r", "raw");
	img = disk_open(toy, "d", 0);
	assert_ptr_equal(vd_image_parent(img)->format, raw);
	disk_expect(img, 1, 1, TOY_MAGIC[1]);
	disk_close(img);
}

static void missing_parent_fails_with_its_name(void **state)
{
	(void)state;
	put_toy("d", SIZE, "gone", "raw");
	expect_open_fails("d", VD_ENOENT, "backing chain of d: gone");
}

static int refuse(void *ctx, enum vd_reference_kind kind, const char *image, const char *name, const char *format,
		  char *path, size_t path_len, struct vd_error *e)
{
	unsigned *n_asked = ctx;

	(void)path;
	(void)path_len;
	(*n_asked)++;
	assert_int_equal(kind, VD_REF_BACKING);
	return vd_fail(e, VD_EREFERENCE, "%s names %s as %s: no", image, name, format);
}

static void gate_that_refuses_keeps_the_parent_closed(void **state)
{
	unsigned n_asked = 0;
	struct vd_open_opts opts = disk_open_opts(toy, 0);
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	disk_put_raw("r", SIZE, 5);
	put_toy("d", SIZE, "r", "raw");
	opts.gate = refuse;
	opts.gate_ctx = &n_asked;
	vd_fault_arm(disks.fault, &(struct vd_fault_plan){ .kinds = VD_OP_OPEN });
	expect_failure(vd_image_open_on(disks.host, toy, "d", &opts, &img, &e), VD_EREFERENCE, &e,
		       "d names r as raw: no");
	assert_int_equal(n_asked, 1);
	assert_int_equal(vd_fault_seen(disks.fault), 1);
}

/* The default gate knows the real folders only, and there the name leads nowhere. */
static void without_a_gate_the_default_one_judges(void **state)
{
	struct vd_open_opts opts = disk_open_opts(toy, 0);
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	disk_put_raw("/r", SIZE, 5);
	put_toy("d", SIZE, "/r", "raw");
	opts.gate = NULL;
	expect_failure(vd_image_open_on(disks.host, toy, "d", &opts, &img, &e), VD_EREFERENCE, &e, "absolute");
}

static void failed_open_closes_all_layers(void **state)
{
	struct vd_io *io;

	(void)state;
	put_toy("b", SIZE, "gone", "raw");
	put_toy("d", SIZE, "b", "toy");
	expect_open_fails("d", VD_ENOENT, "gone");
	for (size_t i = 0; vd_mem_name(disks.mem, i); i++) {
		assert_int_equal(disks.mem->open(disks.mem, vd_mem_name(disks.mem, i), VD_IO_WRITE, &io, NULL), 0);
		vd_io_abort(io);
	}
}

/* ---- tables only -------------------------------------------------------------------------------------- */

static void metadata_opens_one_file_and_reads_what_is_there(void **state)
{
	struct vd_extent x[4];
	struct vd_error e;
	struct vd_image *img;
	uint8_t buf[512];
	size_t n;

	(void)state;
	disk_put_raw("r", SIZE, 5);
	put_toy("d", SIZE, "r", "");
	put_toy("e", SIZE, "gone", "qed");
	vd_fault_arm(disks.fault, &(struct vd_fault_plan){ .kinds = VD_OP_OPEN });
	expect_ok(open_toy("e", VD_OPEN_METADATA, &img, &e), &e);
	disk_close(img);
	expect_ok(open_toy("d", VD_OPEN_METADATA, &img, &e), &e);
	assert_int_equal(vd_fault_seen(disks.fault), 2);
	assert_null(vd_image_parent(img));
	expect_failure(vd_image_pread(img, buf, sizeof(buf), 512, &e), VD_EREFERENCE, &e,
		       "byte 512 lies in the backing file");
	expect_ok(vd_image_extents(img, 0, SIZE, x, 4, &n, &e), &e);
	assert_int_equal(n, 1);
	assert_int_equal(x[0].flags, VD_EXTENT_HOLE);
	disk_close(img);
}

static void metadata_reads_payload_of_the_top_layer(void **state)
{
	struct vd_open_opts opts = disk_open_opts(toy, VD_OPEN_WRITE);
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	disk_put_raw("r", SIZE, 5);
	put_toy("d", SIZE, "r", "raw");
	expect_ok(vd_image_open_on(disks.host, toy, "d", &opts, &img, &e), &e);
	disk_write(img, 512, 512, 7);
	disk_zero(img, BLOCK, BLOCK);
	disk_close(img);
	expect_ok(open_toy("d", VD_OPEN_METADATA, &img, &e), &e);
	disk_expect(img, 512, 512, 7);
	disk_expect(img, BLOCK, BLOCK, 0);
	disk_close(img);
}

/* ---- creating overlays -------------------------------------------------------------------------------- */

static struct vd_create_opts over(const char *backing, const char *format, uint64_t size)
{
	struct vd_create_opts opts = disk_create_opts(toy, size);

	opts.backing_file = backing;
	opts.backing_format = format;
	return opts;
}

static void overlay_is_as_long_as_its_parent_unless_told(void **state)
{
	struct vd_create_opts opts = over("r", "raw", 0);
	struct vd_image *img;

	(void)state;
	disk_put_raw("r", SIZE, 5);
	img = disk_create(toy, "d", &opts);
	assert_int_equal(vd_image_size(img), SIZE);
	disk_expect(img, 0, SIZE, 5);
	vd_image_abort(img);
	opts.size = SIZE + BLOCK;
	img = disk_create(toy, "d", &opts);
	disk_expect(img, 0, SIZE, 5);
	disk_expect(img, SIZE, BLOCK, 0);
	vd_image_abort(img);
}

static void overlay_stands_on_an_overlay(void **state)
{
	struct vd_create_opts opts = over("r", "raw", 0);
	struct vd_image *img;

	(void)state;
	disk_put_raw("r", SIZE, 5);
	img = disk_create(toy, "b", &opts);
	disk_write(img, 0, 512, 6);
	disk_commit(img);
	disk_close(img);
	opts = over("b", "toy", 0);
	img = disk_create(toy, "d", &opts);
	disk_write(img, 512, 512, 7);
	disk_commit(img);
	disk_expect(img, 0, 512, 6);
	disk_close(img);
	img = disk_open(toy, "d", 0);
	disk_expect(img, 0, 512, 6);
	disk_expect(img, 512, 512, 7);
	disk_expect(img, 1024, SIZE - 1024, 5);
	disk_close(img);
}

static void overlay_does_not_replace_its_own_parent(void **state)
{
	struct vd_create_opts opts = over("r", "raw", 0);
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	disk_put_raw("r", SIZE, 5);
	opts.flags = VD_CREATE_REPLACE;
	expect_failure(vd_image_create_on(disks.host, toy, "r", &opts, &img, &e), VD_EBUSY, &e, "r");
	assert_null(vd_mem_name(disks.mem, 1));
}

static void overlay_on_what_cannot_be_opened_leaves_no_file(void **state)
{
	unsigned n_asked = 0;
	struct vd_create_opts opts = over("gone", "raw", 0);
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	expect_failure(vd_image_create_on(disks.host, toy, "d", &opts, &img, &e), VD_ENOENT, &e,
		       "backing chain of d: gone");
	opts.backing_file = "r";
	opts.gate = refuse;
	opts.gate_ctx = &n_asked;
	expect_failure(vd_image_create_on(disks.host, toy, "d", &opts, &img, &e), VD_EREFERENCE, &e,
		       "d names r as raw: no");
	assert_null(vd_mem_name(disks.mem, 0));
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, disks_start, disks_stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(hole_reads_the_parent),
		CASE(beyond_a_shorter_parent_are_zeros),
		CASE(longer_parent_is_cut),
		CASE(zeros_in_an_overlay_hide_the_parent),
		CASE(three_layers_each_show_their_own),
		CASE(parents_are_open_for_reading_only),
		CASE(circles_are_refused),
		CASE(circle_is_refused_for_writing),
		CASE(chain_is_as_deep_as_the_limit_and_no_deeper),
		CASE(parent_of_unnamed_format_needs_it_said),
		CASE(parent_of_unknown_format_is_refused),
		CASE(parent_named_raw_is_raw_whatever_it_holds),
		CASE(missing_parent_fails_with_its_name),
		CASE(gate_that_refuses_keeps_the_parent_closed),
		CASE(without_a_gate_the_default_one_judges),
		CASE(failed_open_closes_all_layers),
		CASE(metadata_opens_one_file_and_reads_what_is_there),
		CASE(metadata_reads_payload_of_the_top_layer),
		CASE(overlay_is_as_long_as_its_parent_unless_told),
		CASE(overlay_stands_on_an_overlay),
		CASE(overlay_does_not_replace_its_own_parent),
		CASE(overlay_on_what_cannot_be_opened_leaves_no_file),
	};

	return cmocka_run_group_tests_name("chain", tests, NULL, NULL);
}
