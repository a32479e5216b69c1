/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who owns clusters: counts of every width, space given out and back, blocks and tables that grow, in any crash. */
#include "tests/support/model.h"
#include "tests/support/qcow2_bytes.h"
#include "tests/support/qcow2_check.h"

#include <pthread.h>
#include <sched.h>

#include "formats/qcow2/qcow2.h"

#define qcow2 (&vd_format_qcow2)
#define MIB (UINT64_C(1) << 20)

static struct vd_image *create(uint64_t size, uint32_t cluster, uint32_t bits)
{
	struct vd_create_opts o = disk_create_opts(qcow2, size);

	o.cluster_size = cluster;
	o.refcount_bits = bits;
	return disk_create(qcow2, "x", &o);
}

/* Created, committed, and open for writing with begin_write behind it. */
static struct vd_image *open_new(uint64_t size, uint32_t cluster, uint32_t bits)
{
	struct vd_image *img = create(size, cluster, bits);

	disk_commit(img);
	disk_close(img);
	img = disk_open(qcow2, "x", VD_OPEN_WRITE);
	disk_write(img, 0, 1, 1);
	return img;
}

static uint64_t alloc(struct vd_image *img, uint64_t n_want, uint64_t *n)
{
	struct vd_error e;
	uint64_t off;
	bool is_fresh;

	expect_ok(vd_qcow2_alloc(img->state, n_want, &off, n, &is_fresh, &e), &e);
	return off;
}

static uint64_t alloc_one(struct vd_image *img)
{
	uint64_t n;

	return alloc(img, 1, &n);
}

static uint64_t alloc_packed(struct vd_image *img, uint64_t len)
{
	struct vd_error e;
	uint64_t off;

	expect_ok(vd_qcow2_alloc_packed(img->state, len, &off, &e), &e);
	return off;
}

static void drop(struct vd_image *img, uint64_t off, uint64_t len)
{
	struct vd_error e;

	expect_ok(vd_qcow2_drop(img->state, off, len, &e), &e);
}

/* ---- counts ------------------------------------------------------------------------------------------- */

static void counts_lie_as_the_specification_says(void **state)
{
	static const struct { uint32_t order; uint64_t index, count; uint8_t bytes[8]; } cases[] = {
		{ 0, 0, 1, { 0x01 } }, { 0, 7, 1, { 0x80 } }, { 0, 9, 1, { 0, 0x02 } },
		{ 1, 1, 3, { 0x0c } }, { 1, 7, 2, { 0, 0x80 } }, { 2, 0, 5, { 0x05 } }, { 2, 3, 15, { 0, 0xf0 } },
		{ 3, 2, 0xab, { 0, 0, 0xab } }, { 4, 1, 0x0102, { 0, 0, 1, 2 } }, { 5, 1, 0x01020304, { 0, 0, 0, 0, 1, 2, 3, 4 } },
		{ 6, 0, 0x0102030405060708, { 1, 2, 3, 4, 5, 6, 7, 8 } },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint8_t block[8] = { 0 };

		vd_qcow2_count_put(block, cases[i].index, cases[i].order, cases[i].count);
		assert_memory_equal(block, cases[i].bytes, 8);
		assert_true(vd_qcow2_count_get(block, cases[i].index, cases[i].order) == cases[i].count);
	}
}

static void counts_leave_their_neighbours_alone(void **state)
{
	(void)state;
	for (uint32_t order = 0; order <= 6; order++) {
		uint64_t max = vd_qcow2_count_max(order), n = 64 * 8 >> order;
		uint8_t block[64];

		for (uint64_t i = 0; i < n; i++) {
			memset(block, 0xff, sizeof(block));
			vd_qcow2_count_put(block, i, order, 0);
			for (uint64_t k = 0; k < n; k++)
				assert_true(vd_qcow2_count_get(block, k, order) == (k == i ? 0 : max));
			vd_qcow2_count_put(block, i, order, max);
			for (size_t k = 0; k < sizeof(block); k++)
				assert_int_equal(block[k], 0xff);
		}
	}
	assert_true(vd_qcow2_count_max(0) == 1 && vd_qcow2_count_max(4) == 65535 && vd_qcow2_count_max(6) == UINT64_MAX);
}

