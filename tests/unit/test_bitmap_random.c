/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random writes, zeros, discards and acts on bitmaps, sizes and snapshots, for every qcow2 variant that can have bitmaps:
 * several bitmaps beside a byte a piece each, and the disk beside a byte array. VD_RANDOM_OPS: how many operations a
 * variant; VD_RANDOM_SEED: another sequence of them.
 */
#include "libvdisk/base/checked.h"
#include "tests/support/bitmaps.h"
#include "tests/support/qcow2_check.h"
#include "tests/support/tempdir.h"
#include "tests/support/variant.h"

#include <stdio.h>

#define OPS 150
#define BITMAPS 6
#define SIZE_MAX_TRIED (5u << 20)

static uint64_t setting(const char *name, uint64_t otherwise)
{
	const char *value = getenv(name);

	return value ? strtoull(value, NULL, 0) : otherwise;
}

static struct run {
	const struct variant *v;
	struct vd_image *img;
	struct model m;
	struct bitmap_model b[BITMAPS];
	size_t n;
	unsigned n_made;
	bool has_snapshot;
	uint8_t *then;                  /* the disk of the snapshot */
	uint64_t size_then, n_done;
} run;

static void check_tables(const char *what)
{
	struct qcow2_verdict v = qcow2_check(disks.mem, "d");

	if (v.n_errors || v.n_leaks)
		fail_msg("%s: after %llu operations, %s: %u leaks, %s", run.v->name, (unsigned long long)run.n_done, what,
			 v.n_leaks, v.first);
}

static void check_bitmaps(void)
{
	for (size_t i = 0; i < run.n; i++)
		bitmap_model_check(&run.b[i], run.img);
}

static void mark(uint64_t off, uint64_t len)
{
	for (size_t i = 0; i < run.n; i++)
		if (run.b[i].enabled)
			bitmap_model_mark(&run.b[i], off, len);
}

/* ---- the disk --------------------------------------------------------------------------------------------- */

static void change(void)
{
	uint64_t *chance = &run.m.chance, off = chance_below(chance, run.m.size);
	uint64_t len = 1 + chance_below(chance, chance_below(chance, 2) ? 4 * (uint64_t)run.v->unit : 900);
	struct vd_error e;

	if (!chance_below(chance, 9))
		len = run.m.size;
	len = vd_min_u64(len, run.m.size - off);
	switch (chance_below(chance, 4)) {
	case 0:
		model_zero(&run.m, run.img, off, len);
		break;
	case 1:
		expect_ok(vd_image_discard(run.img, off, len, &e), &e);
		/* What a discard leaves is the driver's choice. */
		expect_ok(vd_image_pread(run.img, run.m.bytes + off, len, off, &e), &e);
		break;
	default:
		model_write(&run.m, run.img, off, len);
	}
	mark(off, len);
}

static void resize(void)
{
	uint64_t size = 512 * (1 + chance_below(&run.m.chance, SIZE_MAX_TRIED / 512)), was = run.m.size;
	struct vd_error e;

	expect_ok(vd_image_resize(run.img, size, VD_RESIZE_SHRINK, &e), &e);
	if (size > was)
		memset(run.m.bytes + was, 0, size - was);
	run.m.size = size;
	for (size_t i = 0; i < run.n; i++)
		bitmap_model_resize(&run.b[i], size);
	if (size > was)
		mark(was, size - was);
}

static void keep(void)
{
	struct vd_error e;

	if (run.has_snapshot) {
		expect_ok(vd_snapshot_delete(run.img, "s", &e), &e);
	} else if (vd_snapshot_create(run.img, "s", &e) < 0) {
		return;         /* an external data file, or refcounts of one bit */
	} else {
		run.size_then = run.m.size;
		memcpy(run.then, run.m.bytes, run.m.size);
	}
	run.has_snapshot = !run.has_snapshot;
}

static void go_back(void)
{
	struct vd_error e;

	if (!run.has_snapshot)
		return;
	expect_ok(vd_snapshot_apply(run.img, "s", &e), &e);
	run.m.size = run.size_then;
	memcpy(run.m.bytes, run.then, run.size_then);
	for (size_t i = 0; i < run.n; i++)
		bitmap_model_resize(&run.b[i], run.m.size);
	mark(0, run.m.size);
}

/* ---- bitmaps ---------------------------------------------------------------------------------------------- */

