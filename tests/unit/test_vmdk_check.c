/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a check finds in VMDKs, and whose each byte of them is. Disks that vdisk made are walked in test_host.c. */
#include "libvdisk/base/checked.h"
#include "tests/support/hostwalk.h"
#include "tests/support/vmdk_bytes.h"

#define vmdk (&vd_format_vmdk)
#define SECTOR 512
#define DISK 10004

static struct {
	struct vd_finding last;
	unsigned n;
} seen;

static int note(void *ctx, const struct vd_finding *f)
{
	(void)ctx;
	seen.last = *f;
	seen.n++;
	return 0;
}

static struct vd_check_report check(const char *name)
{
	struct vd_check_report rep = { .struct_size = sizeof(rep) };
	struct vd_image *img = disk_open(vmdk, name, VD_OPEN_METADATA | VD_OPEN_FILES);
	struct vd_error e;

	memset(&seen, 0, sizeof(seen));
	expect_ok(vd_image_check(img, VD_REPAIR_NONE, note, NULL, NULL, &rep, &e), &e);
	disk_close(img);
	return rep;
}

static struct vmdk_bytes usual(void)
{
	struct vmdk_bytes b = vmdk_hosted(DISK, vmdk_sparse_text(DISK, ""));

	vmdk_add_grain(&b, 1, 0x11);
	vmdk_add_grain(&b, 0, 0x10);
	vmdk_add_grain(&b, 513, 0x33);
	vmdk_add_grain(&b, DISK / 8, 0x44);
	return b;
}

static void sound_disks_have_no_faults(void **state)
{
	struct vmdk_bytes hosted = usual(), cowd = vmdk_cowd(1000), se = vmdk_sesparse(1000);
	struct vd_check_report rep;

	(void)state;
	vmdk_cowd_add_grain(&cowd, 3, 1);
	vmdk_sesparse_set(&se, 5, 3, 1);
	vmdk_put("s", &hosted);
	vmdk_put("c", &cowd);
	vmdk_put("e", &se);
	disk_put_raw("f", 100 * SECTOR, 1);
	vmdk_put_text("d", "version=1\nRW 16 FLAT \"f\" 8\nRW 1000 SPARSE \"c\"\nRW 20 FLAT \"f\" 80\nRW 1000 SESPARSE \"e\"\n"
		      "RW 10004 SPARSE \"s\"\nNOACCESS 5 FLAT \"none\"\nRW 5 ZERO\n");
	rep = check("d");
	assert_int_equal(seen.n, 0);
	assert_int_equal(rep.corruptions + rep.leaks + rep.check_errors, 0);
	rep = check("s");
	assert_int_equal(seen.n, 0);
	assert_int_equal(rep.allocated_clusters, 4);
	vmdk_free(&hosted);
	vmdk_free(&cowd);
	vmdk_free(&se);
}

