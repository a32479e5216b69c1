/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reading and writing through the map: edges, filling, zeros, what reaches the host, when space is used again. */
#include "tests/support/model.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>

#include "libvdisk/base/cleanup.h"

#define BLOCK TOY_BLOCK
#define SIZE (5 * BLOCK + 1536)
#define toy (&vd_format_toy)
#define raw (&vd_format_raw)

/* ---- edges -------------------------------------------------------------------------------------------- */

static const uint64_t edges[] = { 0, 512, 1024, BLOCK, BLOCK + 512, 2 * BLOCK, SIZE - 512, SIZE };
#define N_POINTS (3 * sizeof(edges) / sizeof(edges[0]))

/* The edges and the bytes one before and one after. */
static bool point(size_t i, uint64_t *off)
{
	*off = edges[i / 3] + i % 3 - 1;
	return *off <= SIZE;
}

/* Every range between two points, each on an image of its own if `anew`, else all on one. */
static void write_between_all_points(const struct vd_format *format, const char *backing, bool anew, bool zeros)
{
	struct vd_image *img = NULL;
	struct model m;
	uint64_t from, to;

	for (size_t i = 0; i < N_POINTS; i++) {
		for (size_t j = i + 1; j < N_POINTS; j++) {
			if (!point(i, &from) || !point(j, &to) || from >= to)
				continue;
			if (!img) {
				disks.mem->unlink(disks.mem, "d", NULL);
				disk_make(format, "d", SIZE, backing);
				img = disk_open(format, "d", VD_OPEN_WRITE);
				model_init(&m, SIZE, i * N_POINTS + j);
				memset(m.bytes, backing ? 5 : 0, SIZE);
			}
			(zeros ? model_zero : model_write)(&m, img, from, to - from);
			model_check_all(&m, img);
			if (!anew)
				continue;
			disk_close(vd_steal(&img));
			model_free(&m);
		}
	}
	if (!img)
		return;
	disk_close(img);
	img = disk_open(format, "d", 0);
	model_check_all(&m, img);
	disk_close(img);
	model_free(&m);
}

static void make_parent(void)
{
	struct vd_image *img;

	disk_make(toy, "p", SIZE, NULL);
	img = disk_open(toy, "p", VD_OPEN_WRITE);
	disk_write(img, 0, SIZE, 5);
	disk_close(img);
}

static void raw_holds_at_every_edge(void **state)
{
	(void)state;
	write_between_all_points(raw, NULL, false, false);
	write_between_all_points(raw, NULL, false, true);
}

static void new_blocks_hold_at_every_edge(void **state)
{
	(void)state;
	write_between_all_points(toy, NULL, true, false);
	write_between_all_points(toy, NULL, true, true);
}

static void written_blocks_hold_at_every_edge(void **state)
{
	(void)state;
	write_between_all_points(toy, NULL, false, false);
}

static void overlay_holds_at_every_edge(void **state)
{
	(void)state;
	make_parent();
	write_between_all_points(toy, "p", true, false);
	write_between_all_points(toy, "p", true, true);
}

static void ranges_outside_the_disk_are_refused(void **state)
{
	static const struct { uint64_t off, len; } outside[] = {
		{ SIZE, 1 }, { SIZE - 1, 2 }, { 0, SIZE + 1 }, { SIZE + 1, 0 }, { UINT64_MAX, 1 }, { 1, SIZE_MAX },
			{ UINT64_MAX, 0 },
	};
	struct vd_image *img;
	struct vd_error e;
	uint8_t buf[4];
	uint64_t tick;

	(void)state;
	disk_make(toy, "d", SIZE, NULL);
	img = disk_open(toy, "d", VD_OPEN_WRITE);
	tick = vd_record_tick(disks.record);
	for (size_t i = 0; i < sizeof(outside) / sizeof(outside[0]); i++) {
		expect_failure(vd_image_pread(img, buf, outside[i].len, outside[i].off, &e), VD_ERANGE, &e,
			       "outside the disk");
		expect_failure(vd_image_pwrite(img, buf, outside[i].len, outside[i].off, &e), VD_ERANGE, &e,
			       "outside the disk");
		expect_failure(vd_image_write_zeroes(img, outside[i].off, outside[i].len, 0, &e), VD_ERANGE, &e,
			       "outside the disk");
	}
	assert_int_equal(disks_count(CHANGES, tick), 0);
	disk_close(img);
}

