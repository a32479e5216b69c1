/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Packed clusters become plain ones in place: every view reads what it did, nothing packed is left, at any crash. */
#include "tests/support/hostwalk.h"
#include "tests/support/qcow2_bytes.h"
#include "tests/support/qcow2_check.h"
#include "tests/support/recrypt.h"
#include "tests/support/tempdir.h"
#include "tests/support/variant.h"

#include <errno.h>
#include <stdio.h>

#include "formats/qcow2/qcow2_claims.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/core/inplace_unpack.h"

#define KIB 1024
#define MIB (1024 * 1024)
#define QCOW2 (&vd_format_qcow2)

static const struct variant kinds[] = {
	{ "deflate", QCOW2, VARIANT_PACKED, MIB + 1536, 16 * KIB, { .cluster_size = 16 * KIB } },
	{ "zstd", QCOW2, VARIANT_PACKED, 2 * MIB + 1536, 64 * KIB, { .compression = VD_COMPRESSION_ZSTD } },
	{ "512", QCOW2, VARIANT_PACKED, 200 * KIB + 512, 512, { .cluster_size = 512 } },
	{ "512 refcount 64", QCOW2, VARIANT_PACKED, 100 * KIB, 512, { .cluster_size = 512, .refcount_bits = 64 } },
	{ "4k refcount 8", QCOW2, VARIANT_PACKED, 300 * KIB, 4 * KIB, { .cluster_size = 4 * KIB, .refcount_bits = 8 } },
	{ "v2 over raw", QCOW2, VARIANT_PACKED | VARIANT_OVER_RAW, MIB + 1536, 4 * KIB,
	  { .flags = VD_CREATE_COMPAT_V2, .cluster_size = 4 * KIB } },
	{ "extended l2 zstd", QCOW2, VARIANT_PACKED, MIB + 1536, 16 * KIB,
	  { .flags = VD_CREATE_EXTENDED_L2, .cluster_size = 16 * KIB, .compression = VD_COMPRESSION_ZSTD } },
	{ "2m", QCOW2, VARIANT_PACKED, 9 * MIB + 1536, 2 * MIB, { .cluster_size = 2 * MIB } },
};
#define N_KINDS (sizeof(kinds) / sizeof(kinds[0]))

/* ---- an image with a history ---------------------------------------------------------------------------- */

#define N_VIEWS 3
static const char *const view_names[N_VIEWS] = { NULL, "s", "t" };

struct views {
	uint8_t *at[N_VIEWS];
	uint64_t size[N_VIEWS];
};

static void views_read(const struct variant *v, struct vd_host *host, struct views *w)
{
	for (size_t i = 0; i < N_VIEWS; i++) {
		struct vd_image *img = NULL;
		struct vd_error e;

		if (view_names[i])
			expect_ok(variant_open_snapshot(v, host, "d", view_names[i], &img, &e), &e);
		else
			expect_ok(variant_open_on(v, host, "d", 0, 0, &img, &e), &e);
		w->size[i] = vd_image_size(img);
		w->at[i] = malloc(w->size[i]);
		expect_ok(vd_image_pread(img, w->at[i], w->size[i], 0, &e), &e);
		vd_image_abort(img);
	}
}

static void views_free(struct views *w)
{
	for (size_t i = 0; i < N_VIEWS; i++)
		free(w->at[i]);
}

static void expect_views(const struct variant *v, struct vd_host *host, const struct views *want)
{
	struct views got;

	views_read(v, host, &got);
	for (size_t i = 0; i < N_VIEWS; i++) {
		assert_int_equal(got.size[i], want->size[i]);
		if (memcmp(got.at[i], want->at[i], got.size[i]))
			fail_msg("%s: view %zu reads otherwise than before", v->name, i);
	}
	views_free(&got);
}

/* Two snapshots that share tables and clusters with the disk, and some of each that are their own. */
static void prepare(const struct variant *v, struct model *m, struct views *w)
{
	struct vd_image *img;
	struct vd_error e;

	assert_int_equal(disks_start(NULL), 0);
	model_init(m, v->size, 11);
	assert_true(variant_make(v, m));
	img = variant_open(v, VD_OPEN_WRITE);
	expect_ok(vd_snapshot_create(img, "s", &e), &e);
	model_write(m, img, m->size / 2, m->size / 8);
	expect_ok(vd_snapshot_create(img, "t", &e), &e);
	model_write(m, img, m->size / 2 + m->size / 16, m->size / 8);
	model_zero(m, img, m->size / 8, m->size / 8);
	disk_close(img);
	views_read(v, disks.mem, w);
}

