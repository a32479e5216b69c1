/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What becomes of claims: a driver that claims what a test tells it to, and the runs that come out. */
#include "tests/support/hostwalk.h"

#include "libvdisk/core/window.h"

#define KIB UINT64_C(1024)
#define MIB (KIB * KIB)
#define UNIT (64 * KIB)
#define FILE_SIZE (32 * UNIT)
#define NOWHERE VD_HOST_NOWHERE
#define CLAIMS_MAX 300

/* ---- the driver ----------------------------------------------------------------------------------------- */

static struct script {
	struct vd_claim claims[CLAIMS_MAX];
	size_t n;
	uint64_t unit, tail;            /* unit 0: never told */
	struct vd_counted counts[8];
	size_t n_counts;
	bool has_counts;
	unsigned n_walks;
} script;

static int script_open(void *st, const struct vd_open *o, struct vd_error *e)
{
	return vd_io_size(vd_set_io(o->set, 0), st, e);
}

static void script_close(void *st)
{
	(void)st;
}

static void script_describe(const void *st, struct vd_format_info *i)
{
	memcpy(&i->size, st, sizeof(i->size));
	i->unit = 1;
	i->fill_unit = 1;
}

static int script_map(void *st, uint64_t off, uint64_t len, unsigned flags, struct vd_run *runs, size_t *n, struct vd_error *e)
{
	(void)st;
	(void)flags;
	(void)e;
	runs[0] = (struct vd_run){ .guest_off = off, .len = len, .where = VD_HOLE };
	*n = 1;
	return 0;
}

static int script_walk(void *st, struct vd_window *w, struct vd_error *e)
{
	int r = 0;

	(void)st;
	script.n_walks++;
	for (size_t i = 0; i < script.n && r == 0; i++)
		r = vd_window_claim(w, &script.claims[i], e);
	if (script.unit)
		vd_window_set_units(w, script.unit, script.tail);
	if (script.has_counts)
		vd_window_has_counts(w);
	for (size_t i = 0; i < script.n_counts && r == 0; i++)
		r = vd_window_count(w, script.counts[i].off, script.counts[i].end - script.counts[i].off, script.counts[i].count, e);
	return r;
}

static const struct vd_format format_script = {
	.name = "script", .state_size = sizeof(uint64_t), .writable = true,
	.open = script_open, .close = script_close, .describe = script_describe, .map = script_map,
	.walk = script_walk,
};

/* ---- saying it ------------------------------------------------------------------------------------------ */

static int start(void **state)
{
	script = (struct script){ 0 };
	return disks_start(state);
}

static int stop(void **state)
{
	walk_free();
	vd_window_claims = VD_WINDOW_CLAIMS;
	return disks_stop(state);
}

/* Named by an entry at 1000 + view. */
static struct vd_claim *claim(enum vd_owner owner, uint64_t off, uint64_t len, uint64_t guest_off, uint32_t view)
{
	struct vd_claim *c = &script.claims[script.n++];

	assert_true(script.n <= CLAIMS_MAX);
	*c = (struct vd_claim){
		.host_off = off, .len = len, .guest_off = guest_off, .parent_off = 1000 + view, .view = view, .refs = 1, .owner = owner,
	};
	return c;
}

static void count(uint64_t off, uint64_t end, uint64_t n)
{
	script.has_counts = true;
	script.counts[script.n_counts++] = (struct vd_counted){ off, end, n };
}

static void walk(void)
{
	struct vd_image *img;

	disk_put_raw("f", FILE_SIZE, 7);
	img = disk_open(&format_script, "f", 0);
	walk_host(img, 3);
	disk_close(img);
}

static void expect_run(uint64_t off, uint64_t len, enum vd_owner owner, uint64_t refs)
{
	const struct vd_host_run *r = walked_at(0, off);

	assert_int_equal(r->off, off);
	assert_int_equal(r->len, len);
	assert_int_equal(r->owner, owner);
	assert_int_equal(r->refs, refs);
}

/* ---- claims --------------------------------------------------------------------------------------------- */

static void what_is_not_claimed_is_free(void **state)
{
	(void)state;
	claim(VD_OWNER_DATA, 100, 50, 0, 0);
	walk();
	expect_run(0, 100, VD_OWNER_FREE, 0);
	expect_run(100, 50, VD_OWNER_DATA, 1);
	expect_run(150, FILE_SIZE - 150, VD_OWNER_FREE, 0);
}

static void order_does_not_matter_and_what_lies_outside_is_cut(void **state)
{
	(void)state;
	claim(VD_OWNER_DATA, FILE_SIZE - UNIT, 4 * UNIT, 0, 0);
	claim(VD_OWNER_DATA, FILE_SIZE + UNIT, UNIT, 0, 0);
	claim(VD_OWNER_HEADER, 0, UNIT, NOWHERE, 0);
	walk();
	expect_run(0, UNIT, VD_OWNER_HEADER, 1);
	expect_run(FILE_SIZE - UNIT, UNIT, VD_OWNER_DATA, 1);
	assert_int_equal(walked.n, 3);
}

