/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The leak scan: what is in clear is found in every owner's bytes of every format, and nothing else is. */
#include <errno.h>

#include "tests/support/hostwalk.h"
#include "tests/support/qcow2_bytes.h"
#include "tests/support/tempdir.h"
#include "tests/support/variant.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"

#define SEEN_MAX 4096

static struct seen {
	struct vd_plaintext at[SEEN_MAX];
	size_t n;
	unsigned stop_after;            /* 0: never */
} seen;

static struct vd_plaintext_report rep;

static int note(void *ctx, const struct vd_plaintext *p)
{
	(void)ctx;
	assert_true(seen.n < SEEN_MAX);
	seen.at[seen.n++] = *p;
	return seen.stop_after && !--seen.stop_after;
}

static int scan(struct vd_image *img, unsigned flags, unsigned n_threads, struct vd_error *e)
{
	struct vd_plaintext_opts opts = { .struct_size = sizeof(opts), .flags = flags, .found = note };
	struct vd_job job = { .struct_size = sizeof(job), .n_threads = n_threads };

	rep = (struct vd_plaintext_report){ .struct_size = sizeof(rep) };
	seen.n = 0;
	return vd_plaintext_scan(img, &opts, &job, &rep, e);
}

static void scan_ok(struct vd_image *img, unsigned flags)
{
	struct vd_error e;

	expect_ok(scan(img, flags, 2, &e), &e);
}

/* ---- images --------------------------------------------------------------------------------------------- */

static struct model model;

static struct vd_image *open_to_scan(const struct variant *v, unsigned flags)
{
	struct vd_image *img = NULL;
	struct vd_error e;

	expect_ok(variant_open_on(v, disks.host, "d", flags | VD_OPEN_FILES, 0, &img, &e), &e);
	return img;
}

/* Written here and there, so that there is something of everything. False: it is not encrypted. */
static bool make_used(const struct variant *v)
{
	struct vd_image *img;

	if (!(v->flags & VARIANT_LUKS))
		return false;
	model_init(&model, v->size, 3);
	assert_true(variant_make(v, &model));
	img = variant_open(v, VD_OPEN_WRITE);
	for (int i = 0; i < 12; i++) {
		uint64_t off = chance_below(&model.chance, v->size), len = chance_below(&model.chance, 2 * v->unit) + 1;

		len = vd_min_u64(len, v->size - off);
		if (i % 3 == 2)
			model_zero(&model, img, off, len);
		else
			model_write(&model, img, off, len);
	}
	disk_close(img);
	return true;
}

static void drop(void **state)
{
	model_free(&model);
	walk_free();
	disks_stop(state);
	disks_start(state);
}

static void encrypted_images_are_clean(void **state)
{
	unsigned n = 0;

	for (size_t i = 0; i < n_variants; i++) {
		struct vd_image *img;

		if (!make_used(&variants[i]))
			continue;
		img = open_to_scan(&variants[i], VD_OPEN_METADATA);
		scan_ok(img, 0);
		if (seen.n)
			fail_msg("%s: %s", variants[i].name, seen.at[0].text);
		assert_int_equal(rep.findings + rep.readable + rep.left + rep.damage, 0);
		assert_true(rep.looked_at > variants[i].size / 4);
		disk_close(img);
		drop(state);
		n++;
	}
	assert_true(n >= 7);
}

/* ---- markers -------------------------------------------------------------------------------------------- */

static const char text[] = "sixty-four bytes of text, as somebody might have left it there.\n";

/* Whether text there is a finding, or what the format has in clear anyway. */
static bool is_secret(const struct vd_host_run *r)
{
	return r->owner == VD_OWNER_DATA || r->owner == VD_OWNER_VMSTATE || r->owner == VD_OWNER_KEYAREA || r->owner == VD_OWNER_FREE ||
	       r->owner == VD_OWNER_LEAKED || r->owner == VD_OWNER_SLACK || r->owner == VD_OWNER_TAIL || r->owner == VD_OWNER_ZEROED;
}

