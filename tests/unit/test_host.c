/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The host walk over every kind of image: each byte has one owner, the map says the same, and scrubbing harms nobody. */
#include "tests/support/hostwalk.h"
#include "tests/support/tempdir.h"
#include "tests/support/variant.h"

#include "libvdisk/base/checked.h"
#include "libvdisk/core/host.h"
#include "formats/qcow2/qcow2_claims.h"
#include "tests/support/qcow2_bytes.h"

static struct model model;

/* An image as life leaves it: written here and there, zeroed, overwritten, perhaps with snapshots. False: no peer. */
static bool make_used(const struct variant *v, struct vd_image **img)
{
	struct vd_error e;

	model_init(&model, v->size, 7);
	if (!variant_make(v, &model))
		return false;
	*img = variant_open(v, VD_OPEN_WRITE);
	for (int i = 0; i < 24; i++) {
		uint64_t off = chance_below(&model.chance, v->size), len = chance_below(&model.chance, 3 * v->unit) + 1;

		len = vd_min_u64(len, v->size - off);
		if (i % 3 == 2)
			model_zero(&model, *img, off, len);
		else
			model_write(&model, *img, off, len);
		if (i % 8 == 5 && v->format == &vd_format_qcow2 && !v->opts.data_file && v->opts.refcount_bits != 1)
			expect_ok(vd_snapshot_create(*img, i < 8 ? "one" : i < 16 ? "two" : "three", &e), &e);
	}
	return true;
}

static void done(struct vd_image *img)
{
	disk_close(img);
	model_free(&model);
	walk_free();
}

static uint32_t file_of(const struct vd_image *img, const char *name)
{
	uint32_t i = 0;

	while (strcmp(vd_host_file_name(img, i), name))
		i++;
	return i;
}

/* What the map says is where, the walk says is whose. */
static void expect_map_agrees(struct vd_image *img)
{
	struct vd_error e;
	uint64_t at = 0;

	while (at < img->size) {
		struct vd_extent x;
		size_t n;

		expect_ok(vd_image_extents(img, at, img->size - at, &x, 1, &n, &e), &e);
		at = x.off + x.len;
		if (x.depth || !(x.flags & (VD_EXTENT_HOST | VD_EXTENT_PACKED)))
			continue;
		for (uint64_t i = 0; i < x.len; i += 512) {
			const struct vd_host_run *r = walked_at(file_of(img, x.file), x.host_off + (x.flags & VD_EXTENT_HOST ? i : 0));

			assert_int_equal(r->owner, x.flags & VD_EXTENT_HOST ? VD_OWNER_DATA : VD_OWNER_PACKED);
			assert_int_equal(r->view, 0);
			if (x.flags & VD_EXTENT_HOST)
				assert_int_equal(r->guest_off + (x.host_off + i - r->off), x.off + i);
		}
	}
}

static void every_byte_has_one_owner(void **state)
{
	for (size_t i = 0; i < n_variants; i++) {
		struct vd_image *img;

		if (!variants[i].format->walk)
			continue;
		if (!make_used(&variants[i], &img)) {
			model_free(&model);
			continue;
		}
		walk_host(img, 64);
		assert_int_equal(walked.n_findings, 0);
		assert_int_equal(walked_bytes(VD_OWNER_CORRUPT, VD_N_WHYS), 0);
		assert_int_equal(walked_bytes(VD_OWNER_LEAKED, VD_N_WHYS), 0);
		expect_map_agrees(img);
		done(img);
		disks_stop(state);
		disks_start(state);
	}
}

/* ---- windows -------------------------------------------------------------------------------------------- */

static struct host_walk keep_walk(void)
{
	struct host_walk kept = walked;

	walked = (struct host_walk){ 0 };
	return kept;
}

/* Runs are cut at the edges of windows, and where an earlier walk stopped; what they say is the same. */
static void expect_same_owners(const struct host_walk *a, uint32_t file, uint64_t from)
{
	for (size_t i = 0; i < a->n; i++) {
		const struct vd_host_run *x = &a->runs[i];
		uint64_t at = x->off > from ? x->off : from;

		for (uint64_t end = x->off + x->len; at < end && x->file == file;) {
			const struct vd_host_run *y = walked_at(file, at);
			bool moves = y->owner == VD_OWNER_DATA || y->owner == VD_OWNER_ZEROED || y->owner == VD_OWNER_VMSTATE;

			assert_int_equal(x->owner, y->owner);
			assert_int_equal(x->why, y->why);
			assert_int_equal(x->refs, y->refs);
			assert_int_equal(x->flags, y->flags);
			if (moves)
				assert_int_equal(x->guest_off - x->off, y->guest_off - y->off);
			at = vd_min_u64(end, y->off + y->len);
		}
	}
}