static void neighbours_on_the_disk_are_one_run(void **state)
{
	(void)state;
	claim(VD_OWNER_DATA, UNIT, UNIT, 5 * UNIT, 0);
	claim(VD_OWNER_DATA, 2 * UNIT, UNIT, 6 * UNIT, 0);
	claim(VD_OWNER_DATA, 3 * UNIT, UNIT, 9 * UNIT, 0);
	claim(VD_OWNER_DATA, 4 * UNIT, UNIT, 10 * UNIT, 1);
	walk();
	expect_run(UNIT, 2 * UNIT, VD_OWNER_DATA, 1);
	expect_run(3 * UNIT, UNIT, VD_OWNER_DATA, 1);
	expect_run(4 * UNIT, UNIT, VD_OWNER_DATA, 1);
}

/* A long claim knows where the entries of its parts lie. */
static void a_part_has_its_own_entry(void **state)
{
	(void)state;
	for (int i = 0; i < 4; i++) {
		struct vd_claim *c = claim(VD_OWNER_DATA, i * UNIT, UNIT, i * UNIT, 0);

		c->is_sole = true;
		c->unit_bits = 16;
		c->entry_bytes = 8;
		c->parent_off = 4096 + i * 8;
	}
	claim(VD_OWNER_HEADER, 2 * UNIT, 512, NOWHERE, 0);
	walk();
	assert_int_equal(walked_at(0, 0)->parent_off, 4096);
	expect_run(2 * UNIT, 512, VD_OWNER_CORRUPT, 2);
	assert_int_equal(walked_at(0, 2 * UNIT + 512)->parent_off, 4096 + 16);
	assert_int_equal(walked_at(0, 2 * UNIT + 512)->guest_off, 2 * UNIT + 512);
}

/* ---- sharing -------------------------------------------------------------------------------------------- */

static void views_share_at_the_same_guest_offset(void **state)
{
	(void)state;
	claim(VD_OWNER_DATA, UNIT, UNIT, 5 * UNIT, 2);
	claim(VD_OWNER_DATA, UNIT, UNIT, 5 * UNIT, 1)->refs = 3;
	walk();
	expect_run(UNIT, UNIT, VD_OWNER_DATA, 4);
	assert_int_equal(walked_at(0, UNIT)->view, 1);
	assert_int_equal(walked_at(0, UNIT)->parent_off, 1001);
	assert_int_equal(walked_at(0, UNIT)->flags, VD_HOST_SHARED);
}

static void data_for_one_is_data_though_others_have_zeros_there(void **state)
{
	(void)state;
	claim(VD_OWNER_ZEROED, UNIT, UNIT, 5 * UNIT, 0);
	claim(VD_OWNER_DATA, UNIT, UNIT, 5 * UNIT, 1);
	claim(VD_OWNER_SLACK, 2 * UNIT, UNIT, 5 * UNIT, 0)->why = VD_SLACK_SUBCLUSTER;
	claim(VD_OWNER_ZEROED, 2 * UNIT, UNIT, 5 * UNIT, 3);
	walk();
	expect_run(UNIT, UNIT, VD_OWNER_DATA, 2);
	assert_int_equal(walked_at(0, UNIT)->view, 1);
	expect_run(2 * UNIT, UNIT, VD_OWNER_ZEROED, 2);
}

static void one_place_for_two_guest_offsets_is_corrupt(void **state)
{
	(void)state;
	claim(VD_OWNER_DATA, UNIT, UNIT, 5 * UNIT, 0);
	claim(VD_OWNER_DATA, UNIT, UNIT, 6 * UNIT, 0);
	claim(VD_OWNER_DATA, 4 * UNIT, 4 * UNIT, 0, 0);
	claim(VD_OWNER_TABLE, 5 * UNIT, UNIT, NOWHERE, 0);
	claim(VD_OWNER_HEADER, 6 * UNIT, UNIT, NOWHERE, 0);
	walk();
	expect_run(UNIT, UNIT, VD_OWNER_CORRUPT, 2);
	expect_run(4 * UNIT, UNIT, VD_OWNER_DATA, 1);
	expect_run(5 * UNIT, 2 * UNIT, VD_OWNER_CORRUPT, 2);
	expect_run(7 * UNIT, UNIT, VD_OWNER_DATA, 1);
}

