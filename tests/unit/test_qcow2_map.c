/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where qcow2 says that guest bytes are: runs as long as can be, for every kind of entry, at little cost. */
#include "tests/support/model.h"
#include "tests/support/qcow2_bytes.h"

#include "libvdisk/base/checked.h"

#define qcow2 (&vd_format_qcow2)
#define KIB UINT64_C(1024)
#define MIB (KIB * 1024)
#define TIB (MIB * MIB)
#define CLUSTER (64 * KIB)

#define COPIED (UINT64_C(1) << 63)
#define COMPRESSED (UINT64_C(1) << 62)

static struct vd_image *create(uint64_t size, uint32_t cluster, unsigned flags)
{
	struct vd_create_opts o = disk_create_opts(qcow2, size);

	o.cluster_size = cluster;
	o.flags = flags;
	return disk_create(qcow2, "x", &o);
}

static void finish(struct vd_image *img)
{
	disk_commit(img);
	disk_close(img);
}

static size_t map(struct vd_image *img, uint64_t off, uint64_t len, struct vd_run *runs, size_t n)
{
	struct vd_error e;
	uint64_t at = off;

	expect_ok(qcow2->map(img->state, off, len, 0, runs, &n, &e), &e);
	assert_int_not_equal(n, 0);
	for (size_t i = 0; i < n; i++) {
		assert_true(runs[i].guest_off == at && runs[i].len);
		at += runs[i].len;
	}
	assert_true(at <= off + len);
	return n;
}

/* The range is one run. */
static struct vd_run map_one(struct vd_image *img, uint64_t off, uint64_t len)
{
	struct vd_run run;

	assert_int_equal(map(img, off, len, &run, 1), 1);
	assert_true(run.len == len);
	return run;
}

/* ---- how long ----------------------------------------------------------------------------------------- */

static void neighbours_are_one_run_across_batches(void **state)
{
	struct vd_image *img = create(200 * MIB, 0, 0);
	struct vd_run run;

	(void)state;
	disk_write(img, 0, 128 * MIB, 1);
	run = map_one(img, 0, 128 * MIB);
	assert_true(run.where == VD_DATA && run.host_len == 128 * MIB && !run.flags && run.file == 0);
	run = map_one(img, 5 * MIB + 7, 100 * MIB + 1);
	assert_true(run.where == VD_DATA && run.host_off % CLUSTER == 7);
	run = map_one(img, 128 * MIB, 72 * MIB);
	assert_true(run.where == VD_HOLE);
	finish(img);
}

static void a_run_goes_on_in_the_next_table(void **state)
{
	struct vd_image *img = create(4 * MIB, 4096, 0);
	struct vd_run run;
	uint64_t host;

	(void)state;
	/* The second table first, so that its space does not part the data of the two. */
	disk_write(img, 3 * MIB, 1, 1);
	disk_write(img, 1 * MIB, 2 * MIB, 1);
	finish(img);
	img = disk_open(qcow2, "x", 0);
	run = map_one(img, 1 * MIB, 2 * MIB);
	host = run.host_off;
	run = map_one(img, 2 * MIB - 1, 2);
	assert_true(run.host_off == host + 1 * MIB - 1);
	disk_close(img);
}

static void an_empty_disk_of_64_tib_is_one_cheap_hole(void **state)
{
	struct vd_image *img = create(64 * TIB, 0, 0);
	struct vd_run runs[8];
	uint64_t seen;

	(void)state;
	disk_write(img, 40 * TIB, 1, 1);
	finish(img);
	vd_fault_arm(disks.fault, &(struct vd_fault_plan){ .kinds = VD_OP_READ });
	img = disk_open(qcow2, "x", 0);
	assert_true(vd_fault_seen(disks.fault) <= 4);
	assert_int_equal(map(img, 0, 64 * TIB, runs, 8), 3);
	seen = vd_fault_seen(disks.fault);
	vd_fault_arm(disks.fault, NULL);
	assert_true(runs[0].where == VD_HOLE && runs[0].len == 40 * TIB);
	assert_true(runs[1].where == VD_DATA && runs[1].len == CLUSTER);
	assert_true(runs[2].where == VD_HOLE && runs[2].len == 24 * TIB - CLUSTER);
	/* 1 MiB of L1 and one L2 table, in pages of 4 KiB. */
	assert_true(seen <= 256 + 16 + 8);
	disk_close(img);
}