static void finish(struct model *m, struct views *w)
{
	views_free(w);
	model_free(m);
	assert_int_equal(disks_stop(NULL), 0);
}

static uint64_t packed_bytes(struct vd_image *img)
{
	uint64_t n;

	walk_host(img, 64);
	assert_int_equal(walked.n_findings, 0);
	n = walked_bytes(VD_OWNER_PACKED, VD_N_WHYS);
	walk_free();
	return n;
}

static const struct vd_layer plain;

static void unpack(struct vd_image *img, const struct vd_layer *to)
{
	struct vd_error e;

	assert_true(packed_bytes(img) > 0);
	expect_ok(vd_inplace_unpack(img, to, NULL, &e), &e);
	assert_int_equal(packed_bytes(img), 0);
}

/* ---- what comes of it ----------------------------------------------------------------------------------- */

static void every_view_of_any_kind_stays(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_KINDS; i++) {
		struct vd_image *img;
		struct views w;
		struct model m;

		prepare(&kinds[i], &m, &w);
		img = recrypt_open(0);
		unpack(img, &plain);
		disk_close(img);
		expect_sound("d");
		expect_views(&kinds[i], disks.mem, &w);
		if (peer_is_here()) {
			peer_check(&kinds[i], disks.mem, false);
			peer_compare(&kinds[i], disks.mem, &m);
		}
		finish(&m, &w);
	}
}

/* All that a conversion does to a qcow2 image, at the end of which qemu reads disk and snapshot by the key. */
static void with_a_cipher_they_are_born_encrypted(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_KINDS; i++) {
		struct variant v = kinds[i];
		struct vd_image *img;
		struct recrypt to;
		struct vd_error e;
		struct views w;
		struct model m;
		uint64_t end;

		prepare(&v, &m, &w);
		recrypt_init(&to);
		img = recrypt_open(0);
		end = bytes_size("d");
		unpack(img, &to.layer);
		recrypt_data(img, end, NULL, &to.layer);
		expect_ok(recrypt_set(img, &to, &e), &e);
		disk_close(img);
		expect_sound("d");
		v.flags |= VARIANT_LUKS | VARIANT_SNAPSHOT;
		expect_views(&v, disks.mem, &w);
		variant_snapshot = w.at[1];
		if (peer_is_here()) {
			peer_check(&v, disks.mem, false);
			peer_compare(&v, disks.mem, &m);
		}
		variant_snapshot = NULL;
		recrypt_free(&to);
		finish(&m, &w);
	}
}

static void what_views_share_stays_shared(void **state)
{
	struct vd_image *img;
	struct views w;
	struct model m;
	uint64_t n_packed = 0, end, entry;

	(void)state;
	prepare(&kinds[0], &m, &w);
	img = recrypt_open(0);
	walk_host(img, 64);
	for (size_t i = 0; i < walked.n; i++)
		n_packed += walked.runs[i].owner == VD_OWNER_PACKED;
	walk_free();
	end = bytes_size("d");
	unpack(img, &plain);
	disk_close(img);
	/* The first cluster has all three views as owners, the one with zeros over it two. */
	entry = bytes_get("d", bytes_l2_entry("d", 0), 8);
	assert_true(entry >= end && !(entry & QCOW2_COPIED));
	assert_int_equal(bytes_refcount("d", entry), 3);
	/* Each once, and hardly anything beside them. */
	assert_true(bytes_size("d") <= vd_round_up(end, 16 * KIB) + (n_packed + 2) * 16 * KIB);
	finish(&m, &w);
}

