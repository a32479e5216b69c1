/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Repairs of VHD and VHDX: of what lies there twice each by the other, of what a crash left behind the last block. Nothing
 * that the disk reads changes, and what has no right value stays as it is.
 */
#include <errno.h>

#include "tests/support/vhdx_bytes.h"

#include "formats/vhd/vhd.h"

#define vhd (&vd_format_vhd)
#define BLOCK 65536u
#define MIB 1048576u

static void make(const struct vd_format *format)
{
	struct vd_create_opts o = disk_create_opts(format, 10 * (uint64_t)MIB);
	struct vd_image *img;

	o.cluster_size = format == vhd ? BLOCK : MIB;
	img = disk_create(format, "d", &o);
	disk_write(img, 0, 3 * MIB, 7);
	disk_commit(img);
	disk_close(img);
}

static struct vd_check_report check(const struct vd_format *format, enum vd_repair repair)
{
	struct vd_check_report rep = { .struct_size = sizeof(rep) };
	struct vd_image *img = disk_open(format, "d", repair == VD_REPAIR_NONE ? VD_OPEN_METADATA : VD_OPEN_REPAIR);
	struct vd_error e;

	expect_ok(vd_image_check(img, repair, NULL, NULL, NULL, &rep, &e), &e);
	disk_close(img);
	return rep;
}

/* Found, mended, and not found again; the disk reads what it did. */
static void expect_mended(const struct vd_format *format, enum vd_repair repair, bool is_leak)
{
	struct vd_check_report rep = check(format, VD_REPAIR_NONE);
	struct vd_image *img;

	assert_int_equal(is_leak ? rep.leaks : rep.corruptions, 1);
	assert_int_equal(rep.not_mendable, 0);
	rep = check(format, repair);
	assert_true(rep.changed);
	assert_int_equal(is_leak ? rep.leaks_fixed : rep.corruptions_fixed, 1);
	rep = check(format, VD_REPAIR_NONE);
	assert_int_equal(rep.leaks + rep.corruptions, 0);
	img = disk_open(format, "d", 0);
	disk_expect(img, 0, 3 * MIB, 7);
	disk_expect(img, 3 * MIB, 7 * MIB, 0);
	disk_close(img);
}

/* ---- VHD ------------------------------------------------------------------------------------------------ */

static void seal_footer(uint64_t at)
{
	uint8_t raw[512];

	bytes_read("d", at, raw, sizeof(raw));
	bytes_put("d", at + VHD_AT_CHECKSUM, 4, vd_vhd_checksum(raw, sizeof(raw), VHD_AT_CHECKSUM));
}

static void each_footer_is_mended_by_the_other(void **state)
{
	uint64_t size;

	(void)state;
	make(vhd);
	size = bytes_size("d");
	bytes_put("d", 100, 1, 7);
	expect_mended(vhd, VD_REPAIR_ALL, false);
	bytes_put("d", 48, 8, 5 * MIB);
	seal_footer(0);
	expect_mended(vhd, VD_REPAIR_ALL, false);
	bytes_put("d", VHD_AT_TIME, 4, 5);
	seal_footer(0);
	expect_mended(vhd, VD_REPAIR_LEAKS, true);
	bytes_truncate("d", size - 512);
	expect_mended(vhd, VD_REPAIR_LEAKS, true);
	assert_int_equal(bytes_size("d"), size);
}

/* A child's parent has to be what it was. */
static void a_repair_writes_no_stamp(void **state)
{
	uint64_t time;

	(void)state;
	make(vhd);
	time = bytes_get("d", VHD_AT_TIME, 4);
	bytes_put("d", VHD_AT_TIME, 4, 5);
	expect_mended(vhd, VD_REPAIR_ALL, false);
	assert_int_equal(bytes_get("d", VHD_AT_TIME, 4), time);
}

static void move_footer_out(uint64_t by)
{
	uint64_t end = bytes_size("d") - 512;
	uint8_t raw[512];

	bytes_read("d", end, raw, sizeof(raw));
	bytes_truncate("d", end + by + 512);
	for (int i = 0; i < 512; i += 8) {
		bytes_put("d", end + i, 8, 0);
		bytes_put("d", end + by + i, 8, vd_get_be64(raw + i));
	}
}

