/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Moving a disk inside its VMDK files, and changing their descriptors for it: what is where afterwards, in our eyes and the
 * peer's, and what a crash leaves. tests/crash/shape.c has the crashes of disks that create() makes.
 */
#include <stdio.h>

#include "libvdisk/base/checked.h"
#include "libvdisk/core/shape.h"
#include "tests/support/hostwalk.h"
#include "tests/support/tempdir.h"
#include "tests/support/variant.h"
#include "tests/support/vmdk_bytes.h"

#define vmdk (&vd_format_vmdk)
#define KIB 1024
#define MIB (UINT64_C(1) << 20)
#define BY (2 * (int64_t)MIB)
#define SIZE (3 * MIB + 5120)

static int shift_by(struct vd_image *img, const void *by, struct vd_error *e)
{
	return img->format->shift(img->state, *(const int64_t *)by, false, e);
}

static int try_shift(const char *name, int64_t by, unsigned flags, struct vd_error *e)
{
	struct vd_image *img = disk_open(vmdk, name, VD_OPEN_WRITE | flags);
	int r = vd_shape_run(img, shift_by, &by, e), c;

	c = r == 0 ? vd_image_flush(img, e) : r;
	if (r == 0)
		disk_close(img);
	else
		vd_image_abort(img);
	return c;
}

static void shift(const char *name, int64_t by, unsigned flags)
{
	struct vd_error e;

	expect_ok(try_shift(name, by, flags, &e), &e);
}

static const struct variant kinds[] = {
	{ .name = "sparse", .format = vmdk, .size = SIZE },
	{ .name = "sparse 4k", .format = vmdk, .size = SIZE, .opts = { .cluster_size = 4 * KIB } },
	{ .name = "zeroed grains", .format = vmdk, .size = SIZE, .opts = { .flags = VD_CREATE_ZEROED_GRAINS } },
	{ .name = "flat", .format = vmdk, .size = SIZE, .opts = { .subformat = "monolithicFlat" } },
	{ .name = "flat in parts", .format = vmdk, .size = SIZE, .opts = { .subformat = "twoGbMaxExtentFlat" } },
	{ .name = "sparse in parts", .format = vmdk, .size = SIZE, .opts = { .subformat = "twoGbMaxExtentSparse" } },
	{ .name = "vmfs", .format = vmdk, .size = SIZE, .opts = { .subformat = "vmfs" } },
};
#define N_KINDS (sizeof(kinds) / sizeof(kinds[0]))

static void make(const struct variant *v, struct model *m)
{
	struct vd_create_opts o = v->opts;
	struct vd_image *img;

	o.struct_size = sizeof(o);
	o.format = "vmdk";
	o.size = v->size;
	model_init(m, v->size, 7);
	img = disk_create(vmdk, "d", &o);
	disk_commit(img);
	disk_close(img);
	img = disk_open(vmdk, "d", VD_OPEN_WRITE);
	model_write(m, img, 100 * KIB, 70 * KIB);
	model_write(m, img, 2 * MIB - 5000, MIB);
	model_write(m, img, m->size - 1000, 1000);
	disk_close(img);
}

/* What the disk has to read after it moved. */
static void move(struct model *m, int64_t by)
{
	uint8_t *bytes = calloc(1, m->size + by);

	if (by > 0)
		memcpy(bytes + by, m->bytes, m->size);
	else
		memcpy(bytes, m->bytes - by, m->size + by);
	free(m->bytes);
	m->bytes = bytes;
	m->size += by;
}

static void expect_sound(const struct variant *v, const struct model *m)
{
	struct vd_check_report report = { .struct_size = sizeof(report) };
	struct vd_image *img = disk_open(vmdk, "d", 0);
	struct vd_error e;

	model_check_all(m, img);
	walk_host(img, 64);
	assert_int_equal(walked.n_findings, 0);
	walk_free();
	expect_ok(vd_image_check(img, VD_REPAIR_NONE, NULL, NULL, NULL, &report, &e), &e);
	assert_int_equal(report.corruptions + report.check_errors, 0);
	disk_close(img);
	if (!peer_is_here())
		return;
	peer_compare(v, disks.mem, m);
	peer_check(v, disks.mem, true);
}

