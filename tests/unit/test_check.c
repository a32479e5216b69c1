/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The check and the repair of qcow2 images: each rule broken once, and what keeps the two from their work. */
#include <errno.h>

#include "formats/qcow2/qcow2_tally.h"
#include "libvdisk/base/alloc.h"
#include "tests/support/qcow2_bytes.h"
#include "tests/support/variant.h"

#define CLUSTER 4096
#define COPIED (UINT64_C(1) << 63)

/* A disk of which a third is written, with a snapshot of its first quarter. */
static int make(void **state)
{
	const struct variant *v = variant_named("qcow2 4k");
	struct vd_image *img;
	struct model m;
	struct vd_error e;

	if (disks_start(state) < 0)
		return -1;
	model_init(&m, v->size, 1);
	assert_true(variant_make(v, &m));
	img = variant_open(v, VD_OPEN_WRITE);
	model_write(&m, img, 0, m.size / 4);
	expect_ok(vd_snapshot_create(img, "old", &e), &e);
	model_write(&m, img, m.size / 4, m.size / 12);
	disk_close(img);
	model_free(&m);
	return 0;
}

struct seen {
	unsigned n[32];                 /* of each kind */
	struct vd_finding last[32];
	unsigned stop_after;            /* 0: never */
};

static int note(void *ctx, const struct vd_finding *f)
{
	struct seen *s = ctx;

	if (!f->remains) {
		s->n[f->kind]++;
		s->last[f->kind] = *f;
	}
	return s->stop_after && !--s->stop_after;
}

static int run(struct vd_host *host, enum vd_repair repair, struct seen *s, struct vd_check_report *rep, struct vd_error *e)
{
	struct vd_open_opts opts = disk_open_opts(&vd_format_qcow2, repair ? VD_OPEN_REPAIR : VD_OPEN_METADATA);
	struct vd_image *img = NULL;
	int r = vd_image_open_on(host, &vd_format_qcow2, "d", &opts, &img, e);

	*rep = (struct vd_check_report){ .struct_size = sizeof(*rep) };
	if (r == 0)
		r = vd_image_check(img, repair, note, s, NULL, rep, e);
	if (r == 0)
		return vd_image_close(img, e);
	vd_image_abort(img);
	return r;
}

static struct vd_check_report check(enum vd_repair repair, struct seen *s)
{
	struct vd_check_report rep;
	struct vd_error e;

	memset(s, 0, sizeof(*s));
	expect_ok(run(disks.host, repair, s, &rep, &e), &e);
	return rep;
}

/* ---- rules ---------------------------------------------------------------------------------------------- */

static uint64_t l1(void)
{
	return bytes_l1("d");
}

/* Guest cluster n: below 192 the snapshot has it, too; the tables are the disk's own where it was written after. */
static uint64_t l2(uint64_t n)
{
	return bytes_l2_entry("d", n * CLUSTER);
}

static uint64_t block(void)
{
	return bytes_get("d", bytes_get("d", 48, 8), 8);
}

static void xor_word(uint64_t at, uint64_t bits)
{
	bytes_put("d", at, 8, bytes_get("d", at, 8) ^ bits);
}

#define MINE 200                        /* a cluster that the disk alone has */

