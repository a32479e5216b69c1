/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The sparse set of what was written: against a byte a piece, at sizes that no array holds, and by many threads. */
#include "libvdisk/core/dirty.h"

#include <malloc.h>
#include <pthread.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "tests/support/model.h"

#define TIB (UINT64_C(1) << 40)

static struct vd_dirty *new_set(uint64_t size, unsigned bits)
{
	struct vd_dirty *d;
	struct vd_error e;

	expect_ok(vd_dirty_new(size, bits, &d, &e), &e);
	return d;
}

/* [off, end) is one run, and there is none in front of it. */
static void expect_run(const struct vd_dirty *d, uint64_t from, uint64_t off, uint64_t end)
{
	uint64_t a, b;

	assert_true(vd_dirty_next(d, from, UINT64_MAX, &a, &b));
	assert_int_equal(a, off);
	assert_int_equal(b, end);
}

static void an_empty_set_has_no_run(void **state)
{
	struct vd_dirty *d = new_set(1 << 20, 9), *none = new_set(0, 9);
	uint64_t a, b;

	(void)state;
	assert_false(vd_dirty_next(d, 0, UINT64_MAX, &a, &b));
	vd_dirty_mark(d, 1 << 20, 1);
	vd_dirty_mark(d, 5, 0);
	vd_dirty_mark(none, 0, 1);
	assert_false(vd_dirty_next(d, 0, UINT64_MAX, &a, &b));
	assert_false(vd_dirty_next(none, 0, UINT64_MAX, &a, &b));
	vd_dirty_free(d);
	vd_dirty_free(none);
}

static void runs_are_whole_pieces_cut_to_what_is_asked(void **state)
{
	struct vd_dirty *d = new_set(100000, 12);
	uint64_t a, b;

	(void)state;
	vd_dirty_mark(d, 4095, 2);
	expect_run(d, 0, 0, 8192);
	expect_run(d, 5000, 5000, 8192);
	assert_true(vd_dirty_next(d, 0, 6000, &a, &b));
	assert_int_equal(b, 6000);
	assert_false(vd_dirty_next(d, 8192, UINT64_MAX, &a, &b));
	vd_dirty_mark(d, 99999, UINT64_MAX);
	expect_run(d, 8192, 98304, 100000);
	vd_dirty_free(d);
}

static void a_set_is_a_byte_a_piece(void **state)
{
	enum { PIECES = 200000 };
	uint8_t *model = calloc(1, PIECES + 1);
	struct vd_dirty *d = new_set((uint64_t)PIECES << 9, 9);
	uint64_t chance = 1, at = 0, a, b;

	(void)state;
	for (int i = 0; i < 300; i++) {
		uint64_t first = chance_below(&chance, PIECES), n = chance_below(&chance, chance_below(&chance, 9) ? 90 : 70000);

		n = vd_min_u64(n, PIECES - first);
		vd_dirty_mark(d, first << 9, n << 9);
		memset(model + first, 1, n);
	}
	while (vd_dirty_next(d, at, UINT64_MAX, &a, &b)) {
		for (uint64_t i = at >> 9; i < b >> 9; i++)
			assert_int_equal(model[i], i >= a >> 9);
		at = b;
	}
	for (uint64_t i = at >> 9; i < PIECES; i++)
		assert_int_equal(model[i], 0);
	vd_dirty_free(d);
	free(model);
}

/* Into pieces of every size: as much as was marked and no more than the pieces make of it. */
static void bits_of_any_granularity_are_made_of_it(void **state)
{
	uint64_t size = UINT64_C(3) << 30, off = 12345678, len = 100000;
	struct vd_dirty *d = new_set(size, 16);

	(void)state;
	vd_dirty_mark(d, off, len);
	off = vd_round_down(off, 65536);
	len = 131072;
	for (unsigned bits = 9; bits <= 31; bits++) {
		uint64_t first = (off >> bits) / 8 * 8;
		uint8_t raw[64] = { 0 };

		vd_dirty_add_to(d, bits, first, sizeof(raw) * 8, raw);
		for (uint64_t i = 0; i < sizeof(raw) * 8; i++) {
			uint64_t at = (first + i) << bits;
			bool want = at < off + len && at + (UINT64_C(1) << bits) > off;

			assert_int_equal(raw[i / 8] >> i % 8 & 1, want);
		}
	}
	vd_dirty_free(d);
}

static size_t in_use(void)
{
	struct mallinfo2 m = mallinfo2();

	return m.uordblks + m.hblkhd;
}

static void memory_follows_what_is_touched(void **state)
{
	size_t before = in_use();
	struct vd_dirty *d = new_set(64 * TIB, 16);
	uint64_t chance = 1;

	(void)state;
	assert_true(in_use() - before < 1 << 20);
	for (int i = 0; i < 1000; i++)
		vd_dirty_mark(d, chance_below(&chance, 64 * TIB), 4096);
	assert_true(in_use() - before < 6 << 20);
	/* All of it: not a byte more where nothing was yet. */
	vd_dirty_mark(d, 0, 64 * TIB);
	assert_true(in_use() - before < 6 << 20);
	expect_run(d, 0, 0, 64 * TIB);
	vd_dirty_free(d);
	d = new_set(UINT64_C(1) << 62, 31);
	vd_dirty_mark(d, (UINT64_C(1) << 62) - 1, 1);
	expect_run(d, 0, (UINT64_C(1) << 62) - (UINT64_C(1) << 31), UINT64_C(1) << 62);
	vd_dirty_free(d);
}

/* Too much is safe, too little is not. */
static void want_of_memory_makes_more_dirty_not_less(void **state)
{
	struct vd_dirty *d = new_set(TIB, 16);

	(void)state;
	vd_alloc_fail_after(0);
	vd_dirty_mark(d, TIB / 2, 1);
	assert_true(vd_alloc_fail_after(-1) < 0);
	expect_run(d, 0, TIB / 2, TIB / 2 + (UINT64_C(1) << 31));
	vd_dirty_free(d);
}

static void *mark_own_pieces(void *arg)
{
	struct vd_dirty *d = arg;
	static atomic_uint turn;
	unsigned mine = atomic_fetch_add(&turn, 1);

	for (uint64_t i = mine; i < 100000; i += 4)
		vd_dirty_mark(d, i << 9, 1);
	return NULL;
}

static void threads_lose_no_mark(void **state)
{
	struct vd_dirty *d = new_set(UINT64_C(100000) << 9, 9);
	pthread_t threads[4];

	(void)state;
	for (int i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, mark_own_pieces, d);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	expect_run(d, 0, 0, UINT64_C(100000) << 9);
	vd_dirty_free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_empty_set_has_no_run),
		cmocka_unit_test(runs_are_whole_pieces_cut_to_what_is_asked),
		cmocka_unit_test(a_set_is_a_byte_a_piece),
		cmocka_unit_test(bits_of_any_granularity_are_made_of_it),
		cmocka_unit_test(memory_follows_what_is_touched),
		cmocka_unit_test(want_of_memory_makes_more_dirty_not_less),
		cmocka_unit_test(threads_lose_no_mark),
	};

	return cmocka_run_group_tests_name("dirty", tests, NULL, NULL);
}