static void every_kind_moves_forth_and_back(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_KINDS; i++) {
		struct vd_image *img;
		struct model m;

		assert_int_equal(disks_start(NULL), 0);
		make(&kinds[i], &m);
		shift("d", BY, 0);
		move(&m, BY);
		expect_sound(&kinds[i], &m);
		img = disk_open(vmdk, "d", VD_OPEN_WRITE);
		model_write(&m, img, 4096, MIB);
		model_write(&m, img, BY - 1000, 300 * KIB);
		disk_close(img);
		expect_sound(&kinds[i], &m);
		shift("d", -BY, 0);
		move(&m, -BY);
		expect_sound(&kinds[i], &m);
		model_free(&m);
		assert_int_equal(disks_stop(NULL), 0);
	}
}

/* ---- what is left behind --------------------------------------------------------------------------------- */

static bool holds_on(struct vd_host *host, const char *name, const char *words)
{
	uint64_t size = 0;
	struct vd_io *io;
	uint8_t *bytes;
	bool found;

	if (host->open(host, name, VD_IO_FORCE_SHARE, &io, NULL) < 0)
		return false;
	assert_int_equal(vd_io_size(io, &size, NULL), 0);
	bytes = malloc(size + 1);
	assert_int_equal(vd_io_pread(io, bytes, size, 0, NULL), 0);
	found = memmem(bytes, size, words, strlen(words));
	free(bytes);
	vd_io_abort(io);
	return found;
}

static bool holds(const char *name, const char *words)
{
	return holds_on(disks.mem, name, words);
}

static void write_words(const char *name, uint64_t off, const char *words)
{
	struct vd_image *img = disk_open(vmdk, name, VD_OPEN_WRITE);
	struct vd_error e;

	expect_ok(vd_image_pwrite(img, words, strlen(words), off, &e), &e);
	disk_close(img);
}

/* A key header lay there. */
static void a_front_that_goes_leaves_no_bytes(void **state)
{
	static const char words[] = "the bytes of a key header";
	static const char *const files[] = { "d", "d-flat", "d-f001", "d-f000", "d-s001" };

	(void)state;
	for (size_t i = 0; i < 2 * N_KINDS; i++) {
		struct model m;
		bool scrubs = i % 2, was_there = false;

		assert_int_equal(disks_start(NULL), 0);
		make(&kinds[i / 2], &m);
		shift("d", BY, 0);
		write_words("d", 70000, words);
		for (size_t k = 0; k < 5; k++)
			was_there |= holds(files[k], words);
		assert_true(was_there);
		shift("d", -BY, scrubs ? VD_OPEN_SCRUB_FREED : 0);
		for (size_t k = 0; k < 5; k++)
			assert_false(holds(files[k], words));
		assert_false(disks.mem->exists(disks.mem, "d-f000"));
		model_free(&m);
		assert_int_equal(disks_stop(NULL), 0);
	}
}

static void a_flat_front_can_go_in_part(void **state)
{
	struct model m;

	(void)state;
	for (size_t i = 3; i < N_KINDS; i++) {
		if (!strcmp(kinds[i].name, "sparse in parts"))
			continue;
		assert_int_equal(disks_start(NULL), 0);
		make(&kinds[i], &m);
		write_words("d", 1000, "old");
		shift("d", -(int64_t)MIB, 0);
		move(&m, -(int64_t)MIB);
		expect_sound(&kinds[i], &m);
		assert_false(holds("d-flat", "old") || holds("d-f001", "old"));
		/* And it may grow again. */
		shift("d", BY, 0);
		move(&m, BY);
		expect_sound(&kinds[i], &m);
		model_free(&m);
		assert_int_equal(disks_stop(NULL), 0);
	}
}

/* ---- the new file's name --------------------------------------------------------------------------------- */

