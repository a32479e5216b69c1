/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sizes of VMDKs that change: in one extent and in several, what the disk reads then, what a check says, and what a crash
 * leaves. tests/crash/shape.c has the crashes of small disks. VD_CRASH_STATES: how many states of each crash; 0: all.
 */
#include <stdio.h>

#include "libvdisk/base/checked.h"
#include "tests/support/tempdir.h"
#include "tests/support/variant.h"
#include "tests/support/vhdx_bytes.h"
#include "tests/support/vmdk_bytes.h"

#define vmdk (&vd_format_vmdk)
#define SECTOR 512
#define KIB 1024
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)
#define PART (2047 * MIB)
#define LARGEST (9 * MIB)

static int try_resize(const char *name, uint64_t size, struct vd_error *e)
{
	struct vd_image *img = disk_open(vmdk, name, VD_OPEN_WRITE);
	int r = vd_image_resize(img, size, VD_RESIZE_SHRINK, e);

	if (r == 0)
		disk_close(img);
	else
		vd_image_abort(img);
	return r;
}

static void resize(const char *name, uint64_t size)
{
	struct vd_error e;

	expect_ok(try_resize(name, size, &e), &e);
}

static struct vd_check_report check_on(struct vd_host *host, const char *name)
{
	struct vd_check_report rep = { .struct_size = sizeof(rep) };
	struct vd_open_opts opts = disk_open_opts(vmdk, VD_OPEN_METADATA | VD_OPEN_FILES);
	struct vd_image *img = NULL;
	struct vd_error e;

	expect_ok(vd_image_open_on(host, vmdk, name, &opts, &img, &e), &e);
	expect_ok(vd_image_check(img, VD_REPAIR_NONE, NULL, NULL, NULL, &rep, &e), &e);
	disk_close(img);
	return rep;
}

static void expect_clean(const char *name)
{
	struct vd_check_report rep = check_on(disks.mem, name);

	assert_int_equal(rep.corruptions + rep.check_errors, 0);
	assert_int_equal(rep.leaks, 0);
}

static bool is_there(const char *name)
{
	return disks.mem->exists(disks.mem, name);
}

/* ---- any sizes, one after the other ---------------------------------------------------------------------- */

static const char *const kinds[] = {
	"vmdk", "vmdk 4k", "vmdk flat", "vmdk in parts", "vmdk over vmdk", "vmdk zeroed grains over vmdk",
};
#define N_KINDS (sizeof(kinds) / sizeof(kinds[0]))

static void change(struct model *m, struct vd_image *img, uint32_t unit)
{
	uint64_t off = chance_below(&m->chance, m->size);
	uint64_t len = vd_min_u64(1 + chance_below(&m->chance, 20 * (uint64_t)unit), m->size - off);

	if (chance_below(&m->chance, 4))
		model_write(m, img, off, len);
	else
		model_zero(m, img, off, len);
}

/* What is cut off has to be zeros first. */
static void change_size(struct model *m, struct vd_image *img)
{
	uint64_t size = SECTOR * (1 + chance_below(&m->chance, LARGEST / SECTOR));
	struct vd_error e;

	if (size < m->size && chance_below(&m->chance, 2))
		model_zero(m, img, size, m->size - size);
	else if (size < m->size)
		model_fill(m, img, size, m->size - size, 0);
	expect_ok(vd_image_resize(img, size, VD_RESIZE_SHRINK, &e), &e);
	if (size > m->size)
		memset(m->bytes + m->size, 0, size - m->size);
	m->size = size;
	assert_int_equal(vd_image_size(img), size);
}