static void a_walk_in_little_memory_says_the_same(void **state)
{
	static const char *const names[] = { "qcow2 512", "qcow2 extended l2", "qcow2 deflate", "qcow2 luks", "toy" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct vd_image *img;
		struct host_walk whole;

		assert_true(make_used(variant_named(names[i]), &img));
		walk_host(img, 64);
		whole = keep_walk();
		vd_window_counts = 16;
		vd_qcow2_visit_batch = 2;
		/* With too little for the smallest window nobody can tell. */
		vd_window_claims = 64;
		for (walk_host(img, 1); walked_bytes(VD_OWNER_CORRUPT, VD_N_WHYS); walk_host(img, 1))
			vd_window_claims *= 2;
		assert_true(vd_window_claims < 16384);
		vd_window_claims = VD_WINDOW_CLAIMS;
		vd_window_counts = VD_WINDOW_COUNTS;
		vd_qcow2_visit_batch = 512u << 10;
		expect_same_owners(&whole, 0, 0);
		free(whole.runs);
		done(img);
		disks_stop(state);
		disks_start(state);
	}
}

static void a_walk_goes_on_where_another_stopped(void **state)
{
	struct vd_image *img;
	struct host_walk whole;

	(void)state;
	assert_true(make_used(variant_named("qcow2 data file"), &img));
	walk_host(img, 64);
	whole = keep_walk();
	for (uint64_t off = 1; off < 3000000; off = off * 3 + 1) {
		struct vd_host_walk *w;
		struct vd_host_run runs[512];
		struct vd_error e;

		expect_ok(vd_host_walk_start(img, 1, off, &w, &e), &e);
		walked.runs = runs;
		expect_ok(vd_host_walk_next(w, runs, 512, &walked.n, &e), &e);
		assert_int_equal(runs[0].off, off);
		expect_same_owners(&whole, 1, off);
		vd_host_walk_end(w);
	}
	walked = whole;
	done(img);
}

/* ---- owners --------------------------------------------------------------------------------------------- */

static void all_who_share_a_cluster_are_listed(void **state)
{
	struct vd_host_owner owners[4];
	struct vd_image *img;
	struct vd_error e;
	uint64_t host;
	size_t n;

	(void)state;
	disk_make(&vd_format_qcow2, "d", 1 << 20, NULL);
	img = disk_open(&vd_format_qcow2, "d", VD_OPEN_WRITE);
	disk_write(img, 65536, 65536, 1);
	expect_ok(vd_snapshot_create(img, "one", &e), &e);
	disk_write(img, 0, 512, 2);
	expect_ok(vd_snapshot_create(img, "two", &e), &e);
	disk_write(img, 70000, 10, 3);
	walk_host(img, 64);
	host = 0;
	for (size_t i = 0; i < walked.n; i++)
		if (walked.runs[i].owner == VD_OWNER_DATA && walked.runs[i].view == 1)
			host = walked.runs[i].off;
	assert_int_equal(walked_at(0, host)->refs, 2);
	expect_ok(vd_host_owners(img, 0, host + 77, owners, 4, &n, &e), &e);
	assert_int_equal(n, 2);
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(owners[i].guest_off, 65536 + 77);
		assert_int_equal(owners[i].owner, VD_OWNER_DATA);
	}
	assert_true(owners[0].view != owners[1].view && owners[0].view && owners[1].view);
	/* More than there is room for are counted. */
	expect_ok(vd_host_owners(img, 0, host, owners, 1, &n, &e), &e);
	assert_int_equal(n, 2);
	expect_failure(vd_host_owners(img, 0, 1 << 30, owners, 1, &n, &e), VD_ERANGE, &e, "ends before");
	expect_failure(vd_host_owners(img, 7, 0, owners, 1, &n, &e), VD_EARG, &e, "no file 7");
	walk_free();
	disk_close(img);
}

