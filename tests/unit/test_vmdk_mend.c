/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Repairs of VMDK: of what sparse extents hold twice the one by the other, and what a crash left. Nothing that the disk
 * reads changes, and what may be the last name of a grain stays.
 */
#include <errno.h>

#include "libvdisk/base/checked.h"
#include "tests/support/vhdx_bytes.h"
#include "tests/support/vmdk_bytes.h"

#define vmdk (&vd_format_vmdk)
#define SECTOR 512
#define DISK 10004
#define N_GRAINS 4
#define AT_UNCLEAN 72

static const struct {
	uint64_t grain;
	uint8_t value;
} grains[N_GRAINS] = { { 1, 0x11 }, { 0, 0x10 }, { 513, 0x33 }, { DISK / 8, 0x44 } };

static uint64_t entry_at(uint64_t grain, bool redundant)
{
	return ((redundant ? VMDK_RGD_AT : VMDK_GD_AT) + 1) * SECTOR + 4 * grain;
}

static void make(const char *name)
{
	struct vmdk_bytes b = vmdk_hosted(DISK, vmdk_sparse_text(DISK, ""));

	for (int i = 0; i < N_GRAINS; i++)
		vmdk_add_grain(&b, grains[i].grain, grains[i].value);
	vmdk_put(name, &b);
	vmdk_free(&b);
}

static void expect_content(const char *name)
{
	struct vd_image *img = disk_open(vmdk, name, 0);

	for (int i = 0; i < N_GRAINS; i++)
		disk_expect(img, grains[i].grain * VMDK_GRAIN, i == 3 ? VMDK_GRAIN / 2 : VMDK_GRAIN, grains[i].value);
	disk_expect(img, 2 * VMDK_GRAIN, 511 * VMDK_GRAIN, 0);
	disk_expect(img, 514 * VMDK_GRAIN, (DISK / 8 - 514) * VMDK_GRAIN, 0);
	disk_close(img);
}

static struct vd_check_report check(const char *name, enum vd_repair repair)
{
	struct vd_check_report rep = { .struct_size = sizeof(rep) };
	struct vd_image *img = disk_open(vmdk, name, repair == VD_REPAIR_NONE ? VD_OPEN_METADATA | VD_OPEN_FILES : VD_OPEN_REPAIR);
	struct vd_error e;

	expect_ok(vd_image_check(img, repair, NULL, NULL, NULL, &rep, &e), &e);
	disk_close(img);
	return rep;
}

static const struct damage {
	uint64_t at;
	unsigned len;
	uint64_t value;
} damages[] = {
	{ (VMDK_RGD_AT + 1) * SECTOR, 4, 0 },
	{ (VMDK_RGD_AT + 1) * SECTOR, 4, 99998 },
	{ (VMDK_GD_AT + 1) * SECTOR, 4, 99999 },
	{ (VMDK_GD_AT + 1) * SECTOR + 4, 4, 2 },
	{ VMDK_GD_AT * SECTOR, 4, 99999 },
	{ VMDK_GD_AT * SECTOR + 4, 4, 0 },
	{ VMDK_RGD_AT * SECTOR + 8, 4, 99999 },
	{ VMDK_RGD_AT * SECTOR + 4, 4, 0 },
	{ 56, 8, 99999 },
	{ 48, 8, 99999 },
	{ 64, 8, 99999 },
};
#define N_DAMAGES (sizeof(damages) / sizeof(damages[0]))

static void damage(size_t i)
{
	make("d");
	expect_content("d");
	le_put("d", damages[i].at, damages[i].len, damages[i].value);
	expect_content("d");
}