static void views_share_leaf_tables_and_no_others(void **state)
{
	(void)state;
	claim(VD_OWNER_TABLE, UNIT, UNIT, 0, 0)->why = VD_TABLE_LEAF;
	claim(VD_OWNER_TABLE, UNIT, UNIT, 0, 1)->why = VD_TABLE_LEAF;
	claim(VD_OWNER_TABLE, 2 * UNIT, UNIT, 0, 0)->why = VD_TABLE_ROOT;
	claim(VD_OWNER_TABLE, 2 * UNIT, UNIT, 0, 1)->why = VD_TABLE_ROOT;
	claim(VD_OWNER_TABLE, 3 * UNIT, UNIT, 0, 0)->why = VD_TABLE_LEAF;
	claim(VD_OWNER_TABLE, 3 * UNIT, UNIT, UNIT, 0)->why = VD_TABLE_LEAF;
	walk();
	expect_run(UNIT, UNIT, VD_OWNER_TABLE, 2);
	expect_run(2 * UNIT, 2 * UNIT, VD_OWNER_CORRUPT, 2);
}

static void compressed_pieces_end_where_the_next_begins_in_their_last_sector(void **state)
{
	(void)state;
	script.unit = UNIT;
	script.tail = UINT64_MAX;
	claim(VD_OWNER_PACKED, UNIT, 1024, 0, 0);
	claim(VD_OWNER_PACKED, UNIT + 700, 836, UNIT, 0);
	claim(VD_OWNER_PACKED, UNIT + 1300, 236, 2 * UNIT, 0);
	claim(VD_OWNER_PACKED, UNIT + 4096, 2048, 2 * UNIT, 0);
	claim(VD_OWNER_PACKED, UNIT + 5000, 2048, 3 * UNIT, 0);
	walk();
	expect_run(UNIT, 700, VD_OWNER_PACKED, 1);
	expect_run(UNIT + 700, 600, VD_OWNER_PACKED, 1);
	expect_run(UNIT + 1300, 236, VD_OWNER_PACKED, 1);
	expect_run(UNIT + 1536, 2560, VD_OWNER_SLACK, 0);
	assert_int_equal(walked_at(0, UNIT + 1536)->why, VD_SLACK_PACKED);
	/* These two overlap by more than a sector. */
	expect_run(UNIT + 4096, 904, VD_OWNER_PACKED, 1);
	expect_run(UNIT + 5000, 1144, VD_OWNER_CORRUPT, 2);
}

static void more_claims_than_can_be_told_apart_are_corrupt(void **state)
{
	(void)state;
	for (uint64_t i = 0; i < 200; i++)
		claim(VD_OWNER_DATA, i, 1000, 0, i);
	walk();
	assert_int_equal(walked_at(0, 150)->owner, VD_OWNER_CORRUPT);
	assert_int_equal(walked_at(0, 1198)->owner, VD_OWNER_CORRUPT);
	assert_int_equal(walked_at(0, 1199)->owner, VD_OWNER_FREE);
}

/* ---- accounts ------------------------------------------------------------------------------------------- */

static void what_is_counted_and_not_claimed_is_leaked(void **state)
{
	(void)state;
	script.unit = UNIT;
	script.tail = 20 * UNIT;
	claim(VD_OWNER_DATA, 2 * UNIT, UNIT, 0, 0);
	count(2 * UNIT, 4 * UNIT, 1);
	count(4 * UNIT, 6 * UNIT, 5);
	walk();
	expect_run(0, 2 * UNIT, VD_OWNER_FREE, 0);
	expect_run(3 * UNIT, UNIT, VD_OWNER_LEAKED, 1);
	expect_run(4 * UNIT, 2 * UNIT, VD_OWNER_LEAKED, 5);
	expect_run(6 * UNIT, 14 * UNIT, VD_OWNER_FREE, 0);
	expect_run(20 * UNIT, 12 * UNIT, VD_OWNER_TAIL, 0);
}

static void the_rest_of_a_unit_is_slack(void **state)
{
	(void)state;
	script.unit = UNIT;
	script.tail = UINT64_MAX;
	count(UNIT, 3 * UNIT, 1);
	claim(VD_OWNER_TABLE, UNIT + 512, 512, NOWHERE, 0);
	claim(VD_OWNER_BITMAP, 2 * UNIT, 100, NOWHERE, 0);
	walk();
	expect_run(0, UNIT, VD_OWNER_FREE, 0);
	expect_run(UNIT, 512, VD_OWNER_SLACK, 0);
	expect_run(UNIT + 1024, UNIT - 1024, VD_OWNER_SLACK, 0);
	expect_run(2 * UNIT, 100, VD_OWNER_BITMAP, 1);
	expect_run(2 * UNIT + 100, UNIT - 100, VD_OWNER_SLACK, 0);
	expect_run(3 * UNIT, 29 * UNIT, VD_OWNER_FREE, 0);
}