/* ---- scrubbing ------------------------------------------------------------------------------------------ */

static bool may_scrub(const struct vd_host_run *r)
{
	return r->owner == VD_OWNER_FREE || r->owner == VD_OWNER_LEAKED || r->owner == VD_OWNER_SLACK || r->owner == VD_OWNER_TAIL ||
	       r->owner == VD_OWNER_ZEROED || r->owner == VD_OWNER_HOSTHOLE;
}

/* All that may be is overwritten, all else is refused; what the disk and its snapshots hold stays. */
static void scrubbing_touches_nothing_that_is_somebodys(void **state)
{
	for (size_t i = 0; i < n_variants; i++) {
		const struct variant *v = &variants[i];
		struct vd_image *img;
		struct vd_error e;

		if (!v->format->walk)
			continue;
		if (!make_used(v, &img)) {
			model_free(&model);
			continue;
		}
		walk_host(img, 64);
		for (size_t k = 0; k < walked.n; k++) {
			const struct vd_host_run *r = &walked.runs[k];

			if (may_scrub(r))
				expect_ok(vd_host_scrub(img, r->file, r->off, r->len, "SCRUB", 5, &e), &e);
			else
				expect_failure(vd_host_scrub(img, r->file, r->off + r->len - 1, 1, "SCRUB", 5, &e), VD_EARG, &e, "not free");
		}
		expect_ok(vd_image_flush(img, &e), &e);
		model_check_all(&model, img);
		disk_close(img);
		img = variant_open(v, 0);
		model_check_all(&model, img);
		assert_true(variant_keeps_snapshot(v, disks.host, v->size, &e));
		if (peer_knows(v))
			peer_check(v, disks.mem, false);
		done(img);
		disks_stop(state);
		disks_start(state);
	}
}

static void scrubbed_bytes_hold_the_pattern(void **state)
{
	const struct vd_host_run *r;
	struct vd_image *img;
	struct vd_error e;
	uint8_t buf[64];

	(void)state;
	disk_make(&vd_format_qcow2, "d", 1 << 20, NULL);
	img = disk_open(&vd_format_qcow2, "d", VD_OPEN_CONTROL);
	walk_host(img, 64);
	r = walked_first(VD_OWNER_SLACK, VD_SLACK_HEADER);
	assert_non_null(r);
	expect_ok(vd_host_scrub(img, 0, r->off, 10, "abc", 3, &e), &e);
	expect_ok(vd_host_read(img, 0, buf, 10, r->off, &e), &e);
	assert_memory_equal(buf, "abcabcabca", 10);
	expect_ok(vd_host_scrub(img, 0, r->off + 1, 3, NULL, 0, &e), &e);
	expect_ok(vd_host_read(img, 0, buf, 5, r->off, &e), &e);
	assert_memory_equal(buf, "a\0\0\0b", 5);
	/* One byte too many, and none is written. */
	expect_failure(vd_host_scrub(img, 0, r->off - 1, 4, "zzzz", 4, &e), VD_EARG, &e, "header");
	expect_ok(vd_host_read(img, 0, buf, 4, r->off, &e), &e);
	assert_memory_equal(buf, "a\0\0\0", 4);
	expect_failure(vd_host_read(img, 0, buf, 4, UINT64_MAX - 1, &e), VD_ERANGE, &e, "outside");
	disk_close(img);
	img = disk_open(&vd_format_qcow2, "d", 0);
	expect_failure(vd_host_scrub(img, 0, r->off, 1, NULL, 0, &e), VD_EREADONLY, &e, "reading only");
	walk_free();
	disk_close(img);
}

/* What was free when it was walked is not when it was written meanwhile. */
static void scrubbing_looks_again(void **state)
{
	const struct vd_host_run *r;
	uint64_t off = 0;
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	disk_make(&vd_format_qcow2, "d", 1 << 20, NULL);
	img = disk_open(&vd_format_qcow2, "d", VD_OPEN_WRITE);
	disk_write(img, 0, 4 * 65536, 1);
	disk_zero(img, 65536, 65536);
	walk_host(img, 64);
	r = walked_first(VD_OWNER_FREE, VD_N_WHYS);
	assert_non_null(r);
	off = r->off;
	expect_ok(vd_host_scrub(img, 0, off, 512, NULL, 0, &e), &e);
	disk_write(img, 8 * 65536, 65536, 9);
	expect_failure(vd_host_scrub(img, 0, off, 512, NULL, 0, &e), VD_EARG, &e, "bytes of the disk");
	disk_expect(img, 8 * 65536, 65536, 9);
	walk_free();
	disk_close(img);
}