static void what_does_not_fit_the_array_is_left_for_the_next_call(void **state)
{
	struct vd_image *img = create(MIB, 0, 0);
	struct vd_run runs[4];
	uint64_t at = 0;
	size_t n = 0;

	(void)state;
	for (uint64_t i = 0; i < 16; i += 2)
		disk_write(img, i * CLUSTER, CLUSTER, 1);
	for (; at < MIB; at += runs[0].len, n++)
		assert_true(map(img, at, MIB - at, runs, 1) == 1 && runs[0].where == (n % 2 ? VD_HOLE : VD_DATA));
	assert_int_equal(n, 16);
	assert_int_equal(map(img, 0, MIB, runs, 4), 4);
	finish(img);
}

/* All L1 entries name one table, all of whose clusters are zeros: 8 TiB as one run, in calls that do not last. */
static void a_call_looks_at_so_many_entries_and_no_more(void **state)
{
	struct vd_image *img = create(8 * TIB, 0, 0);
	static uint8_t words[16384 * 8];
	uint64_t at = 0, table;
	struct vd_run run;
	size_t n_calls = 0;

	(void)state;
	disk_write(img, 0, 1, 1);
	finish(img);
	table = bytes_get("x", bytes_l1("x"), 8);
	for (uint64_t i = 0; i < 8192; i++)
		vd_put_be64(words + i * 8, 1);
	bytes_write("x", table & ~COPIED, words, CLUSTER);
	for (uint64_t i = 0; i < 16384; i++)
		vd_put_be64(words + i * 8, table);
	bytes_write("x", bytes_l1("x"), words, sizeof(words));
	img = disk_open(qcow2, "x", 0);
	for (; at < 2 * TIB; at += run.len, n_calls++)
		assert_true(map(img, at, 8 * TIB - at, &run, 1) == 1 && run.where == VD_ZERO && run.len < TIB);
	assert_true(n_calls >= 2);
	disk_close(img);
}

/* ---- kinds of entries --------------------------------------------------------------------------------- */

/* Guest clusters 0..3 written; their host clusters side by side. */
static uint64_t make_four(unsigned flags)
{
	struct vd_image *img = create(MIB, 0, flags);
	uint64_t host;

	disk_write(img, 0, 4 * CLUSTER, 1);
	host = map_one(img, 0, 4 * CLUSTER).host_off;
	finish(img);
	return host;
}

static void zero_clusters_of_both_kinds_mask_the_parent(void **state)
{
	uint64_t host = make_four(0);
	struct vd_run runs[4];
	struct vd_image *img;

	(void)state;
	bytes_put("x", bytes_l2_entry("x", CLUSTER), 8, 1);
	bytes_put("x", bytes_l2_entry("x", 2 * CLUSTER), 8, COPIED | (host + 2 * CLUSTER) | 1);
	img = disk_open(qcow2, "x", 0);
	assert_int_equal(map(img, 0, 4 * CLUSTER, runs, 4), 4);
	assert_true(runs[1].where == VD_ZERO && !runs[1].flags && !runs[1].host_len);
	assert_true(runs[2].where == VD_ZERO && runs[2].flags == VD_RUN_HOSTED && runs[2].host_off == host + 2 * CLUSTER);
	assert_true(runs[3].where == VD_DATA && runs[3].host_off == host + 3 * CLUSTER);
	disk_expect(img, CLUSTER, 2 * CLUSTER, 0);
	disk_close(img);
}