/* Nor does it matter how little the driver looks at together; and still each is expanded once. */
static void windows_may_be_small(void **state)
{
	static const struct { size_t entries, batch; } rooms[] = { { 256 << 10, 512 << 10 }, { 8, 512 << 10 }, { 17, 1 }, { 64, 2 } };
	size_t entries = vd_unpack_entries, batch = vd_qcow2_visit_batch;
	uint64_t size = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(rooms) / sizeof(rooms[0]); i++) {
		struct vd_image *img;
		struct views w;
		struct model m;

		prepare(&kinds[2], &m, &w);
		img = recrypt_open(0);
		vd_unpack_entries = rooms[i].entries;
		vd_qcow2_visit_batch = rooms[i].batch;
		unpack(img, &plain);
		vd_unpack_entries = entries;
		vd_qcow2_visit_batch = batch;
		disk_close(img);
		expect_sound("d");
		expect_views(&kinds[2], disks.mem, &w);
		size = size ? size : bytes_size("d");
		assert_int_equal(bytes_size("d"), size);
		finish(&m, &w);
	}
}

/* Where the packed clusters were. */
static void old_bytes_are_overwritten_if_asked(void **state)
{
	(void)state;
	for (int scrubs = 0; scrubs < 2; scrubs++) {
		struct vd_image *img;
		struct vd_error e;
		struct views w;
		struct model m;
		uint64_t n_left = 0;

		prepare(&kinds[0], &m, &w);
		img = recrypt_open(scrubs ? VD_OPEN_SCRUB_FREED : 0);
		walk_host(img, 64);
		for (size_t i = 0; i < walked.n; i++)
			if (walked.runs[i].owner != VD_OWNER_PACKED)
				walked.runs[i].len = 0;
		expect_ok(vd_inplace_unpack(img, &plain, NULL, &e), &e);
		disk_close(img);
		for (size_t i = 0; i < walked.n; i++) {
			uint8_t *bytes = malloc(walked.runs[i].len + 1);

			bytes_read("d", walked.runs[i].off, bytes, walked.runs[i].len);
			n_left += !vd_is_zero(bytes, walked.runs[i].len);
			free(bytes);
		}
		walk_free();
		assert_int_equal(n_left == 0, scrubs);
		expect_views(&kinds[0], disks.mem, &w);
		finish(&m, &w);
	}
}

/* ---- stopping and going on ------------------------------------------------------------------------------ */

static int cancel(void *ctx, const struct vd_progress *p)
{
	unsigned *n = ctx;

	assert_true(p->done <= p->total);
	return ++*n >= 2;
}

static void it_goes_on_where_it_was_cancelled(void **state)
{
	struct vd_image *img;
	struct vd_error e;
	struct views w;
	struct model m;
	int r, n_runs = 0;

	(void)state;
	/* Blocks of 64 counts: little space side by side. */
	prepare(&kinds[3], &m, &w);
	do {
		unsigned n = 0;
		struct vd_job job = { .struct_size = sizeof(job), .progress = cancel, .ctx = &n, .n_threads = 4 };

		img = recrypt_open(0);
		r = vd_inplace_unpack(img, &plain, &job, &e);
		assert_true(r == 0 || r == VD_ECANCELLED);
		disk_close(img);
		expect_sound("d");
		expect_views(&kinds[3], disks.mem, &w);
	} while (r < 0 && ++n_runs < 1000);
	assert_true(r == 0 && n_runs > 1);
	img = recrypt_open(0);
	assert_int_equal(packed_bytes(img), 0);
	disk_close(img);
	finish(&m, &w);
}

static void another_job_struct_is_refused(void **state)
{
	struct vd_job job = { .struct_size = 3 };
	struct vd_image *img;
	struct vd_error e;
	struct views w;
	struct model m;

	(void)state;
	prepare(&kinds[4], &m, &w);
	img = recrypt_open(0);
	expect_failure(vd_inplace_unpack(img, &plain, &job, &e), VD_EARG, &e, "struct_size");
	disk_close(img);
	img = variant_open(&kinds[4], 0);
	expect_failure(vd_inplace_unpack(img, &plain, NULL, &e), VD_EREADONLY, &e, "reading only");
	disk_close(img);
	finish(&m, &w);
}

static void resume(const struct variant *v, struct vd_host *host, const struct views *w)
{
	struct vd_open_opts opts = disk_open_opts(QCOW2, VD_OPEN_CONTROL | VD_OPEN_APPENDS);
	struct vd_image *img = NULL;
	struct vd_error e;

	expect_ok(vd_image_open_on(host, QCOW2, "d", &opts, &img, &e), &e);
	expect_ok(vd_inplace_unpack(img, &plain, NULL, &e), &e);
	assert_int_equal(packed_bytes(img), 0);
	disk_close(img);
	assert_int_equal(qcow2_check(host, "d").n_errors, 0);
	expect_views(v, host, w);
}