static void a_disk_of_any_size_is_what_it_was_and_clean(void **state)
{
	const struct variant *v = variant_named(*state);
	struct vd_image *img;
	struct model m;

	model_init(&m, LARGEST, 5);
	m.size = v->size;
	assert_true(variant_make(v, &m));
	for (int i = 0; i < 40; i++) {
		img = variant_open(v, VD_OPEN_WRITE | (i % 3 ? 0 : VD_OPEN_SCRUB_FREED));
		for (int k = 0; k < 4; k++)
			change(&m, img, v->unit);
		change_size(&m, img);
		if (i % 2)
			change(&m, img, v->unit);
		disk_close(img);
		expect_clean("d");
		img = variant_open(v, 0);
		model_check_all(&m, img);
		disk_close(img);
		if (i % 10 == 9 && peer_knows(v)) {
			peer_check(v, disks.mem, false);
			peer_compare(v, disks.mem, &m);
		}
	}
	model_free(&m);
}

/* ---- tables ---------------------------------------------------------------------------------------------- */

/* Entries past the end are nobody's, even where a disk ends inside a table; so is what lies behind a table made shorter. */
static void what_lies_behind_the_last_entry_is_not_shown(void **state)
{
	struct vmdk_bytes b = vmdk_hosted(5000, vmdk_sparse_text(5000, ""));
	struct vd_image *img;

	(void)state;
	vmdk_add_grain(&b, 624, 1);
	vmdk_add_grain(&b, 625, 2);
	vmdk_add_grain(&b, 700, 3);
	vmdk_put("d", &b);
	vmdk_free(&b);
	resize("d", 4 * MIB);
	img = disk_open(vmdk, "d", VD_OPEN_WRITE);
	disk_expect(img, 624 * VMDK_GRAIN, VMDK_GRAIN, 1);
	disk_expect(img, 625 * VMDK_GRAIN, 4 * MIB - 625 * VMDK_GRAIN, 0);
	disk_write(img, 625 * VMDK_GRAIN, VMDK_GRAIN, 4);
	disk_close(img);
	img = disk_open(vmdk, "d", 0);
	disk_expect(img, 625 * VMDK_GRAIN, VMDK_GRAIN, 4);
	disk_close(img);
	expect_clean("d");
}

static void entries_behind_a_new_end_are_cleared_in_both_tables(void **state)
{
	struct vmdk_bytes b = vmdk_hosted(10004, vmdk_sparse_text(10004, ""));

	(void)state;
	vmdk_add_grain(&b, 0, 7);
	vmdk_add_grain(&b, 3, 0);
	vmdk_add_grain(&b, 600, 0);
	vmdk_put("d", &b);
	vmdk_free(&b);
	resize("d", 2 * VMDK_GRAIN);
	assert_int_equal(le_get("d", (VMDK_GD_AT + 1) * SECTOR, 4), VMDK_GRAINS_AT);
	for (int i = 0; i < 2; i++) {
		unsigned gd = i ? VMDK_RGD_AT : VMDK_GD_AT;

		assert_int_equal(le_get("d", (gd + 1) * SECTOR + 3 * 4, 4), 0);
		assert_int_equal(le_get("d", gd * SECTOR + 4, 4), 0);
		assert_int_equal(le_get("d", gd * SECTOR, 4), gd + 1);
	}
	expect_clean("d");
	assert_int_equal(bytes_size("d"), VMDK_GRAINS_AT * SECTOR + VMDK_GRAIN);
}

/* A grain that the first table lost may be all that is left of it. */
static void what_the_redundant_table_alone_names_survives(void **state)
{
	struct vmdk_bytes b = vmdk_hosted(10004, vmdk_sparse_text(10004, ""));

	(void)state;
	vmdk_add_grain(&b, 0, 7);
	vmdk_add_grain(&b, 1, 8);
	vd_put_le32(vmdk_entry(&b, 1, false), 0);
	vmdk_put("d", &b);
	vmdk_free(&b);
	resize("d", 9 * MIB);
	assert_int_equal(le_get("d", VMDK_GRAINS_AT * SECTOR + VMDK_GRAIN, 4), 0x08080808);
	resize("d", 1 * MIB);
	assert_int_equal(le_get("d", VMDK_GRAINS_AT * SECTOR + VMDK_GRAIN, 4), 0x08080808);
}