/* ---- giving out and taking back ----------------------------------------------------------------------- */

static void clusters_come_side_by_side_and_once(void **state)
{
	struct vd_image *img = open_new(16 * MIB, 4096, 16);
	uint64_t n, end = 0;

	(void)state;
	for (int i = 0; i < 50; i++) {
		uint64_t off = alloc(img, 10, &n);

		assert_true(n == 10 && (!end || off == end));
		end = off + 10 * 4096;
		assert_true(bytes_size("x") >= end);
	}
	disk_close(img);
	expect_leaks("x", 500);
}

static void what_is_given_back_is_used_first_and_in_pieces(void **state)
{
	struct vd_image *img = open_new(16 * MIB, 4096, 16);
	uint64_t n, first = alloc(img, 20, &n);

	(void)state;
	drop(img, first + 3 * 4096, 2 * 4096);
	drop(img, first + 10 * 4096, 4096);
	assert_true(alloc(img, 5, &n) == first + 3 * 4096 && n == 2);
	assert_true(alloc(img, 5, &n) == first + 10 * 4096 && n == 1);
	assert_true(alloc(img, 5, &n) == first + 20 * 4096 && n == 5);
	disk_close(img);
	expect_leaks("x", 25);
}

static void only_space_past_the_former_end_is_fresh(void **state)
{
	struct vd_image *img = open_new(16 * MIB, 4096, 16);
	struct vd_error e;
	uint64_t n, off;
	bool is_fresh;

	(void)state;
	expect_ok(vd_qcow2_alloc(img->state, 2, &off, &n, &is_fresh, &e), &e);
	assert_true(is_fresh);
	drop(img, off, 2 * 4096);
	expect_ok(vd_qcow2_alloc(img->state, 2, &off, &n, &is_fresh, &e), &e);
	assert_false(is_fresh);
	drop(img, off, 2 * 4096);
	expect_ok(vd_qcow2_alloc(img->state, 4, &off, &n, &is_fresh, &e), &e);
	assert_true(n == 4 && !is_fresh);
	drop(img, off, 4 * 4096);
	disk_close(img);
	expect_sound("x");
}

static void a_count_never_passes_its_ends(void **state)
{
	struct vd_image *img = open_new(MIB, 4096, 16);
	uint64_t off = alloc_one(img);
	struct vd_error e;

	(void)state;
	drop(img, off, 1);
	expect_failure(vd_qcow2_drop(img->state, off, 4096, &e), VD_ECORRUPT, &e, "is 0 and should go down");
	expect_failure(vd_qcow2_drop(img->state, UINT64_C(1) << 50, 4096, &e), VD_ECORRUPT, &e, "nothing counts the cluster");
	disk_close(img);
	expect_sound("x");
}

/* What was a table may be payload next, which does not pass the cache of tables. */
static void the_cache_forgets_what_was_given_back(void **state)
{
	struct vd_image *img = open_new(MIB, 4096, 16);
	uint64_t off = alloc_one(img);
	struct vd_error e;
	uint8_t got[4];

	(void)state;
	expect_ok(vd_meta_read(img->meta, 0, off, got, 4, 0, &e), &e);
	drop(img, off, 4096);
	expect_ok(vd_set_pwrite(img->set, 0, "load", 4, off, &e), &e);
	expect_ok(vd_meta_read(img->meta, 0, off, got, 4, 0, &e), &e);
	assert_memory_equal(got, "load", 4);
	disk_close(img);
	expect_sound("x");
}