/* Text over the last whole sector of the run, or all of it: what is found lies there, and is told with its owner. */
static void expect_marker(struct vd_image *img, const struct vd_host_run *r)
{
	uint64_t end = r->off + r->len, at = r->len < 1024 ? r->off : vd_round_down(end, 512) - 512;
	size_t len = vd_min_u64(end - at, 512);
	uint8_t was[512], marker[512];

	for (size_t i = 0; i < len; i++)
		marker[i] = (uint8_t)text[i % 64];
	bytes_read("d", at, was, len);
	bytes_write("d", at, marker, len);
	scan_ok(img, 0);
	bytes_write("d", at, was, len);
	if (rep.findings != 1 || rep.readable > 512)
		fail_msg("%s %s at %llu: %llu findings of %llu bytes", vd_owner_name(r->owner), vd_why_name(r->why),
			 (unsigned long long)at, (unsigned long long)rep.findings, (unsigned long long)rep.readable);
	assert_int_equal(seen.at[0].kind, VD_PLAINTEXT_READABLE);
	assert_int_equal(seen.at[0].where.owner, r->owner);
	assert_int_equal(seen.at[0].where.why, r->why);
	assert_in_range(seen.at[0].where.off, at, at + len - 1);
	if (r->owner == VD_OWNER_DATA)
		assert_int_equal(seen.at[0].where.guest_off - r->guest_off, seen.at[0].where.off - r->off);
}

/* In one run of each owner and kind, the longest. Returns how many. */
static unsigned expect_markers(struct vd_image *img, bool met[VD_N_OWNERS][VD_N_WHYS])
{
	unsigned n = 0;

	walk_host(img, 64);
	for (size_t i = 0; i < walked.n; i++) {
		const struct vd_host_run *r = &walked.runs[i], *best = r;

		if (!is_secret(r) || met[r->owner][r->why])
			continue;
		for (size_t k = i; k < walked.n; k++)
			if (walked.runs[k].owner == r->owner && walked.runs[k].why == r->why && walked.runs[k].len > best->len &&
			    !walked.runs[k].file)
				best = &walked.runs[k];
		met[r->owner][r->why] = true;
		if (best->len < 96 || best->file)
			continue;
		expect_marker(img, best);
		n++;
	}
	return n;
}

static void text_is_found_in_every_owners_bytes(void **state)
{
	for (size_t i = 0; i < n_variants; i++) {
		bool met[VD_N_OWNERS][VD_N_WHYS] = { 0 };
		struct vd_image *img;

		if (!make_used(&variants[i]))
			continue;
		img = open_to_scan(&variants[i], VD_OPEN_METADATA | VD_OPEN_FORCE_SHARE);
		assert_true(expect_markers(img, met) >= 3);
		assert_true(met[VD_OWNER_DATA][VD_WHY_NONE] && met[VD_OWNER_KEYAREA][VD_WHY_NONE]);
		disk_close(img);
		drop(state);
	}
}

static struct vd_key *key;

/* 4 MiB of ciphertext in clusters of 4 KiB. */
static void make_qcow2(void)
{
	struct vd_create_opts opts = disk_create_opts(&vd_format_qcow2, 4 << 20);
	struct vd_image *img;
	struct vd_error e;

	opts.cluster_size = 4096;
	opts.kdf.iterations = 1000;
	if (!key)
		expect_ok(vd_key_from_bytes("k", 1, &key, &e), &e);
	opts.key = key;
	img = disk_create(&vd_format_qcow2, "d", &opts);
	disk_write(img, 0, 4 << 20, 7);
	disk_commit(img);
	disk_close(img);
}

static struct vd_image *open_qcow2(unsigned flags)
{
	return disk_open(&vd_format_qcow2, "d", flags | VD_OPEN_FORCE_SHARE);
}

/* What only life leaves behind, made by hand: a cluster is lost, one reads as zeros, the disk ends inside a third, vm state. */
static void text_is_found_in_what_is_left_over(void **state)
{
	bool met[VD_N_OWNERS][VD_N_WHYS] = { 0 };
	struct vd_image *img;
	uint64_t size;

	(void)state;
	make_qcow2();
	bytes_put("d", bytes_l2_entry("d", 5 * 4096), 8, 0);
	bytes_put("d", bytes_l2_entry("d", 7 * 4096), 8, bytes_get("d", bytes_l2_entry("d", 7 * 4096), 8) | 1);
	bytes_put("d", 24, 8, (1 << 20) + 512);
	size = bytes_size("d");
	bytes_truncate("d", size + 3 * 4096);
	bytes_put("d", size + 4096, 8, 0x0123456789abcdef);
	img = open_qcow2(VD_OPEN_METADATA);
	scan_ok(img, 0);
	assert_int_equal(seen.n, 1);
	assert_int_equal(seen.at[0].where.owner, VD_OWNER_TAIL);
	bytes_put("d", size + 4096, 8, 0);
	expect_markers(img, met);
	assert_true(met[VD_OWNER_LEAKED][0] && met[VD_OWNER_ZEROED][0] && met[VD_OWNER_VMSTATE][0] && met[VD_OWNER_TAIL][0]);
	assert_true(met[VD_OWNER_SLACK][VD_SLACK_PAST_END]);
	walk_free();
	disk_close(img);
}