/* ---- markers -------------------------------------------------------------------------------------------- */

/* A marker in the file, put there behind the library's back, is found by reading what is whose. */
static void expect_marker(struct vd_image *img, enum vd_owner owner, enum vd_why why)
{
	static const char marker[8] = "MARKER!";
	const struct vd_host_run *r = walked_first(owner, why);
	uint8_t was[sizeof(marker)], *all;
	struct vd_error e;
	size_t n_found = 0;
	uint64_t at;

	if (!r)
		fail_msg("there is nothing of owner %s, %s", vd_owner_name(owner), why == VD_N_WHYS ? "any" : vd_why_name(why));
	at = r->off + (r->len - sizeof(marker)) / 2;
	bytes_read("d", at, was, sizeof(was));
	bytes_write("d", at, marker, sizeof(marker));
	for (size_t i = 0; i < walked.n; i++) {
		const struct vd_host_run *x = &walked.runs[i];

		all = malloc(x->len + sizeof(marker));
		expect_ok(vd_host_read(img, x->file, all, x->len, x->off, &e), &e);
		for (uint64_t k = 0; k + sizeof(marker) <= x->len; k++) {
			if (memcmp(all + k, marker, sizeof(marker)))
				continue;
			n_found++;
			assert_int_equal(x->owner, owner);
			assert_int_equal(x->off + k, at);
		}
		free(all);
	}
	assert_int_equal(n_found, 1);
	bytes_write("d", at, was, sizeof(was));
}

static void markers_are_found_where_they_were_put(void **state)
{
	struct vd_create_opts opts = disk_create_opts(&vd_format_qcow2, 4 << 20);
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	opts.flags = VD_CREATE_EXTENDED_L2;
	opts.cluster_size = 16384;
	opts.kdf.iterations = 1000;
	expect_ok(vd_key_from_bytes("k", 1, &opts.key, &e), &e);
	img = disk_create(&vd_format_qcow2, "d", &opts);
	disk_write(img, 0, 3 << 20, 7);
	disk_commit(img);
	disk_close(img);
	img = disk_open(&vd_format_qcow2, "d", VD_OPEN_CONTROL);
	expect_ok(vd_snapshot_create(img, "one", &e), &e);
	expect_ok(vd_image_resize(img, 1 << 20, VD_RESIZE_SHRINK, &e), &e);
	expect_ok(vd_bitmap_create(img, "b", 65536, 0, &e), &e);
	disk_close(img);
	img = disk_open(&vd_format_qcow2, "d", VD_OPEN_METADATA | VD_OPEN_FORCE_SHARE);
	walk_host(img, 64);
	expect_marker(img, VD_OWNER_HEADER, VD_N_WHYS);
	expect_marker(img, VD_OWNER_KEYAREA, VD_N_WHYS);
	expect_marker(img, VD_OWNER_TABLE, VD_TABLE_ROOT);
	expect_marker(img, VD_OWNER_TABLE, VD_TABLE_LEAF);
	expect_marker(img, VD_OWNER_TABLE, VD_TABLE_COUNT_ROOT);
	expect_marker(img, VD_OWNER_TABLE, VD_TABLE_COUNT_LEAF);
	expect_marker(img, VD_OWNER_TABLE, VD_TABLE_SNAPSHOTS);
	expect_marker(img, VD_OWNER_DATA, VD_N_WHYS);
	expect_marker(img, VD_OWNER_SLACK, VD_SLACK_HEADER);
	expect_marker(img, VD_OWNER_SLACK, VD_SLACK_TABLE);
	expect_marker(img, VD_OWNER_FREE, VD_N_WHYS);
	expect_marker(img, VD_OWNER_BITMAP, VD_BITMAP_DIRECTORY);
	expect_marker(img, VD_OWNER_BITMAP, VD_BITMAP_TABLE);
	vd_key_free(opts.key);
	walk_free();
	disk_close(img);
}

