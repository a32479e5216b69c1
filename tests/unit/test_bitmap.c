/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What bitmaps record, when they hold, and what acts make of them. Broken ones are test_bitmap_hostile.c's. */
#include "tests/support/bitmaps.h"
#include "tests/support/qcow2_bytes.h"

#include <pthread.h>
#include <stdio.h>

#define qcow2 (&vd_format_qcow2)
#define KIB 1024
#define MIB (1024 * 1024)
#define SIZE (4u * MIB)
#define AT_AUTOCLEAR 88

static void make(const char *name, uint64_t size)
{
	struct vd_create_opts o = disk_create_opts(qcow2, size);
	struct vd_image *img;

	o.cluster_size = 4096;
	img = disk_create(qcow2, name, &o);
	disk_commit(img);
	disk_close(img);
}

/* With one bitmap "b" in pieces of 64 KiB. */
static struct vd_image *start(void)
{
	struct vd_image *img;

	make("d", SIZE);
	img = disk_open(qcow2, "d", VD_OPEN_WRITE);
	bitmap_make(img, "b", 64 * KIB);
	return img;
}

static struct vd_image *again(struct vd_image *img, unsigned flags)
{
	disk_close(img);
	expect_sound("d");
	return disk_open(qcow2, "d", flags);
}

/* ---- recording -------------------------------------------------------------------------------------------- */

static void a_new_bitmap_is_clean(void **state)
{
	struct vd_image *img = start();

	(void)state;
	assert_string_equal(bitmaps_of(img), "b 65536 on 0");
	assert_string_equal(dirty_since(img, "b"), "");
	img = again(img, 0);
	assert_string_equal(bitmaps_of(img), "b 65536 on 0");
	disk_close(img);
}

static void writes_and_zeros_are_recorded_at_once_and_for_good(void **state)
{
	const char *want = "65536+131072 1048576+65536 4128768+65536";
	struct vd_image *img = start();

	(void)state;
	disk_write(img, 131071, 2, 1);
	disk_zero(img, MIB, 1);
	disk_write(img, SIZE - 1, 1, 1);
	assert_string_equal(dirty_since(img, "b"), want);
	assert_string_equal(bitmaps_of(img), "b 65536 on 262144");
	img = again(img, 0);
	assert_string_equal(dirty_since(img, "b"), want);
	img = again(img, VD_OPEN_WRITE);
	disk_write(img, 0, 1, 1);
	img = again(img, VD_OPEN_METADATA);
	assert_string_equal(dirty_since(img, "b"), "0+196608 1048576+65536 4128768+65536");
	disk_close(img);
}

static void reading_and_flushing_change_no_bitmap(void **state)
{
	struct vd_image *img = start();
	uint64_t tick;

	(void)state;
	img = again(img, VD_OPEN_WRITE);
	tick = vd_record_tick(disks.record);
	disk_expect(img, 0, SIZE, 0);
	disk_flush(img);
	img = again(img, 0);
	assert_int_equal(disks_count(CHANGES, tick), 0);
	disk_close(img);
}

static void a_disabled_bitmap_records_nothing(void **state)
{
	struct vd_image *img = start();
	struct vd_error e;

	(void)state;
	expect_ok(vd_bitmap_create(img, "off", 0, VD_BITMAP_DISABLED, &e), &e);
	disk_write(img, 0, 1, 1);
	expect_ok(vd_bitmap_disable(img, "b", &e), &e);
	expect_ok(vd_bitmap_enable(img, "off", &e), &e);
	disk_write(img, MIB, 1, 1);
	img = again(img, 0);
	assert_string_equal(bitmaps_of(img), "b 65536 off 65536; off 4096 on 4096");
	assert_string_equal(dirty_since(img, "b"), "0+65536");
	assert_string_equal(dirty_since(img, "off"), "1048576+4096");
	disk_close(img);
}