static void a_device_ends_where_it_ends(void **state)
{
	struct vd_image *img = open_new(16 * MIB, 4096, 16);
	struct vd_qcow2 *s = img->state;
	uint64_t n, off = alloc_one(img);
	struct vd_error e;
	bool is_fresh;

	(void)state;
	s->host_limit = off + 4 * 4096 + 100;
	assert_true(alloc(img, 10, &n) == off + 4096 && n == 3);
	expect_failure(vd_qcow2_alloc(s, 1, &off, &n, &is_fresh, &e), VD_ENOSPC, &e, "x: the device is full");
	disk_close(img);
	expect_leaks("x", 4);
}

static void space_is_not_reused_before_the_table_that_left_it_is_durable(void **state)
{
	struct vd_image *img = open_new(MIB, 4096, 16);
	uint64_t old, host;

	(void)state;
	disk_write(img, 0, 4096, 1);
	disk_flush(img);
	old = bytes_get("x", bytes_l2_entry("x", 0), 8) & QCOW2_OFFSET_MASK;
	disk_zero(img, 0, 4096);
	host = alloc_one(img);
	assert_true(host != old);
	drop(img, host, 4096);
	disk_flush(img);
	assert_true(alloc_one(img) == old);
	drop(img, old, 4096);
	disk_close(img);
	expect_sound("x");
}

/* ---- compressed clusters ------------------------------------------------------------------------------ */

static void compressed_clusters_share_clusters_and_count_each(void **state)
{
	struct vd_image *img = open_new(MIB, 4096, 16);
	uint64_t a = alloc_packed(img, 1000), b = alloc_packed(img, 3000), c = alloc_packed(img, 500), d;

	(void)state;
	/* b fits what a has left, c goes on into the next cluster. */
	assert_true(b == a + 1000 && c == a + 4000);
	d = alloc_packed(img, 4096);
	assert_true(d == a + 4500);
	disk_flush(img);
	assert_int_equal(bytes_refcount("x", a), 3);
	assert_int_equal(bytes_refcount("x", a + 4096), 2);
	assert_int_equal(bytes_refcount("x", a + 2 * 4096), 1);
	drop(img, c, 500);
	drop(img, a, 1000);
	drop(img, b, 3000);
	disk_flush(img);
	assert_int_equal(bytes_refcount("x", a), 0);
	assert_int_equal(bytes_refcount("x", a + 4096), 1);
	drop(img, d, 4096);
	disk_close(img);
	expect_sound("x");
}

static void a_freed_cluster_takes_no_more_compressed_ones(void **state)
{
	struct vd_image *img = open_new(MIB, 4096, 16);
	uint64_t a = alloc_packed(img, 1000), n;

	(void)state;
	drop(img, a, 1000);
	assert_true(alloc(img, 1, &n) == a);
	assert_true(alloc_packed(img, 1000) == a + 4096);
	drop(img, a, 2 * 4096);
	disk_close(img);
	expect_sound("x");
}

static void counts_of_one_bit_share_nothing(void **state)
{
	struct vd_image *img = open_new(MIB, 4096, 1);
	uint64_t a = alloc_packed(img, 1000), b = alloc_packed(img, 1000), c = alloc_packed(img, 3500);

	(void)state;
	assert_true(b == a + 4096 && c == a + 2 * 4096);
	drop(img, a, 3 * 4096);
	disk_close(img);
	expect_sound("x");
}

static void a_full_count_takes_no_more_owners(void **state)
{
	struct vd_image *img = open_new(MIB, 4096, 2);
	uint64_t a = alloc_packed(img, 100);

	(void)state;
	assert_true(alloc_packed(img, 100) == a + 100 && alloc_packed(img, 100) == a + 200);
	assert_true(alloc_packed(img, 100) == a + 4096);
	for (int i = 0; i < 3; i++)
		drop(img, a + i * 100, 100);
	drop(img, a + 4096, 100);
	disk_close(img);
	expect_sound("x");
}

/* ---- growing ------------------------------------------------------------------------------------------ */