static void a_compressed_cluster_is_a_run_of_its_own(void **state)
{
	static const uint8_t stored[] = { 1, 3, 0, 0xfc, 0xff, 'a', 'b', 'c' };
	uint64_t host = make_four(0);
	struct vd_run runs[4];
	struct vd_image *img;

	(void)state;
	/* 4 sectors, then 1, at odd bytes of the same host cluster: what the bound allows ends at a sector. */
	bytes_put("x", bytes_l2_entry("x", 0), 8, COMPRESSED | UINT64_C(3) << 54 | (host + 5));
	bytes_put("x", bytes_l2_entry("x", CLUSTER), 8, COMPRESSED | (host + 2047));
	bytes_write("x", host + 5, stored, sizeof(stored));
	img = disk_open(qcow2, "x", 0);
	assert_int_equal(map(img, 100, 3 * CLUSTER - 100, runs, 4), 3);
	assert_true(runs[0].where == VD_PACKED && runs[0].host_off == host + 5 && runs[0].host_len == 2048 - 5);
	assert_true(runs[0].unit_off == 0 && runs[0].unit_len == CLUSTER && runs[0].codec == VD_CODEC_DEFLATE12);
	assert_true(runs[0].len == CLUSTER - 100);
	assert_true(runs[1].where == VD_PACKED && runs[1].host_off == host + 2047 && runs[1].host_len == 1);
	assert_true(runs[1].unit_off == CLUSTER && runs[2].where == VD_DATA);
	disk_close(img);
}

static void shared_clusters_say_so(void **state)
{
	struct vd_run runs[4];
	struct vd_image *img;
	uint64_t host = make_four(0);

	(void)state;
	bytes_put("x", bytes_l2_entry("x", CLUSTER), 8, host + CLUSTER);
	img = disk_open(qcow2, "x", 0);
	assert_int_equal(map(img, 0, 4 * CLUSTER, runs, 4), 3);
	assert_true(runs[1].flags == VD_RUN_SHARED && runs[1].len == CLUSTER && !runs[2].flags);
	disk_close(img);
	/* A shared table shares all, whatever its entries say. */
	bytes_put("x", bytes_l1("x"), 8, bytes_get("x", bytes_l1("x"), 8) & ~COPIED);
	img = disk_open(qcow2, "x", 0);
	assert_int_equal(map_one(img, 0, 4 * CLUSTER).flags, VD_RUN_SHARED);
	disk_close(img);
}

static void subclusters_each_have_their_kind(void **state)
{
	struct vd_image *img = create(MIB, 65536, VD_CREATE_EXTENDED_L2);
	struct vd_run runs[8];
	uint64_t entry, host;

	(void)state;
	disk_write(img, 0, 2 * CLUSTER, 1);
	host = map_one(img, 0, 2 * CLUSTER).host_off;
	finish(img);
	entry = bytes_l2_entry("x", 0);
	/* 4 of data, 2 of zeros, holes up to the last, which is data. */
	bytes_put("x", entry + 8, 8, UINT64_C(0x30) << 32 | 0x8000000f);
	img = disk_open(qcow2, "x", 0);
	assert_int_equal(map(img, 0, 2 * CLUSTER, runs, 8), 4);
	assert_true(runs[0].where == VD_DATA && runs[0].host_off == host && runs[0].len == 8 * KIB);
	assert_true(runs[1].where == VD_ZERO && runs[1].flags == VD_RUN_HOSTED && runs[1].len == 4 * KIB);
	assert_true(runs[2].where == VD_HOLE && runs[2].len == 50 * KIB);
	/* The last subcluster and the next cluster lie side by side. */
	assert_true(runs[3].where == VD_DATA && runs[3].len == CLUSTER + 2 * KIB && runs[3].host_off == host + 62 * KIB);
	assert_int_equal(map(img, 8 * KIB - 1, 2, runs, 8), 2);
	assert_true(runs[0].len == 1 && runs[0].host_off == host + 8 * KIB - 1);
	disk_close(img);
}

static void a_data_file_holds_each_cluster_at_its_guest_offset(void **state)
{
	struct vd_create_opts o = disk_create_opts(qcow2, MIB);
	struct vd_image *img;
	struct vd_run run;

	(void)state;
	o.data_file = "data";
	img = disk_create(qcow2, "x", &o);
	disk_write(img, 0, 3 * CLUSTER, 9);
	finish(img);
	img = disk_open(qcow2, "x", 0);
	run = map_one(img, 0, 3 * CLUSTER);
	assert_true(run.where == VD_DATA && run.file == 1 && run.host_off == 0 && !run.flags);
	disk_close(img);
	assert_true(bytes_get("data", 0, 1) == 9 && bytes_size("data") == MIB);
}