static void check_crashes(const struct variant *v, unsigned flags)
{
	struct vd_open_opts opts = disk_open_opts(QCOW2, VD_OPEN_CONTROL | VD_OPEN_APPENDS | flags);
	struct vd_record *record = NULL;
	struct vd_image *img = NULL;
	struct vd_error e;
	struct views w;
	struct model m;
	size_t all, wanted = 120;

	prepare(v, &m, &w);
	expect_ok(vd_record_new(disks.mem, &record, &e), &e);
	expect_ok(vd_image_open_on(vd_record_host(record), QCOW2, "d", &opts, &img, &e), &e);
	expect_ok(vd_inplace_unpack(img, &plain, NULL, &e), &e);
	disk_close(img);
	all = vd_crash_count(record, 3);
	wanted = vd_min_u64(wanted, all);
	for (size_t i = 0; i < wanted; i++) {
		struct vd_crash c;
		struct qcow2_verdict verdict;

		expect_ok(vd_crash_state(record, 3, 1, i * (all - 1) / (wanted - 1), &c, &e), &e);
		verdict = qcow2_check(c.host, "d");
		if (verdict.n_errors)
			fail_msg("%s, crash after %zu events, variant %u: %s", v->name, c.cut, c.variant, verdict.first);
		expect_views(v, c.host, &w);
		resume(v, c.host, &w);
		vd_mem_host_free(c.host);
	}
	vd_record_free(record);
	finish(&m, &w);
}

static void a_crash_changes_no_byte_of_any_view(void **state)
{
	(void)state;
	check_crashes(&kinds[0], 0);
	check_crashes(&kinds[3], 0);
	check_crashes(&kinds[4], VD_OPEN_SCRUB_FREED);
	check_crashes(&kinds[6], 0);
}

static void a_failure_changes_no_byte_of_any_view(void **state)
{
	struct vd_fault_plan plan = {
		.kinds = VD_OP_WRITE | VD_OP_FLUSH | VD_OP_READ | VD_OP_TRUNCATE, .err = EIO, .for_ever = true,
	};
	const struct variant *v = &kinds[4];
	bool fired = true;
	struct views w;
	struct model m;

	(void)state;
	prepare(v, &m, &w);
	for (plan.nth = 1; fired; plan.nth++) {
		struct vd_open_opts opts = disk_open_opts(QCOW2, VD_OPEN_CONTROL | VD_OPEN_APPENDS);
		struct vd_job job = { .struct_size = sizeof(job), .n_threads = 1 };
		struct vd_host *clone = disks_clone();
		struct vd_fault *fault = NULL;
		struct vd_image *img = NULL;
		struct vd_error e;
		int r;

		expect_ok(vd_fault_new(clone, &fault, &e), &e);
		expect_ok(vd_image_open_on(vd_fault_host(fault), QCOW2, "d", &opts, &img, &e), &e);
		vd_fault_arm(fault, &plan);
		r = vd_inplace_unpack(img, &plain, &job, &e);
		fired = vd_fault_fired(fault);
		assert_int_equal(r < 0, fired);
		vd_fault_arm(fault, NULL);
		vd_image_abort(img);
		assert_int_equal(qcow2_check(clone, "d").n_errors, 0);
		expect_views(v, clone, &w);
		vd_fault_free(fault);
		vd_mem_host_free(clone);
	}
	assert_true(plan.nth > 20);
	finish(&m, &w);
}

/* ---- damage --------------------------------------------------------------------------------------------- */

static void expect_refusal(const char *words)
{
	struct vd_image *img = recrypt_open(0);
	struct vd_error e;

	expect_failure(vd_inplace_unpack(img, &plain, NULL, &e), VD_ECORRUPT, &e, words);
	vd_image_abort(img);
}

static void a_stream_that_is_broken_ends_it(void **state)
{
	uint64_t entry;
	struct views w;
	struct model m;

	(void)state;
	prepare(&kinds[0], &m, &w);
	entry = bytes_get("d", bytes_l2_entry("d", 0), 8);
	bytes_put("d", entry & 0xffffffff, 8, UINT64_MAX);
	expect_refusal("compressed cluster at host offset");
	finish(&m, &w);
}

