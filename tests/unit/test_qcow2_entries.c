/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What entries of qcow2 tables may say: each rule broken once, met by a read or by an allocation. */
#include "tests/support/qcow2_bytes.h"

#define qcow2 (&vd_format_qcow2)
#define SIZE (4u << 20)
#define CLUSTER 4096
#define WRITTEN (2 * CLUSTER)           /* from guest offset 0 */

#define COPIED (UINT64_C(1) << 63)
#define COMPRESSED (UINT64_C(1) << 62)

/*
 * With clusters of 4 KiB the file is: header, refcount table at 0x1000, refcount block at 0x2000, L1 table at 0x3000,
 * L2 table at 0x4000, data at 0x5000 and 0x6000, end at 0x7000.
 */
static void make(const char *name, uint32_t cluster, unsigned flags, const char *data_file)
{
	struct vd_create_opts o = disk_create_opts(qcow2, SIZE);
	struct vd_image *img;

	o.cluster_size = cluster;
	o.flags = flags;
	o.data_file = data_file;
	img = disk_create(qcow2, name, &o);
	disk_write(img, 0, WRITTEN, 7);
	disk_commit(img);
	disk_close(img);
}

static void make_plain(void)
{
	make("x", CLUSTER, 0, NULL);
}

static void make_v2(void)
{
	make("x", CLUSTER, VD_CREATE_COMPAT_V2, NULL);
}

static void make_extended(void)
{
	make("x", 16384, VD_CREATE_EXTENDED_L2, NULL);
}

static void make_data_file(void)
{
	make("x", CLUSTER, 0, "data");
}

static void remove_all(void)
{
	disks.mem->unlink(disks.mem, "x", NULL);
	disks.mem->unlink(disks.mem, "data", NULL);
}

static int read_start(unsigned flags, struct vd_error *e)
{
	struct vd_open_opts opts = disk_open_opts(qcow2, flags);
	uint8_t buf[WRITTEN];
	struct vd_image *img = NULL;
	int r;

	expect_ok(vd_image_open_on(disks.host, qcow2, "x", &opts, &img, e), e);
	r = vd_image_pread(img, buf, sizeof(buf), 0, e);
	disk_close(img);
	return r;
}

static int write_at(uint64_t off, struct vd_error *e)
{
	struct vd_image *img = disk_open(qcow2, "x", VD_OPEN_WRITE);
	int r = vd_image_pwrite(img, "hello", 5, off, e);

	if (r == 0)
		r = vd_image_flush(img, e);
	vd_image_abort(img);
	return r;
}

/* ---- L1 and L2 ---------------------------------------------------------------------------------------- */

enum table { L1, L2, BITMAP };

static const struct broken {
	void (*make)(void);
	enum table table;               /* the entry for guest offset 0 there becomes this */
	uint64_t value;
	const char *words;
} broken[] = {
	{ make_plain, L1, COPIED | 0x4001, "L1 entry 0 is 0x8000000000004001, which has reserved bits" },
	{ make_plain, L1, COPIED | 0x0100000000004000, "reserved bits" },
	{ make_plain, L1, 0x4000000000004000, "reserved bits" },
	{ make_plain, L1, COPIED | 0x4200, "L2 table at 16896 does not begin at a cluster" },
	{ make_plain, L1, COPIED | 0x7000, "L2 table at 28672 lies beyond the end of the file" },
	{ make_plain, L1, COPIED | 0x00fffffffffff000, "lies beyond the end" },
	{ make_plain, L1, COPIED | 0x1000, "L2 table at 4096 lies on the refcount table" },
	{ make_plain, L1, COPIED | 0x3000, "L2 table at 12288 lies on the L1 table" },
	{ make_plain, L2, COPIED | 0x5002, "L2 entry 0x8000000000005002 has reserved bits" },
	{ make_plain, L2, COPIED | 0x2000000000005000, "reserved bits" },
	{ make_plain, L2, COPIED | 0x5200, "cluster at 20992 does not begin at a cluster" },
	{ make_plain, L2, COPIED | 0x7000, "cluster at 28672 lies beyond the end of the file" },
	{ make_plain, L2, 0x7001, "cluster at 28672 lies beyond the end" },
	{ make_plain, L2, COPIED | 0x00fffffffffff000, "lies beyond the end" },
	{ make_plain, L2, COPIED, "owns a cluster, but names none" },
	{ make_plain, L2, COPIED | 0x1000, "lies on the refcount table" },
	{ make_plain, L2, 0x3000, "lies on the L1 table" },
	{ make_plain, L2, COMPRESSED | 0x7000, "compressed cluster at 28672 lies beyond the end" },
	{ make_plain, L2, COMPRESSED | 0x03ffffffffffffff, "lies beyond the end" },
	{ make_plain, L2, COMPRESSED | 0x3010, "compressed cluster at 12304 lies on the L1 table" },
	{ make_plain, L2, COMPRESSED | 0x2ff0 | UINT64_C(1) << 58, "compressed cluster at 12272 lies on the L1 table" },
	{ make_plain, L2, COPIED | COMPRESSED | 0x5000, "entry of a compressed cluster has reserved bits" },
	{ make_v2, L2, COPIED | 0x5001, "reserved bits" },
	{ make_v2, L2, 1, "reserved bits" },
	{ make_extended, L2, COPIED | 0x14001, "reserved bits" },
	{ make_extended, BITMAP, 0x0000000100000001, "subcluster bits 0x0000000100000001 contradict" },
	{ make_extended, BITMAP, UINT64_MAX, "contradict" },
	{ make_extended, L2, 0, "contradict" },
	{ make_extended, L2, COMPRESSED | 0x14000, "entry of a compressed cluster has reserved bits" },
	{ make_data_file, L2, COPIED | 0x1000, "guest offset 0 is at 4096 in the data file" },
	{ make_data_file, L2, COMPRESSED | 0x5000, "external data file has a compressed cluster" },
};

