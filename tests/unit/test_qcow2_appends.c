/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Handles that give out space past the end alone (vd_open.appends): what was free below stays free, what becomes free there, too. */
#include "tests/support/hostwalk.h"
#include "tests/support/qcow2_bytes.h"

#include "formats/qcow2/qcow2.h"

#define qcow2 (&vd_format_qcow2)
#define MIB (UINT64_C(1) << 20)
#define APPENDS (VD_OPEN_WRITE | VD_OPEN_APPENDS)
#define UNIT 512

/* Whose each 512 bytes of the file are. */
struct owners {
	uint8_t *at;
	uint64_t n;
};

static struct owners owners_of(struct vd_image *img)
{
	struct owners o = { .n = bytes_size("x") / UNIT };

	o.at = calloc(o.n, 1);
	walk_host(img, 64);
	for (size_t i = 0; i < walked.n; i++)
		for (uint64_t k = walked.runs[i].off / UNIT; !walked.runs[i].file && k < (walked.runs[i].off + walked.runs[i].len) / UNIT; k++)
			o.at[k] = walked.runs[i].owner;
	assert_int_equal(walked.n_findings, 0);
	walk_free();
	return o;
}

static bool is_free(uint8_t owner)
{
	return owner == VD_OWNER_FREE || owner == VD_OWNER_TAIL || owner == VD_OWNER_HOSTHOLE || owner == VD_OWNER_LEAKED;
}

/* Nothing that was free before has an owner now; *n_free: how much there was. */
static void expect_none_given_out(struct vd_image *img, struct owners *before, uint64_t *n_free)
{
	struct owners now = owners_of(img);

	*n_free = 0;
	for (uint64_t i = 0; i < before->n; i++) {
		*n_free += is_free(before->at[i]);
		if (is_free(before->at[i]) && !is_free(now.at[i]))
			fail_msg("offset %llu was free and is of owner %d", (unsigned long long)(i * UNIT), now.at[i]);
	}
	free(now.at);
	free(before->at);
}

static void discard(struct vd_image *img, uint64_t off, uint64_t len)
{
	struct vd_error e;

	expect_ok(vd_image_discard(img, off, len, &e), &e);
}

static void make(uint32_t cluster, uint32_t bits, unsigned flags)
{
	struct vd_create_opts o = disk_create_opts(qcow2, 8 * MIB);
	struct vd_image *img;

	o.cluster_size = cluster;
	o.refcount_bits = bits;
	o.flags = flags | VD_CREATE_REPLACE;
	img = disk_create(qcow2, "x", &o);
	disk_write(img, 0, 4 * MIB, 1);
	disk_commit(img);
	disk_close(img);
	img = disk_open(qcow2, "x", VD_OPEN_WRITE);
	discard(img, MIB, MIB);
	disk_close(img);
}

static const struct { uint32_t cluster, bits; unsigned flags; } kinds[] = {
	{ 512, 64, 0 }, { 4096, 1, 0 }, { 65536, 16, 0 }, { 4096, 16, VD_CREATE_COMPAT_V2 }, { 16384, 8, VD_CREATE_EXTENDED_L2 },
};
#define N_KINDS (sizeof(kinds) / sizeof(kinds[0]))

static void what_is_free_stays_free(void **state)
{
	struct owners before;
	uint64_t n_free;

	(void)state;
	for (size_t i = 0; i < N_KINDS; i++) {
		struct vd_image *img;

		make(kinds[i].cluster, kinds[i].bits, kinds[i].flags);
		img = disk_open(qcow2, "x", APPENDS);
		before = owners_of(img);
		disk_write(img, MIB, 2 * MIB, 2);
		disk_write(img, 6 * MIB, MIB, 3);
		disk_flush(img);
		expect_none_given_out(img, &before, &n_free);
		assert_true(n_free >= MIB / 2 / UNIT);
		disk_expect(img, MIB, 2 * MIB, 2);
		disk_close(img);
		expect_sound("x");
	}
}