static void a_table_with_a_fault_ends_it(void **state)
{
	struct views w;
	struct model m;

	(void)state;
	prepare(&kinds[0], &m, &w);
	bytes_put("d", bytes_l2_entry("d", 16 * KIB), 8, 0x17);
	expect_refusal("it is damaged and stays as it is");
	finish(&m, &w);
}

static void a_cluster_at_two_places_ends_it(void **state)
{
	struct views w;
	struct model m;
	uint64_t entry;

	(void)state;
	prepare(&kinds[0], &m, &w);
	entry = bytes_get("d", bytes_l2_entry("d", 0), 8);
	bytes_put("d", bytes_l2_entry("d", 16 * KIB), 8, entry);
	expect_refusal("is at two places of the disk");
	finish(&m, &w);
}

/* ---- images that qemu made ------------------------------------------------------------------------------ */

static void run(const char *fmt, ...) VD_PRINTF(1, 2);
static void run(const char *fmt, ...)
{
	char command[2048];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	if (system(command))
		fail_msg("failed: %s", command);
}

/* Compressed clusters before, between and after two snapshots, and some written over. */
static void make_by_qemu(const char *options)
{
	run("rm -f q && qemu-img create -q -f qcow2 -o %s q 13M", options);
	run("qemu-io -f qcow2 -c 'write -P 1 0 2M' -c 'write -c -P 2 2M 4M' -c 'write -P 9 6M 1000' q >log 2>&1");
	run("qemu-img snapshot -c s q");
	run("qemu-io -f qcow2 -c 'write -c -P 3 8M 2M' -c 'write -P 4 3000000 70000' -c 'write -z 3300000 200000' q >log 2>&1");
	run("qemu-img snapshot -c t q");
	run("qemu-io -f qcow2 -c 'write -c -P 5 10M 2M' -c 'write -P 6 2100000 9000' q >log 2>&1");
}

static void export_views(const char *to)
{
	run("qemu-img convert -O raw q %s.0 && qemu-img convert -l s -O raw q %s.1 && qemu-img convert -l t -O raw q %s.2", to, to, to);
}

static void unpack_file(const char *path)
{
	struct vd_open_opts opts = { .struct_size = sizeof(opts), .format = "qcow2", .flags = VD_OPEN_CONTROL | VD_OPEN_APPENDS };
	struct vd_image *img = NULL;
	struct vd_error e;

	expect_ok(vd_image_open(path, &opts, &img, &e), &e);
	unpack(img, &plain);
	disk_close(img);
}

static void qemu_reads_the_same_before_and_after(void **state)
{
	static const char *const options[] = {
		"refcount_bits=64", "cluster_size=512", "cluster_size=2M", "compat=0.10", "compression_type=zstd",
		"extended_l2=on,cluster_size=16k",
	};

	(void)state;
	if (!peer_is_here())
		skip();
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
		make_by_qemu(options[i]);
		export_views("before");
		unpack_file("q");
		run("qemu-img check -q q");
		export_views("after");
		run("cmp before.0 after.0 && cmp before.1 after.1 && cmp before.2 after.2");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(every_view_of_any_kind_stays, vd_tempdir_enter, vd_tempdir_leave),
		cmocka_unit_test_setup_teardown(with_a_cipher_they_are_born_encrypted, vd_tempdir_enter, vd_tempdir_leave),
		cmocka_unit_test(what_views_share_stays_shared),
		cmocka_unit_test(windows_may_be_small),
		cmocka_unit_test(old_bytes_are_overwritten_if_asked),
		cmocka_unit_test(it_goes_on_where_it_was_cancelled),
		cmocka_unit_test(another_job_struct_is_refused),
		cmocka_unit_test(a_crash_changes_no_byte_of_any_view),
		cmocka_unit_test(a_failure_changes_no_byte_of_any_view),
		cmocka_unit_test(a_stream_that_is_broken_ends_it),
		cmocka_unit_test(a_table_with_a_fault_ends_it),
		cmocka_unit_test(a_cluster_at_two_places_ends_it),
		cmocka_unit_test_setup_teardown(qemu_reads_the_same_before_and_after, vd_tempdir_enter, vd_tempdir_leave),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