static uint64_t reserved_l2(void) { xor_word(l2(MINE), UINT64_C(1) << 60); return l2(MINE); }
static uint64_t reserved_l1(void) { xor_word(l1(), 2); return l1(); }
static uint64_t flag_set(void) { xor_word(l2(0), COPIED); return l2(0); }
static uint64_t flag_missing(void) { xor_word(l2(MINE), COPIED); return l2(MINE); }
static uint64_t unaligned(void) { bytes_put("d", l2(MINE), 8, bytes_get("d", l2(MINE), 8) + 512); return l2(MINE); }
static uint64_t outside(void) { bytes_put("d", l2(MINE), 8, COPIED | UINT64_C(1) << 40); return l2(MINE); }
static uint64_t l2_outside(void) { bytes_put("d", l1(), 8, COPIED | UINT64_C(1) << 40); return l1(); }
static uint64_t on_block(void) { bytes_put("d", l2(MINE), 8, COPIED | block()); return l2(MINE); }
static uint64_t on_header(void) { bytes_put("d", l2(MINE), 8, COPIED | bytes_get("d", 64, 8)); return l2(MINE); }
static uint64_t owns_nothing(void) { bytes_put("d", l2(MINE), 8, COPIED); return l2(MINE); }
static uint64_t dirty(void) { bytes_put("d", 79, 1, 1); return 72; }
static uint64_t corrupt(void) { bytes_put("d", 79, 1, 2); return 72; }
static uint64_t reft_reserved(void) { xor_word(bytes_get("d", 48, 8), 4); return bytes_get("d", 48, 8); }
static uint64_t reft_outside(void) { bytes_put("d", bytes_get("d", 48, 8), 8, UINT64_C(1) << 40); return bytes_get("d", 48, 8); }
static uint64_t snapshot_broken(void) { bytes_put("d", bytes_get("d", 64, 8) + 8, 4, 0); return bytes_get("d", 64, 8); }
static uint64_t snapshot_l1(void) { bytes_put("d", bytes_get("d", 64, 8), 8, 512); return bytes_get("d", 64, 8); }

static const struct rule {
	uint64_t (*break_it)(void);     /* returns the offset that is to be told */
	enum vd_finding_kind kind;
	bool can_mend;
} rules[] = {
	{ reserved_l2, VD_FOUND_RESERVED, true }, { reserved_l1, VD_FOUND_RESERVED, true },
	{ flag_set, VD_FOUND_COPIED, true }, { flag_missing, VD_FOUND_COPIED, true },
	{ unaligned, VD_FOUND_UNALIGNED, false }, { outside, VD_FOUND_OUTSIDE, false }, { l2_outside, VD_FOUND_OUTSIDE, false },
	{ on_block, VD_FOUND_OVERLAP, true }, { on_header, VD_FOUND_OVERLAP, false },
	{ owns_nothing, VD_FOUND_CONTRADICTION, true }, { dirty, VD_FOUND_DIRTY, true }, { corrupt, VD_FOUND_CORRUPT, true },
	{ reft_reserved, VD_FOUND_RESERVED, true }, { reft_outside, VD_FOUND_OUTSIDE, true },
	{ snapshot_broken, VD_FOUND_TABLE, false }, { snapshot_l1, VD_FOUND_TABLE, false },
};

static void each_broken_rule_is_told_with_its_place(void **state)
{
	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
		struct seen s;
		struct vd_check_report rep;
		const struct vd_finding *f = &s.last[rules[i].kind];
		uint64_t at;

		disks_stop(state);
		make(state);
		at = rules[i].break_it();
		rep = check(VD_REPAIR_NONE, &s);
		if (!s.n[rules[i].kind] || f->entry_off != at || f->can_mend != rules[i].can_mend || !rep.corruptions)
			fail_msg("rule %zu: %u findings, at %llu (wanted %llu): %s", i, s.n[rules[i].kind],
				 (unsigned long long)f->entry_off, (unsigned long long)at, f->text);
		assert_int_equal(rep.not_mendable != 0, !rules[i].can_mend);
		check(VD_REPAIR_ALL, &s);
		rep = check(VD_REPAIR_NONE, &s);
		assert_int_equal(rep.corruptions != 0, !rules[i].can_mend);
		if (rep.corruptions)
			assert_int_equal(rep.corruptions, rep.not_mendable);
	}
}

static void sound_image_has_no_findings(void **state)
{
	struct seen s;
	struct vd_check_report rep = check(VD_REPAIR_NONE, &s);

	(void)state;
	assert_int_equal(rep.corruptions + rep.leaks + rep.check_errors, 0);
	assert_int_equal(rep.total_clusters, 769);
	assert_int_equal(rep.allocated_clusters, 257);
	assert_true(rep.has_clusters && rep.image_end_offset <= bytes_size("d"));
}