/* Bytes that are changed, and the one thing that is found. */
static void each_damage_is_found(void **state)
{
	static const struct {
		size_t at;
		uint32_t value;
		enum vd_finding_kind kind;
		uint64_t corruptions;
	} damage[] = {
		{ (VMDK_RGD_AT + 1) * SECTOR, 0, VD_FOUND_CONTRADICTION, 1 },
		{ (VMDK_GD_AT + 1) * SECTOR, 99999, VD_FOUND_CONTRADICTION, 1 },
		{ VMDK_GD_AT * SECTOR + 4, 99999, VD_FOUND_TABLE, 1 },
		{ VMDK_RGD_AT * SECTOR + 8, 99999, VD_FOUND_TABLE, 1 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(damage) / sizeof(damage[0]); i++) {
		struct vmdk_bytes b = usual();
		struct vd_check_report rep;

		vd_put_le32(b.p + damage[i].at, damage[i].value);
		vmdk_put("d", &b);
		rep = check("d");
		assert_int_equal(seen.n, 1);
		assert_int_equal(seen.last.kind, damage[i].kind);
		assert_int_equal(rep.corruptions, damage[i].corruptions);
		vmdk_free(&b);
	}
}

static void both_entries(struct vmdk_bytes *b, uint64_t grain, uint32_t value)
{
	vd_put_le32(vmdk_entry(b, grain, false), value);
	vd_put_le32(vmdk_entry(b, grain, true), value);
}

static void grains_outside_or_named_twice_are_found(void **state)
{
	struct vmdk_bytes b = usual();
	struct vd_check_report rep;

	(void)state;
	both_entries(&b, 7, VMDK_GRAINS_AT + 4);
	vmdk_put("d", &b);
	rep = check("d");
	assert_int_equal(seen.last.kind, VD_FOUND_OVERLAP);
	assert_int_equal(seen.last.guest_off, 7 * VMDK_GRAIN);
	assert_int_equal(rep.corruptions, 1);
	both_entries(&b, 7, 0);
	both_entries(&b, 513, 99999);
	vmdk_put("d", &b);
	rep = check("d");
	assert_int_equal(rep.corruptions, 1);
	assert_int_equal(rep.leaks, 1);
	both_entries(&b, 513, 0);
	vmdk_put("d", &b);
	rep = check("d");
	assert_int_equal(rep.corruptions, 0);
	assert_int_equal(seen.last.kind, VD_FOUND_LEAK);
	assert_int_equal(rep.leaks, 1);
	vmdk_free(&b);
}

static void an_unclean_close_is_told(void **state)
{
	struct vmdk_bytes b = usual();

	(void)state;
	b.p[72] = 1;
	vmdk_put("d", &b);
	check("d");
	assert_int_equal(seen.n, 1);
	assert_int_equal(seen.last.kind, VD_FOUND_DIRTY);
	vmdk_free(&b);
}

/* ---- whose the bytes are ------------------------------------------------------------------------------ */

static void expect_owner(uint64_t off, enum vd_owner owner, uint64_t guest_off)
{
	const struct vd_host_run *r = walked_at(0, off);

	if (r->owner != owner)
		fail_msg("byte %llu belongs to %s, not %s", (unsigned long long)off, vd_owner_name(r->owner), vd_owner_name(owner));
	if (guest_off != VD_HOST_NOWHERE)
		assert_int_equal(r->guest_off + (off - r->off), guest_off);
}

static void every_part_of_a_sparse_extent_has_its_owner(void **state)
{
	struct vmdk_bytes b = usual();
	struct vd_image *img;

	(void)state;
	/* A grain that only the redundant table names is nobody's. */
	vd_put_le32(vmdk_entry(&b, 513, false), 0);
	vmdk_put("d", &b);
	img = disk_open(vmdk, "d", VD_OPEN_METADATA);
	walk_host(img, 8);
	expect_owner(0, VD_OWNER_HEADER, VD_HOST_NOWHERE);
	expect_owner(SECTOR, VD_OWNER_DESCRIPTOR, VD_HOST_NOWHERE);
	expect_owner(4 * SECTOR, VD_OWNER_SLACK, VD_HOST_NOWHERE);
	expect_owner(VMDK_RGD_AT * SECTOR, VD_OWNER_COPY, VD_HOST_NOWHERE);
	expect_owner(VMDK_RGD_AT * SECTOR + 12, VD_OWNER_SLACK, VD_HOST_NOWHERE);
	expect_owner((VMDK_RGD_AT + 1) * SECTOR, VD_OWNER_COPY, VD_HOST_NOWHERE);
	expect_owner(VMDK_GD_AT * SECTOR, VD_OWNER_TABLE, VD_HOST_NOWHERE);
	expect_owner((VMDK_GD_AT + 1) * SECTOR, VD_OWNER_TABLE, VD_HOST_NOWHERE);
	expect_owner(VMDK_GRAINS_AT * SECTOR, VD_OWNER_DATA, VMDK_GRAIN);
	expect_owner((VMDK_GRAINS_AT + 8) * SECTOR, VD_OWNER_DATA, 0);
	expect_owner((VMDK_GRAINS_AT + 16) * SECTOR, VD_OWNER_FREE, VD_HOST_NOWHERE);
	expect_owner((VMDK_GRAINS_AT + 24) * SECTOR, VD_OWNER_DATA, DISK / 8 * VMDK_GRAIN);
	expect_owner(b.len - 1, VD_OWNER_SLACK, VD_HOST_NOWHERE);
	assert_int_equal(walked_bytes(VD_OWNER_SLACK, VD_SLACK_PAST_END), 4 * SECTOR);
	assert_int_equal(walked_bytes(VD_OWNER_CORRUPT, VD_N_WHYS), 0);
	disk_close(img);
	walk_free();
	vmdk_free(&b);
}

static void every_part_of_a_stream_has_its_owner(void **state)
{
	struct vd_create_opts opts = disk_create_opts(vmdk, 40 << 20);
	struct vd_job job = { .struct_size = sizeof(job), .n_threads = 2 };
	struct vd_image *src, *img;
	struct vd_error e;

	(void)state;
	opts.subformat = "streamOptimized";
	disk_put_raw("r", 40 << 20, 0x5a);
	src = disk_open(&vd_format_raw, "r", 0);
	img = disk_create(vmdk, "d", &opts);
	expect_ok(vd_image_copy(src, img, true, &job, NULL, &e), &e);
	disk_commit(img);
	disk_close(img);
	disk_close(src);
	assert_int_equal(check("d").compressed_clusters, 640);
	assert_int_equal(seen.n, 0);
	img = disk_open(vmdk, "d", VD_OPEN_METADATA);
	walk_host(img, 64);
	assert_int_equal(walked.n_findings, 0);
	assert_int_equal(walked_bytes(VD_OWNER_CORRUPT, VD_N_WHYS), 0);
	expect_owner(128 * SECTOR, VD_OWNER_PACKED, 0);
	/* Up to the first grain there is nothing; behind it every byte is somebody's. */
	assert_in_range(walked_bytes(VD_OWNER_FREE, VD_N_WHYS) + walked_bytes(VD_OWNER_HOSTHOLE, VD_N_WHYS), 0, 107 * SECTOR);
	disk_close(img);
	walk_free();
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, disks_start, disks_stop)
	const struct CMUnitTest tests[] = {
		T(sound_disks_have_no_faults),
		T(each_damage_is_found),
		T(grains_outside_or_named_twice_are_found),
		T(an_unclean_close_is_told),
		T(every_part_of_a_sparse_extent_has_its_owner),
		T(every_part_of_a_stream_has_its_owner),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