static void little_text_in_padding_is_found(void **state)
{
	const struct vd_host_run *r;
	struct vd_image *img;

	(void)state;
	make_qcow2();
	img = open_qcow2(VD_OPEN_METADATA);
	walk_host(img, 64);
	r = walked_first(VD_OWNER_SLACK, VD_SLACK_TABLE);
	assert_non_null(r);
	bytes_write("d", r->off + r->len - 40, text, 32);
	scan_ok(img, 0);
	assert_int_equal(seen.n, 1);
	assert_int_equal(seen.at[0].where.why, VD_SLACK_TABLE);
	/* One byte where there is hardly any padding is one too many. */
	bytes_write("d", r->off + r->len - 40, (uint8_t[32]){ 0 }, 32);
	scan_ok(img, 0);
	assert_int_equal(seen.n, 0);
	walk_free();
	disk_close(img);
}

static void snapshots_are_told_by_name(void **state)
{
	const struct variant *v = variant_named("qcow2 luks");
	struct vd_image *img;
	struct vd_error e;
	size_t i = 0;

	(void)state;
	assert_true(make_used(v));
	img = variant_open(v, VD_OPEN_WRITE);
	model_write(&model, img, 0, v->size);
	expect_ok(vd_snapshot_create(img, "old", &e), &e);
	model_write(&model, img, 0, v->size);
	disk_close(img);
	img = open_to_scan(v, VD_OPEN_METADATA | VD_OPEN_FORCE_SHARE);
	walk_host(img, 64);
	while (walked.runs[i].view != 1 || walked.runs[i].owner != VD_OWNER_DATA)
		assert_true(++i < walked.n);
	expect_marker(img, &walked.runs[i]);
	assert_non_null(strstr(seen.at[0].text, "of snapshot 'old')"));
	disk_close(img);
	model_free(&model);
}

/* ---- kinds ---------------------------------------------------------------------------------------------- */

static void compressed_clusters_are_found(void **state)
{
	struct vd_image *img;
	uint64_t l2, host;

	(void)state;
	make_qcow2();
	l2 = bytes_l2_entry("d", 4 * 4096);
	host = bytes_get("d", l2, 8) & 0x00fffffffffffe00;
	bytes_put("d", l2, 8, UINT64_C(1) << 62 | host);
	img = open_qcow2(VD_OPEN_METADATA);
	scan_ok(img, 0);
	assert_int_equal(seen.n, 1);
	assert_int_equal(seen.at[0].kind, VD_PLAINTEXT_COMPRESSED);
	assert_int_equal(seen.at[0].where.guest_off, 4 * 4096);
	assert_int_equal(seen.at[0].where.off, host);
	assert_false(seen.at[0].can_scrub);
	disk_close(img);
}

static void zeros_of_the_disk_are_told_and_no_leak(void **state)
{
	const uint8_t zeros[1024] = { 0 };
	struct vd_image *img;
	uint64_t host;

	(void)state;
	make_qcow2();
	host = bytes_get("d", bytes_l2_entry("d", 0), 8) & 0x00fffffffffffe00;
	bytes_write("d", host + 512, zeros, sizeof(zeros));
	img = open_qcow2(VD_OPEN_METADATA);
	scan_ok(img, 0);
	assert_int_equal(seen.n, 1);
	assert_int_equal(seen.at[0].kind, VD_PLAINTEXT_ZEROS);
	assert_int_equal(rep.zeros, sizeof(zeros));
	assert_int_equal(rep.findings, 0);
	disk_close(img);
}

