/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What vd_image_extents() says of an image: kinds, depths, host offsets, and that any buffer gives the same answer. */
#include "tests/support/disks.h"

#include "libvdisk/base/checked.h"

#define BLOCK TOY_BLOCK
#define SIZE (4 * BLOCK)
#define toy (&vd_format_toy)
#define raw (&vd_format_raw)
#define N_MAX 256

static struct vd_extent list[N_MAX];
static size_t n_listed;

/* All extents of a range, `room` at a time. */
static void list_extents(struct vd_image *img, uint64_t off, uint64_t len, size_t room)
{
	uint64_t end = off + len;
	struct vd_error e;

	for (n_listed = 0; off < end; off = list[n_listed - 1].off + list[n_listed - 1].len) {
		size_t n = 0;

		expect_ok(vd_image_extents(img, off, end - off, list + n_listed, room, &n, &e), &e);
		assert_in_range(n, 1, room);
		n_listed += n;
	}
	assert_int_equal(off, end);
}

static void expect_extent(size_t i, uint64_t off, uint64_t len, uint32_t flags, uint32_t depth)
{
	assert_true(i < n_listed);
	assert_int_equal(list[i].off, off);
	assert_int_equal(list[i].len, len);
	assert_int_equal(list[i].flags, flags);
	assert_int_equal(list[i].depth, depth);
}

#define DATA (VD_EXTENT_DATA | VD_EXTENT_HOST)
#define HOLE VD_EXTENT_HOLE
#define ZERO VD_EXTENT_ZERO

static struct vd_image *overlay(uint64_t parent_size)
{
	struct vd_create_opts opts = disk_create_opts(toy, SIZE);
	struct vd_image *img;

	disk_put_raw("r", parent_size, 5);
	opts.backing_file = "r";
	opts.backing_format = "raw";
	img = disk_create(toy, "d", &opts);
	disk_commit(img);
	disk_close(img);
	return disk_open(toy, "d", VD_OPEN_WRITE);
}

static void empty_image_is_one_hole(void **state)
{
	struct vd_image *img;

	(void)state;
	disk_make(toy, "d", SIZE, NULL);
	img = disk_open(toy, "d", 0);
	list_extents(img, 0, SIZE, N_MAX);
	assert_int_equal(n_listed, 1);
	expect_extent(0, 0, SIZE, HOLE, 0);
	assert_null(list[0].file);
	disk_close(img);
}

static void sectors_of_a_block_alternate_between_layers(void **state)
{
	struct vd_image *img = overlay(SIZE);

	(void)state;
	disk_write(img, 512, 512, 7);
	disk_write(img, 2048, 1024, 7);
	disk_zero(img, 4096, 512);
	disk_zero(img, BLOCK, BLOCK);
	list_extents(img, 0, SIZE, N_MAX);
	assert_int_equal(n_listed, 9);
	expect_extent(0, 0, 512, DATA, 1);
	expect_extent(1, 512, 512, DATA, 0);
	expect_extent(2, 1024, 1024, DATA, 1);
	expect_extent(3, 2048, 1024, DATA, 0);
	expect_extent(4, 3072, 1024, DATA, 1);
	expect_extent(5, 4096, 512, ZERO, 0);
	expect_extent(6, 4608, BLOCK - 4608, DATA, 1);
	expect_extent(7, BLOCK, BLOCK, ZERO, 0);
	expect_extent(8, 2 * BLOCK, 2 * BLOCK, DATA, 1);
	assert_string_equal(list[0].file, "r");
	assert_string_equal(list[1].file, "d");
	disk_close(img);
}

static void host_offset_is_where_the_bytes_are(void **state)
{
	struct vd_image *img = overlay(SIZE);
	struct vd_io *io;
	uint8_t byte;

	(void)state;
	disk_write(img, BLOCK + 700, 1, 0xa7);
	disk_flush(img);
	list_extents(img, BLOCK + 700, 1, 1);
	expect_extent(0, BLOCK + 700, 1, DATA, 0);
	assert_int_equal(disks.mem->open(disks.mem, "d", VD_IO_FORCE_SHARE, &io, NULL), 0);
	assert_int_equal(vd_io_pread(io, &byte, 1, list[0].host_off, NULL), 0);
	assert_int_equal(byte, 0xa7);
	vd_io_abort(io);
	list_extents(img, 1234, 10, 1);
	expect_extent(0, 1234, 10, DATA, 1);
	assert_int_equal(list[0].host_off, 1234);
	disk_close(img);
}

static void beyond_a_shorter_parent_is_a_hole_of_the_overlay(void **state)
{
	struct vd_image *img = overlay(BLOCK + 100);

	(void)state;
	list_extents(img, 0, SIZE, N_MAX);
	assert_int_equal(n_listed, 2);
	expect_extent(0, 0, BLOCK + 100, DATA, 1);
	expect_extent(1, BLOCK + 100, SIZE - BLOCK - 100, HOLE, 0);
	list_extents(img, BLOCK + 100, 1, N_MAX);
	expect_extent(0, BLOCK + 100, 1, HOLE, 0);
	list_extents(img, BLOCK + 99, 2, N_MAX);
	expect_extent(0, BLOCK + 99, 1, DATA, 1);
	expect_extent(1, BLOCK + 100, 1, HOLE, 0);
	disk_close(img);
}