/* A table as small as can be, so that it has to move soon: what create() gave it beyond is free space now. */
static void shrink_table(const char *name)
{
	uint64_t table = bytes_get(name, 48, 8), clusters = bytes_get(name, 56, 4), block = bytes_get(name, table, 8);
	uint64_t cluster = UINT64_C(1) << bytes_get(name, 20, 4);

	assert_int_equal(bytes_get(name, 96, 4), 6);
	for (uint64_t i = 1; i < clusters; i++)
		bytes_put(name, block + (table / cluster + i) * 8, 8, 0);
	bytes_put(name, 56, 4, 1);
	expect_sound(name);
}

static void every_width_grows_blocks_and_table(void **state)
{
	struct vd_image *img;
	struct vd_qcow2 *s;
	uint64_t n, first = 0, moves, was, end = 0;

	(void)state;
	for (uint32_t bits = 1; bits <= 64; bits *= 2) {
		disks.mem->unlink(disks.mem, "x", NULL);
		img = open_new(MIB, 512, bits);
		s = img->state;
		was = s->reft_off;
		first = UINT64_MAX;
		/* Past what one table of one cluster reaches: 64 blocks. */
		for (moves = 0; moves < 2; end += n * 512) {
			end = alloc(img, 1000, &n);
			first = first == UINT64_MAX ? end : first;
			moves += s->reft_off != was;
			was = s->reft_off;
		}
		disk_flush(img);
		assert_int_equal(qcow2_check(disks.mem, "x").n_errors, 0);
		assert_true(bytes_get("x", 56, 4) >= 2 && bytes_get("x", 48, 8) == s->reft_off);
		disk_close(img);
		assert_int_equal(qcow2_check(disks.mem, "x").n_errors, 0);
	}
}

/* Without a flush for a while the new table gets entries before and after its own place is durable. */
static void fill(struct vd_image *img, uint64_t from, uint64_t to, uint64_t flush_every, uint64_t seed)
{
	for (uint64_t at = from, i = 0; at < to; at += 16384, i++) {
		disk_write(img, at, 16384, 1 + (seed + i) % 255);
		if (i % flush_every == flush_every - 1)
			disk_flush(img);
	}
}

#define N_RANDOM 2                      /* random states at each cut */

static void expect_sound_crash(size_t index)
{
	struct vd_crash c = { 0 };
	struct qcow2_verdict v;
	struct vd_error e;

	expect_ok(vd_crash_state(disks.record, N_RANDOM, index, index, &c, &e), &e);
	v = qcow2_check(c.host, "x");
	if (v.n_errors)
		fail_msg("state %zu, cut %zu, variant %u: %s", index, c.cut, c.variant, v.first);
	vd_mem_host_free(c.host);
}

/* Some of all states, and all around each write of the header, which is where the table moves. */
static void expect_every_crash_sound(void)
{
	size_t n = vd_crash_count(disks.record, N_RANDOM), per_cut = 2 + N_RANDOM;
	const struct vd_event *ev;

	for (size_t i = 0; i < 100; i++)
		expect_sound_crash(i * n / 100);
	for (size_t i = 0; (ev = vd_record_event(disks.record, i)); i++)
		if (ev->kind == VD_OP_WRITE && ev->off == 0)
			for (size_t k = i * per_cut; k < (i + 4) * per_cut && k < n; k++)
				expect_sound_crash(k);
}

static void a_table_that_moves_survives_every_crash(void **state)
{
	static const uint64_t flush_every[] = { 1, 7, 50, 1000 };
	struct vd_error e;

	(void)state;
	for (size_t k = 0; k < sizeof(flush_every) / sizeof(flush_every[0]); k++) {
		struct vd_image *img = create(8 * MIB, 512, 64);
		uint64_t from;

		disk_commit(img);
		disk_close(img);
		shrink_table("x");
		vd_record_free(disks.record);
		expect_ok(vd_record_new(disks.mem, &disks.record, &e), &e);
		disks.host = vd_record_host(disks.record);
		img = disk_open(qcow2, "x", VD_OPEN_WRITE);
		from = ((struct vd_qcow2 *)img->state)->reft_off;
		fill(img, 0, 6 * MIB, flush_every[k], k);
		assert_true(((struct vd_qcow2 *)img->state)->reft_off != from);
		disk_close(img);
		expect_sound("x");
		expect_every_crash_sound();
		disks.mem->unlink(disks.mem, "x", NULL);
	}
}

