/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* core/meta's commits: the order of ranks, what goes on beside one, and what a failure leaves. */
#include "tests/support/meta_host.h"

#include <unistd.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/bytes.h"

static int start_ordered(void **state)
{
	(void)state;
	return meta_start(1u << 20, false);
}

static int start_fresh(void **state)
{
	(void)state;
	return meta_start(1u << 20, true);
}

/* Room for 16 pages, the least there is. */
static int start_small(void **state)
{
	(void)state;
	return meta_start(0, false);
}

/* ---- the order of a commit ---------------------------------------------------------------------------- */

/* Pages 10 to 13 have ranks 0 to 3; payload is page 100. */
static void ranks_reach_the_host_in_order(void **state)
{
	static const struct { bool payload; unsigned ranks; const char *log; } cases[] = {
		{ false, 0x0, "" },
		{ true,  0x0, "F" },
		{ false, 0x1, "W10 F" },
		{ true,  0x1, "W10 F" },
		{ true,  0x2, "F W11 F" },
		{ true,  0x4, "F W12 F" },
		{ true,  0x8, "F W13 F" },
		{ true,  0x3, "W10 F W11 F" },
		{ true,  0x9, "W10 F W13 F" },
		{ true,  0xa, "F W11 F W13 F" },
		{ true,  0xe, "F W11 F W12 F W13 F" },
		{ false, 0xe, "W11 F W12 F W13 F" },
		{ true,  0xf, "W10 F W11 F W12 F W13 F" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		for (int rank = 3; rank >= 0; rank--)
			if (cases[i].ranks >> rank & 1)
				meta_put(10 + rank, (uint8_t)i, rank);
		if (cases[i].payload)
			host_payload(100);
		meta_commit_ok();
		assert_string_equal(host_log(), cases[i].log);
	}
}

static void every_file_is_flushed_between_ranks(void **state)
{
	uint8_t byte = 1;

	(void)state;
	host_payload(100);
	assert_int_equal(vd_meta_write(world.meta, 1, 0, &byte, 1, VD_RANK_OWNER, NULL), 0);
	meta_put(1, 1, VD_RANK_LEAF);
	meta_commit_ok();
	assert_string_equal(host_log(), "W:0 F F W1 F");
}

static void page_keeps_its_highest_rank_until_it_is_written(void **state)
{
	(void)state;
	meta_put(1, 1, VD_RANK_LEAF);
	meta_put(1, 2, VD_RANK_OWNER);
	meta_put(2, 2, VD_RANK_OWNER);
	assert_int_equal(vd_meta_zero(world.meta, 0, PAGE, PAGE, VD_RANK_OWNER, NULL), 0);
	meta_commit_ok();
	assert_string_equal(host_log(), "W2 F W1 F");
	meta_put(1, 3, VD_RANK_OWNER);
	meta_put(2, 3, VD_RANK_OWNER);
	meta_commit_ok();
	assert_string_equal(host_log(), "W1+2 F");
}

static void adjacent_pages_go_out_in_one_write(void **state)
{
	uint8_t byte = 7;

	(void)state;
	for (uint64_t page = 0; page < 8; page++)
		meta_put(7 - page, 1, VD_RANK_LEAF);
	meta_put(8, 1, VD_RANK_ROOT);
	meta_put(20, 1, VD_RANK_LEAF);
	assert_int_equal(vd_meta_write(world.meta, 1, 8 * PAGE, &byte, 1, VD_RANK_LEAF, NULL), 0);
	meta_commit_ok();
	assert_string_equal(host_log(), "W0+8 W20 W:8 F F W8 F");
	for (uint64_t page = 0; page < 9; page++)
		assert_int_equal(meta_on_host(page), 1);
}

static void one_write_is_at_most_a_mebibyte(void **state)
{
	(void)state;
	assert_int_equal(vd_meta_zero(world.meta, 0, 0, 3u << 20, VD_RANK_OWNER, NULL), 0);
	meta_commit_ok();
	assert_string_equal(host_log(), "W0+2048 W2048+2048 W4096+2048 F");
	assert_true(vd_is_zero(world.files[0]->bytes, 3u << 20));
}

static void fresh_files_cost_one_flush(void **state)
{
	(void)state;
	host_payload(100);
	meta_put(1, 1, VD_RANK_ROOT);
	meta_put(0, 1, VD_RANK_LEAF);
	meta_put(2, 1, VD_RANK_OWNER);
	meta_put(9, 1, VD_RANK_INDEX);
	meta_commit_ok();
	assert_string_equal(host_log(), "W0+3 W9 F");
	meta_commit_ok();
	assert_string_equal(host_log(), "");
}

static void larger_pages_are_written_whole(void **state)
{
	uint8_t byte = 9;

	(void)state;
	vd_meta_set_page_size(world.meta, 65536);
	assert_int_equal(vd_meta_write(world.meta, 0, 65536 + 5, &byte, 1, VD_RANK_OWNER, NULL), 0);
	meta_commit_ok();
	assert_string_equal(host_log(), "W128+128 F");
	assert_int_equal(world.files[0]->bytes[65536 + 5], 9);
}

/* ---- beside a commit ---------------------------------------------------------------------------------- */

static void write_beside(const struct host_op *op)
{
	if (op->kind != 'W' || op->off != PAGE)
		return;
	world.hook = NULL;
	assert_int_equal(meta_get(1), 1);
	meta_put(1, 2, VD_RANK_OWNER);
	assert_int_equal(meta_get(1), 2);
}

static void write_beside_a_commit_belongs_to_the_next(void **state)
{
	(void)state;
	meta_put(1, 1, VD_RANK_LEAF);
	world.hook = write_beside;
	meta_commit_ok();
	assert_int_equal(meta_on_host(1), 1);
	assert_int_equal(meta_get(1), 2);
	assert_true(vd_meta_is_dirty(world.meta));
	assert_int_equal(world.meta->n_pages, 1);
	meta_commit_ok();
	assert_string_equal(host_log(), "W1 F");
	assert_int_equal(meta_on_host(1), 2);
	assert_false(vd_meta_is_dirty(world.meta));
}

static void snapshot_holds_what_was_at_its_instant(void **state)
{
	struct vd_meta_batch *b;

	(void)state;
	meta_put(1, 1, VD_RANK_LEAF);
	meta_put(2, 1, VD_RANK_LEAF);
	b = meta_snapshot();
	assert_false(vd_meta_is_dirty(world.meta));
	meta_put(1, 2, VD_RANK_LEAF);
	meta_put(3, 2, VD_RANK_LEAF);
	assert_int_equal(vd_meta_zero(world.meta, 0, 2 * PAGE, PAGE, VD_RANK_LEAF, NULL), 0);
	host_clear_log();
	assert_int_equal(vd_meta_commit(world.meta, b, NULL), 0);
	assert_string_equal(host_log(), "W1+2 F");
	assert_int_equal(meta_on_host(1), 1);
	assert_int_equal(meta_on_host(2), 1);
	assert_int_equal(meta_get(1), 2);
	assert_int_equal(meta_get(2), 0);
	meta_commit_ok();
	assert_string_equal(host_log(), "W1+3 F");
	assert_int_equal(meta_on_host(1), 2);
}

static void flood_beside(const struct host_op *op)
{
	if (op->kind == 'R' || op->off != PAGE)
		return;
	world.hook = NULL;
	for (uint64_t page = 100; page < 300; page++)
		(void)meta_get(page);
	host_clear_log();
	assert_int_equal(meta_get(1), 1);
	assert_string_equal(host_log(), "");
}

static void page_in_flight_is_not_evicted(void **state)
{
	(void)state;
	meta_put(1, 1, VD_RANK_LEAF);
	world.hook = flood_beside;
	assert_int_equal(meta_commit(NULL), 0);
	assert_null(world.hook);
	for (uint64_t page = 100; page < 300; page++)
		(void)meta_get(page);
	assert_false(meta_is_resident(1));
}

static void forget_beside(const struct host_op *op)
{
	if (op->kind != 'W')
		return;
	world.hook = NULL;
	vd_meta_forget(world.meta, 0, PAGE, PAGE);
	assert_int_equal(vd_meta_zero(world.meta, 0, PAGE, PAGE, VD_RANK_OWNER, NULL), 0);
}

static void forget_beside_a_commit_leaves_the_new_page(void **state)
{
	(void)state;
	meta_put(1, 1, VD_RANK_LEAF);
	world.hook = forget_beside;
	meta_commit_ok();
	assert_int_equal(meta_on_host(1), 1);
	assert_int_equal(meta_get(1), 0);
	assert_int_equal(world.meta->n_pages, 1);
	meta_commit_ok();
	assert_int_equal(meta_on_host(1), 0);
}

/* ---- failures ----------------------------------------------------------------------------------------- */

static void dirty_some(void)
{
	for (int rank = 0; rank < VD_META_RANKS; rank++)
		for (uint64_t page = 0; page < 3; page++)
			meta_put(rank * 10 + page * 2, 0xc0 + rank, rank);
	host_payload(100);
}

static void check_poisoned(void)
{
	struct vd_meta_batch *b;
	struct vd_error e;
	uint8_t byte = 0;

	assert_int_equal(vd_meta_write(world.meta, 0, 0, &byte, 1, VD_RANK_OWNER, &e), VD_EPOISONED);
	assert_non_null(strstr(e.message, "image"));
	assert_true(e.hint[0] != '\0');
	assert_int_equal(vd_meta_zero(world.meta, 0, 0, PAGE, VD_RANK_OWNER, &e), VD_EPOISONED);
	assert_int_equal(vd_meta_snapshot(world.meta, &b, &e), VD_EPOISONED);
	for (int rank = 0; rank < VD_META_RANKS; rank++)
		for (uint64_t page = 0; page < 3; page++)
			assert_int_equal(meta_get(rank * 10 + page * 2), 0xc0 + rank);
	assert_true(vd_meta_is_dirty(world.meta));
}

/* Every write and every flush of a commit fails once. */
static void failed_commit_poisons_and_stays_readable(void **state)
{
	struct vd_error e;
	int n;

	for (n = 0;; n++) {
		start_small(state);
		dirty_some();
		world.fail_after = n;
		if (meta_commit(&e) == 0)
			break;
		assert_int_equal(e.code, VD_EIO);
		assert_non_null(strstr(e.message, "scripted failure"));
		host_clear_log();
		for (uint64_t page = 200; page < 300; page++)
			(void)meta_get(page);
		check_poisoned();
		assert_int_equal(host_count('W') + host_count('F'), 0);
		meta_stop(state);
	}
	assert_int_equal(n, 12 + 4);
}

static void superseded_page_survives_a_failed_commit(void **state)
{
	(void)state;
	meta_put(1, 1, VD_RANK_LEAF);
	world.hook = write_beside;
	world.fail_after = 0;
	assert_int_equal(meta_commit(NULL), VD_EIO);
	assert_int_equal(meta_get(1), 2);
	assert_int_equal(world.meta->n_pages, 1);
}

static void batch_taken_before_the_poison_is_not_written(void **state)
{
	struct vd_meta_batch *first, *second;

	(void)state;
	meta_put(1, 1, VD_RANK_LEAF);
	first = meta_snapshot();
	meta_put(2, 2, VD_RANK_LEAF);
	second = meta_snapshot();
	world.fail_after = 0;
	assert_int_equal(vd_meta_commit(world.meta, first, NULL), VD_EIO);
	host_clear_log();
	assert_int_equal(vd_meta_commit(world.meta, second, NULL), VD_EPOISONED);
	assert_string_equal(host_log(), "");
	assert_int_equal(meta_get(2), 2);
}

static struct { pthread_t thread; int result; struct vd_meta_batch *batch; } taker;

static void *take_snapshot(void *unused)
{
	taker.result = vd_meta_snapshot(world.meta, &taker.batch, NULL);
	return unused;
}

/* The failed commit's pages turn dirty after the snapshot has counted: it has no room for them, and they stay. */
static void snapshot_beside_a_failing_commit_keeps_its_bounds(void **state)
{
	struct vd_meta_shard *first_shard = &world.meta->shards[0];
	struct vd_meta_batch *failing = NULL;
	uint64_t page = 0;

	(void)state;
	for (int n = 0; n < 41; page++) {
		if (vd_meta_shard_of(world.meta, (struct vd_page_key){ .off = page * PAGE }) == first_shard)
			continue;
		if (n++ == 40)
			failing = meta_snapshot();
		meta_put(page, 0x61, VD_RANK_LEAF);
	}
	pthread_rwlock_wrlock(&first_shard->lock);
	assert_int_equal(pthread_create(&taker.thread, NULL, take_snapshot, NULL), 0);
	usleep(20000);
	world.fail_after = 0;
	assert_int_equal(vd_meta_commit(world.meta, failing, NULL), VD_EIO);
	pthread_rwlock_unlock(&first_shard->lock);
	pthread_join(taker.thread, NULL);
	/* On a busy machine it may come too late, and is refused. */
	if (taker.result == 0)
		taker.result = vd_meta_commit(world.meta, taker.batch, NULL);
	assert_int_equal(taker.result, VD_EPOISONED);
	assert_int_equal(world.meta->n_dirty, 41);
}

static void failed_flush_of_payload_poisons(void **state)
{
	uint8_t byte = 1;

	(void)state;
	host_payload(100);
	world.fail_after = 0;
	assert_int_equal(meta_commit(NULL), VD_EIO);
	assert_int_equal(vd_meta_write(world.meta, 0, 0, &byte, 1, VD_RANK_LEAF, NULL), VD_EPOISONED);
}

static void snapshot_without_memory_changes_nothing(void **state)
{
	struct vd_meta_batch *b;
	struct vd_error e;
	int n;

	(void)state;
	meta_put(1, 1, VD_RANK_LEAF);
	meta_put(2, 1, VD_RANK_LEAF);
	for (n = 0;; n++) {
		vd_alloc_fail_after(n);
		if (vd_meta_snapshot(world.meta, &b, &e) == 0)
			break;
		assert_int_equal(e.code, VD_ENOMEM);
		assert_int_equal(world.meta->n_dirty, 2);
	}
	vd_alloc_fail_after(0);         /* the commit itself needs no memory */
	assert_int_equal(vd_meta_commit(world.meta, b, &e), 0);
	assert_int_equal(n, 2);
	assert_int_equal(meta_on_host(2), 1);
}

#define ORDERED(test) cmocka_unit_test_setup_teardown(test, start_ordered, meta_stop)
#define FRESH(test) cmocka_unit_test_setup_teardown(test, start_fresh, meta_stop)
#define SMALL(test) cmocka_unit_test_setup_teardown(test, start_small, meta_stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ORDERED(ranks_reach_the_host_in_order),
		ORDERED(every_file_is_flushed_between_ranks),
		ORDERED(page_keeps_its_highest_rank_until_it_is_written),
		ORDERED(adjacent_pages_go_out_in_one_write),
		ORDERED(one_write_is_at_most_a_mebibyte),
		FRESH(fresh_files_cost_one_flush),
		ORDERED(larger_pages_are_written_whole),
		ORDERED(write_beside_a_commit_belongs_to_the_next),
		ORDERED(snapshot_holds_what_was_at_its_instant),
		SMALL(page_in_flight_is_not_evicted),
		ORDERED(forget_beside_a_commit_leaves_the_new_page),
		cmocka_unit_test_teardown(failed_commit_poisons_and_stays_readable, meta_stop),
		ORDERED(superseded_page_survives_a_failed_commit),
		ORDERED(batch_taken_before_the_poison_is_not_written),
		ORDERED(snapshot_beside_a_failing_commit_keeps_its_bounds),
		ORDERED(failed_flush_of_payload_poisons),
		ORDERED(snapshot_without_memory_changes_nothing),
	};

	return cmocka_run_group_tests_name("meta_commit", tests, NULL, NULL);
}
