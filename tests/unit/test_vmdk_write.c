/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writing into VMDKs: what reaches the host in which order, which disks are only read, and what streams take. That the
 * bytes are right, test_random.c and the interop tests say.
 */
#include "libvdisk/base/checked.h"
#include "tests/support/vhdx_bytes.h"
#include "tests/support/vmdk_bytes.h"

#define vmdk (&vd_format_vmdk)
#define SECTOR 512
#define DISK 10004
#define TEXT_AT (SECTOR + 36)           /* of the CID's digits */

static struct vmdk_bytes usual(void)
{
	struct vmdk_bytes b = vmdk_hosted(DISK, vmdk_sparse_text(DISK, ""));

	/* The grains begin where grains do. */
	vmdk_add_grain(&b, 1, 0x11);
	return b;
}

static int try_write(const char *name, struct vd_error *e)
{
	struct vd_open_opts opts = disk_open_opts(vmdk, VD_OPEN_WRITE);
	struct vd_image *img = NULL;
	int r = vd_image_open_on(disks.host, vmdk, name, &opts, &img, e);

	if (r == 0)
		r = vd_image_pwrite(img, "x", 1, 0, e);
	vd_image_abort(img);
	return r;
}

/* The first event of this kind that touches the byte of the disk's file, as its place in the record; SIZE_MAX: none. */
static size_t first_write_at(uint64_t off)
{
	const struct vd_event *ev;

	for (size_t i = 0; (ev = vd_record_event(disks.record, i)); i++)
		if (ev->kind == VD_OP_WRITE && off >= ev->off && off < ev->off + ev->len)
			return i;
	return SIZE_MAX;
}

static bool flushed_between(size_t from, size_t to)
{
	for (size_t i = from; i < to; i++)
		if (vd_record_event(disks.record, i)->kind == VD_OP_FLUSH)
			return true;
	return false;
}

static void each_step_is_durable_before_the_next(void **state)
{
	struct vmdk_bytes b = usual();
	uint64_t entry = vmdk_entry(&b, 7, false) - b.p, copy = vmdk_entry(&b, 7, true) - b.p;
	size_t cid, unclean, payload, second, first;
	struct vd_image *img;

	(void)state;
	vmdk_put("d", &b);
	img = disk_open(vmdk, "d", VD_OPEN_WRITE);
	disk_write(img, 7 * VMDK_GRAIN, VMDK_GRAIN, 0x77);
	disk_flush(img);
	cid = first_write_at(TEXT_AT);
	unclean = first_write_at(72);
	payload = first_write_at(b.len);
	second = first_write_at(copy);
	first = first_write_at(entry);
	assert_true(cid < payload && unclean < payload && payload < second && second < first && first != SIZE_MAX);
	assert_true(flushed_between(vd_max_u64(cid, unclean), payload));
	assert_true(flushed_between(payload, second) && flushed_between(second, first));
	disk_close(img);
	vmdk_free(&b);
}

static void read_all(const char *name, uint8_t *buf, size_t len)
{
	struct vd_image *img = disk_open(&vd_format_raw, name, VD_OPEN_FORCE_SHARE);
	struct vd_error e;

	expect_ok(vd_image_pread(img, buf, len, 0, &e), &e);
	disk_close(img);
}

/* A handle that writes nothing changes nothing; one that writes changes the CID's digits, and no other byte of the text. */
static void only_the_cids_digits_change(void **state)
{
	struct vmdk_bytes b = usual();
	uint8_t *now = malloc(b.len);
	struct vd_image *img;

	(void)state;
	vmdk_put("d", &b);
	disk_close(disk_open(vmdk, "d", VD_OPEN_WRITE));
	read_all("d", now, b.len);
	assert_memory_equal(now, b.p, b.len);
	img = disk_open(vmdk, "d", VD_OPEN_WRITE);
	disk_write(img, VMDK_GRAIN, 10, 0x12);
	disk_flush(img);
	read_all("d", now, b.len);
	assert_int_equal(now[72], 1);
	disk_close(img);
	read_all("d", now, b.len);
	assert_memory_not_equal(now + TEXT_AT, b.p + TEXT_AT, 8);
	memcpy(now + TEXT_AT, b.p + TEXT_AT, 8);
	assert_memory_equal(now, b.p, VMDK_GRAINS_AT * SECTOR);
	free(now);
	vmdk_free(&b);
}