/* Bytes of which the lower half of the values comes a little more often: no sector shows it. */
static void uneven_bytes_are_found_together(void **state)
{
	uint8_t *raw = malloc(1 << 20);
	struct vd_image *img;
	uint64_t c = 5;
	uint64_t host;

	(void)state;
	make_qcow2();
	host = bytes_get("d", bytes_l2_entry("d", 0), 8) & 0x00fffffffffffe00;
	for (size_t i = 0; i < 1 << 20; i++)
		raw[i] = (uint8_t)(chance_below(&c, 256) & (chance_below(&c, 8) ? 0xff : 0x7f));
	bytes_write("d", host, raw, 1 << 20);
	free(raw);
	img = open_qcow2(VD_OPEN_METADATA);
	scan_ok(img, 0);
	assert_true(seen.n >= 1);
	for (size_t i = 0; i < seen.n; i++)
		assert_int_equal(seen.at[i].kind, VD_PLAINTEXT_UNEVEN);
	assert_true(rep.readable > 256 << 10);
	disk_close(img);
}

/* ---- scrubbing ------------------------------------------------------------------------------------------ */

static void scrubbing_leaves_nothing_that_is_nobodys(void **state)
{
	uint64_t n_found = 0;

	for (size_t i = 0; i < n_variants; i++) {
		struct vd_image *img;

		if (!make_used(&variants[i]))
			continue;
		img = open_to_scan(&variants[i], VD_OPEN_METADATA | VD_OPEN_FORCE_SHARE);
		walk_host(img, 64);
		for (size_t k = 0; k < walked.n; k++)
			if (walked.runs[k].owner == VD_OWNER_SLACK && walked.runs[k].len >= 64 && !walked.runs[k].file)
				bytes_write("d", walked.runs[k].off, text, 64);
		disk_close(img);
		img = open_to_scan(&variants[i], VD_OPEN_CONTROL);
		scan_ok(img, VD_PLAINTEXT_SCRUB);
		assert_true(!rep.left && rep.scrubbed && rep.changed);
		n_found += rep.findings;
		scan_ok(img, VD_PLAINTEXT_SCRUB);
		assert_true(!rep.findings && !rep.scrubbed && !rep.changed);
		disk_close(img);
		img = variant_open(&variants[i], 0);
		model_check_all(&model, img);
		disk_close(img);
		drop(state);
	}
	assert_true(n_found > 10);
}

static void what_is_in_use_is_not_scrubbed(void **state)
{
	struct vd_image *img;
	uint64_t host;
	uint8_t now[64];

	(void)state;
	make_qcow2();
	host = bytes_get("d", bytes_l2_entry("d", 0), 8) & 0x00fffffffffffe00;
	for (int i = 0; i < 8; i++)
		bytes_write("d", host + i * 64, text, 64);
	img = disk_open(&vd_format_qcow2, "d", VD_OPEN_CONTROL);
	scan_ok(img, VD_PLAINTEXT_SCRUB);
	assert_int_equal(rep.left, 1);
	assert_false(seen.at[0].scrubbed);
	bytes_read("d", host, now, sizeof(now));
	assert_memory_equal(now, text, sizeof(now));
	disk_close(img);
}

/* ---- the frame ------------------------------------------------------------------------------------------ */

static void findings_come_in_order_on_any_number_of_threads(void **state)
{
	struct seen *first = malloc(sizeof(*first));
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	make_qcow2();
	for (uint64_t g = 0; g < 4 << 20; g += 12288)
		for (int i = 0; i < 8; i++)
			bytes_write("d", (bytes_get("d", bytes_l2_entry("d", g), 8) & 0x00fffffffffffe00) + i * 64, text, 64);
	img = open_qcow2(VD_OPEN_METADATA);
	expect_ok(scan(img, 0, 1, &e), &e);
	assert_int_equal(seen.n, (4 << 20) / 12288 + 1);
	*first = seen;
	for (int round = 0; round < 10; round++) {
		expect_ok(scan(img, 0, 7, &e), &e);
		assert_int_equal(seen.n, first->n);
		for (size_t i = 0; i < seen.n; i++)
			assert_string_equal(seen.at[i].text, first->at[i].text);
	}
	free(first);
	disk_close(img);
}