static struct vd_image *open_to_poke(void)
{
	return disk_open(&vd_format_qcow2, "d", VD_OPEN_METADATA | VD_OPEN_FORCE_SHARE);
}

/* What writing through the library does not leave behind is made by hand. */
static void markers_are_found_in_what_is_left_over(void **state)
{
	struct vd_create_opts opts = disk_create_opts(&vd_format_qcow2, 4 << 20);
	struct vd_image *img;
	uint64_t size;

	(void)state;
	opts.cluster_size = 4096;
	img = disk_create(&vd_format_qcow2, "d", &opts);
	disk_write(img, 0, 4 << 20, 7);
	disk_commit(img);
	disk_close(img);
	/* A cluster is lost, one reads as zeros, and the disk ends inside a third; past the reach of its L2 table: vm state. */
	bytes_put("d", bytes_l2_entry("d", 5 * 4096), 8, 0);
	bytes_put("d", bytes_l2_entry("d", 7 * 4096), 8, bytes_get("d", bytes_l2_entry("d", 7 * 4096), 8) | 1);
	bytes_put("d", 24, 8, (1 << 20) + 512);
	size = bytes_size("d");
	bytes_truncate("d", size + 3 * 4096);
	bytes_put("d", size + 3 * 4096 - 8, 8, 1);
	img = open_to_poke();
	walk_host(img, 64);
	assert_int_equal(walked.n_findings, 0);
	expect_marker(img, VD_OWNER_LEAKED, VD_N_WHYS);
	expect_marker(img, VD_OWNER_ZEROED, VD_N_WHYS);
	expect_marker(img, VD_OWNER_SLACK, VD_SLACK_PAST_END);
	expect_marker(img, VD_OWNER_VMSTATE, VD_N_WHYS);
	expect_marker(img, VD_OWNER_TAIL, VD_N_WHYS);
	walk_free();
	disk_close(img);
}

static void markers_are_found_between_subclusters(void **state)
{
	struct vd_create_opts opts = disk_create_opts(&vd_format_qcow2, 1 << 20);
	struct vd_image *img;

	(void)state;
	opts.flags = VD_CREATE_EXTENDED_L2;
	opts.cluster_size = 16384;
	img = disk_create(&vd_format_qcow2, "d", &opts);
	disk_write(img, 0, 1 << 20, 7);
	disk_commit(img);
	disk_close(img);
	bytes_put("d", bytes_l2_entry("d", 0) + 8, 8, 0x000000f0ff0fff00);
	img = open_to_poke();
	walk_host(img, 64);
	assert_int_equal(walked.n_findings, 0);
	assert_int_equal(walked_bytes(VD_OWNER_SLACK, VD_SLACK_SUBCLUSTER), 8 * 512);
	assert_int_equal(walked_bytes(VD_OWNER_ZEROED, VD_N_WHYS), 4 * 512);
	expect_marker(img, VD_OWNER_SLACK, VD_SLACK_SUBCLUSTER);
	expect_marker(img, VD_OWNER_ZEROED, VD_N_WHYS);
	walk_free();
	disk_close(img);
}

static void markers_are_found_among_compressed_clusters(void **state)
{
	struct vd_image *img;

	(void)state;
	assert_true(make_used(variant_named("qcow2 deflate"), &img));
	disk_close(img);
	img = open_to_poke();
	walk_host(img, 64);
	expect_marker(img, VD_OWNER_PACKED, VD_N_WHYS);
	expect_marker(img, VD_OWNER_SLACK, VD_SLACK_PACKED);
	done(img);
}

/* ---- key areas ------------------------------------------------------------------------------------------ */

/* One of eight slots is in use, of 64 x 4000 bytes each; scrubbing_touches_nothing... shows that it still opens. */
static void room_of_dead_key_slots_is_slack(void **state)
{
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	assert_true(make_used(variant_named("luks1"), &img));
	walk_host(img, 64);
	assert_int_equal(walked_bytes(VD_OWNER_SLACK, VD_SLACK_DEAD_SLOT), 7 * 256000);
	assert_int_equal(walked_bytes(VD_OWNER_KEYAREA, VD_N_WHYS), (2 << 20) - 7 * 256000);
	assert_int_equal(walked_at(0, 2 << 20)->guest_off, 0);
	expect_ok(vd_keyslot_remove(img, 0, VD_KEYSLOT_LAST, &e), &e);
	walk_host(img, 64);
	assert_int_equal(walked_bytes(VD_OWNER_SLACK, VD_SLACK_DEAD_SLOT), 8 * 256000);
	done(img);
}