static void small_windows_find_the_same(void **state)
{
	uint64_t usual = vd_qcow2_tally_window;
	struct vd_check_report a, b;
	struct seen s;

	(void)state;
	outside();
	bytes_put("d", block() + 2 * 40, 2, 0);
	bytes_put("d", block() + 2 * 140, 2, 9);
	a = check(VD_REPAIR_NONE, &s);
	vd_qcow2_tally_window = 64;
	b = check(VD_REPAIR_NONE, &s);
	vd_qcow2_tally_window = usual;
	assert_true(a.corruptions > 1 && a.leaks);
	assert_int_equal(a.corruptions, b.corruptions);
	assert_int_equal(a.leaks, b.leaks);
	assert_int_equal(a.allocated_clusters, b.allocated_clusters);
}

/* ---- what stays as it is -------------------------------------------------------------------------------- */

static void repair_of_leaks_leaves_other_faults(void **state)
{
	struct vd_check_report rep;
	struct seen s;

	(void)state;
	flag_missing();
	bytes_put("d", block() + 2 * 140, 2, 9);
	rep = check(VD_REPAIR_LEAKS, &s);
	assert_int_equal(rep.leaks, 1);
	assert_false(rep.changed);
	rep = check(VD_REPAIR_ALL, &s);
	assert_int_equal(rep.leaks_fixed, 1);
	assert_int_equal(rep.corruptions_fixed, 1);
	expect_sound("d");
}

static void clusters_stay_while_an_entry_leads_nowhere(void **state)
{
	uint64_t lost = bytes_get("d", l2(MINE), 8) & ~COPIED;
	struct vd_check_report rep;
	struct seen s;

	(void)state;
	outside();
	flag_missing();
	bytes_put("d", block() + 2 * 140, 2, 0);
	rep = check(VD_REPAIR_ALL, &s);
	assert_true(rep.corruptions_fixed && rep.changed);
	assert_int_equal(rep.leaks, 1);
	assert_int_equal(bytes_refcount("d", lost), 1);
}

/* A snapshot that cannot be found any more keeps what it has. */
static void snapshots_that_cannot_be_read_keep_their_clusters(void **state)
{
	struct vd_check_report rep;
	struct seen s;

	(void)state;
	snapshot_broken();
	bytes_put("d", block() + 2 * 40, 2, 0);
	rep = check(VD_REPAIR_ALL, &s);
	assert_true(rep.corruptions_fixed && rep.leaks > 150);
	assert_int_equal(rep.leaks_fixed, 0);
}

static void cut_file_is_not_made_to_look_whole(void **state)
{
	struct vd_check_report rep;
	struct vd_error e;
	struct seen s = { 0 };

	(void)state;
	bytes_put("d", block() + 2 * 40, 2, 0);
	bytes_truncate("d", bytes_size("d") - 9 * CLUSTER);
	expect_failure(run(disks.host, VD_REPAIR_ALL, &s, &rep, &e), VD_ECORRUPT, &e, "past the end of the file");
	assert_true(s.n[VD_FOUND_OUTSIDE] > 3);
}

static void handle_for_repair_is_for_nothing_else(void **state)
{
	struct vd_open_opts opts = disk_open_opts(&vd_format_qcow2, VD_OPEN_REPAIR);
	struct vd_check_report rep = { .struct_size = sizeof(rep) };
	struct vd_image *img = NULL;
	struct vd_error e;

	(void)state;
	expect_ok(vd_image_open_on(disks.host, &vd_format_qcow2, "d", &opts, &img, &e), &e);
	expect_failure(vd_snapshot_create(img, "x", &e), VD_EREADONLY, &e, "for a repair only");
	expect_failure(vd_image_pwrite(img, "x", 1, 0, &e), VD_EREADONLY, &e, "");
	disk_close(img);
	img = disk_open(&vd_format_qcow2, "d", VD_OPEN_WRITE);
	expect_failure(vd_image_check(img, VD_REPAIR_ALL, NULL, NULL, NULL, &rep, &e), VD_EREADONLY, &e, "not open for repair");
	expect_ok(vd_image_check(img, VD_REPAIR_NONE, NULL, NULL, NULL, &rep, &e), &e);
	rep.struct_size = 1;
	expect_failure(vd_image_check(img, VD_REPAIR_NONE, NULL, NULL, NULL, &rep, &e), VD_EARG, &e, "struct_size");
	disk_close(img);
}

/* ---- failures ------------------------------------------------------------------------------------------- */