static void what_is_there_twice_is_mended_by_the_sound_one(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_DAMAGES; i++) {
		struct vd_check_report rep;
		struct vd_image *img;

		damage(i);
		rep = check("d", VD_REPAIR_NONE);
		assert_int_not_equal(rep.corruptions, 0);
		assert_int_equal(rep.not_mendable, 0);
		rep = check("d", VD_REPAIR_ALL);
		assert_true(rep.changed);
		assert_int_equal(rep.corruptions + rep.leaks, 0);
		assert_int_not_equal(rep.corruptions_fixed, 0);
		rep = check("d", VD_REPAIR_NONE);
		assert_int_equal(rep.corruptions + rep.leaks, 0);
		expect_content("d");
		/* It can be written again, to both sets. */
		img = disk_open(vmdk, "d", VD_OPEN_WRITE);
		disk_write(img, 600 * VMDK_GRAIN, VMDK_GRAIN, 5);
		disk_close(img);
		assert_int_equal(check("d", VD_REPAIR_NONE).corruptions, 0);
	}
}

static void what_is_sound_stays_as_it_is(void **state)
{
	struct vd_check_report rep;
	uint64_t size;

	(void)state;
	make("d");
	size = bytes_size("d");
	rep = check("d", VD_REPAIR_ALL);
	assert_false(rep.changed);
	assert_int_equal(bytes_size("d"), size);
}

/* The first table's entry may be what was lost. */
static void what_only_the_redundant_table_names_is_kept(void **state)
{
	static const uint32_t others[] = { 0, VMDK_GRAINS_AT };

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct vd_check_report rep;
		uint64_t named, size;

		make("d");
		named = le_get("d", entry_at(513, true), 4);
		size = bytes_size("d");
		le_put("d", entry_at(513, false), 4, others[i]);
		rep = check("d", VD_REPAIR_ALL);
		assert_false(rep.changed);
		assert_int_not_equal(rep.not_mendable, 0);
		assert_int_equal(le_get("d", entry_at(513, true), 4), named);
		assert_int_equal(le_get("d", entry_at(513, false), 4), others[i]);
		assert_int_equal(bytes_size("d"), size);
	}
}

/* The redundant table is written first. */
static void what_a_crash_left_half_linked_is_dropped(void **state)
{
	struct vd_check_report rep;

	(void)state;
	make("d");
	le_put("d", entry_at(513, false), 4, 0);
	le_put("d", AT_UNCLEAN, 1, 1);
	rep = check("d", VD_REPAIR_ALL);
	assert_int_equal(rep.corruptions, 0);
	assert_int_equal(le_get("d", entry_at(513, true), 4), 0);
	assert_int_equal(le_get("d", AT_UNCLEAN, 1), 0);
}

static void an_unclean_close_is_forgotten(void **state)
{
	(void)state;
	make("d");
	le_put("d", AT_UNCLEAN, 1, 1);
	assert_int_equal(check("d", VD_REPAIR_LEAKS).leaks_fixed, 1);
	assert_int_equal(le_get("d", AT_UNCLEAN, 1), 0);
	expect_content("d");
}

/* ---- leaks ---------------------------------------------------------------------------------------------- */

/* Sixteen grains, which the host keeps as one piece, that nothing names; then one that is named; then n that are not. */
static struct vmdk_bytes with_leaks(int n)
{
	struct vmdk_bytes b = vmdk_hosted(DISK, vmdk_sparse_text(DISK, ""));

	for (int i = 0; i < N_GRAINS; i++)
		vmdk_add_grain(&b, grains[i].grain, grains[i].value);
	while (b.len % 65536)
		vmdk_add_grain(&b, 1000, 9);
	for (int i = 0; i < 17 + n; i++)
		vmdk_add_grain(&b, i == 16 ? 1001 : 1000, 9);
	for (int redundant = 0; redundant < 2; redundant++)
		vd_put_le32(vmdk_entry(&b, 1000, redundant), 0);
	return b;
}

static void leaked_grains_go_to_the_host(void **state)
{
	struct vmdk_bytes b = with_leaks(3);
	struct vd_image *img;
	struct vd_check_report rep;

	(void)state;
	vmdk_put("d", &b);
	rep = check("d", VD_REPAIR_NONE);
	assert_true(rep.leaks >= 19);
	rep = check("d", VD_REPAIR_LEAKS);
	assert_true(rep.leaks_fixed >= 19);
	assert_int_equal(bytes_size("d"), b.len - 3 * VMDK_GRAIN);
	assert_int_equal(le_get("d", b.len - 10 * VMDK_GRAIN, 8), 0);
	img = disk_open(vmdk, "d", 0);
	disk_expect(img, 1001 * VMDK_GRAIN, VMDK_GRAIN, 9);
	disk_expect(img, 513 * VMDK_GRAIN, VMDK_GRAIN, 0x33);
	disk_close(img);
	vmdk_free(&b);
}

