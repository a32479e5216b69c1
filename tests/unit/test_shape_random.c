/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random snapshots, resizes and writes of every qcow2 variant beside byte arrays: one for the disk and one for each
 * snapshot. After every act the tables are without error and without leak, by an independent check; at the end qemu-img
 * looks too. VD_RANDOM_OPS: how many operations a variant; VD_RANDOM_SEED: another sequence of them.
 */
#include <stdio.h>

#include "formats/qcow2/qcow2_shape.h"
#include "libvdisk/base/checked.h"
#include "tests/support/qcow2_check.h"
#include "tests/support/tempdir.h"
#include "tests/support/variant.h"

#define OPS 120
#define SNAPSHOTS 5
#define SIZE_MAX_TRIED (6u << 20)

static uint64_t setting(const char *name, uint64_t otherwise)
{
	const char *value = getenv(name);

	return value ? strtoull(value, NULL, 0) : otherwise;
}

struct kept {
	char name[24];
	uint8_t *bytes;
	uint64_t size;
};

static struct run {
	const struct variant *v;
	struct vd_image *img;
	struct model m;
	struct kept kept[SNAPSHOTS];
	size_t n_kept, n_peers;         /* the peer's own come first, and stay */
	unsigned n_made;
	uint64_t n_done;
} run;

static void fail_act(const char *what, const char *why)
{
	fail_msg("%s: after %llu operations, %s: %s", run.v->name, (unsigned long long)run.n_done, what, why);
}

static void check_tables(const char *what)
{
	struct qcow2_verdict v = qcow2_check(disks.mem, "d");

	if (v.n_errors)
		fail_act(what, v.first);
	if (v.n_leaks)
		fail_act(what, "leaked clusters");
}

/* ---- acts ----------------------------------------------------------------------------------------------- */

static bool has_width(void)
{
	return run.v->opts.refcount_bits != 1;
}

/* Refcounts of one bit have no room for a second owner; nothing has changed then. */
static void create(void)
{
	struct kept *k = &run.kept[run.n_kept];
	struct vd_error e;
	int r;

	if (run.n_kept == SNAPSHOTS)
		return;
	snprintf(k->name, sizeof(k->name), "snap-%u", ++run.n_made);
	r = vd_snapshot_create(run.img, k->name, &e);
	if (!has_width() && r == VD_EUNSUPPORTED)
		return;
	expect_ok(r, &e);
	k->size = run.m.size;
	k->bytes = malloc(k->size + 1);
	memcpy(k->bytes, run.m.bytes, k->size);
	run.n_kept++;
	check_tables("create");
}

static void apply(const struct kept *k)
{
	struct vd_error e;

	expect_ok(vd_snapshot_apply(run.img, k->name, &e), &e);
	run.m.size = k->size;
	memcpy(run.m.bytes, k->bytes, k->size);
	assert_int_equal(vd_image_size(run.img), k->size);
	check_tables("apply");
}

static void delete(void)
{
	struct vd_error e;
	size_t i;

	if (run.n_kept == run.n_peers)
		return;
	i = run.n_peers + chance_below(&run.m.chance, run.n_kept - run.n_peers);
	expect_ok(vd_snapshot_delete(run.img, run.kept[i].name, &e), &e);
	free(run.kept[i].bytes);
	run.kept[i] = run.kept[--run.n_kept];
	check_tables("delete");
}

static void resize(void)
{
	uint64_t size = 512 * (1 + chance_below(&run.m.chance, SIZE_MAX_TRIED / 512));
	struct vd_error e;
	int r;

	if (chance_below(&run.m.chance, 2))
		size = vd_round_up(size, run.v->unit);
	r = vd_image_resize(run.img, size, VD_RESIZE_SHRINK, &e);
	if (r == VD_EUNSUPPORTED && run.v->opts.flags & VD_CREATE_COMPAT_V2 && run.n_kept)
		return;
	expect_ok(r, &e);
	if (size > run.m.size)
		memset(run.m.bytes + run.m.size, 0, size - run.m.size);
	run.m.size = size;
	assert_int_equal(vd_image_size(run.img), size);
	check_tables("resize");
}

static void change(void)
{
	uint64_t *chance = &run.m.chance, off = chance_below(chance, run.m.size);
	uint64_t len = 1 + chance_below(chance, chance_below(chance, 2) ? 4 * (uint64_t)run.v->unit : 900);

	len = vd_min_u64(len, run.m.size - off);
	if (chance_below(chance, 3))
		model_write(&run.m, run.img, off, len);
	else if (chance_below(chance, 2))
		model_zero(&run.m, run.img, off, len);
	else if (chance_below(chance, 2))
		model_zero_allocated(&run.m, run.img, off, len);
	else
		model_discard(&run.m, run.img, off, len);
}

/* ---- looking -------------------------------------------------------------------------------------------- */

