/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* core/meta as a cache: what is read, written, forgotten and kept. Commits are test_meta_commit.c's, random histories test_meta_random.c's. */
#include "tests/support/meta_host.h"

#include <unistd.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/bytes.h"

static int start_ordered(void **state)
{
	(void)state;
	return meta_start(1u << 20, false);
}

/* Room for 16 pages, the least there is. */
static int start_small(void **state)
{
	(void)state;
	return meta_start(0, false);
}

/* ---- reading ------------------------------------------------------------------------------------------ */

static void read_returns_host_bytes_at_any_offset(void **state)
{
	static const struct { uint64_t off; size_t len; } cases[] = {
		{ 0, 8 }, { 504, 8 }, { 508, 8 }, { 1, 511 }, { 512, 512 }, { 100, 4096 }, { FILE_SIZE - 8, 8 }, { 7, 0 },
	};
	uint8_t buf[4096];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		for (uint32_t file = 0; file < N_FILES; file++) {
			memset(buf, 0xee, sizeof(buf));
			assert_int_equal(vd_meta_read(world.meta, file, cases[i].off, buf, cases[i].len, 0, NULL), 0);
			assert_memory_equal(buf, world.files[file]->bytes + cases[i].off, cases[i].len);
		}
}

static void a_page_is_read_once(void **state)
{
	(void)state;
	for (int i = 0; i < 100; i++)
		(void)meta_get(5);
	assert_string_equal(host_log(), "R5");
}

static void nowait_does_not_read_the_host(void **state)
{
	struct vd_error e;
	uint8_t buf[8];

	(void)state;
	assert_int_equal(vd_meta_read(world.meta, 0, 5 * PAGE, buf, 8, VD_META_NOWAIT, &e), VD_EAGAIN);
	assert_string_equal(host_log(), "");
	(void)meta_get(5);
	assert_int_equal(vd_meta_read(world.meta, 0, 5 * PAGE, buf, 8, VD_META_NOWAIT, &e), 0);
	/* Half of the range is not enough. */
	assert_int_equal(vd_meta_read(world.meta, 0, 6 * PAGE - 4, buf, 8, VD_META_NOWAIT, &e), VD_EAGAIN);
}

static void range_past_the_offsets_is_refused(void **state)
{
	struct vd_error e;
	uint8_t buf[8] = { 0 };

	(void)state;
	assert_int_equal(vd_meta_read(world.meta, 0, UINT64_MAX - 3, buf, 8, 0, &e), VD_ERANGE);
	assert_int_equal(vd_meta_read(world.meta, 0, INT64_MAX - 3, buf, 8, 0, &e), VD_ERANGE);
	assert_int_equal(vd_meta_write(world.meta, 0, UINT64_MAX - 3, buf, 8, VD_RANK_LEAF, &e), VD_ERANGE);
	assert_int_equal(vd_meta_zero(world.meta, 0, PAGE, UINT64_MAX - 3, VD_RANK_LEAF, &e), VD_ERANGE);
	/* No load would notice. */
	assert_int_equal(vd_meta_zero(world.meta, 0, (1ull << 63) - PAGE, PAGE, VD_RANK_LEAF, &e), VD_ERANGE);
	assert_false(vd_meta_is_dirty(world.meta));
	assert_string_equal(host_log(), "");
}

static int fail_reads(struct vd_io *io, void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	(void)io, (void)buf, (void)len;
	return vd_fail_at(e, VD_EIO, off, "scripted read failure");
}

static void failed_load_is_told_and_tried_again(void **state)
{
	struct vd_io_ops failing = host_ops;
	struct vd_error e;
	uint8_t buf[8];

	(void)state;
	failing.pread = fail_reads;
	world.files[0]->io.ops = &failing;
	assert_int_equal(vd_meta_read(world.meta, 0, 0, buf, 8, 0, &e), VD_EIO);
	assert_non_null(strstr(e.message, "scripted read failure"));
	assert_int_equal(vd_meta_write(world.meta, 0, 0, buf, 8, VD_RANK_LEAF, &e), VD_EIO);
	assert_false(vd_meta_is_dirty(world.meta));
	world.files[0]->io.ops = &host_ops;
	assert_int_equal(meta_get(0), meta_on_host(0));
	assert_int_equal(world.meta->n_pages, 1);
}