static void break_it(const struct broken *b)
{
	struct vd_error e;
	uint64_t at, tick;
	int r, w;

	remove_all();
	b->make();
	expect_ok(read_start(0, &e), &e);
	at = b->table == L1 ? bytes_l1("x") : bytes_l2_entry("x", 0) + (b->table == BITMAP) * 8;
	bytes_put("x", at, 8, b->value);
	r = read_start(0, &e);
	if (r != VD_ECORRUPT || strncmp(e.message, "x: ", 3) || !strstr(e.message, b->words) ||
	    e.offset != at - (b->table == BITMAP) * 8 || !strstr(e.hint, "vdisk check"))
		fail_msg("0x%016llx: wanted '%s', at %llu; got %s: %s", (unsigned long long)b->value, b->words,
			 (unsigned long long)at, vd_code_name(r), r ? e.message : "");
	/* A writer sees it, too, and leaves the image alone. */
	tick = vd_record_tick(disks.record);
	w = write_at(0, &e);
	assert_int_equal(w, VD_ECORRUPT);
	assert_int_equal(disks_count(VD_OP_WRITE | VD_OP_PUNCH, tick), 0);
}

static void each_broken_entry_is_told_with_its_place(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++)
		break_it(&broken[i]);
}

/* ---- refcounts ---------------------------------------------------------------------------------------- */

static const struct miscount {
	uint64_t off;
	unsigned n_bytes;
	uint64_t value;
	const char *words;
	uint64_t at;
} miscounts[] = {
	{ 0x1000, 8, 0x2001, "refcount table entry 0 is 0x0000000000002001, which has reserved bits", 0x1000 },
	{ 0x1000, 8, 0x2200, "refcount block at 8704 does not begin", 0x1000 },
	{ 0x1000, 8, 0x7000, "refcount block at 28672 lies beyond the end", 0x1000 },
	{ 0x1000, 8, 0x3000, "refcount block at 12288 lies on the L1 table", 0x1000 },
	{ 0x1000, 8, 0, "but the header is there", 0 },
	{ 0x2000, 2, 0, "refcount of a cluster is 0, but the header is there", 0 },
	{ 0x2002, 2, 0, "but the refcount table is there", 0x1000 },
	{ 0x2006, 2, 0, "but the L1 table is there", 0x3000 },
};

static void no_space_is_given_out_by_broken_refcounts(void **state)
{
	struct vd_error e;

	(void)state;
	for (size_t i = 0; i < sizeof(miscounts) / sizeof(miscounts[0]); i++) {
		const struct miscount *m = &miscounts[i];
		uint64_t tick;
		int r;

		remove_all();
		make_plain();
		bytes_put("x", m->off, m->n_bytes, m->value);
		expect_ok(read_start(0, &e), &e);
		tick = vd_record_tick(disks.record);
		r = write_at(1u << 20, &e);
		expect_failure(r, VD_ECORRUPT, &e, m->words);
		assert_true(e.has_offset && e.offset == m->at);
		assert_int_equal(disks_count(CHANGES, tick), 0);
	}
}

/* One block for the whole table, in which every count is taken: 17 million clusters in a file of some. */
static void refcounts_without_end_are_not_followed(void **state)
{
	struct vd_create_opts o = disk_create_opts(qcow2, UINT64_C(64) << 30);
	struct vd_image *img;
	struct vd_error e;
	static uint8_t entries[1u << 17];
	uint64_t table, block;
	uint8_t ones[CLUSTER];

	(void)state;
	o.cluster_size = CLUSTER;
	img = disk_create(qcow2, "x", &o);
	disk_commit(img);
	disk_close(img);
	table = bytes_get("x", 48, 8);
	block = bytes_get("x", table, 8);
	memset(ones, 0x11, sizeof(ones));
	bytes_write("x", block, ones, sizeof(ones));
	for (size_t i = 0; i < sizeof(entries); i += 8)
		vd_put_be64(entries + i, block);
	assert_true(bytes_get("x", 56, 4) * CLUSTER <= sizeof(entries));
	bytes_write("x", table, entries, bytes_get("x", 56, 4) * CLUSTER);
	expect_failure(write_at(1u << 20, &e), VD_ECORRUPT, &e, "past the end of the file");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(each_broken_entry_is_told_with_its_place, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(no_space_is_given_out_by_broken_refcounts, disks_start, disks_stop),
		cmocka_unit_test_setup_teardown(refcounts_without_end_are_not_followed, disks_start, disks_stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