static void extents_are_cut_where_the_bitmap_changes(void **state)
{
	struct vd_image *img = start();
	struct vd_extent x[9];
	struct vd_error e;
	size_t n;

	(void)state;
	disk_write(img, 0, 96 * KIB, 1);
	expect_ok(vd_bitmap_clear(img, "b", &e), &e);
	disk_write(img, 64 * KIB, 1, 1);
	expect_ok(vd_image_extents_since(img, "b", 0, 256 * KIB, x, 9, &n, &e), &e);
	assert_int_equal(n, 4);
	assert_int_equal(x[0].len, 64 * KIB);
	assert_int_equal(x[0].flags, VD_EXTENT_DATA | VD_EXTENT_HOST);
	assert_int_equal(x[1].len, 32 * KIB);
	assert_int_equal(x[1].flags, VD_EXTENT_DATA | VD_EXTENT_HOST | VD_EXTENT_DIRTY);
	assert_int_equal(x[2].flags, VD_EXTENT_HOLE | VD_EXTENT_DIRTY);
	assert_int_equal(x[3].flags, VD_EXTENT_HOLE);
	assert_int_equal(x[3].off, 128 * KIB);
	expect_ok(vd_image_extents_since(img, "b", 0, SIZE, x, 1, &n, &e), &e);
	assert_int_equal(n, 1);
	disk_close(img);
}

/* ---- holding ---------------------------------------------------------------------------------------------- */

static uint64_t directory(void)
{
	return bytes_get("d", 112 + 8 + 16, 8);
}

/* in_use is on disk, flushed, before the first byte of payload is written. */
static void bitmaps_do_not_hold_before_the_first_byte_arrives(void **state)
{
	struct vd_image *img = again(start(), VD_OPEN_WRITE);
	uint64_t tick = vd_record_tick(disks.record), at = directory(), changed = 0, flushed = 0;
	const struct vd_event *v;

	(void)state;
	disk_write(img, 0, 4096, 0xab);
	for (size_t i = 0; (v = vd_record_event(disks.record, i)); i++) {
		if (v->begin <= tick)
			continue;
		if (v->kind == VD_OP_WRITE && v->off == at && !changed)
			changed = v->end;
		else if (v->kind == VD_OP_FLUSH && changed && !flushed)
			flushed = v->end;
		else if (v->kind == VD_OP_WRITE)
			assert_true(flushed);
	}
	assert_true(flushed);
	assert_int_equal(bytes_get("d", at + 12, 4), 3);
	disk_close(img);
	assert_int_equal(bytes_get("d", directory() + 12, 4), 2);
}

static void after_a_crash_a_bitmap_is_unusable_until_it_is_made_anew(void **state)
{
	struct vd_image *img = start();
	struct vd_extent x;
	struct vd_error e;
	size_t n;

	(void)state;
	expect_ok(vd_bitmap_create(img, "off", 0, VD_BITMAP_DISABLED, &e), &e);
	disk_write(img, 0, 1, 1);
	disk_flush(img);
	vd_image_abort(img);
	img = disk_open(qcow2, "d", VD_OPEN_WRITE);
	assert_string_equal(bitmaps_of(img), "b 65536 void 0; off 4096 off 0");
	expect_failure(vd_image_extents_since(img, "b", 0, SIZE, &x, 1, &n, &e), VD_EBITMAP, &e, "was not stored");
	assert_int_equal(n, 0);
	expect_failure(vd_bitmap_clear(img, "b", &e), VD_EBITMAP, &e, "was not stored");
	expect_failure(vd_bitmap_enable(img, "b", &e), VD_EBITMAP, &e, "was not stored");
	disk_write(img, 0, 1, 1);
	expect_ok(vd_bitmap_remove(img, "b", &e), &e);
	bitmap_make(img, "b", 0);
	img = again(img, 0);
	assert_string_equal(bitmaps_of(img), "off 4096 off 0; b 4096 on 0");
	disk_close(img);
}

/* As qemu 2.9 or another program does before it writes. */
static void a_writer_that_does_not_know_bitmaps_makes_all_void(void **state)
{
	struct vd_image *img = start();
	struct vd_error e;

	(void)state;
	disk_close(img);
	bytes_put("d", AT_AUTOCLEAR, 8, 0);
	img = disk_open(qcow2, "d", VD_OPEN_WRITE);
	assert_string_equal(bitmaps_of(img), "b 65536 void 0");
	expect_failure(vd_bitmap_create(img, "c", 0, 0, &e), VD_EBITMAP, &e, "void");
	disk_write(img, 0, 1, 1);
	expect_ok(vd_bitmap_remove(img, "b", &e), &e);
	/* Its directory, table and no data: whose they are now, nobody knows. */
	disk_close(img);
	expect_leaks("d", 2);
	assert_int_equal(bytes_get("d", AT_AUTOCLEAR, 8), 0);
	img = disk_open(qcow2, "d", VD_OPEN_WRITE);
	bitmap_make(img, "c", 0);
	assert_string_equal(bitmaps_of(img), "c 4096 on 0");
	disk_close(img);
	assert_int_equal(bytes_get("d", AT_AUTOCLEAR, 8), 1);
}