/* ---- writing ------------------------------------------------------------------------------------------ */

static void write_is_read_back_and_not_on_the_host(void **state)
{
	uint8_t buf[2000], host[2000];

	(void)state;
	memcpy(host, world.files[1]->bytes + 300, sizeof(host));
	memset(buf, 0xab, sizeof(buf));
	assert_int_equal(vd_meta_write(world.meta, 1, 300, buf, sizeof(buf), VD_RANK_LEAF, NULL), 0);
	memset(buf, 0, sizeof(buf));
	assert_int_equal(vd_meta_read(world.meta, 1, 300, buf, sizeof(buf), 0, NULL), 0);
	for (size_t i = 0; i < sizeof(buf); i++)
		assert_int_equal(buf[i], 0xab);
	assert_int_equal(vd_meta_read(world.meta, 1, 299, buf, 1, 0, NULL), 0);
	assert_int_equal(buf[0], world.files[1]->bytes[299]);
	assert_memory_equal(world.files[1]->bytes + 300, host, sizeof(host));
	assert_true(vd_meta_is_dirty(world.meta));
	/* Of the four pages only the first and the last had other bytes to keep. */
	assert_string_equal(host_log(), "R:0 R:4");
}

static void zero_reads_nothing(void **state)
{
	uint8_t buf[8 * PAGE];

	(void)state;
	meta_put(3, 0x77, VD_RANK_LEAF);
	host_clear_log();
	assert_int_equal(vd_meta_zero(world.meta, 0, 0, sizeof(buf), VD_RANK_OWNER, NULL), 0);
	assert_int_equal(vd_meta_read(world.meta, 0, 0, buf, sizeof(buf), 0, NULL), 0);
	assert_true(vd_is_zero(buf, sizeof(buf)));
	assert_string_equal(host_log(), "");
	meta_commit_ok();
	assert_true(vd_is_zero(world.files[0]->bytes, sizeof(buf)));
}

static void overwrite_during_load(const struct host_op *op)
{
	static const uint8_t newer[PAGE] = { [8] = 0x5a };

	if (op->kind != 'R' || op->off)
		return;
	world.hook = NULL;
	assert_int_equal(vd_meta_write(world.meta, 0, 0, newer, PAGE, VD_RANK_LEAF, NULL), 0);
}

static void load_does_not_undo_a_write_that_overtook_it(void **state)
{
	(void)state;
	world.hook = overwrite_during_load;
	assert_int_equal(meta_get(0), 0x5a);
	assert_int_equal(meta_get(0), 0x5a);
	assert_int_equal(world.meta->n_pages, 1);
	meta_commit_ok();
	assert_int_equal(meta_on_host(0), 0x5a);
}

static void forget_during_load(const struct host_op *op)
{
	if (op->kind != 'R')
		return;
	world.hook = NULL;
	vd_meta_forget(world.meta, 0, 0, PAGE);
	world.files[0]->bytes[8] = 0x33;
}

static void load_does_not_bring_back_what_was_forgotten(void **state)
{
	(void)state;
	world.hook = forget_during_load;
	assert_int_equal(meta_get(0), 0x33);
	assert_string_equal(host_log(), "R0 R0");
}

static void forget_drops_dirty_pages_of_the_range_only(void **state)
{
	(void)state;
	for (uint64_t page = 0; page < 4; page++)
		meta_put(page, 0x99, VD_RANK_LEAF);
	vd_meta_forget(world.meta, 0, PAGE, PAGE + 1);
	meta_commit_ok();
	assert_string_equal(host_log(), "W0 W3 F");
	assert_int_equal(meta_on_host(0), 0x99);
	assert_int_not_equal(meta_on_host(1), 0x99);
	assert_int_equal(meta_get(2), meta_on_host(2));
	assert_int_equal(meta_get(3), 0x99);
}