static void holes_of_the_host_are_told(void **state)
{
	struct vd_image *img;

	(void)state;
	claim(VD_OWNER_DATA, 0, 10 * UNIT, 0, 0);
	script.unit = UNIT;
	script.tail = 20 * UNIT;
	count(10 * UNIT, 12 * UNIT, 1);
	disk_put_raw("f", 4 * UNIT, 7);
	img = disk_open(&vd_format_raw, "f", VD_OPEN_WRITE);
	expect_ok(vd_image_resize(img, FILE_SIZE, 0, NULL), NULL);
	disk_close(img);
	img = disk_open(&format_script, "f", 0);
	walk_host(img, 64);
	disk_close(img);
	expect_run(0, 4 * UNIT, VD_OWNER_DATA, 1);
	expect_run(4 * UNIT, 6 * UNIT, VD_OWNER_DATA, 1);
	assert_int_equal(walked_at(0, 4 * UNIT)->flags, VD_HOST_SPARSE);
	assert_int_equal(walked_at(0, 4 * UNIT)->guest_off, 4 * UNIT);
	expect_run(10 * UNIT, 2 * UNIT, VD_OWNER_LEAKED, 1);
	assert_int_equal(walked_at(0, 10 * UNIT)->flags, VD_HOST_SPARSE);
	expect_run(12 * UNIT, 20 * UNIT, VD_OWNER_HOSTHOLE, 0);
}

/* ---- memory --------------------------------------------------------------------------------------------- */

static void put_file(uint64_t size)
{
	struct vd_image *img;

	disk_put_raw("f", 1, 7);
	img = disk_open(&vd_format_raw, "f", VD_OPEN_WRITE);
	expect_ok(vd_image_resize(img, size, 0, NULL), NULL);
	disk_close(img);
}

/* Scattered by a stride that makes no two neighbours. */
static void too_many_claims_make_windows_smaller(void **state)
{
	struct vd_image *img;

	(void)state;
	vd_window_claims = 64;
	for (uint64_t i = 0; i < 280; i++)
		claim(VD_OWNER_DATA, i * 37 % 280 * MIB, MIB, (i * 37 % 280) * 2 * MIB, 0);
	put_file(300 * MIB);
	img = disk_open(&format_script, "f", 0);
	walk_host(img, 64);
	disk_close(img);
	assert_in_range(script.n_walks, 280 / 64 + 1, 20);
	for (uint64_t i = 0; i < 280; i++) {
		assert_int_equal(walked_at(0, i * MIB + 999)->owner, VD_OWNER_DATA);
		assert_int_equal(walked_at(0, i * MIB + 999)->guest_off, i * 2 * MIB);
	}
	assert_int_equal(walked_at(0, 280 * MIB)->owner, VD_OWNER_HOSTHOLE);
}

static void equal_claims_take_the_room_of_one(void **state)
{
	(void)state;
	vd_window_claims = 64;
	for (uint64_t i = 0; i < 300; i++)
		claim(VD_OWNER_DATA, i % 10 * UNIT, UNIT, i % 10 * 2 * UNIT, i / 10);
	walk();
	assert_int_equal(script.n_walks, 1);
	for (uint64_t i = 0; i < 10; i++)
		expect_run(i * UNIT, UNIT, VD_OWNER_DATA, 30);
}

static void what_is_too_crowded_is_nobodys_to_scrub(void **state)
{
	(void)state;
	vd_window_claims = 64;
	for (uint64_t i = 0; i < 280; i++)
		claim(VD_OWNER_PACKED, i, 512, i * UNIT, 0);
	walk();
	assert_int_equal(walked.n, 1);
	expect_run(0, FILE_SIZE, VD_OWNER_CORRUPT, 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, start, stop)
	const struct CMUnitTest tests[] = {
		T(what_is_not_claimed_is_free),
		T(order_does_not_matter_and_what_lies_outside_is_cut),
		T(neighbours_on_the_disk_are_one_run),
		T(a_part_has_its_own_entry),
		T(views_share_at_the_same_guest_offset),
		T(data_for_one_is_data_though_others_have_zeros_there),
		T(one_place_for_two_guest_offsets_is_corrupt),
		T(views_share_leaf_tables_and_no_others),
		T(compressed_pieces_end_where_the_next_begins_in_their_last_sector),
		T(more_claims_than_can_be_told_apart_are_corrupt),
		T(what_is_counted_and_not_claimed_is_leaked),
		T(the_rest_of_a_unit_is_slack),
		T(holes_of_the_host_are_told),
		T(too_many_claims_make_windows_smaller),
		T(equal_claims_take_the_room_of_one),
		T(what_is_too_crowded_is_nobodys_to_scrub),
	};

	return cmocka_run_group_tests_name("cover", tests, NULL, NULL);
}