static void nothing_is_given_back_where_something_stays_broken(void **state)
{
	struct vmdk_bytes b = with_leaks(3);

	(void)state;
	for (int redundant = 0; redundant < 2; redundant++)
		vd_put_le32(vmdk_entry(&b, 700, redundant), 99999);
	vmdk_put("d", &b);
	le_put("d", VMDK_GD_AT * SECTOR + 8, 4, 99999);
	assert_int_not_equal(check("d", VD_REPAIR_ALL).not_mendable, 0);
	assert_int_equal(bytes_size("d"), b.len);
	assert_int_equal(le_get("d", VMDK_GD_AT * SECTOR + 8, 4), 99999);
	assert_int_equal(le_get("d", b.len - VMDK_GRAIN, 1), 9);
	vmdk_free(&b);
}

/* ---- several extents ------------------------------------------------------------------------------------ */

static void each_extent_that_may_be_written_is_mended(void **state)
{
	struct vd_check_report rep;

	(void)state;
	for (int i = 0; i < 2; i++) {
		const char *name = i ? "b" : "a";

		make(name);
		le_put(name, entry_at(1, true), 4, 0);
	}
	vmdk_put_text("d", "version=1\nCID=1\nparentCID=ffffffff\nRW 10000 SPARSE \"a\"\nRDONLY 10000 SPARSE \"b\"\n");
	rep = check("d", VD_REPAIR_ALL);
	assert_int_equal(rep.corruptions, 1);
	assert_int_equal(rep.not_mendable, 1);
	assert_int_not_equal(le_get("a", entry_at(1, true), 4), 0);
	assert_int_equal(le_get("b", entry_at(1, true), 4), 0);
}

/* ---- failures ------------------------------------------------------------------------------------------- */

static bool mend_failing_at(uint64_t nth)
{
	struct vd_check_report rep = { .struct_size = sizeof(rep) };
	struct vd_fault_plan plan = {
		.kinds = VD_OP_WRITE | VD_OP_FLUSH | VD_OP_TRUNCATE, .nth = nth, .err = EIO, .for_ever = nth % 2, .half_done = true,
	};
	struct vd_image *img = disk_open(vmdk, "d", VD_OPEN_REPAIR);
	bool fired;

	vd_fault_arm(disks.fault, &plan);
	assert_true(vd_image_check(img, VD_REPAIR_ALL, NULL, NULL, NULL, &rep, NULL) <= 0);
	fired = vd_fault_fired(disks.fault);
	vd_fault_arm(disks.fault, NULL);
	vd_image_abort(img);
	return fired;
}

/* A repair that fails anywhere leaves a disk that reads the same, and that the next one mends. */
static void a_failed_repair_loses_nothing(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_DAMAGES; i++) {
		uint64_t nth = 0;
		bool fired;

		do {
			damage(i);
			le_put("d", AT_UNCLEAN, 1, 1);
			fired = mend_failing_at(++nth);
			expect_content("d");
			check("d", VD_REPAIR_ALL);
			assert_int_equal(check("d", VD_REPAIR_ALL).corruptions, 0);
			expect_content("d");
		} while (fired);
		assert_true(nth > 3);
	}
}

#define T(f) cmocka_unit_test_setup_teardown(f, disks_start, disks_stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(what_is_there_twice_is_mended_by_the_sound_one),
		T(what_is_sound_stays_as_it_is),
		T(what_only_the_redundant_table_names_is_kept),
		T(what_a_crash_left_half_linked_is_dropped),
		T(an_unclean_close_is_forgotten),
		T(leaked_grains_go_to_the_host),
		T(nothing_is_given_back_where_something_stays_broken),
		T(each_extent_that_may_be_written_is_mended),
		T(a_failed_repair_loses_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