static void empty_ranges_do_nothing_anywhere_inside(void **state)
{
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	disk_make(toy, "d", SIZE, NULL);
	img = disk_open(toy, "d", VD_OPEN_WRITE);
	for (uint64_t off = 0; off <= SIZE; off += SIZE) {
		expect_ok(vd_image_pread(img, NULL, 0, off, &e), &e);
		expect_ok(vd_image_pwrite(img, NULL, 0, off, &e), &e);
		expect_ok(vd_image_write_zeroes(img, off, 0, 0, &e), &e);
	}
	disk_expect(img, 0, SIZE, 0);
	disk_close(img);
}

static void write_longer_than_a_piece_is_whole(void **state)
{
	const uint64_t size = 9 << 20;
	struct vd_image *img;
	struct model m;

	(void)state;
	disk_make(toy, "d", size, NULL);
	img = disk_open(toy, "d", VD_OPEN_WRITE);
	model_init(&m, size, 1);
	model_write(&m, img, 4099, (5 << 20) + 7);
	model_zero(&m, img, 70001, 3 << 20);
	model_check_all(&m, img);
	disk_close(img);
	img = disk_open(toy, "d", 0);
	model_check_all(&m, img);
	disk_close(img);
	model_free(&m);
}

/* ---- what reaches the host ---------------------------------------------------------------------------- */

/* The image "d", open for writing, with writing begun. */
static struct vd_image *begun(const struct vd_format *format, const char *backing)
{
	struct vd_image *img;

	disk_make(format, "d", SIZE, backing);
	img = disk_open(format, "d", VD_OPEN_WRITE);
	disk_write(img, SIZE - 1, 1, 1);
	disk_flush(img);
	return img;
}

static void zeros_where_zeros_are_write_nothing(void **state)
{
	struct vd_image *img = begun(toy, NULL);
	uint64_t tick = vd_record_tick(disks.record);

	(void)state;
	disk_zero(img, 1, 4 * BLOCK);
	assert_int_equal(disks_count(CHANGES, tick), 0);
	disk_close(img);
}

static void written_zeros_in_new_space_are_not_sent_to_the_host(void **state)
{
	struct vd_image *img = begun(toy, NULL);
	uint64_t tick = vd_record_tick(disks.record);
	const struct vd_event *ev;

	(void)state;
	/* One byte: the sector around it is filled, on the host it is zeros already. */
	disk_write(img, 700, 1, 9);
	for (size_t i = 0; (ev = vd_record_event(disks.record, i)); i++)
		assert_true(ev->end <= tick || ev->kind != VD_OP_WRITE || ev->len <= 1);
	disk_expect(img, 512, 188, 0);
	disk_close(img);
}

static void zeros_in_raw_make_a_hole(void **state)
{
	struct vd_info before = { .struct_size = sizeof(before) }, after = before;
	struct vd_image *img;

	(void)state;
	disk_put_raw("d", 1 << 20, 7);
	img = disk_open(raw, "d", VD_OPEN_WRITE);
	assert_int_equal(vd_image_info(img, &before, NULL), 0);
	disk_zero(img, 100, (1 << 20) - 300);
	assert_int_equal(vd_image_info(img, &after, NULL), 0);
	assert_true(after.actual_size < before.actual_size);
	assert_int_equal(after.file_size, 1 << 20);
	disk_expect(img, 0, 100, 7);
	disk_expect(img, 100, (1 << 20) - 300, 0);
	disk_expect(img, (1 << 20) - 200, 200, 7);
	disk_close(img);
}

