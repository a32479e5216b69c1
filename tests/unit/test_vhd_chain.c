/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a change of its parent does to a differencing VHD and VHDX, by their bytes: identities, types, and what lies in
 * sectors that were the parent's. Contents are tests/interop/vhd_vhdx.sh's, crashes tests/crash/chains.c's.
 */
#include "tests/support/vhdx_bytes.h"

#include "formats/vhd/vhd.h"

#define vhd (&vd_format_vhd)
#define BLOCK 65536u
#define MIB 1048576u

static void make(const struct vd_format *format, const char *name, uint64_t size, const char *parent)
{
	struct vd_create_opts o = disk_create_opts(format, size);
	struct vd_image *img;

	o.cluster_size = format == vhd ? BLOCK : MIB;
	o.backing_file = parent;
	o.backing_format = parent ? format->name : NULL;
	img = disk_create(format, name, &o);
	disk_commit(img);
	disk_close(img);
}

static void fill(const struct vd_format *format, const char *name, uint64_t off, uint64_t len, uint8_t value)
{
	struct vd_image *img = disk_open(format, name, VD_OPEN_WRITE);

	disk_write(img, off, len, value);
	disk_close(img);
}

static int rebase(const struct vd_format *format, const char *name, const char *parent, unsigned flags, struct vd_error *e)
{
	struct vd_rebase_opts o = {
		.struct_size = sizeof(o), .flags = flags, .gate = disks_gate, .backing_file = parent,
		.backing_format = parent ? format->name : NULL,
	};
	struct vd_image *img = disk_open(format, name, flags & VD_REBASE_UNSAFE ? VD_OPEN_CONTROL : VD_OPEN_WRITE);
	int r = vd_backing_rebase(img, &o, NULL, NULL, e);

	disk_close(img);
	return r;
}

static int commit(const struct vd_format *format, const char *name, unsigned flags, struct vd_error *e)
{
	struct vd_commit_opts o = { .struct_size = sizeof(o), .flags = flags, .gate = disks_gate };
	struct vd_image *img = disk_open(format, name, VD_OPEN_WRITE);
	int r = vd_backing_commit(img, &o, NULL, NULL, e);

	disk_close(img);
	return r;
}

static void expect_disk(const struct vd_format *format, const char *name, uint64_t off, uint64_t len, uint8_t value)
{
	struct vd_image *img = disk_open(format, name, 0);

	disk_expect(img, off, len, value);
	disk_close(img);
}

/* ---- none ----------------------------------------------------------------------------------------------- */

/* To a reader without bitmaps they would show. */
static void what_lies_in_a_parents_sectors_is_gone_when_it_goes(void **state)
{
	struct vd_error e;
	uint64_t place;

	(void)state;
	make(vhd, "p", 4 * BLOCK, NULL);
	make(vhd, "d", 4 * BLOCK, "p");
	fill(vhd, "d", BLOCK, 512, 7);
	place = bytes_get("d", 1536 + 4, 4) * 512 + 512;
	bytes_put("d", place + 512, 8, 0x4142434445464748);
	expect_ok(rebase(vhd, "d", NULL, 0, &e), &e);
	assert_int_equal(bytes_get("d", place + 512, 8), 0);
	assert_int_equal(bytes_get("d", place, 1), 7);
	assert_int_equal(bytes_get("d", 60, 4), VHD_DYNAMIC);
	make(vhdx, "px", 4 * MIB, NULL);
	make(vhdx, "dx", 4 * MIB, "px");
	fill(vhdx, "dx", MIB, 512, 7);
	place = le_get("dx", vhdx_entry("dx", 1), 8) >> 20 << 20;
	le_put("dx", place + 512, 8, 0x4142434445464748);
	expect_ok(rebase(vhdx, "dx", NULL, 0, &e), &e);
	assert_int_equal(le_get("dx", place + 512, 8), 0);
	assert_int_equal(le_get("dx", vhdx_entry("dx", 1), 8) & 7, 6);
	expect_disk(vhdx, "dx", MIB, 512, 7);
	expect_disk(vhdx, "dx", MIB + 512, 3 * MIB - 512, 0);
}

/* ---- another -------------------------------------------------------------------------------------------- */