/* ---- answers from memory ------------------------------------------------------------------------------ */

static void nowait_answers_from_memory_alone(void **state)
{
	struct vd_image *img = create(4 * MIB, 4096, 0);
	struct vd_run runs[4];
	struct vd_error e;
	size_t n = 4;

	(void)state;
	disk_write(img, 0, 4 * MIB, 1);
	finish(img);
	img = disk_open(qcow2, "x", 0);
	assert_int_equal(qcow2->map(img->state, 0, MIB, VD_MAP_NOWAIT, runs, &n, &e), VD_EAGAIN);
	map(img, 0, 4096, runs, 4);
	n = 4;
	expect_ok(qcow2->map(img->state, 0, 4096, VD_MAP_NOWAIT, runs, &n, &e), &e);
	/* The first table is in memory, the second is not: an answer as far as it goes. */
	n = 4;
	expect_ok(qcow2->map(img->state, 0, 4 * MIB, VD_MAP_NOWAIT, runs, &n, &e), &e);
	assert_true(n == 1 && runs[0].len == 2 * MIB);
	disk_close(img);
}

/* ---- any image ---------------------------------------------------------------------------------------- */

/* Long runs say of each byte what maps of single sectors say, and no two neighbours could have been one. */
static void compare_with_sectors(struct vd_image *img, uint64_t size)
{
	struct vd_run runs[3], one;

	for (uint64_t at = 0; at < size;) {
		size_t n = map(img, at, size - at, runs, 3);

		for (size_t i = 0; i < n; i++) {
			for (uint64_t off = runs[i].guest_off; off < runs[i].guest_off + runs[i].len; off += 512) {
				one = map_one(img, off, 512);
				assert_true(one.where == runs[i].where && one.flags == runs[i].flags);
				if (one.host_len)
					assert_true(one.host_off == runs[i].host_off + (off - runs[i].guest_off));
			}
			at += runs[i].len;
			if (i && runs[i].where == runs[i - 1].where && runs[i].flags == runs[i - 1].flags)
				assert_true(runs[i].host_len && runs[i - 1].host_off + runs[i - 1].len != runs[i].host_off);
		}
	}
}

static void long_runs_agree_with_short_ones(void **state)
{
	static const struct { uint32_t cluster; unsigned flags; } kinds[] = {
		{ 512, 0 }, { 4096, 0 }, { 65536, 0 }, { 4096, VD_CREATE_COMPAT_V2 },
		{ 16384, VD_CREATE_EXTENDED_L2 }, { 65536, VD_CREATE_EXTENDED_L2 },
	};
	uint64_t size = MIB + 3 * 512, chance = 1;

	(void)state;
	for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
		struct vd_image *img = create(size, kinds[k].cluster, kinds[k].flags);

		for (int i = 0; i < 40; i++) {
			uint64_t off = chance_below(&chance, size), len = 1 + chance_below(&chance, vd_min_u64(size - off, 60000));

			if (i % 3)
				disk_write(img, off, len, 1 + i);
			else
				disk_zero(img, off, len);
		}
		compare_with_sectors(img, size);
		finish(img);
		disks.mem->unlink(disks.mem, "x", NULL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(neighbours_are_one_run_across_batches, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(a_run_goes_on_in_the_next_table, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(an_empty_disk_of_64_tib_is_one_cheap_hole, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(what_does_not_fit_the_array_is_left_for_the_next_call, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(a_call_looks_at_so_many_entries_and_no_more, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(zero_clusters_of_both_kinds_mask_the_parent, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(a_compressed_cluster_is_a_run_of_its_own, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(shared_clusters_say_so, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(subclusters_each_have_their_kind, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(a_data_file_holds_each_cluster_at_its_guest_offset, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(nowait_answers_from_memory_alone, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(long_runs_agree_with_short_ones, disks_start, disks_stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