static void zeros_are_written_where_the_host_makes_no_holes(void **state)
{
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	disk_put_raw("d", 1 << 20, 7);
	img = disk_open(raw, "d", VD_OPEN_WRITE);
	vd_fault_arm(disks.fault,
		     &(struct vd_fault_plan){ .kinds = VD_OP_PUNCH, .nth = 1, .err = EOPNOTSUPP, .for_ever = true });
	disk_zero(img, 100, 900000);
	assert_int_equal(vd_fault_fired(disks.fault), 1);
	disk_expect(img, 0, 100, 7);
	disk_expect(img, 100, 900000, 0);
	disk_expect(img, 900100, 1000, 7);
	vd_fault_arm(disks.fault, &(struct vd_fault_plan){ .kinds = VD_OP_PUNCH, .nth = 1, .err = EIO });
	expect_failure(vd_image_write_zeroes(img, 950000, 10, 0, &e), VD_EIO, &e, "made to fail");
	disk_close(img);
}

static void zeros_that_begin_inside_a_unit_free_the_units_behind(void **state)
{
	struct vd_create_opts opts = disk_create_opts(&vd_format_qcow2, 8 * BLOCK);
	struct vd_image *img;
	struct vd_extent x[4];
	size_t n;

	(void)state;
	opts.cluster_size = BLOCK;
	img = disk_create(&vd_format_qcow2, "d", &opts);
	disk_write(img, 0, 8 * BLOCK, 7);
	disk_zero(img, 100, 4 * BLOCK);
	assert_int_equal(vd_image_extents(img, 0, 8 * BLOCK, x, 4, &n, NULL), 0);
	assert_int_equal(n, 3);
	assert_int_equal(x[0].len, BLOCK);
	assert_false(x[1].flags & VD_EXTENT_HOST);
	assert_int_equal(x[1].len, 3 * BLOCK);
	disk_expect(img, 0, 100, 7);
	disk_expect(img, 100, 4 * BLOCK, 0);
	disk_expect(img, 4 * BLOCK + 100, 4 * BLOCK - 100, 7);
	vd_image_abort(img);
}

static void no_unit_of_a_long_write_is_filled_twice(void **state)
{
	const uint64_t mib = 1 << 20;
	struct vd_create_opts opts = disk_create_opts(&vd_format_qcow2, 8 * mib);
	struct vd_image *img;
	const struct vd_event *ev;
	uint64_t written = 0, tick;

	(void)state;
	disk_put_raw("r", 8 * mib, 5);
	opts.cluster_size = mib;
	opts.backing_file = "r";
	opts.backing_format = "raw";
	img = disk_create(&vd_format_qcow2, "d", &opts);
	tick = vd_record_tick(disks.record);
	/* Half a cluster is filled on either side. */
	disk_write(img, mib / 2, 6 * mib, 7);
	for (size_t i = 0; (ev = vd_record_event(disks.record, i)); i++)
		if (ev->kind == VD_OP_WRITE && ev->end > tick)
			written += ev->len;
	assert_int_equal(written, 7 * mib);
	disk_expect(img, 0, mib / 2, 5);
	disk_expect(img, 6 * mib + mib / 2, mib / 2, 5);
	vd_image_abort(img);
}

static void flush_costs_at_most_four_whatever_it_holds(void **state)
{
	struct vd_image *img;
	uint64_t tick;

	(void)state;
	disk_make(toy, "d", 300 * BLOCK, NULL);
	img = disk_open(toy, "d", VD_OPEN_WRITE);
	for (uint64_t i = 0; i < 300; i++)
		disk_write(img, i * BLOCK + i, 1000, i);
	tick = vd_record_tick(disks.record);
	disk_flush(img);
	assert_in_range(disks_count(VD_OP_FLUSH, tick), 1, 4);
	tick = vd_record_tick(disks.record);
	disk_flush(img);
	assert_int_equal(disks_count(CHANGES | VD_OP_FLUSH, tick), 0);
	disk_close(img);
}