/* The last grain begins anywhere and is cut short by the end of the file: the next one keeps off all of it. */
static void a_new_grain_does_not_meet_one_that_is_cut_short(void **state)
{
	struct vmdk_bytes b = vmdk_hosted(10004, vmdk_sparse_text(10004, ""));
	struct vd_image *img;

	(void)state;
	vmdk_add_grain(&b, 0, 7);
	vmdk_add_grain(&b, 1, 8);
	memmove(b.p + b.len - VMDK_GRAIN + 5 * SECTOR, b.p + b.len - VMDK_GRAIN, VMDK_GRAIN - 5 * SECTOR);
	for (int i = 0; i < 2; i++)
		vd_put_le32(vmdk_entry(&b, 1, i), (b.len - VMDK_GRAIN) / SECTOR + 5);
	b.len -= SECTOR;
	vmdk_put("d", &b);
	vmdk_free(&b);
	img = disk_open(vmdk, "d", VD_OPEN_WRITE);
	disk_write(img, 2 * VMDK_GRAIN, VMDK_GRAIN, 9);
	disk_write(img, VMDK_GRAIN, VMDK_GRAIN, 6);
	disk_close(img);
	img = disk_open(vmdk, "d", 0);
	disk_expect(img, VMDK_GRAIN, VMDK_GRAIN, 6);
	disk_expect(img, 2 * VMDK_GRAIN, VMDK_GRAIN, 9);
	disk_close(img);
	assert_int_equal(check_on(disks.mem, "d").corruptions, 0);
}

/* ---- flat extents ---------------------------------------------------------------------------------------- */

static void a_flat_extent_does_not_take_others_bytes(void **state)
{
	struct vd_error e;

	(void)state;
	vmdk_put_text("d", "version=1\nCID=1\nparentCID=ffffffff\nRW 8 FLAT \"f\" 4\n");
	disk_put_raw("f", 64 * SECTOR, 0);
	le_put("f", 40 * SECTOR, 4, 0x11);
	expect_failure(try_resize("d", 100 * SECTOR, &e), VD_EUNSUPPORTED, &e, "other bytes");
	resize("d", 4 * SECTOR);
	assert_int_equal(le_get("f", 40 * SECTOR, 4), 0x11);
	vmdk_put_text("two", "version=1\nCID=1\nparentCID=ffffffff\nRW 8 FLAT \"g\" 8\nRW 8 FLAT \"g\" 0\n");
	disk_put_raw("g", 16 * SECTOR, 0);
	expect_failure(try_resize("two", 100 * SECTOR, &e), VD_EUNSUPPORTED, &e, "same file");
	resize("two", 4 * SECTOR);
	assert_int_equal(bytes_size("g"), 12 * SECTOR);
}

/* ---- several extents ------------------------------------------------------------------------------------- */

static const char *const splits[] = { "twoGbMaxExtentSparse", "twoGbMaxExtentFlat" };

static void make_split(const char *subformat, uint64_t size, uint64_t at)
{
	struct vd_create_opts o = disk_create_opts(vmdk, size);
	struct vd_image *img;

	o.subformat = subformat;
	img = disk_create(vmdk, "d", &o);
	disk_commit(img);
	disk_close(img);
	img = disk_open(vmdk, "d", VD_OPEN_WRITE);
	disk_write(img, 0, 4096, 1);
	disk_write(img, at, 4096, 2);
	disk_close(img);
}

static void expect_bytes(struct vd_host *host, uint64_t size, uint64_t at)
{
	struct vd_open_opts opts = disk_open_opts(vmdk, 0);
	struct vd_image *img = NULL;
	struct vd_error e;

	expect_ok(vd_image_open_on(host, vmdk, "d", &opts, &img, &e), &e);
	assert_int_equal(vd_image_size(img), size);
	disk_expect(img, 0, 4096, 1);
	disk_expect(img, at, 4096, 2);
	disk_expect(img, at + 4096, vd_min_u64(size - at - 4096, MIB), 0);
	disk_expect(img, size - 4096, 4096, 0);
	disk_close(img);
}