/* ---- acts ------------------------------------------------------------------------------------------------- */

static void clear_forgets_and_merge_adds(void **state)
{
	const char *const sources[] = { "b", "fine" };
	struct vd_image *img = start();
	struct vd_error e;

	(void)state;
	bitmap_make(img, "fine", 512);
	disk_write(img, 0, 1, 1);
	expect_ok(vd_bitmap_clear(img, "b", &e), &e);
	disk_write(img, MIB + 4096, 1, 1);
	expect_ok(vd_bitmap_create(img, "all", 4096, VD_BITMAP_DISABLED, &e), &e);
	expect_ok(vd_bitmap_merge(img, "all", NULL, sources + 1, 1, &e), &e);
	assert_string_equal(dirty_since(img, "all"), "0+4096 1052672+4096");
	expect_ok(vd_bitmap_merge(img, "all", NULL, sources, 2, &e), &e);
	assert_string_equal(dirty_since(img, "all"), "0+4096 1048576+65536");
	img = again(img, 0);
	assert_string_equal(bitmaps_of(img), "b 65536 on 65536; fine 512 on 1024; all 4096 off 69632");
	disk_close(img);
}

static void merge_takes_bitmaps_of_another_image(void **state)
{
	const char *const source = "b";
	struct vd_image *img = start(), *other;
	struct vd_error e;

	(void)state;
	make("o", SIZE);
	other = disk_open(qcow2, "o", VD_OPEN_WRITE);
	bitmap_make(other, "b", 1 << 20);
	disk_write(other, 2 * MIB, 1, 1);
	expect_ok(vd_bitmap_merge(img, "b", other, &source, 1, &e), &e);
	assert_string_equal(dirty_since(img, "b"), "2097152+1048576");
	expect_ok(vd_image_resize(other, SIZE + MIB, 0, &e), &e);
	expect_failure(vd_bitmap_merge(img, "b", other, &source, 1, &e), VD_EARG, &e, "cannot be merged");
	disk_close(other);
	disk_close(img);
	expect_sound("d");
}

static void a_disk_that_grows_is_dirty_where_it_is_new(void **state)
{
	struct vd_image *img = start();
	struct vd_error e;

	(void)state;
	expect_ok(vd_bitmap_create(img, "off", 0, VD_BITMAP_DISABLED, &e), &e);
	bitmap_make(img, "fine", 512);
	disk_write(img, 0, 1, 1);
	expect_ok(vd_image_resize(img, SIZE + 100 * KIB, 0, &e), &e);
	assert_string_equal(dirty_since(img, "b"), "0+65536 4194304+102400");
	assert_string_equal(dirty_since(img, "off"), "");
	assert_string_equal(dirty_since(img, "fine"), "0+512 4194304+102400");
	img = again(img, 0);
	assert_string_equal(dirty_since(img, "b"), "0+65536 4194304+102400");
	disk_close(img);
}

static void a_disk_that_shrinks_loses_what_was_dirty_there(void **state)
{
	struct vd_image *img = start();
	struct vd_error e;

	(void)state;
	disk_write(img, MIB, 3 * MIB, 1);
	expect_ok(vd_image_resize(img, MIB + 512, VD_RESIZE_SHRINK, &e), &e);
	assert_string_equal(dirty_since(img, "b"), "1048576+512");
	expect_ok(vd_bitmap_disable(img, "b", &e), &e);
	expect_ok(vd_image_resize(img, SIZE, 0, &e), &e);
	/* The piece in which it ended is one piece. */
	assert_string_equal(dirty_since(img, "b"), "1048576+65536");
	expect_failure(vd_image_resize(img, 0, VD_RESIZE_SHRINK, &e), VD_EARG, &e, "bitmaps");
	img = again(img, 0);
	assert_string_equal(dirty_since(img, "b"), "1048576+65536");
	disk_close(img);
}