static void dirty_tables_are_bounded_without_any_flush(void **state)
{
	struct vd_open_opts opts = disk_open_opts(toy, VD_OPEN_WRITE);
	struct vd_image *img;
	struct model m;
	struct vd_error e;

	(void)state;
	opts.cache_bytes = 1;
	model_init(&m, 300 * BLOCK, 1);
	disk_make(toy, "d", m.size, NULL);
	expect_ok(vd_image_open_on(disks.host, toy, "d", &opts, &img, &e), &e);
	for (uint64_t i = 0; i < 300; i++)
		model_write(&m, img, i * BLOCK + i, 1000);
	/* 16 pages are the least; half of them dirty asks for a commit. */
	assert_in_range(disks_count(VD_OP_FLUSH, 0), 300 / 16, 300);
	vd_image_abort(img);
	img = disk_open(toy, "d", 0);
	model_check(&m, img, 0, 280 * BLOCK);
	disk_close(img);
	model_free(&m);
}

/* ---- space that is given up --------------------------------------------------------------------------- */

static uint64_t host_of(struct vd_image *img, uint64_t off)
{
	struct vd_extent x;
	size_t n;

	assert_int_equal(vd_image_extents(img, off, 1, &x, 1, &n, NULL), 0);
	assert_true(x.flags & VD_EXTENT_HOST);
	return x.host_off;
}

static void space_is_used_again_after_the_flush_not_before(void **state)
{
	struct vd_image *img = begun(toy, NULL);
	uint64_t gone;

	(void)state;
	disk_write(img, 0, BLOCK, 7);
	gone = host_of(img, 0);
	disk_zero(img, 0, BLOCK);
	disk_write(img, BLOCK, 512, 8);
	assert_int_not_equal(host_of(img, BLOCK), gone);
	disk_flush(img);
	disk_write(img, 2 * BLOCK + 512, 512, 9);
	assert_int_equal(host_of(img, 2 * BLOCK + 512), gone + 512);
	disk_expect(img, 2 * BLOCK, 512, 0);
	disk_expect(img, 2 * BLOCK + 1024, BLOCK - 1024, 0);
	disk_close(img);
}

/* In the middle of one operation on the host another thread does its work: the operation waits, but not for ever. */
static struct meanwhile {
	struct vd_wrap wrap;
	struct vd_image *img;
	void *(*work)(void *arg);
	unsigned kind;                  /* of the operation that it happens in */
	uint64_t off;                   /* and its place */
	pthread_t thread;
	bool has_started, has_ended_within;
} meanwhile;

static int start_meanwhile(struct vd_wrap *w, struct vd_op *op, struct vd_error *e)
{
	struct timespec until;

	(void)w;
	(void)e;
	if (meanwhile.has_started || op->kind != meanwhile.kind || op->off != meanwhile.off)
		return 0;
	meanwhile.has_started = true;
	pthread_create(&meanwhile.thread, NULL, meanwhile.work, NULL);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += 100 * 1000 * 1000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	meanwhile.has_ended_within = !pthread_timedjoin_np(meanwhile.thread, NULL, &until);
	return 0;
}

static struct vd_host *host_with_meanwhile(void *(*work)(void *))
{
	meanwhile = (struct meanwhile){ .work = work };
	vd_wrap_init(&meanwhile.wrap, disks.host);
	meanwhile.wrap.before = start_meanwhile;
	return &meanwhile.wrap.host;
}

static struct vd_image *open_with_meanwhile(void *(*work)(void *))
{
	struct vd_open_opts opts = disk_open_opts(toy, VD_OPEN_WRITE);

	assert_int_equal(vd_image_open_on(host_with_meanwhile(work), toy, "d", &opts, &meanwhile.img, NULL), 0);
	return meanwhile.img;
}

static void *give_up_and_refill(void *arg)
{
	(void)arg;
	disk_zero(meanwhile.img, 0, BLOCK);
	disk_flush(meanwhile.img);
	disk_write(meanwhile.img, BLOCK, 2 * BLOCK, 9);
	return NULL;
}