static void what_a_killed_try_left_is_taken_over(void **state)
{
	struct model m;
	struct vd_error e;

	(void)state;
	make(&kinds[3], &m);
	disk_put_raw("d-f000", BY, 0);
	shift("d", BY, 0);
	move(&m, BY);
	expect_sound(&kinds[3], &m);
	model_free(&m);
	disk_make(vmdk, "e", MIB, NULL);
	vmdk_put_text("f", "version=1\nCID=1\nparentCID=ffffffff\ncreateType=\"vmfs\"\nRW 100 VMFS \"g\"\n");
	disk_put_raw("g", 100 * 512, 1);
	disk_put_raw("f-f000", BY, 1);
	expect_failure(try_shift("f", BY, 0, &e), VD_EEXIST, &e, "f-f000");
}

static void what_cannot_be_is_refused(void **state)
{
	struct vd_create_opts o = disk_create_opts(vmdk, 64 * MIB);
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	disk_make(vmdk, "d", 64 * MIB, NULL);
	disk_make(vmdk, "c", 64 * MIB, "d");
	expect_failure(try_shift("d", 4096, 0, &e), VD_EARG, &e, "whole units");
	expect_failure(try_shift("d", -64 * (int64_t)MIB, 0, &e), VD_EARG, &e, "no disk");
	expect_failure(try_shift("d", INT64_C(1) << 41, 0, &e), VD_EARG, &e, "too large");
	o.subformat = "twoGbMaxExtentSparse";
	img = disk_create(vmdk, "s", &o);
	disk_commit(img);
	disk_close(img);
	expect_failure(try_shift("s", -BY, 0, &e), VD_EUNSUPPORTED, &e, "sparse");
}

/* ---- descriptors that fill sectors ----------------------------------------------------------------------- */

#define PARTS 40
#define PART (64 * KIB)

/* Flat extents, keys before and after them, and a text of so many bytes at the end. */
static void put_parts(int behind)
{
	char text[8192], name[16];
	int n = snprintf(text, sizeof(text), "# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID=0000001a\nparentCID=ffffffff\n"
			 "isNativeSnapshot=\"no\"\ncreateType=\"twoGbMaxExtentFlat\"\n\n# Extent description\n");

	for (unsigned i = 1; i <= PARTS; i++) {
		snprintf(name, sizeof(name), "d-f%03u", i);
		n += snprintf(text + n, sizeof(text) - n, "RW %u FLAT \"%s\" 0\n", PART / 512, name);
		disk_put_raw(name, PART, i);
	}
	snprintf(text + n, sizeof(text) - n, "\n# The Disk Data Base\n#DDB\n\nddb.adapterType = \"lsilogic\"\n"
		 "ddb.virtualHWVersion = \"4\"\nddb.comment = \"%*s\"\n", behind, "");
	vmdk_put_text("d", text);
}

static bool is_shifted(struct vd_host *host, bool *yes)
{
	static const char *const kept[] = { "encoding=", "isNativeSnapshot=", "ddb.adapterType = ", "createType=" };
	struct vd_open_opts opts = disk_open_opts(vmdk, 0);
	struct vd_image *img = NULL;
	struct vd_error e;
	uint64_t size;
	bool sound = true;

	for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]) && sound; i++)
		sound = holds_on(host, "d", kept[i]);
	expect_ok(vd_image_open_on(host, vmdk, "d", &opts, &img, &e), &e);
	size = vd_image_size(img);
	*yes = size != PARTS * PART;
	sound &= !*yes || size == PARTS * PART + BY;
	for (unsigned i = 0; i <= PARTS && sound; i++) {
		uint64_t front = *yes ? BY : 0;
		uint8_t got = 0;

		if (i || front)
			expect_ok(vd_image_pread(img, &got, 1, i ? front + (i - 1) * PART : 0, &e), &e);
		sound = got == i;
	}
	vd_image_abort(img);
	return sound;
}