static void a_disk_in_parts_grows_and_shrinks_by_parts(void **state)
{
	static const uint64_t sizes[] = { 3 * GIB, 2 * PART, 2 * PART + 512, 60 * GIB, PART + 512, PART, GIB, 5 * GIB };

	(void)state;
	for (int k = 0; k < 2; k++) {
		assert_int_equal(disks_start(NULL), 0);
		make_split(splits[k], 100 * MIB, 90 * MIB);
		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
			char name[16];

			resize("d", sizes[i]);
			expect_clean("d");
			expect_bytes(disks.mem, sizes[i], 90 * MIB);
			for (unsigned p = 1; p < 40; p++) {
				snprintf(name, sizeof(name), "d-%c%03u", "sf"[k], p);
				assert_int_equal(is_there(name), (p - 1) * PART < sizes[i]);
			}
		}
		assert_int_equal(disks_stop(NULL), 0);
	}
}

static void a_child_in_parts_does_not_show_its_parent_behind_its_end(void **state)
{
	struct vd_create_opts o = disk_create_opts(vmdk, GIB);
	struct vd_image *img;

	(void)state;
	disk_make(vmdk, "p", 5 * GIB, NULL);
	img = disk_open(vmdk, "p", VD_OPEN_WRITE);
	for (int i = 0; i < 5; i++)
		disk_write(img, i * GIB + MIB, 8 * KIB, 1 + i);
	disk_close(img);
	o.subformat = "twoGbMaxExtentSparse";
	o.backing_file = "p";
	o.backing_format = "vmdk";
	o.flags |= VD_CREATE_ZEROED_GRAINS;
	img = disk_create(vmdk, "d", &o);
	disk_commit(img);
	disk_close(img);
	resize("d", 5 * GIB);
	img = disk_open(vmdk, "d", 0);
	disk_expect(img, MIB, 8 * KIB, 1);
	for (int i = 1; i < 5; i++)
		disk_expect(img, i * GIB + MIB, 8 * KIB, 0);
	disk_close(img);
	expect_clean("d");
}

static void crash_through(uint64_t from, uint64_t to, uint64_t at)
{
	struct vd_record *record;
	struct vd_error e;
	const char *states = getenv("VD_CRASH_STATES");
	size_t n, wanted = states ? strtoul(states, NULL, 0) : 40, counts[2] = { 0 };

	assert_int_equal(vd_record_new(disks.mem, &record, NULL), 0);
	disks.host = vd_record_host(record);
	resize("d", to);
	n = vd_crash_count(record, 1);
	wanted = wanted && wanted < n ? wanted : n;
	for (size_t i = 0; i < wanted; i++) {
		struct vd_open_opts opts = disk_open_opts(vmdk, VD_OPEN_METADATA);
		struct vd_image *img = NULL;
		struct vd_check_report rep;
		struct vd_crash c;
		bool after;

		expect_ok(vd_crash_state(record, 1, 3, i * (n - 1) / (wanted - 1), &c, &e), &e);
		expect_ok(vd_image_open_on(c.host, vmdk, "d", &opts, &img, &e), &e);
		after = vd_image_size(img) == to;
		disk_close(img);
		expect_bytes(c.host, after ? to : from, at);
		rep = check_on(c.host, "d");
		assert_int_equal(rep.corruptions + rep.check_errors, 0);
		counts[after]++;
		vd_mem_host_free(c.host);
	}
	assert_true(counts[0] && counts[1]);
	disks.host = vd_record_host(disks.record);
	vd_record_free(record);
}