/* All ones without data is what a wholly written disk is. */
static void a_table_of_ones_is_cut_with_the_disk(void **state)
{
	struct vd_image *img = start();
	struct vd_error e;

	(void)state;
	disk_zero(img, 0, SIZE);
	img = again(img, VD_OPEN_WRITE);
	assert_int_equal(bytes_get("d", bytes_get("d", directory(), 8), 8), 1);
	assert_string_equal(dirty_since(img, "b"), "0+4194304");
	expect_ok(vd_bitmap_disable(img, "b", &e), &e);
	expect_ok(vd_image_resize(img, SIZE + MIB, 0, &e), &e);
	assert_string_equal(dirty_since(img, "b"), "0+4194304");
	img = again(img, 0);
	assert_string_equal(dirty_since(img, "b"), "0+4194304");
	disk_close(img);
}

static void applying_a_snapshot_makes_all_dirty(void **state)
{
	struct vd_image *img = start();
	struct vd_error e;

	(void)state;
	expect_ok(vd_bitmap_create(img, "off", 0, VD_BITMAP_DISABLED, &e), &e);
	disk_write(img, 0, 1, 1);
	expect_ok(vd_snapshot_create(img, "s", &e), &e);
	assert_string_equal(dirty_since(img, "b"), "0+65536");
	expect_ok(vd_image_resize(img, SIZE / 2, VD_RESIZE_SHRINK, &e), &e);
	expect_ok(vd_snapshot_apply(img, "s", &e), &e);
	assert_string_equal(dirty_since(img, "b"), "0+4194304");
	assert_string_equal(dirty_since(img, "off"), "");
	expect_ok(vd_snapshot_delete(img, "s", &e), &e);
	assert_string_equal(bitmaps_of(img), "b 65536 on 4194304; off 4096 off 0");
	img = again(img, 0);
	assert_string_equal(bitmaps_of(img), "b 65536 on 4194304; off 4096 off 0");
	disk_close(img);
}

/* What fails before it has changed anything leaves the bitmaps usable. */
static void acts_that_fail_leave_bitmaps_as_they_were(void **state)
{
	struct vd_image *img = start();
	struct vd_error e;

	(void)state;
	disk_write(img, 0, 1, 1);
	expect_failure(vd_snapshot_apply(img, "none", &e), VD_ENOENT, &e, "no snapshot");
	expect_failure(vd_image_resize(img, SIZE + 1, 0, &e), VD_EARG, &e, "whole sectors");
	expect_failure(vd_bitmap_create(img, "b", 0, 0, &e), VD_EEXIST, &e, "already");
	expect_failure(vd_bitmap_remove(img, "c", &e), VD_ENOENT, &e, "no bitmap 'c'");
	img = again(img, 0);
	assert_string_equal(dirty_since(img, "b"), "0+65536");
	disk_close(img);
}

static void names_and_granularities_have_bounds(void **state)
{
	struct vd_image *img = start();
	char name[1025];
	struct vd_error e;

	(void)state;
	memset(name, 'n', 1024);
	name[1024] = '\0';
	expect_failure(vd_bitmap_create(img, name, 0, 0, &e), VD_EARG, &e, "1023");
	expect_failure(vd_bitmap_create(img, "", 0, 0, &e), VD_EARG, &e, "1023");
	expect_ok(vd_bitmap_create(img, name + 1, 512, 0, &e), &e);
	expect_failure(vd_bitmap_create(img, "c", 256, 0, &e), VD_EARG, &e, "granularity");
	expect_failure(vd_bitmap_create(img, "c", 1000, 0, &e), VD_EARG, &e, "power of two");
	expect_failure(vd_bitmap_create(img, "c", UINT64_C(1) << 32, 0, &e), VD_EARG, &e, "granularity");
	expect_ok(vd_bitmap_create(img, "c", UINT64_C(1) << 31, 0, &e), &e);
	disk_write(img, 5000, 1, 1);
	img = again(img, 0);
	assert_string_equal(dirty_since(img, name + 1), "4608+512");
	assert_string_equal(dirty_since(img, "c"), "0+4194304");
	disk_close(img);
}

static void there_is_room_for_many(void **state)
{
	struct vd_image *img = start();
	struct vd_error e;
	char name[16];

	(void)state;
	for (int i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "bitmap-%d", i);
		expect_ok(vd_bitmap_create(img, name, 0, 0, &e), &e);
	}
	disk_write(img, 0, 1, 1);
	img = again(img, VD_OPEN_WRITE);
	assert_string_equal(dirty_since(img, "bitmap-299"), "0+4096");
	for (int i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "bitmap-%d", i);
		expect_ok(vd_bitmap_remove(img, name, &e), &e);
	}
	img = again(img, 0);
	assert_string_equal(bitmaps_of(img), "b 65536 on 65536");
	disk_close(img);
}