static void callback_stops_it(void **state)
{
	struct seen s = { .stop_after = 2 };
	struct vd_check_report rep;
	struct vd_error e;

	(void)state;
	outside();
	flag_set();
	assert_int_equal(run(disks.host, VD_REPAIR_ALL, &s, &rep, &e), VD_ECANCELLED);
	assert_int_equal(disks_count(CHANGES, 0), disks_count(CHANGES, 0));
}

/* The table is told, the rest is looked at, and nothing is mended. */
static void unreadable_table_is_told(void **state)
{
	struct vd_fault_plan plan = { .kinds = VD_OP_READ, .err = EIO, .nth = 1 };
	uint64_t told = 0;

	(void)state;
	flag_missing();
	for (; plan.nth < 60; plan.nth++) {
		struct seen s = { 0 };
		struct vd_check_report rep;
		struct vd_error e;

		vd_fault_arm(disks.fault, &plan);
		if (run(disks.host, VD_REPAIR_ALL, &s, &rep, &e) < 0 || !s.n[VD_FOUND_UNREADABLE])
			continue;
		told++;
		assert_true(rep.check_errors && !rep.changed);
	}
	vd_fault_arm(disks.fault, NULL);
	assert_true(told);
}

/* Each write and flush fails once, for good: what was sound stays so, and a later repair finishes. */
static void failed_writes_leave_it_no_worse(void **state)
{
	struct vd_fault_plan plan = { .kinds = VD_OP_WRITE | VD_OP_FLUSH | VD_OP_TRUNCATE, .err = EIO, .nth = 1, .for_ever = true };
	uint64_t fired = 1;

	for (; fired; plan.nth++) {
		struct vd_check_report before, after;
		struct seen s;
		struct vd_error e;
		int r;

		disks_stop(state);
		make(state);
		bytes_put("d", block() + 2 * 40, 2, 0);
		reserved_l2();
		flag_set();
		before = check(VD_REPAIR_NONE, &s);
		vd_fault_arm(disks.fault, &plan);
		r = run(disks.host, VD_REPAIR_ALL, &s, &after, &e);
		fired = vd_fault_fired(disks.fault);
		vd_fault_arm(disks.fault, NULL);
		assert_int_equal(r < 0, fired != 0);
		after = check(VD_REPAIR_NONE, &s);
		assert_true(after.corruptions <= before.corruptions && after.leaks <= before.leaks);
		after = check(VD_REPAIR_ALL, &s);
		assert_int_equal(after.corruptions + after.leaks, 0);
	}
	assert_true(plan.nth > 6);
}

static void want_of_memory_leaves_it_no_worse(void **state)
{
	bool failed = true;

	for (long n = 0; failed; n++) {
		struct vd_check_report rep;
		struct seen s = { 0 };
		struct vd_error e;
		int r;

		disks_stop(state);
		make(state);
		bytes_put("d", block() + 2 * 40, 2, 0);
		vd_alloc_fail_after(n);
		r = run(disks.host, VD_REPAIR_ALL, &s, &rep, &e);
		failed = vd_alloc_fail_after(-1) < 0;
		if (r < 0)
			assert_int_equal(r, VD_ENOMEM);
		assert_true(r == 0 || failed);
		rep = check(VD_REPAIR_ALL, &s);
		assert_int_equal(rep.corruptions + rep.leaks, 0);
	}
}

#define test(f) cmocka_unit_test_setup_teardown(f, make, disks_stop)
int main(void)
{
	const struct CMUnitTest tests[] = {
		test(each_broken_rule_is_told_with_its_place),
		test(sound_image_has_no_findings),
		test(small_windows_find_the_same),
		test(repair_of_leaks_leaves_other_faults),
		test(clusters_stay_while_an_entry_leads_nowhere),
		test(snapshots_that_cannot_be_read_keep_their_clusters),
		test(cut_file_is_not_made_to_look_whole),
		test(handle_for_repair_is_for_nothing_else),
		test(callback_stops_it),
		test(unreadable_table_is_told),
		test(failed_writes_leave_it_no_worse),
		test(want_of_memory_leaves_it_no_worse),
	};

	return cmocka_run_group_tests_name("check", tests, NULL, NULL);
}