static void room_that_a_crash_left_is_cut_off(void **state)
{
	uint64_t size;
	struct vd_check_report rep;

	(void)state;
	make(vhd);
	size = bytes_size("d");
	move_footer_out(3 * BLOCK);
	expect_mended(vhd, VD_REPAIR_LEAKS, true);
	assert_int_equal(bytes_size("d"), size);
	/* Not where an entry is broken, which may have named it. */
	move_footer_out(3 * BLOCK);
	bytes_put("d", 1536 + 4 * 100, 4, 1);
	rep = check(vhd, VD_REPAIR_ALL);
	assert_int_equal(rep.corruptions, 1);
	assert_int_equal(bytes_size("d"), size + 3 * BLOCK);
	assert_int_equal(bytes_get("d", 1536 + 4 * 100, 4), 1);
}

/* ---- VHDX ----------------------------------------------------------------------------------------------- */

static void each_header_is_mended_by_the_other(void **state)
{
	(void)state;
	make(vhdx);
	for (int i = 0; i < 2; i++) {
		le_put("d", (65536u << i) + 100, 4, 0x12345678);
		expect_mended(vhdx, VD_REPAIR_LEAKS, true);
		assert_int_equal(le_get("d", (65536u << i) + 100, 4), 0);
	}
}

static void each_region_table_is_mended_by_the_other(void **state)
{
	uint64_t bat;

	(void)state;
	make(vhdx);
	bat = vhdx_bat("d");
	le_put("d", 262144 + 1000, 4, 1);
	expect_mended(vhdx, VD_REPAIR_LEAKS, true);
	le_put("d", 196608 + 1000, 4, 1);
	expect_mended(vhdx, VD_REPAIR_ALL, false);
	assert_int_equal(vhdx_bat("d"), bat);
	assert_int_equal(le_get("d", 196608 + 1000, 4), 0);
	assert_int_equal(le_get("d", 262144 + 1000, 4), 0);
}

/* As by a machine that stopped: the log is open, and the file longer than it has to be. */
static void a_log_that_was_left_is_put_in_place(void **state)
{
	struct vd_image *img;
	struct vd_host *after;

	(void)state;
	make(vhdx);
	img = disk_open(vhdx, "d", VD_OPEN_WRITE);
	disk_write(img, 0, 512, 7);
	disk_flush(img);
	vd_image_abort(img);
	after = disks.mem;
	assert_non_null(after);
	assert_int_not_equal(le_get("d", 65536 + 48, 8) | le_get("d", 131072 + 48, 8), 0);
	expect_mended(vhdx, VD_REPAIR_LEAKS, true);
	assert_int_equal(le_get("d", 65536 + 48, 8), 0);
	assert_int_equal(bytes_size("d") % MIB, 0);
	assert_true(bytes_size("d") <= 7 * MIB);
}

/* ---- failures ------------------------------------------------------------------------------------------- */

/* A repair that fails anywhere leaves a disk that reads the same. */
static void a_failed_repair_loses_nothing(void **state)
{
	static const struct vd_format *const formats[] = { vhd, vhdx };
	uint64_t nth = 1;
	bool fired = true;

	(void)state;
	for (int i = 0; i < 2; i++, nth = 1, fired = true) {
		for (; fired; nth++) {
			struct vd_check_report rep = { .struct_size = sizeof(rep) };
			struct vd_fault_plan plan = { .kinds = VD_OP_WRITE | VD_OP_FLUSH | VD_OP_TRUNCATE, .nth = nth, .err = EIO,
						      .half_done = true };
			struct vd_image *img;

			make(formats[i]);
			bytes_put("d", formats[i] == vhd ? 100 : 196608 + 1000, 4, 1);
			img = disk_open(formats[i], "d", VD_OPEN_REPAIR);
			vd_fault_arm(disks.fault, &plan);
			assert_true(vd_image_check(img, VD_REPAIR_ALL, NULL, NULL, NULL, &rep, NULL) <= 0);
			fired = vd_fault_fired(disks.fault);
			vd_fault_arm(disks.fault, NULL);
			vd_image_abort(img);
			img = disk_open(formats[i], "d", 0);
			disk_expect(img, 0, 3 * MIB, 7);
			disk_close(img);
			disks.mem->unlink(disks.mem, "d", NULL);
		}
		assert_true(nth > 3);
	}
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, disks_start, disks_stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(each_footer_is_mended_by_the_other),
		CASE(a_repair_writes_no_stamp),
		CASE(room_that_a_crash_left_is_cut_off),
		CASE(each_header_is_mended_by_the_other),
		CASE(each_region_table_is_mended_by_the_other),
		CASE(a_log_that_was_left_is_put_in_place),
		CASE(a_failed_repair_loses_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