static void reader_under_way_keeps_the_bytes_it_mapped(void **state)
{
	struct vd_image *img;

	(void)state;
	disk_make(toy, "d", SIZE, NULL);
	img = open_with_meanwhile(give_up_and_refill);
	disk_write(img, 0, BLOCK, 7);
	disk_flush(img);
	meanwhile.off = host_of(img, 0);
	meanwhile.kind = VD_OP_READ;
	disk_expect(img, 0, BLOCK, 7);
	assert_true(meanwhile.has_started && !meanwhile.has_ended_within);
	pthread_join(meanwhile.thread, NULL);
	disk_expect(img, 0, BLOCK, 0);
	disk_expect(img, BLOCK, 2 * BLOCK, 9);
	disk_close(img);
}

static void *fill_another_block(void *arg)
{
	(void)arg;
	disk_write(meanwhile.img, BLOCK, BLOCK, 9);
	return NULL;
}

static void space_is_not_used_again_while_the_commit_is_under_way(void **state)
{
	struct vd_image *img;
	uint64_t gone;

	(void)state;
	disk_make(toy, "d", SIZE, NULL);
	img = open_with_meanwhile(fill_another_block);
	disk_write(img, 0, BLOCK, 7);
	disk_flush(img);
	gone = host_of(img, 0);
	disk_zero(img, 0, BLOCK);
	meanwhile.kind = VD_OP_FLUSH;
	disk_flush(img);
	assert_true(meanwhile.has_started && meanwhile.has_ended_within);
	assert_int_not_equal(host_of(img, BLOCK), gone);
	disk_close(img);
}

/* ---- writers side by side ----------------------------------------------------------------------------- */

static void *write_the_next_sector(void *arg)
{
	(void)arg;
	disk_write(meanwhile.img, 1024, 512, 9);
	return NULL;
}

static void writers_meet_in_one_new_block(void **state)
{
	struct vd_image *img;

	(void)state;
	disk_make(toy, "d", SIZE, NULL);
	img = open_with_meanwhile(write_the_next_sector);
	meanwhile.kind = VD_OP_WRITE;
	/* Behind header, one sector of table and the block's map. */
	meanwhile.off = 512 + 512 + 512;
	disk_write(img, 0, 512, 7);
	assert_true(meanwhile.has_started && meanwhile.has_ended_within);
	disk_expect(img, 0, 512, 7);
	disk_expect(img, 512, 512, 0);
	disk_expect(img, 1024, 512, 9);
	disk_close(img);
	img = disk_open(toy, "d", 0);
	disk_expect(img, 0, 512, 7);
	disk_expect(img, 1024, 512, 9);
	disk_close(img);
}

static void *write_the_same_sector(void *arg)
{
	(void)arg;
	disk_write(meanwhile.img, 8, 8, 9);
	return NULL;
}

static void writers_of_one_sector_take_turns(void **state)
{
	struct vd_image *img;

	(void)state;
	disk_make(toy, "d", SIZE, NULL);
	img = open_with_meanwhile(write_the_same_sector);
	meanwhile.kind = VD_OP_WRITE;
	meanwhile.off = 512 + 512 + 512;
	disk_write(img, 0, 8, 7);
	assert_true(meanwhile.has_started && !meanwhile.has_ended_within);
	pthread_join(meanwhile.thread, NULL);
	disk_expect(img, 0, 8, 7);
	disk_expect(img, 8, 8, 9);
	disk_expect(img, 16, 496, 0);
	disk_close(img);
}