static void a_crash_leaves_the_old_parts_or_the_new(void **state)
{
	(void)state;
	for (int k = 0; k < 2; k++) {
		assert_int_equal(disks_start(NULL), 0);
		make_split(splits[k], GIB, 90 * MIB);
		crash_through(GIB, 7 * GIB, 90 * MIB);
		/* So many lines are in no one sector. */
		crash_through(7 * GIB, 45 * GIB, 90 * MIB);
		crash_through(45 * GIB, 3 * GIB, 90 * MIB);
		crash_through(3 * GIB, 300 * MIB, 90 * MIB);
		assert_int_equal(disks_stop(NULL), 0);
	}
}

/* Files that a killed try left, and those of others. */
static void only_what_a_killed_try_left_is_taken_over(void **state)
{
	struct vd_error e;

	(void)state;
	make_split("twoGbMaxExtentFlat", GIB, 90 * MIB);
	disk_put_raw("d-f002", 2 * GIB - PART, 0);
	resize("d", 2 * GIB);
	expect_bytes(disks.mem, 2 * GIB, 90 * MIB);
	disk_put_raw("d-f003", MIB, 1);
	expect_failure(try_resize("d", 2 * PART + MIB, &e), VD_EEXIST, &e, "d-f003");
	expect_bytes(disks.mem, 2 * GIB, 90 * MIB);
	assert_int_equal(le_get("d-f003", 0, 4), 0x01010101);
}

static void what_has_no_next_part_is_refused(void **state)
{
	struct vd_error e;

	(void)state;
	vmdk_put_text("d", "version=1\nCID=1\nparentCID=ffffffff\ncreateType=\"twoGbMaxExtentFlat\"\nRW 8 FLAT \"odd\" 0\n");
	disk_put_raw("odd", 8 * SECTOR, 0);
	expect_failure(try_resize("d", 3 * GIB, &e), VD_EUNSUPPORTED, &e, "'odd'");
	resize("d", GIB);
	vmdk_put_text("r", "version=1\nCID=1\nparentCID=ffffffff\nRW 8 FLAT \"f\" 0\nRDONLY 8 FLAT \"g\" 0\n");
	disk_put_raw("f", 8 * SECTOR, 0);
	disk_put_raw("g", 8 * SECTOR, 0);
	expect_failure(try_resize("r", GIB, &e), VD_EUNSUPPORTED, &e, "cannot grow");
	/* It may be left out, but is nobody's to remove. */
	resize("r", 8 * SECTOR);
	assert_true(is_there("g"));
}

#define T(f) cmocka_unit_test_setup_teardown(f, disks_start, disks_stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(what_lies_behind_the_last_entry_is_not_shown),
		T(entries_behind_a_new_end_are_cleared_in_both_tables),
		T(what_the_redundant_table_alone_names_survives),
		T(a_new_grain_does_not_meet_one_that_is_cut_short),
		T(a_flat_extent_does_not_take_others_bytes),
		cmocka_unit_test(a_disk_in_parts_grows_and_shrinks_by_parts),
		T(a_child_in_parts_does_not_show_its_parent_behind_its_end),
		cmocka_unit_test(a_crash_leaves_the_old_parts_or_the_new),
		T(only_what_a_killed_try_left_is_taken_over),
		T(what_has_no_next_part_is_refused),
	};
	struct CMUnitTest random[N_KINDS];
	void *folder;
	int r;

	for (size_t i = 0; i < N_KINDS; i++)
		random[i] = (struct CMUnitTest){ kinds[i], a_disk_of_any_size_is_what_it_was_and_clean, disks_start, disks_stop,
						 (void *)kinds[i] };
	if (vd_tempdir_enter(&folder) < 0)
		return 1;
	r = cmocka_run_group_tests(tests, NULL, NULL);
	r += _cmocka_run_group_tests("random sizes", random, N_KINDS, NULL, NULL);
	return vd_tempdir_leave(&folder) < 0 ? 1 : r;
}