/* ---- damage --------------------------------------------------------------------------------------------- */

static void damage_is_told_and_ends_nothing(void **state)
{
	struct vd_image *img;
	struct vd_error e;
	uint64_t host, other;

	(void)state;
	disk_make(&vd_format_qcow2, "d", 4 << 20, NULL);
	img = disk_open(&vd_format_qcow2, "d", VD_OPEN_WRITE);
	disk_write(img, 0, 1 << 20, 1);
	disk_close(img);
	host = bytes_get("d", bytes_l2_entry("d", 0), 8);
	other = bytes_get("d", bytes_l2_entry("d", 65536), 8) & 0xfffffffff0000;
	/* One entry leads out of the file, one to where another leads, one to a table. */
	bytes_put("d", bytes_l2_entry("d", 2 * 65536), 8, UINT64_C(1) << 50);
	bytes_put("d", bytes_l2_entry("d", 3 * 65536), 8, host);
	bytes_put("d", bytes_l2_entry("d", 4 * 65536), 8, UINT64_C(1) << 63 | 131072);
	img = disk_open(&vd_format_qcow2, "d", VD_OPEN_CONTROL);
	walk_host(img, 64);
	assert_int_equal(walked.n_findings, 1);
	assert_non_null(strstr(walked.first.message, "beyond the end of the file"));
	assert_int_equal(walked_at(0, host & 0xfffffffff0000)->owner, VD_OWNER_CORRUPT);
	assert_int_equal(walked_at(0, 131072)->owner, VD_OWNER_CORRUPT);
	assert_int_equal(walked_at(0, other)->owner, VD_OWNER_DATA);
	assert_int_equal(walked_bytes(VD_OWNER_CORRUPT, VD_N_WHYS), 2 * 65536);
	assert_int_equal(walked_bytes(VD_OWNER_LEAKED, VD_N_WHYS), 3 * 65536);
	/* What a bad entry should lead to may be among the leaked. */
	expect_failure(vd_host_scrub(img, 0, walked_first(VD_OWNER_LEAKED, VD_N_WHYS)->off, 1, NULL, 0, &e), VD_ECORRUPT, &e,
		       "nothing was overwritten");
	walk_free();
	disk_close(img);
}

static void a_snapshots_disk_has_no_files_of_its_own(void **state)
{
	struct vd_open_opts opts = disk_open_opts(&vd_format_qcow2, 0);
	struct vd_host_walk *w;
	struct vd_image *img;
	struct vd_error e;

	(void)state;
	disk_make(&vd_format_qcow2, "d", 1 << 20, NULL);
	img = disk_open(&vd_format_qcow2, "d", VD_OPEN_CONTROL);
	expect_ok(vd_snapshot_create(img, "one", &e), &e);
	disk_close(img);
	opts.snapshot = "one";
	expect_ok(vd_image_open_on(disks.host, &vd_format_qcow2, "d", &opts, &img, &e), &e);
	expect_failure(vd_host_walk_start(img, 0, 0, &w, &e), VD_EARG, &e, "without a snapshot");
	disk_close(img);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, disks_start, disks_stop)
	const struct CMUnitTest tests[] = {
		T(every_byte_has_one_owner),
		T(a_walk_in_little_memory_says_the_same),
		T(a_walk_goes_on_where_another_stopped),
		T(all_who_share_a_cluster_are_listed),
		T(scrubbing_touches_nothing_that_is_somebodys),
		T(scrubbed_bytes_hold_the_pattern),
		T(scrubbing_looks_again),
		T(markers_are_found_where_they_were_put),
		T(markers_are_found_in_what_is_left_over),
		T(markers_are_found_between_subclusters),
		T(markers_are_found_among_compressed_clusters),
		T(room_of_dead_key_slots_is_slack),
		T(damage_is_told_and_ends_nothing),
		T(a_snapshots_disk_has_no_files_of_its_own),
	};

	return cmocka_run_group_tests_name("host", tests, vd_tempdir_enter, vd_tempdir_leave);
}