static void another_name_alone_is_the_same_parents(void **state)
{
	static const struct vd_format *const formats[] = { vhd, vhdx };
	struct vd_error e;

	(void)state;
	for (int i = 0; i < 2; i++) {
		make(formats[i], "p", 4 * MIB, NULL);
		fill(formats[i], "p", 0, MIB, 5);
		make(formats[i], "d", 4 * MIB, "p");
		make(formats[i], "other", 4 * MIB, NULL);
		expect_ok(rebase(formats[i], "d", "other", VD_REBASE_UNSAFE, &e), &e);
		assert_int_equal(disks.mem->rename(disks.mem, "p", "q", true, &e), 0);
		expect_ok(rebase(formats[i], "d", "q", VD_REBASE_UNSAFE, &e), &e);
		expect_disk(formats[i], "d", 0, MIB, 5);
		for (const char *const *name = (const char *const[]){ "q", "d", "other", NULL }; *name; name++)
			disks.mem->unlink(disks.mem, *name, NULL);
	}
}

static void only_a_parent_that_is_known_is_noted(void **state)
{
	struct vd_error e;

	(void)state;
	make(vhd, "d", BLOCK, NULL);
	expect_failure(rebase(vhd, "d", "p", VD_REBASE_UNSAFE, &e), VD_EUNSUPPORTED, &e, "has no parent");
	make(vhdx, "x", MIB, NULL);
	expect_failure(rebase(vhdx, "x", "p", VD_REBASE_UNSAFE, &e), VD_EUNSUPPORTED, &e, "has no parent");
}

/* Its own children know it still: what it reads has not changed. */
static void a_change_of_names_leaves_the_identity(void **state)
{
	struct vd_error e;

	(void)state;
	make(vhdx, "p", 4 * MIB, NULL);
	make(vhdx, "m", 4 * MIB, "p");
	make(vhdx, "d", 4 * MIB, "m");
	expect_ok(rebase(vhdx, "m", "p", VD_REBASE_UNSAFE, &e), &e);
	expect_disk(vhdx, "d", 0, 4 * MIB, 0);
}

/* ---- commit --------------------------------------------------------------------------------------------- */

static void a_commit_leaves_an_empty_image(void **state)
{
	struct vd_error e;

	(void)state;
	make(vhd, "p", 4 * BLOCK, NULL);
	make(vhd, "d", 4 * BLOCK, "p");
	fill(vhd, "d", 0, 3 * BLOCK, 7);
	expect_ok(commit(vhd, "d", 0, &e), &e);
	assert_true(bytes_size("d") < 4096);
	assert_int_equal(bytes_get("d", 1536, 8), UINT64_MAX);
	expect_disk(vhd, "d", 0, 3 * BLOCK, 7);
	make(vhdx, "px", 4 * MIB, NULL);
	make(vhdx, "dx", 4 * MIB, "px");
	fill(vhdx, "dx", 0, 3 * MIB, 7);
	expect_ok(commit(vhdx, "dx", 0, &e), &e);
	assert_int_equal(bytes_size("dx"), 4 * MIB);
	expect_disk(vhdx, "dx", 0, 3 * MIB, 7);
}

/* Two are noted while it is not known which of them the parent has. */
static void a_commit_that_keeps_knows_the_parent_after(void **state)
{
	static const struct vd_format *const formats[] = { vhd, vhdx };
	struct vd_error e;

	(void)state;
	for (int i = 0; i < 2; i++) {
		make(formats[i], "p", 4 * MIB, NULL);
		make(formats[i], "d", 4 * MIB, "p");
		fill(formats[i], "d", 0, MIB, 7);
		expect_ok(commit(formats[i], "d", VD_COMMIT_KEEP, &e), &e);
		expect_disk(formats[i], "d", 0, MIB, 7);
		expect_disk(formats[i], "p", 0, MIB, 7);
		fill(formats[i], "d", 512, 512, 8);
		expect_ok(commit(formats[i], "d", 0, &e), &e);
		expect_disk(formats[i], "d", 512, 512, 8);
		/* From here on a write is somebody else's. */
		fill(formats[i], "p", 0, 1, 9);
		assert_int_equal(vd_image_open_on(disks.host, formats[i], "d", &(struct vd_open_opts){
			.struct_size = sizeof(struct vd_open_opts), .format = formats[i]->name, .gate = disks_gate },
			&(struct vd_image *){ NULL }, &e), VD_EREFERENCE);
		disks.mem->unlink(disks.mem, "p", NULL);
		disks.mem->unlink(disks.mem, "d", NULL);
	}
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, disks_start, disks_stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(what_lies_in_a_parents_sectors_is_gone_when_it_goes),
		CASE(another_name_alone_is_the_same_parents),
		CASE(only_a_parent_that_is_known_is_noted),
		CASE(a_change_of_names_leaves_the_identity),
		CASE(a_commit_leaves_an_empty_image),
		CASE(a_commit_that_keeps_knows_the_parent_after),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