/* Bytes, or lines of the descriptor, that make a disk one that is only read. */
static void disks_that_are_only_read_say_why(void **state)
{
	static const struct {
		size_t at;
		uint32_t value;
		const char *line, *words;
	} cases[] = {
		{ 4, 3, "", "version 3" },
		{ 28, 0, "", "without the descriptor" },
		{ 56, 99999, "", "first grain directory is damaged" },
		{ VMDK_GD_AT * SECTOR + 4, 0, "", "damaged or missing" },
		{ VMDK_RGD_AT * SECTOR + 4, 99999, "", "damaged or missing" },
		{ 4, 1, "changeTrackPath=\"x\"\n", "another file records" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct vmdk_bytes b = vmdk_hosted(DISK, vmdk_sparse_text(DISK, cases[i].line));
		struct vd_error e;

		vd_put_le32(b.p + cases[i].at, cases[i].value);
		vmdk_put("d", &b);
		expect_failure(try_write("d", &e), VD_EREADONLY, &e, cases[i].words);
		vmdk_free(&b);
	}
}

static void other_extents_that_are_only_read_say_why(void **state)
{
	struct vmdk_bytes se = vmdk_sesparse(1000), sparse = usual();
	struct vd_error e;

	(void)state;
	vmdk_put("c", &se);
	vmdk_put("s", &sparse);
	vmdk_put_text("d", "version=1\nRW 1000 SESPARSE \"c\"\n");
	expect_failure(try_write("d", &e), VD_EREADONLY, &e, "seSparse extents are only read");
	vmdk_put_text("d", "version=1\nRW 7 ZERO\nRW 10000 SPARSE \"s\"\n");
	expect_failure(try_write("d", &e), VD_EREADONLY, &e, "do not begin where grains do");
	vmdk_put_text("d", "version=1\nRDONLY 10000 SPARSE \"s\"\n");
	expect_failure(try_write("d", &e), VD_EREADONLY, &e, "RDONLY");
	vmdk_free(&se);
	vmdk_free(&sparse);
}

/* Tables come when they are needed, at the end, and the header says what is free. */
static void a_cowd_extent_gets_its_tables(void **state)
{
	struct vmdk_bytes b = vmdk_cowd(3 * 4096 * 8);
	uint64_t table = 37 * SECTOR, span = 4096 * VMDK_GRAIN;
	struct vd_image *img;

	(void)state;
	vd_put_le32(b.p + 24, 3);
	vmdk_cowd_add_grain(&b, 1, 7);
	vmdk_put("c", &b);
	vmdk_put_text("d", "version=1\nCID=1\nparentCID=ffffffff\nRW 98304 VMFSSPARSE \"c\"\n");
	img = disk_open(vmdk, "d", VD_OPEN_WRITE);
	disk_write(img, 2 * span - 10, 20, 5);
	assert_int_equal(le_get("c", 1648, 4), 1);
	disk_close(img);
	assert_int_equal(le_get("c", 1648, 4), 0);
	assert_int_equal(le_get("c", 4 * SECTOR, 4), 5);
	assert_int_equal(le_get("c", 4 * SECTOR + 4, 4), (table + VMDK_GRAIN) / SECTOR);
	assert_int_equal(le_get("c", 4 * SECTOR + 8, 4), (table + 2 * VMDK_GRAIN + 16384) / SECTOR);
	assert_int_equal(le_get("c", 28, 4) * SECTOR, bytes_size("c"));
	img = disk_open(vmdk, "d", 0);
	disk_expect(img, VMDK_GRAIN, VMDK_GRAIN, 7);
	disk_expect(img, 2 * span - 20, 10, 0);
	disk_expect(img, 2 * span - 10, 20, 5);
	disk_close(img);
	vmdk_free(&b);
}

/* The grain after the tables' own place is what a hostile entry would have a writer overwrite. */
static void entries_that_name_tables_are_not_written_through(void **state)
{
	struct vmdk_bytes b = usual();
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	vd_put_le32(vmdk_entry(&b, 5, false), VMDK_GD_AT + 2);
	vd_put_le32(vmdk_entry(&b, 5, true), VMDK_GD_AT + 2);
	vmdk_put("d", &b);
	img = disk_open(vmdk, "d", VD_OPEN_WRITE);
	expect_failure(vd_image_pwrite(img, "x", 1, 5 * VMDK_GRAIN, &e), VD_ECORRUPT, &e, "cannot be where the table says");
	vd_image_abort(img);
	vmdk_free(&b);
}

/* ---- streams ------------------------------------------------------------------------------------------ */

static struct vd_image *new_stream(void)
{
	struct vd_create_opts opts = disk_create_opts(vmdk, 1 << 20);

	opts.subformat = "streamOptimized";
	return disk_create(vmdk, "d", &opts);
}

static int reserve(struct vd_image *img, uint64_t off, struct vd_resv *v, struct vd_error *e)
{
	*v = (struct vd_resv){ .off = off, .len = 65536, .packed_len = 100 };
	return vd_write_reserve(img, v, e);
}

static void a_stream_takes_whole_grains_in_ascending_order(void **state)
{
	struct vd_image *img = new_stream();
	struct vd_resv v;
	struct vd_error e;

	(void)state;
	expect_failure(vd_image_pwrite(img, "x", 1, 0, &e), VD_EUNSUPPORTED, &e, "written once");
	expect_ok(reserve(img, 2 * 65536, &v, &e), &e);
	assert_int_equal(v.prefix_len, 12);
	assert_int_equal(vd_get_le64(v.prefix), 256);
	expect_failure(reserve(img, 65536, &v, &e), VD_EUNSUPPORTED, &e, "ascending order");
	expect_failure(reserve(img, 2 * 65536, &v, &e), VD_EUNSUPPORTED, &e, "ascending order");
	expect_failure(reserve(img, 3 * 65536 + 512, &v, &e), VD_EUNSUPPORTED, &e, "whole grains");
	vd_image_abort(img);
}

static void a_stream_with_a_grain_missing_has_no_end(void **state)
{
	struct vd_image *img = new_stream();
	struct vd_resv v;
	struct vd_error e;

	(void)state;
	expect_ok(vd_write_start(img, &e), &e);
	expect_ok(reserve(img, 0, &v, &e), &e);
	vd_write_cancel(img, &v);
	expect_failure(vd_image_commit(img, &e), VD_EIO, &e, "has no end");
	vd_image_abort(img);
	assert_false(disks.host->exists(disks.host, "d"));
}

static void a_cut_stream_says_how_far_it_is_sound(void **state)
{
	const struct vd_job job = { .struct_size = sizeof(job), .n_threads = 1 };
	struct vd_image *src, *img = new_stream();
	uint8_t raw[70000];
	struct vd_error e;

	(void)state;
	disk_put_raw("r", 1 << 20, 0x5a);
	src = disk_open(&vd_format_raw, "r", 0);
	expect_ok(vd_image_copy(src, img, true, &job, NULL, &e), &e);
	disk_commit(img);
	disk_close(img);
	disk_close(src);
	/* Of sixteen grains of a sector each, four and a half. */
	read_all("d", raw, 128 * SECTOR + 4 * SECTOR + 20);
	expect_ok(vd_mem_put(disks.mem, "d", raw, 128 * SECTOR + 4 * SECTOR + 20, &e), &e);
	expect_failure(try_write("d", &e), VD_ECORRUPT, &e, "only the first 262144 of 1048576 bytes");
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, disks_start, disks_stop)
	const struct CMUnitTest tests[] = {
		T(each_step_is_durable_before_the_next),
		T(only_the_cids_digits_change),
		T(disks_that_are_only_read_say_why),
		T(other_extents_that_are_only_read_say_why),
		T(a_cowd_extent_gets_its_tables),
		T(entries_that_name_tables_are_not_written_through),
		T(a_stream_takes_whole_grains_in_ascending_order),
		T(a_stream_with_a_grain_missing_has_no_end),
		T(a_cut_stream_says_how_far_it_is_sound),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