/* ---- where there are none --------------------------------------------------------------------------------- */

static void others_say_that_they_have_none(void **state)
{
	struct vd_create_opts o = disk_create_opts(qcow2, SIZE);
	struct vd_open_opts view = disk_open_opts(qcow2, 0);
	struct vd_image *img;
	struct vd_bitmap *list;
	struct vd_error e;
	size_t n;

	(void)state;
	o.flags = VD_CREATE_COMPAT_V2;
	img = disk_create(qcow2, "v2", &o);
	disk_commit(img);
	disk_close(img);
	img = disk_open(qcow2, "v2", VD_OPEN_WRITE);
	expect_failure(vd_bitmap_create(img, "b", 0, 0, &e), VD_EUNSUPPORTED, &e, "version 2");
	expect_ok(vd_snapshot_create(img, "s", &e), &e);
	disk_close(img);
	view.snapshot = "s";
	expect_ok(vd_image_open_on(disks.host, qcow2, "v2", &view, &img, &e), &e);
	expect_failure(vd_bitmap_list(img, &list, &n, &e), VD_EARG, &e, "not of a snapshot");
	disk_close(img);
	disk_put_raw("r", SIZE, 0);
	img = disk_open(&vd_format_raw, "r", VD_OPEN_WRITE);
	expect_failure(vd_bitmap_create(img, "b", 0, 0, &e), VD_EUNSUPPORTED, &e, "raw has no bitmaps");
	expect_failure(vd_bitmap_list(img, &list, &n, &e), VD_EUNSUPPORTED, &e, "raw has no bitmaps");
	disk_close(img);
	img = start();
	expect_ok(vd_bitmap_remove(img, "b", &e), &e);
	expect_failure(vd_image_extents_since(img, "b", 0, 1, &(struct vd_extent){ 0 }, 1, &n, &e), VD_ENOENT, &e, "no bitmap");
	disk_close(img);
}

static void control_handles_need_no_key_and_readers_change_nothing(void **state)
{
	struct vd_create_opts o = disk_create_opts(qcow2, SIZE);
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	o.kdf.iterations = 1000;
	expect_ok(vd_key_from_bytes("k", 1, &o.key, &e), &e);
	img = disk_create(qcow2, "d", &o);
	disk_commit(img);
	disk_close(img);
	img = disk_open(qcow2, "d", VD_OPEN_CONTROL);
	bitmap_make(img, "b", 0);
	disk_close(img);
	img = disk_open(qcow2, "d", VD_OPEN_METADATA);
	expect_failure(vd_bitmap_clear(img, "b", &e), VD_EREADONLY, &e, "reading only");
	assert_string_equal(dirty_since(img, "b"), "");
	disk_close(img);
	expect_sound("d");
	vd_key_free(o.key);
}

/* ---- large ones ------------------------------------------------------------------------------------------- */

/* A table of more clusters than one refcount block counts. */
static void a_table_larger_than_a_refcount_block_counts_finds_its_place(void **state)
{
	struct vd_create_opts o = disk_create_opts(qcow2, UINT64_C(48) << 30);
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	o.cluster_size = 512;
	img = disk_create(qcow2, "d", &o);
	disk_commit(img);
	disk_close(img);
	img = disk_open(qcow2, "d", VD_OPEN_WRITE);
	bitmap_make(img, "b", 512);
	disk_write(img, UINT64_C(40) << 30, 1, 1);
	img = again(img, VD_OPEN_WRITE);
	assert_string_equal(dirty_since(img, "b"), "42949672960+512");
	disk_write(img, 0, 1, 1);
	expect_ok(vd_bitmap_disable(img, "b", &e), &e);
	img = again(img, VD_OPEN_WRITE);
	assert_string_equal(dirty_since(img, "b"), "0+512 42949672960+512");
	expect_ok(vd_bitmap_remove(img, "b", &e), &e);
	disk_close(img);
	expect_sound("d");
}