static void forget_all_leaves_what_the_host_holds(void **state)
{
	(void)state;
	(void)meta_get(0);
	meta_put(1, meta_on_host(1) + 1, VD_RANK_LEAF);
	vd_meta_forget_all(world.meta);
	assert_false(vd_meta_is_dirty(world.meta));
	assert_int_equal(world.meta->n_pages, 0);
	assert_false(meta_is_resident(0));
	assert_int_equal(meta_get(1), meta_on_host(1));
}

static void access_without_memory_fails_cleanly(void **state)
{
	uint8_t page[PAGE] = { 0 };
	struct vd_meta_batch *b;
	struct vd_meta *m;

	(void)state;
	vd_alloc_fail_after(0);
	assert_int_equal(vd_meta_read(world.meta, 0, 0, page, 8, 0, NULL), VD_ENOMEM);
	vd_alloc_fail_after(0);
	assert_int_equal(vd_meta_write(world.meta, 0, 0, page, PAGE, VD_RANK_LEAF, NULL), VD_ENOMEM);
	meta_put(1, 1, VD_RANK_LEAF);
	b = meta_snapshot();
	vd_alloc_fail_after(0);         /* for the changed copy of a page in flight */
	assert_int_equal(vd_meta_write(world.meta, 0, PAGE, page, 8, VD_RANK_LEAF, NULL), VD_ENOMEM);
	assert_int_equal(meta_get(1), 1);
	assert_int_equal(vd_meta_commit(world.meta, b, NULL), 0);
	for (int n = 0; n < 2; n++) {
		vd_alloc_fail_after(n);
		assert_int_equal(vd_meta_new(world.set, 1 << 20, false, &m, NULL), VD_ENOMEM);
	}
}

/* ---- memory ------------------------------------------------------------------------------------------- */

static void clean_pages_stay_within_the_bound(void **state)
{
	size_t max = (1u << 20) / (sizeof(struct vd_page) + PAGE);
	uint8_t byte;

	(void)state;
	for (uint64_t page = 0; page < FILE_SIZE / PAGE; page++) {
		assert_int_equal(vd_meta_read(world.meta, 0, page * PAGE, &byte, 1, 0, NULL), 0);
		assert_true(world.meta->n_pages <= max);
	}
	assert_int_equal(world.meta->n_pages, max);
	assert_int_equal(world.meta->n_clean, max);
	assert_int_equal(host_count('R'), FILE_SIZE / PAGE);
}

static void dirty_pages_are_never_evicted(void **state)
{
	(void)state;
	for (uint64_t page = 0; page < 100; page++)
		meta_put(page, 0xd1, VD_RANK_LEAF);
	for (uint64_t page = 200; page < 400; page++)
		(void)meta_get(page);
	assert_true(world.meta->n_pages <= 101);
	host_clear_log();
	for (uint64_t page = 0; page < 100; page++)
		assert_int_equal(meta_get(page), 0xd1);
	assert_string_equal(host_log(), "");
	assert_int_equal(meta_commit(NULL), 0);
	assert_true(world.meta->n_pages <= 16);
}

static void half_the_bound_dirty_asks_for_a_commit(void **state)
{
	uint64_t page = 0;

	(void)state;
	for (; !vd_meta_wants_commit(world.meta); page++) {
		assert_true(page < 16);
		meta_put(page, 1, VD_RANK_LEAF);
	}
	assert_int_equal(page, 9);
	meta_commit_ok();
	assert_false(vd_meta_wants_commit(world.meta));
}

/* A page in use outlives pages that were read once, however many. */
static void page_in_use_outlives_a_scan(void **state)
{
	size_t reloads = 0;

	(void)state;
	(void)meta_get(1);
	for (uint64_t page = 100; page < 600; page++) {
		(void)meta_get(page);
		reloads += !meta_is_resident(1);
		(void)meta_get(1);
	}
	assert_int_equal(reloads, 0);
}

/* ---- threads ------------------------------------------------------------------------------------------ */