static void holes_of_two_layers_are_two_extents(void **state)
{
	struct vd_create_opts opts = disk_create_opts(toy, SIZE);
	struct vd_image *img;

	(void)state;
	disk_make(raw, "r", BLOCK, NULL);
	opts.backing_file = "r";
	opts.backing_format = "raw";
	img = disk_create(toy, "d", &opts);
	list_extents(img, 0, SIZE, N_MAX);
	assert_int_equal(n_listed, 2);
	expect_extent(0, 0, BLOCK, HOLE, 1);
	expect_extent(1, BLOCK, SIZE - BLOCK, HOLE, 0);
	vd_image_abort(img);
}

static void any_buffer_gives_the_same_list(void **state)
{
	static struct vd_extent want[N_MAX];
	struct vd_image *img = overlay(BLOCK + 100);
	size_t n;

	(void)state;
	for (uint64_t off = 0; off < SIZE; off += 1536)
		disk_write(img, off, 512, 7);
	disk_zero(img, 2 * BLOCK, BLOCK);
	list_extents(img, 0, SIZE, N_MAX);
	n = n_listed;
	memcpy(want, list, sizeof(want));
	for (size_t room = 1; room < 80; room++) {
		list_extents(img, 0, SIZE, room);
		assert_int_equal(n_listed, n);
		for (size_t i = 0; i < n; i++) {
			expect_extent(i, want[i].off, want[i].len, want[i].flags, want[i].depth);
			assert_int_equal(list[i].host_off, want[i].host_off);
		}
	}
	disk_close(img);
}

static void any_range_is_a_cut_of_the_whole(void **state)
{
	struct vd_image *img = overlay(BLOCK + 100);
	static struct vd_extent all[N_MAX];
	size_t n;

	(void)state;
	for (uint64_t off = 0; off < 2 * BLOCK; off += 1536)
		disk_write(img, off, 512, 7);
	list_extents(img, 0, SIZE, N_MAX);
	n = n_listed;
	memcpy(all, list, sizeof(all));
	for (uint64_t off = 0; off < 2 * BLOCK; off += 333) {
		size_t i = 0;

		list_extents(img, off, 3000, N_MAX);
		while (all[i].off + all[i].len <= off)
			i++;
		for (size_t k = 0; k < n_listed; k++, i++) {
			uint64_t from = vd_max_u64(all[i].off, off);
			uint64_t to = vd_min_u64(all[i].off + all[i].len, off + 3000);

			assert_true(i < n);
			expect_extent(k, from, to - from, all[i].flags, all[i].depth);
		}
	}
	disk_close(img);
}

static void holes_of_raw_are_those_of_its_file(void **state)
{
	struct vd_image *img;
	struct vd_create_opts opts = disk_create_opts(raw, 1 << 20);

	(void)state;
	img = disk_create(raw, "d", &opts);
	disk_write(img, 512 << 10, 64 << 10, 7);
	list_extents(img, 0, 1 << 20, N_MAX);
	assert_int_equal(n_listed, 3);
	expect_extent(0, 0, 512 << 10, HOLE, 0);
	expect_extent(1, 512 << 10, 64 << 10, DATA, 0);
	expect_extent(2, 576 << 10, (1 << 20) - (576 << 10), HOLE, 0);
	assert_int_equal(list[1].host_off, 512 << 10);
	vd_image_abort(img);
}

static void bad_ranges_and_no_buffer_are_refused(void **state)
{
	struct vd_image *img;
	struct vd_error e;
	size_t n = 7;

	(void)state;
	disk_make(toy, "d", SIZE, NULL);
	img = disk_open(toy, "d", 0);
	expect_failure(vd_image_extents(img, SIZE, 1, list, 1, &n, &e), VD_ERANGE, &e, "outside the disk");
	expect_failure(vd_image_extents(img, 1, UINT64_MAX, list, 1, &n, &e), VD_ERANGE, &e, "outside the disk");
	expect_failure(vd_image_extents(img, 0, 1, list, 0, &n, &e), VD_EARG, &e, "at least one");
	expect_ok(vd_image_extents(img, SIZE, 0, list, 1, &n, &e), &e);
	assert_int_equal(n, 0);
	disk_close(img);
}

static void broken_table_is_told_with_its_place(void **state)
{
	struct vd_image *img = overlay(SIZE);
	struct vd_error e;
	struct vd_io *io;
	size_t n;

	(void)state;
	disk_write(img, 0, 512, 7);
	disk_close(img);
	/* The map of the first block, behind header and one sector of table. */
	assert_int_equal(disks.mem->open(disks.mem, "d", VD_IO_WRITE, &io, NULL), 0);
	assert_int_equal(vd_io_pwrite(io, "\x77", 1, 1024, NULL), 0);
	vd_io_abort(io);
	img = disk_open(toy, "d", 0);
	expect_failure(vd_image_extents(img, 0, SIZE, list, N_MAX, &n, &e), VD_ECORRUPT, &e, "no known kind");
	assert_true(e.has_offset && e.offset == 1024);
	disk_close(img);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, disks_start, disks_stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(empty_image_is_one_hole),
		CASE(sectors_of_a_block_alternate_between_layers),
		CASE(host_offset_is_where_the_bytes_are),
		CASE(beyond_a_shorter_parent_is_a_hole_of_the_overlay),
		CASE(holes_of_two_layers_are_two_extents),
		CASE(any_buffer_gives_the_same_list),
		CASE(any_range_is_a_cut_of_the_whole),
		CASE(holes_of_raw_are_those_of_its_file),
		CASE(bad_ranges_and_no_buffer_are_refused),
		CASE(broken_table_is_told_with_its_place),
	};

	return cmocka_run_group_tests_name("extents", tests, NULL, NULL);
}