static void check_snapshot(const struct kept *k)
{
	struct model m = { .size = k->size, .bytes = k->bytes };
	struct vd_open_opts opts = disk_open_opts(run.v->format, 0);
	struct vd_image *img = NULL;
	struct vd_key *key = NULL;
	struct vd_error e;

	if (run.v->flags & VARIANT_LUKS)
		expect_ok(vd_key_from_bytes("correct horse", 13, &key, &e), &e);
	opts.keys = &key;
	opts.n_keys = key ? 1 : 0;
	opts.snapshot = k->name;
	expect_ok(vd_image_open_on(disks.mem, run.v->format, "d", &opts, &img, &e), &e);
	assert_int_equal(vd_image_size(img), k->size);
	model_check_all(&m, img);
	disk_close(img);
	vd_key_free(key);
}

static void reopen(void)
{
	disk_close(run.img);
	check_tables("close");
	for (size_t i = 0; i < run.n_kept; i++)
		check_snapshot(&run.kept[i]);
	run.img = variant_open(run.v, VD_OPEN_WRITE | (chance_below(&run.m.chance, 2) ? 0 : VD_OPEN_SCRUB_FREED));
	assert_int_equal(vd_image_size(run.img), run.m.size);
	model_check_all(&run.m, run.img);
}

static void step(void)
{
	uint64_t die = chance_below(&run.m.chance, 100);

	if (die < 55)
		change();
	else if (die < 65)
		create();
	else if (die < 72 && run.n_kept)
		apply(&run.kept[chance_below(&run.m.chance, run.n_kept)]);
	else if (die < 80)
		delete();
	else if (die < 88)
		resize();
	else if (die < 94)
		model_check_all(&run.m, run.img);
	else
		reopen();
}

/* What the peer kept before. */
static void take_over(void)
{
	struct vd_snapshot *list;
	struct vd_error e;
	size_t n;

	expect_ok(vd_snapshot_list(run.img, &list, &n, &e), &e);
	for (size_t i = 0; i < n; i++) {
		struct kept *k = &run.kept[run.n_kept++];

		snprintf(k->name, sizeof(k->name), "%s", list[i].name);
		k->size = list[i].disk_size;
		k->bytes = malloc(k->size + 1);
		/* Nothing was written since it was made. */
		memcpy(k->bytes, run.m.bytes, k->size);
	}
	vd_snapshot_list_free(list);
	run.n_peers = n;
}

/* ---- the tests ------------------------------------------------------------------------------------------ */

static int start(void **state)
{
	const struct variant *v = *state;
	uint64_t seed = setting("VD_RANDOM_SEED", 1);

	run = (struct run){ .v = v };
	/* By turns all clusters at once, and some at a time: refcounts of more than 4 GiB are no test's. */
	vd_qcow2_window = (seed + (uint64_t)(v - variants)) % 2 ? 8u << 20 : 64;
	model_init(&run.m, vd_max_u64(SIZE_MAX_TRIED + v->unit, v->size), seed * 1000 + (uint64_t)(v - variants));
	run.m.size = v->size;
	return disks_start(NULL);
}

static int stop(void **state)
{
	(void)state;
	for (size_t i = 0; i < run.n_kept; i++)
		free(run.kept[i].bytes);
	model_free(&run.m);
	return disks_stop(NULL);
}

static void acts_leave_every_disk_as_it_was(void **state)
{
	const struct variant *v = *state;
	uint64_t n = setting("VD_RANDOM_OPS", OPS);

	print_message("# %s, VD_RANDOM_SEED=%llu\n", v->name, (unsigned long long)setting("VD_RANDOM_SEED", 1));
	if (!variant_make(v, &run.m))
		skip();
	run.img = variant_open(v, VD_OPEN_WRITE);
	take_over();
	for (; run.n_done < n; run.n_done++)
		step();
	/* It compares its own snapshot, too, for which the disk has to have that one's size. */
	if (run.n_peers)
		apply(&run.kept[0]);
	reopen();
	disk_close(run.img);
	if (!peer_knows(v))
		return;
	peer_check(v, disks.mem, false);
	peer_compare(v, disks.mem, &run.m);
}

int main(void)
{
	struct CMUnitTest *tests = calloc(n_variants, sizeof(*tests));
	void *folder;
	size_t n = 0;
	int r;

	if (vd_tempdir_enter(&folder) < 0)
		return 1;
	for (size_t i = 0; i < n_variants; i++) {
		/* Without refcounts for the disk's bytes there are no snapshots. */
		if (variants[i].format != &vd_format_qcow2 || variants[i].opts.data_file)
			continue;
		tests[n++] = (struct CMUnitTest){ variants[i].name, acts_leave_every_disk_as_it_was, start, stop, (void *)&variants[i] };
	}
	r = _cmocka_run_group_tests("shape random", tests, n, NULL, NULL);
	free(tests);
	return vd_tempdir_leave(&folder) < 0 ? 1 : r;
}
