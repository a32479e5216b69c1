/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random reads, writes, zeros, flushes and reopenings of every variant, beside a byte array that says what must be
 * read; afterwards qemu-img checks and compares what it can open. VD_RANDOM_OPS: how many operations a variant;
 * VD_RANDOM_SEED: another sequence of them.
 */
#include "libvdisk/base/checked.h"
#include "tests/support/qcow2_check.h"
#include "tests/support/tempdir.h"
#include "tests/support/variant.h"

#define OPS 800

static uint64_t setting(const char *name, uint64_t otherwise)
{
	const char *value = getenv(name);

	return value ? strtoull(value, NULL, 0) : otherwise;
}

struct run {
	const struct variant *v;
	struct vd_image *img;
	struct model m;
	uint64_t n_done, seed;
};

/* Mostly short, now and then some units; as often as not on the edge of a sector or unit. */
static void draw_range(struct run *r, uint64_t *off, uint64_t *len)
{
	static const uint64_t scales[] = { 16, 700, 5000 };
	uint64_t *chance = &r->m.chance;
	uint64_t kind = chance_below(chance, 4), unit = chance_below(chance, 2) ? r->v->unit : 512;
	uint64_t most = kind < 3 ? scales[kind] : 3 * (uint64_t)r->v->unit;

	*len = 1 + chance_below(chance, most);
	*off = chance_below(chance, r->m.size);
	if (chance_below(chance, 2))
		*off = vd_round_down(*off, unit);
	if (chance_below(chance, 3) == 0)
		*len = vd_round_up(*len, unit);
	if (chance_below(chance, 8) == 0)
		*off = r->m.size - vd_min_u64(*len, r->m.size);
	*len = vd_min_u64(*len, r->m.size - *off);
}

static void expect_zeros(const struct run *r, const struct vd_extent *x)
{
	for (uint64_t i = x->off; i < x->off + x->len; i++)
		if (r->m.bytes[i])
			fail_msg("byte %llu is 0x%02x, the extents say that it is zero", (unsigned long long)i,
				 r->m.bytes[i]);
}

/* The extents cover the range, and those that claim zeros are right. */
static void check_extents(const struct run *r, uint64_t off, uint64_t len)
{
	struct vd_extent x[8];
	uint64_t end = off + len;
	struct vd_error e;
	size_t n;

	while (off < end) {
		expect_ok(vd_image_extents(r->img, off, end - off, x, 8, &n, &e), &e);
		assert_in_range(n, 1, 8);
		for (size_t i = 0; i < n; off += x[i++].len) {
			assert_int_equal(x[i].off, off);
			if (x[i].flags & (VD_EXTENT_ZERO | VD_EXTENT_HOLE) && !(x[i].flags & VD_EXTENT_ENCRYPTED))
				expect_zeros(r, &x[i]);
		}
	}
	assert_int_equal(off, end);
}

static void reopen(struct run *r)
{
	disk_close(r->img);
	r->img = variant_open(r->v, VD_OPEN_WRITE | (chance_below(&r->m.chance, 3) ? 0 : VD_OPEN_SCRUB_FREED));
	assert_int_equal(vd_image_size(r->img), r->m.size);
	if (chance_below(&r->m.chance, 4) == 0)
		model_check_all(&r->m, r->img);
}

static void step(struct run *r)
{
	uint64_t off, len, die = chance_below(&r->m.chance, 100);

	draw_range(r, &off, &len);
	if (die < 40)
		model_write(&r->m, r->img, off, len);
	else if (die < 48)
		model_fill(&r->m, r->img, off, len, die < 44 ? 0 : die);
	else if (die < 56)
		model_zero(&r->m, r->img, off, len);
	else if (die < 60)
		model_zero_allocated(&r->m, r->img, off, len);
	else if (die < 65)
		model_discard(&r->m, r->img, off, len);
	else if (die < 88)
		model_check(&r->m, r->img, off, len);
	else if (die < 94)
		check_extents(r, off, len);
	else if (die < 98)
		disk_flush(r->img);
	else
		reopen(r);
}

static void work(struct run *r, uint64_t n)
{
	r->img = variant_open(r->v, VD_OPEN_WRITE);
	model_check_all(&r->m, r->img);
	for (; r->n_done < n; r->n_done++)
		step(r);
	model_check_all(&r->m, r->img);
	check_extents(r, 0, r->m.size);
	disk_close(r->img);
	r->img = variant_open(r->v, 0);
	model_check_all(&r->m, r->img);
	disk_close(r->img);
}

static void check_tables(const struct variant *v)
{
	struct qcow2_verdict verdict;

	if (v->format != &vd_format_qcow2)
		return;
	verdict = qcow2_check(disks.mem, "d");
	if (verdict.n_errors + verdict.n_leaks)
		fail_msg("%u errors, %u leaks in the tables: %s", verdict.n_errors, verdict.n_leaks, verdict.first);
}

static struct run run;

static int start(void **state)
{
	const struct variant *v = *state;

	run = (struct run){ .v = v, .seed = setting("VD_RANDOM_SEED", 1) };
	model_init(&run.m, v->size, run.seed * 1000 + (uint64_t)(v - variants));
	return disks_start(NULL);
}

static int stop(void **state)
{
	(void)state;
	model_free(&run.m);
	return disks_stop(NULL);
}

static void image_reads_what_was_written(void **state)
{
	const struct variant *v = *state;

	/* What a failure needs to be had again. */
	print_message("# %s, VD_RANDOM_SEED=%llu\n", v->name, (unsigned long long)run.seed);
	if (!variant_make(v, &run.m))
		skip();
	work(&run, setting("VD_RANDOM_OPS", OPS));
	check_tables(v);
	if (!peer_knows(v))
		return;
	peer_check(v, disks.mem, false);
	peer_compare(v, disks.mem, &run.m);
}

int main(void)
{
	struct CMUnitTest *tests = calloc(n_variants, sizeof(*tests));
	void *folder;
	int r;

	if (vd_tempdir_enter(&folder) < 0)
		return 1;
	for (size_t i = 0; i < n_variants; i++)
		tests[i] = (struct CMUnitTest){ variants[i].name, image_reads_what_was_written, start, stop,
						(void *)&variants[i] };
	r = _cmocka_run_group_tests("random", tests, n_variants, NULL, NULL);
	free(tests);
	return vd_tempdir_leave(&folder) < 0 ? 1 : r;
}