static void what_is_too_large_for_qemu_is_refused(void **state)
{
	struct vd_create_opts o = disk_create_opts(qcow2, UINT64_C(64) << 40);
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	img = disk_create(qcow2, "d", &o);
	disk_commit(img);
	disk_close(img);
	img = disk_open(qcow2, "d", VD_OPEN_WRITE);
	expect_failure(vd_bitmap_create(img, "b", 8192, 0, &e), VD_EUNSUPPORTED, &e, "too large");
	expect_ok(vd_bitmap_create(img, "b", 16384, 0, &e), &e);
	bitmap_make(img, "c", 0);
	disk_write(img, UINT64_C(63) << 40, 1, 1);
	img = again(img, 0);
	assert_string_equal(bitmaps_of(img), "b 16384 on 16384; c 65536 on 65536");
	assert_string_equal(dirty_since(img, "c"), "69269232549888+65536");
	disk_close(img);
}

/* ---- beside others ---------------------------------------------------------------------------------------- */

struct writer {
	pthread_t thread;
	struct vd_image *img;
	uint64_t first;                 /* of the pieces: it writes every fourth */
	bool failed;
};

static void *write_and_ask(void *arg)
{
	struct writer *w = arg;
	struct vd_extent x;
	size_t n;

	for (uint64_t i = w->first; i < 64 && !w->failed; i += 4) {
		w->failed = vd_image_pwrite(w->img, "x", 1, i * 64 * KIB + 512, NULL) < 0;
		w->failed |= vd_image_extents_since(w->img, "b", i * 64 * KIB + 512, 1, &x, 1, &n, NULL) < 0;
		w->failed |= !(x.flags & VD_EXTENT_DIRTY);
	}
	return NULL;
}

static void writers_see_what_they_wrote_beside_acts(void **state)
{
	const char *const source = "b";
	struct writer writers[4] = { 0 };
	struct vd_image *img = start();
	struct vd_error e;
	char name[16];

	(void)state;
	for (uint64_t i = 0; i < 4; i++) {
		writers[i] = (struct writer){ .img = img, .first = i };
		pthread_create(&writers[i].thread, NULL, write_and_ask, &writers[i]);
	}
	for (int i = 0; i < 10; i++) {
		snprintf(name, sizeof(name), "n%d", i);
		bitmap_make(img, name, 512);
		expect_ok(vd_bitmap_merge(img, name, NULL, &source, 1, &e), &e);
		(void)bitmaps_of(img);
		expect_ok(vd_image_resize(img, SIZE + 4096 * (i % 3), VD_RESIZE_SHRINK, &e), &e);
	}
	for (int i = 0; i < 4; i++) {
		pthread_join(writers[i].thread, NULL);
		assert_false(writers[i].failed);
	}
	expect_ok(vd_image_resize(img, SIZE, VD_RESIZE_SHRINK, &e), &e);
	assert_string_equal(dirty_since(img, "b"), "0+4194304");
	img = again(img, 0);
	assert_string_equal(dirty_since(img, "b"), "0+4194304");
	disk_close(img);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, disks_start, disks_stop)
	const struct CMUnitTest tests[] = {
		T(a_new_bitmap_is_clean),
		T(writes_and_zeros_are_recorded_at_once_and_for_good),
		T(reading_and_flushing_change_no_bitmap),
		T(a_disabled_bitmap_records_nothing),
		T(extents_are_cut_where_the_bitmap_changes),
		T(bitmaps_do_not_hold_before_the_first_byte_arrives),
		T(after_a_crash_a_bitmap_is_unusable_until_it_is_made_anew),
		T(a_writer_that_does_not_know_bitmaps_makes_all_void),
		T(clear_forgets_and_merge_adds),
		T(merge_takes_bitmaps_of_another_image),
		T(a_disk_that_grows_is_dirty_where_it_is_new),
		T(a_disk_that_shrinks_loses_what_was_dirty_there),
		T(a_table_of_ones_is_cut_with_the_disk),
		T(applying_a_snapshot_makes_all_dirty),
		T(acts_that_fail_leave_bitmaps_as_they_were),
		T(names_and_granularities_have_bounds),
		T(there_is_room_for_many),
		T(others_say_that_they_have_none),
		T(control_handles_need_no_key_and_readers_change_nothing),
		T(a_table_larger_than_a_refcount_block_counts_finds_its_place),
		T(what_is_too_large_for_qemu_is_refused),
		T(writers_see_what_they_wrote_beside_acts),
	};

	return cmocka_run_group_tests_name("bitmap", tests, NULL, NULL);
}