static void what_becomes_free_does_not_come_back(void **state)
{
	struct owners before;
	uint64_t n_free;

	(void)state;
	for (size_t i = 0; i < 2 * N_KINDS; i++) {
		struct vd_image *img;

		make(kinds[i / 2].cluster, kinds[i / 2].bits, kinds[i / 2].flags);
		img = disk_open(qcow2, "x", APPENDS | (i % 2 ? VD_OPEN_SCRUB_FREED : 0));
		discard(img, 0, MIB);
		disk_flush(img);
		before = owners_of(img);
		disk_write(img, 0, MIB, 2);
		disk_flush(img);
		expect_none_given_out(img, &before, &n_free);
		assert_true(n_free >= 2 * MIB / UNIT);
		disk_close(img);
		expect_sound("x");
	}
}

/* All new tables of an act on the shape, too; with counts of one bit there are none. */
static void a_snapshot_lies_past_the_end(void **state)
{
	struct vd_error e;
	uint64_t n_free;

	(void)state;
	for (size_t i = 0; i < N_KINDS; i++) {
		struct owners before;
		struct vd_image *img;

		if (kinds[i].bits == 1)
			continue;
		make(kinds[i].cluster, kinds[i].bits, kinds[i].flags);
		img = disk_open(qcow2, "x", APPENDS);
		before = owners_of(img);
		expect_ok(vd_snapshot_create(img, "s", &e), &e);
		disk_write(img, 0, 2 * MIB, 4);
		disk_flush(img);
		expect_none_given_out(img, &before, &n_free);
		assert_true(n_free > 0);
		expect_ok(vd_snapshot_apply(img, "s", &e), &e);
		disk_expect(img, 0, MIB, 1);
		disk_close(img);
		expect_sound("x");
	}
}

/* Bytes behind all that is counted, in clusters that no refcount block reaches, and in some that no table does. */
static void bytes_behind_the_counted_ones_stay(void **state)
{
	static const uint64_t extra[] = { 512, 40 * 512, 100 * 512, 3 * MIB, 12 * MIB + 512 };
	uint8_t *tail = malloc(13 * MIB);

	(void)state;
	for (size_t i = 0; i < sizeof(extra) / sizeof(extra[0]); i++) {
		struct vd_image *img;
		uint64_t end;

		make(512, 64, 0);
		end = bytes_size("x");
		memset(tail, 0xaa, extra[i]);
		bytes_write("x", end, tail, extra[i]);
		img = disk_open(qcow2, "x", APPENDS);
		disk_write(img, 4 * MIB, 4 * MIB, 5);
		disk_close(img);
		bytes_read("x", end, tail, extra[i]);
		for (uint64_t k = 0; k < extra[i]; k++)
			assert_int_equal(tail[k], 0xaa);
		expect_sound("x");
		img = disk_open(qcow2, "x", 0);
		disk_expect(img, 4 * MIB, 4 * MIB, 5);
		disk_expect(img, 2 * MIB, 2 * MIB, 1);
		disk_close(img);
	}
	free(tail);
}

static void a_hole_of_a_data_file_has_no_place(void **state)
{
	struct vd_create_opts o = disk_create_opts(qcow2, 4 * MIB);
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	o.data_file = "y";
	img = disk_create(qcow2, "x", &o);
	disk_write(img, 0, MIB, 1);
	disk_commit(img);
	disk_close(img);
	img = disk_open(qcow2, "x", APPENDS);
	expect_failure(vd_image_pwrite(img, "a", 1, 2 * MIB, &e), VD_EUNSUPPORTED, &e, "its place in the data file");
	/* What has its place keeps it. */
	disk_write(img, 0, MIB, 2);
	disk_close(img);
	img = disk_open(qcow2, "x", 0);
	disk_expect(img, 0, MIB, 2);
	disk_expect(img, MIB, 3 * MIB, 0);
	disk_close(img);
	expect_sound("x");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_is_free_stays_free, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(what_becomes_free_does_not_come_back, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(a_snapshot_lies_past_the_end, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(bytes_behind_the_counted_ones_stay, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(a_hole_of_a_data_file_has_no_place, disks_start, disks_stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