/* Of 4096 bytes, on raw, which by itself needs no turns. */
static void writers_of_one_cipher_sector_take_turns(void **state)
{
	struct vd_create_opts opts = disk_create_opts(raw, SIZE);
	struct vd_key *key;

	(void)state;
	assert_int_equal(vd_key_from_bytes("k", 1, &key, NULL), 0);
	opts.key = key;
	opts.luks_type = VD_LUKS2;
	opts.luks_sector_size = 4096;
	opts.kdf = (struct vd_kdf_opts){ .iterations = 4, .memory_kib = 64 };
	assert_int_equal(vd_image_create_on(host_with_meanwhile(write_the_next_sector), NULL, "d", &opts,
					    &meanwhile.img, NULL), 0);
	disk_write(meanwhile.img, 0, 4096, 5);
	meanwhile.kind = VD_OP_READ;
	meanwhile.off = meanwhile.img->layer.payload_off;
	disk_write(meanwhile.img, 0, 512, 7);
	assert_true(meanwhile.has_started && !meanwhile.has_ended_within);
	pthread_join(meanwhile.thread, NULL);
	disk_expect(meanwhile.img, 0, 512, 7);
	disk_expect(meanwhile.img, 512, 512, 5);
	disk_expect(meanwhile.img, 1024, 512, 9);
	disk_expect(meanwhile.img, 1536, 4096 - 1536, 5);
	vd_image_abort(meanwhile.img);
	vd_key_free(key);
}

static void *flush_once(void *arg)
{
	disk_write(meanwhile.img, (uintptr_t)arg * BLOCK, 512, 9);
	disk_flush(meanwhile.img);
	return NULL;
}

/* Three more flushes queue up behind the first, which is held in its first fsync until they wait. */
static void *three_flushes(void *arg)
{
	static pthread_t threads[3];

	(void)arg;
	for (uintptr_t i = 0; i < 3; i++)
		pthread_create(&threads[i], NULL, flush_once, (void *)(i + 1));
	for (size_t i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	return NULL;
}

static void flushes_that_wait_share_one_commit(void **state)
{
	struct vd_image *img;
	uint64_t tick;

	(void)state;
	disk_make(toy, "d", SIZE, NULL);
	img = open_with_meanwhile(three_flushes);
	disk_write(img, 0, 512, 7);
	meanwhile.kind = VD_OP_FLUSH;
	tick = vd_record_tick(disks.record);
	disk_flush(img);
	assert_true(meanwhile.has_started && !meanwhile.has_ended_within);
	pthread_join(meanwhile.thread, NULL);
	/* Tables of ranks OWNER/INDEX and LEAF: three fsyncs a commit, two commits. */
	assert_in_range(disks_count(VD_OP_FLUSH, tick), 4, 6);
	vd_image_abort(img);
	img = disk_open(toy, "d", 0);
	for (uint64_t i = 1; i <= 3; i++)
		disk_expect(img, i * BLOCK, 512, 9);
	disk_close(img);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, disks_start, disks_stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(raw_holds_at_every_edge),
		CASE(new_blocks_hold_at_every_edge),
		CASE(written_blocks_hold_at_every_edge),
		CASE(overlay_holds_at_every_edge),
		CASE(ranges_outside_the_disk_are_refused),
		CASE(empty_ranges_do_nothing_anywhere_inside),
		CASE(write_longer_than_a_piece_is_whole),
		CASE(zeros_where_zeros_are_write_nothing),
		CASE(written_zeros_in_new_space_are_not_sent_to_the_host),
		CASE(zeros_in_raw_make_a_hole),
		CASE(zeros_are_written_where_the_host_makes_no_holes),
		CASE(zeros_that_begin_inside_a_unit_free_the_units_behind),
		CASE(no_unit_of_a_long_write_is_filled_twice),
		CASE(flush_costs_at_most_four_whatever_it_holds),
		CASE(dirty_tables_are_bounded_without_any_flush),
		CASE(space_is_used_again_after_the_flush_not_before),
		CASE(space_is_not_used_again_while_the_commit_is_under_way),
		CASE(reader_under_way_keeps_the_bytes_it_mapped),
		CASE(writers_meet_in_one_new_block),
		CASE(writers_of_one_sector_take_turns),
		CASE(writers_of_one_cipher_sector_take_turns),
		CASE(flushes_that_wait_share_one_commit),
	};

	return cmocka_run_group_tests_name("rw", tests, NULL, NULL);
}