static void create(void)
{
	struct bitmap_model *b = &run.b[run.n];
	char name[24];
	struct vd_error e;

	if (run.n == BITMAPS)
		return;
	snprintf(name, sizeof(name), "bitmap-%u", ++run.n_made);
	bitmap_model_init(b, name, UINT64_C(512) << chance_below(&run.m.chance, 23), run.m.size);
	b->enabled = chance_below(&run.m.chance, 4);
	expect_ok(vd_bitmap_create(run.img, name, b->granularity, b->enabled ? 0 : VD_BITMAP_DISABLED, &e), &e);
	run.n++;
}

static void merge(struct bitmap_model *to, const struct bitmap_model *from)
{
	const char *name = from->name;
	struct vd_error e;

	expect_ok(vd_bitmap_merge(run.img, to->name, NULL, &name, 1, &e), &e);
	for (uint64_t i = 0; i * from->granularity < from->size; i++)
		if (from->dirty[i])
			bitmap_model_mark(to, i * from->granularity, from->granularity);
}

static void act(struct bitmap_model *b)
{
	struct vd_error e;

	switch (chance_below(&run.m.chance, 5)) {
	case 0:
		expect_ok(vd_bitmap_remove(run.img, b->name, &e), &e);
		bitmap_model_free(b);
		*b = run.b[--run.n];
		break;
	case 1:
		expect_ok(vd_bitmap_clear(run.img, b->name, &e), &e);
		memset(b->dirty, 0, vd_round_up(b->size, b->granularity) / b->granularity);
		break;
	case 2:
	case 3:
		expect_ok((b->enabled ? vd_bitmap_disable : vd_bitmap_enable)(run.img, b->name, &e), &e);
		b->enabled = !b->enabled;
		break;
	default:
		merge(b, &run.b[chance_below(&run.m.chance, run.n)]);
	}
}

/* ---- the run ---------------------------------------------------------------------------------------------- */

static void reopen(void)
{
	disk_close(run.img);
	check_tables("close");
	run.img = variant_open(run.v, VD_OPEN_WRITE);
	model_check_all(&run.m, run.img);
	check_bitmaps();
}

static void step(void)
{
	uint64_t die = chance_below(&run.m.chance, 100);
	bool has_act = die >= 55;

	if (die < 55)
		change();
	else if (die < 63)
		create();
	else if (die < 78 && run.n)
		act(&run.b[chance_below(&run.m.chance, run.n)]);
	else if (die < 84)
		resize();
	else if (die < 88)
		keep();
	else if (die < 91)
		go_back();
	else
		reopen();
	if (has_act)
		check_tables("an act");
	if (chance_below(&run.m.chance, 4) == 0)
		check_bitmaps();
}

static int start(void **state)
{
	const struct variant *v = *state;
	uint64_t seed = setting("VD_RANDOM_SEED", 1);

	run = (struct run){ .v = v };
	model_init(&run.m, vd_max_u64(SIZE_MAX_TRIED + v->unit, v->size), seed * 1000 + (uint64_t)(v - variants));
	run.m.size = v->size;
	run.then = malloc(vd_max_u64(SIZE_MAX_TRIED + v->unit, v->size));
	return disks_start(NULL);
}

static int stop(void **state)
{
	(void)state;
	while (run.n)
		bitmap_model_free(&run.b[--run.n]);
	free(run.then);
	model_free(&run.m);
	return disks_stop(NULL);
}

static void bitmaps_say_what_was_written(void **state)
{
	const struct variant *v = *state;
	uint64_t n = setting("VD_RANDOM_OPS", OPS);

	print_message("# %s, VD_RANDOM_SEED=%llu\n", v->name, (unsigned long long)setting("VD_RANDOM_SEED", 1));
	if (!variant_make(v, &run.m))
		skip();
	run.img = variant_open(v, VD_OPEN_WRITE);
	create();
	for (; run.n_done < n; run.n_done++)
		step();
	reopen();
	disk_close(run.img);
	if (!peer_knows(v))
		return;
	peer_check(v, disks.mem, false);
	if (!(v->flags & VARIANT_SNAPSHOT))
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
		if (variants[i].format != &vd_format_qcow2 || variants[i].opts.flags & VD_CREATE_COMPAT_V2)
			continue;
		tests[n++] = (struct CMUnitTest){ variants[i].name, bitmaps_say_what_was_written, start, stop, (void *)&variants[i] };
	}
	r = _cmocka_run_group_tests("bitmap random", tests, n, NULL, NULL);
	free(tests);
	return vd_tempdir_leave(&folder) < 0 ? 1 : r;
}