static int cancel(void *ctx, const struct vd_progress *p)
{
	(void)ctx;
	assert_string_equal(p->phase, "plaintext");
	return 1;
}

static void it_can_be_cancelled(void **state)
{
	struct vd_job job = { .struct_size = sizeof(job), .progress = cancel };
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	make_qcow2();
	for (int i = 1; i <= 8; i++)
		bytes_write("d", bytes_size("d") - i * 64, text, 64);
	img = open_qcow2(VD_OPEN_METADATA);
	seen.stop_after = 1;
	expect_failure(scan(img, 0, 3, &e), VD_ECANCELLED, &e, "cancelled");
	seen.stop_after = 0;
	expect_failure(vd_plaintext_scan(img, NULL, &job, &rep, &e), VD_ECANCELLED, &e, "cancelled");
	disk_close(img);
}

static void what_cannot_be_scanned_is_refused(void **state)
{
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	make_qcow2();
	img = open_qcow2(VD_OPEN_METADATA);
	expect_failure(scan(img, VD_PLAINTEXT_SCRUB, 1, &e), VD_EREADONLY, &e, "reading only");
	rep.struct_size = 1;
	expect_failure(vd_plaintext_scan(img, NULL, NULL, &rep, &e), VD_EARG, &e, "struct_size");
	disk_close(img);
	disk_make(&vd_format_qcow2, "plain", 1 << 20, NULL);
	img = disk_open(&vd_format_qcow2, "plain", VD_OPEN_METADATA);
	expect_failure(scan(img, 0, 1, &e), VD_EMISMATCH, &e, "not encrypted: all of it is readable");
	disk_close(img);
	assert_string_equal(vd_plaintext_name(VD_PLAINTEXT_UNEVEN), "uneven");
	assert_string_equal(vd_plaintext_name(77), "unknown");
}

/* Each of its allocations fails once: it ends, and says so, but for the names of snapshots. */
static void want_of_memory_ends_it(void **state)
{
	struct vd_image *img;
	struct vd_error e;
	long n = 0, left;
	int r;

	(void)state;
	make_qcow2();
	img = open_qcow2(VD_OPEN_METADATA);
	do {
		vd_alloc_fail_after(n++);
		r = scan(img, 0, 2, &e);
		left = vd_alloc_fail_after(-1);
		assert_true(r == 0 || r == VD_ENOMEM);
	} while (left < 0);
	assert_true(n > 5);
	disk_close(img);
}

/* But for those of names, and of which key slots are dead. */
static void reads_that_fail_end_it(void **state)
{
	struct vd_fault_plan plan = { .kinds = VD_OP_READ, .err = EIO };
	struct vd_image *img;
	struct vd_error e;
	uint64_t n_fired, n_failed = 0;

	(void)state;
	make_qcow2();
	img = open_qcow2(VD_OPEN_METADATA);
	do {
		int r;

		plan.nth++;
		vd_fault_arm(disks.fault, &plan);
		r = scan(img, 0, 3, &e);
		n_fired = vd_fault_fired(disks.fault);
		vd_fault_arm(disks.fault, NULL);
		assert_true(r == 0 || r == VD_EIO);
		n_failed += r < 0;
	} while (n_fired);
	assert_true(n_failed > 5);
	disk_close(img);
}

static int end(void **state)
{
	vd_key_free(key);
	key = NULL;
	return disks_stop(state);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, disks_start, end)
	const struct CMUnitTest tests[] = {
		T(encrypted_images_are_clean),
		T(text_is_found_in_every_owners_bytes),
		T(text_is_found_in_what_is_left_over),
		T(little_text_in_padding_is_found),
		T(snapshots_are_told_by_name),
		T(compressed_clusters_are_found),
		T(zeros_of_the_disk_are_told_and_no_leak),
		T(uneven_bytes_are_found_together),
		T(scrubbing_leaves_nothing_that_is_nobodys),
		T(what_is_in_use_is_not_scrubbed),
		T(findings_come_in_order_on_any_number_of_threads),
		T(it_can_be_cancelled),
		T(what_cannot_be_scanned_is_refused),
		T(want_of_memory_ends_it),
		T(reads_that_fail_end_it),
	};

	return cmocka_run_group_tests_name("plaintext", tests, vd_tempdir_enter, vd_tempdir_leave);
}