static void crash_through_a_shift(int64_t by)
{
	struct vd_record *record;
	struct vd_error e;
	size_t n, counts[2] = { 0 };

	assert_int_equal(vd_record_new(disks.mem, &record, NULL), 0);
	disks.host = vd_record_host(record);
	shift("d", by, 0);
	n = vd_crash_count(record, 2);
	for (size_t i = 0; i < n; i++) {
		struct vd_crash c;
		bool after;

		expect_ok(vd_crash_state(record, 2, 3, i, &c, &e), &e);
		if (!is_shifted(c.host, &after))
			fail_msg("crash after %zu events, variant %u: neither before nor after", c.cut, c.variant);
		counts[after]++;
		vd_mem_host_free(c.host);
	}
	assert_true(counts[0] && counts[1]);
	disks.host = vd_record_host(disks.record);
	vd_record_free(record);
}

/* The line that has to move, of 34 bytes, would lie across the end of a sector in some. */
static void long_descriptors_change_at_one_instant(void **state)
{
	(void)state;
	for (int behind = 0; behind < 512; behind += 24) {
		assert_int_equal(disks_start(NULL), 0);
		put_parts(behind);
		crash_through_a_shift(BY);
		if (behind % 192 == 0) {
			crash_through_a_shift(-BY);
			crash_through_a_shift(BY);
		}
		assert_int_equal(disks_stop(NULL), 0);
	}
}

/* Each extent's line is in the first sector up to its end: nothing can go. */
static void a_descriptor_without_room_is_refused_before_anything_is_made(void **state)
{
	char name[401] = "", text[1500];
	struct vd_error e;

	(void)state;
	memset(name, 'x', 400);
	snprintf(text, sizeof(text), "version=1\nCID=1\nparentCID=ffffffff\nRW 8 FLAT \"%s\" 0\nRW 8 FLAT \"y\" 0\nRW 8 FLAT \"z-%080d\" 0\n",
		 name, 1);
	vmdk_put_text("d", text);
	disk_put_raw(name, 4096, 1);
	disk_put_raw("y", 4096, 1);
	snprintf(text, sizeof(text), "z-%080d", 1);
	disk_put_raw(text, 4096, 1);
	expect_failure(try_shift("d", BY, 0, &e), VD_EUNSUPPORTED, &e, "no room in one sector");
	assert_false(disks.mem->exists(disks.mem, "d-f000"));
}

/* ---- space ----------------------------------------------------------------------------------------------- */

/* Whatever is written, released and written again: nothing comes below the end that the file had. */
static void space_is_given_out_past_the_end_alone(void **state)
{
	uint64_t end = 0;
	struct vd_image *img;
	struct vd_io *io;
	struct model m;

	(void)state;
	make(&kinds[0], &m);
	shift("d", BY, 0);
	shift("d", -BY, 0);
	assert_int_equal(disks.mem->open(disks.mem, "d", 0, &io, NULL), 0);
	assert_int_equal(vd_io_size(io, &end, NULL), 0);
	vd_io_abort(io);
	img = disk_open(vmdk, "d", VD_OPEN_WRITE | VD_OPEN_APPENDS);
	disk_write(img, 0, 64 * KIB, 1);
	disk_write(img, 512 * KIB, 64 * KIB, 2);
	disk_flush(img);
	walk_host(img, 64);
	for (size_t i = 0; i < walked.n; i++)
		if (walked.runs[i].owner == VD_OWNER_DATA && (walked.runs[i].guest_off < 64 * KIB || walked.runs[i].guest_off == 512 * KIB))
			assert_true(walked.runs[i].off >= end);
	walk_free();
	disk_close(img);
	model_free(&m);
}

#define T(f) cmocka_unit_test_setup_teardown(f, disks_start, disks_stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_kind_moves_forth_and_back),
		cmocka_unit_test(a_front_that_goes_leaves_no_bytes),
		cmocka_unit_test(a_flat_front_can_go_in_part),
		T(what_a_killed_try_left_is_taken_over),
		T(what_cannot_be_is_refused),
		cmocka_unit_test(long_descriptors_change_at_one_instant),
		T(a_descriptor_without_room_is_refused_before_anything_is_made),
		T(space_is_given_out_past_the_end_alone),
	};
	void *folder;
	int r;

	if (vd_tempdir_enter(&folder) < 0)
		return 1;
	r = cmocka_run_group_tests(tests, NULL, NULL);
	return vd_tempdir_leave(&folder) < 0 ? 1 : r;
}