static atomic_bool is_reading, may_go;

static int read_when_told(struct vd_io *io, void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	is_reading = true;
	while (!may_go)
		usleep(1000);
	return host_ops.pread(io, buf, len, off, e);
}

static void *read_page_5(void *out)
{
	*(int *)out = vd_meta_read(world.meta, 0, 5 * PAGE + 8, (uint8_t *)out + sizeof(int), 1, 0, NULL);
	return NULL;
}

static void concurrent_misses_read_once(void **state)
{
	struct { int r; uint8_t value; } results[8];
	static struct vd_io_ops ops;
	pthread_t threads[8];
	bool is_shown;

	(void)state;
	ops = host_ops;
	ops.pread = read_when_told;
	world.files[0]->io.ops = &ops;
	for (size_t i = 0; i < 8; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, read_page_5, &results[i]), 0);
	while (!is_reading)
		usleep(1000);
	usleep(20000);          /* so that the others come, too */
	is_shown = meta_is_resident(5);
	may_go = true;
	for (size_t i = 0; i < 8; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(results[i].r, 0);
		assert_int_equal(results[i].value, meta_on_host(5));
	}
	assert_string_equal(host_log(), "R5");
	/* On its way is not in memory. */
	assert_false(is_shown);
}

static struct { pthread_t thread; int result; } writer;

static void *put_page_5(void *unused)
{
	uint8_t byte = 0x42;

	writer.result = vd_meta_write(world.meta, 0, 5 * PAGE, &byte, 1, VD_RANK_LEAF, NULL);
	return unused;
}

static int read_while_a_writer_comes(struct vd_io *io, void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	io->ops = &host_ops;
	assert_int_equal(pthread_create(&writer.thread, NULL, put_page_5, NULL), 0);
	usleep(20000);          /* so that it comes before the bytes */
	return host_ops.pread(io, buf, len, off, e);
}

/* The writer needs the rest of the page: it neither reads on its own, nor takes what is not there yet. */
static void partial_write_waits_for_the_load_under_way(void **state)
{
	static struct vd_io_ops ops;
	uint8_t want = meta_on_host(5);

	(void)state;
	ops = host_ops;
	ops.pread = read_while_a_writer_comes;
	world.files[0]->io.ops = &ops;
	assert_int_equal(meta_get(5), want);
	pthread_join(writer.thread, NULL);
	assert_int_equal(writer.result, 0);
	assert_string_equal(host_log(), "R5");
	meta_commit_ok();
	assert_int_equal(world.files[0]->bytes[5 * PAGE], 0x42);
	assert_int_equal(meta_on_host(5), want);
}

#define ORDERED(test) cmocka_unit_test_setup_teardown(test, start_ordered, meta_stop)
#define SMALL(test) cmocka_unit_test_setup_teardown(test, start_small, meta_stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ORDERED(read_returns_host_bytes_at_any_offset),
		ORDERED(a_page_is_read_once),
		ORDERED(nowait_does_not_read_the_host),
		ORDERED(range_past_the_offsets_is_refused),
		ORDERED(failed_load_is_told_and_tried_again),
		ORDERED(write_is_read_back_and_not_on_the_host),
		ORDERED(zero_reads_nothing),
		ORDERED(load_does_not_undo_a_write_that_overtook_it),
		ORDERED(load_does_not_bring_back_what_was_forgotten),
		ORDERED(forget_drops_dirty_pages_of_the_range_only),
		ORDERED(forget_all_leaves_what_the_host_holds),
		ORDERED(access_without_memory_fails_cleanly),
		ORDERED(clean_pages_stay_within_the_bound),
		SMALL(dirty_pages_are_never_evicted),
		SMALL(half_the_bound_dirty_asks_for_a_commit),
		SMALL(page_in_use_outlives_a_scan),
		ORDERED(concurrent_misses_read_once),
		ORDERED(partial_write_waits_for_the_load_under_way),
	};

	return cmocka_run_group_tests_name("meta", tests, NULL, NULL);
}