static struct reader {
	struct vd_image *img;
	atomic_bool stop;
	atomic_size_t n_maps;           /* of the whole disk */
	int failed;                     /* cmocka's assertions belong to the main thread */
	struct vd_error e;
} reader;

static void *map_all_the_time(void *arg)
{
	(void)arg;
	for (; !atomic_load(&reader.stop); atomic_fetch_add(&reader.n_maps, 1)) {
		for (uint64_t at = 0; at < 8 * MIB && !reader.failed;) {
			struct vd_run runs[64];
			size_t n = 64;

			reader.failed = qcow2->map(reader.img->state, at, 8 * MIB - at, 0, runs, &n, &reader.e);
			at = runs[n - 1].guest_off + runs[n - 1].len;
		}
	}
	return NULL;
}

/* No cluster that is in use is ever taken for a part of the refcount table. */
static void maps_run_beside_a_table_that_moves(void **state)
{
	struct vd_image *img = create(8 * MIB, 512, 64);
	pthread_t thread;
	uint64_t from;

	(void)state;
	disk_commit(img);
	disk_close(img);
	shrink_table("x");
	img = disk_open(qcow2, "x", VD_OPEN_WRITE);
	from = ((struct vd_qcow2 *)img->state)->reft_off;
	reader = (struct reader){ .img = img };
	assert_int_equal(pthread_create(&thread, NULL, map_all_the_time, NULL), 0);
	for (uint64_t off = 0; off < 6 * MIB; off += MIB / 4) {
		size_t before = atomic_load(&reader.n_maps);

		fill(img, off, off + MIB / 4, 5, off);
		/* So that neither gets far ahead of the other. */
		while (atomic_load(&reader.n_maps) == before)
			sched_yield();
	}
	atomic_store(&reader.stop, true);
	assert_int_equal(pthread_join(thread, NULL), 0);
	expect_ok(reader.failed, &reader.e);
	assert_true(((struct vd_qcow2 *)img->state)->reft_off != from);
	disk_close(img);
	expect_sound("x");
}

static void the_table_cannot_grow_for_ever(void **state)
{
	struct vd_image *img = open_new(MIB, 512, 64);
	struct vd_qcow2 *s = img->state;
	struct vd_error e;
	uint64_t off, n;
	bool is_fresh;

	(void)state;
	/* As if a table of the greatest size were full. */
	s->reft_off = 1024;
	s->reft_end = s->reft_off + QCOW2_REFT_BYTES_MAX;
	s->next_free = (uint64_t)QCOW2_REFT_BYTES_MAX / 8 * s->block_entries;
	s->host_end = s->next_free * 512;
	expect_failure(vd_qcow2_alloc(s, 1, &off, &n, &is_fresh, &e), VD_ENOSPC, &e, "cannot grow any more");
	assert_non_null(strstr(e.hint, "larger clusters"));
	vd_image_abort(img);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counts_lie_as_the_specification_says),
		cmocka_unit_test(counts_leave_their_neighbours_alone),
		cmocka_unit_test_setup_teardown(clusters_come_side_by_side_and_once, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(what_is_given_back_is_used_first_and_in_pieces, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(only_space_past_the_former_end_is_fresh, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(a_count_never_passes_its_ends, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(the_cache_forgets_what_was_given_back, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(a_device_ends_where_it_ends, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(space_is_not_reused_before_the_table_that_left_it_is_durable, disks_start,
						disks_stop),
		cmocka_unit_test_setup_teardown(compressed_clusters_share_clusters_and_count_each, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(a_freed_cluster_takes_no_more_compressed_ones, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(counts_of_one_bit_share_nothing, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(a_full_count_takes_no_more_owners, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(every_width_grows_blocks_and_table, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(a_table_that_moves_survives_every_crash, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(maps_run_beside_a_table_that_moves, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(the_table_cannot_grow_for_ever, disks_start, disks_stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
