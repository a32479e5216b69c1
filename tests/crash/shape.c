/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Takes an act on an image's shape at a time, recorded, and looks at the states in which a crash could have left the image:
 * the disk and every snapshot are as before the act or as after it, all of one kind, and no table has an error.
 *
 * VD_CRASH_STATES: how many states of each act, drawn evenly from all; 0: all.
 */
#include <stdio.h>

#include "libvdisk/base/checked.h"
#include "libvdisk/core/shape.h"
#include "tests/support/qcow2_check.h"
#include "tests/support/tempdir.h"
#include "tests/support/variant.h"

#define N_STATES 24
#define N_RANDOM 4              /* random states at each cut, beside "all arrived" and "only what was flushed" */
#define PEER_EVERY 20

static uint64_t setting(const char *name, uint64_t otherwise)
{
	const char *value = getenv(name);

	return value ? strtoull(value, NULL, 0) : otherwise;
}

/* ---- the acts ----------------------------------------------------------------------------------------- */

static int do_create(struct vd_image *img, struct vd_error *e)
{
	return vd_snapshot_create(img, "new", e);
}

static int do_apply(struct vd_image *img, struct vd_error *e)
{
	return vd_snapshot_apply(img, "old", e);
}

static int do_delete(struct vd_image *img, struct vd_error *e)
{
	return vd_snapshot_delete(img, "old", e);
}

static int do_grow(struct vd_image *img, struct vd_error *e)
{
	return vd_image_resize(img, vd_image_size(img) * 3 / 512 * 512, 0, e);
}

static int do_shrink(struct vd_image *img, struct vd_error *e)
{
	return vd_image_resize(img, vd_image_size(img) / 3 / 512 * 512, VD_RESIZE_SHRINK, e);
}

static int shift(struct vd_image *img, const void *arg, struct vd_error *e)
{
	return img->format->shift(img->state, *(const int *)arg * (int64_t)vd_max_u64(img->info.unit, 4096), false, e);
}

static int do_shift_up(struct vd_image *img, struct vd_error *e)
{
	static const int by = 2;

	return vd_shape_run(img, shift, &by, e);
}

static int do_shift_down(struct vd_image *img, struct vd_error *e)
{
	static const int by = -1;

	return vd_shape_run(img, shift, &by, e);
}

/* What came in front goes again. */
static int do_shift_back(struct vd_image *img, struct vd_error *e)
{
	static const int by = -2;

	return vd_shape_run(img, shift, &by, e);
}

static int amend(struct vd_image *img, struct vd_amend_opts o, struct vd_error *e)
{
	o.struct_size = sizeof(o);
	return vd_image_amend(img, &o, e);
}

static int do_version(struct vd_image *img, struct vd_error *e)
{
	struct vd_info i = { .struct_size = sizeof(i) };
	int r = vd_image_info(img, &i, e);

	return r < 0 ? r : amend(img, (struct vd_amend_opts){ .compat = 5 - i.qcow2_version }, e);
}

static int do_width(struct vd_image *img, struct vd_error *e)
{
	struct vd_info i = { .struct_size = sizeof(i) };
	int r = vd_image_info(img, &i, e);

	return r < 0 ? r : amend(img, (struct vd_amend_opts){ .refcount_bits = i.refcount_bits == 64 ? 2 : 64 }, e);
}

static bool has_both_versions(const struct variant *v)
{
	return v->format == &vd_format_qcow2 && !v->opts.refcount_bits && !(v->opts.flags & VD_CREATE_EXTENDED_L2);
}

static bool can_shift(const struct variant *v)
{
	bool is_flat = v->opts.subformat && !strcmp(v->opts.subformat, "fixed") && v->format == &vd_format_vhd;
	bool is_child = v->flags & VARIANT_OVER_SAME && v->format == &vd_format_vmdk;

	return v->format->shift && !is_flat && !is_child;
}

/* The descriptor and the tables of a sparse extent beside it are two places. */
static bool can_shift_down(const struct variant *v)
{
	return can_shift(v) && !(v->opts.subformat && !strcmp(v->opts.subformat, "twoGbMaxExtentSparse"));
}

static bool has_widths(const struct variant *v)
{
	return v->format == &vd_format_qcow2 && !(v->opts.flags & VD_CREATE_COMPAT_V2);
}

static const struct act {
	const char *name;
	int (*run)(struct vd_image *img, struct vd_error *e);
	unsigned flags;                 /* enum vd_open_flag, beside WRITE */
	bool (*suits)(const struct variant *v);         /* NULL: all */
} acts[] = {
	{ "create", do_create, 0, NULL },
	{ "apply", do_apply, 0, NULL },
	{ "delete", do_delete, 0, NULL },
	{ "grow", do_grow, 0, NULL },
	{ "shrink", do_shrink, 0, NULL },
	{ "shift up", do_shift_up, 0, can_shift },
	{ "shift down", do_shift_down, 0, can_shift_down },
	{ "shift back", do_shift_back, 0, can_shift },
	{ "version", do_version, 0, has_both_versions },
	{ "width", do_width, 0, has_widths },
	{ "width and scrub", do_width, VD_OPEN_SCRUB_FREED, has_widths },
	{ "apply and scrub", do_apply, VD_OPEN_SCRUB_FREED, NULL },
	{ "delete and scrub", do_delete, VD_OPEN_SCRUB_FREED, NULL },
	{ "shrink and scrub", do_shrink, VD_OPEN_SCRUB_FREED, NULL },
	{ "shift back and scrub", do_shift_back, VD_OPEN_SCRUB_FREED, can_shift },
};
#define N_ACTS (sizeof(acts) / sizeof(acts[0]))

/* Ones that have little in common. */
static const char *const kinds[] = {
	"qcow2", "qcow2 512", "qcow2 4k refcount 64", "qcow2 extended l2 over raw", "qcow2 deflate", "qcow2 v2 over raw",
	"qcow2 luks", "vhd 4k", "vhd fixed", "vhd over vhd", "vhdx", "vhdx fixed", "vhdx over vhdx",
	"vmdk", "vmdk 4k", "vmdk flat", "vmdk in parts", "vmdk zeroed grains over vmdk",
};
#define N_KINDS (sizeof(kinds) / sizeof(kinds[0]))

/* ---- what an image holds, in one number --------------------------------------------------------------- */

static uint64_t mix(uint64_t sum, const void *bytes, size_t len)
{
	const uint8_t *p = bytes;

	for (size_t i = 0; i < len; i++)
		sum = (sum ^ p[i]) * UINT64_C(0x100000001b3);
	return sum;
}

static uint64_t sum_disk(const struct variant *v, struct vd_host *host, const char *snapshot, uint64_t sum)
{
	struct vd_open_opts opts = disk_open_opts(v->format, 0);
	struct vd_image *img = NULL;
	struct vd_key *key = NULL;
	struct vd_error e;
	uint64_t size;
	uint8_t *bytes;

	if (v->flags & VARIANT_LUKS)
		expect_ok(vd_key_from_bytes("correct horse", 13, &key, &e), &e);
	opts.keys = &key;
	opts.n_keys = key ? 1 : 0;
	opts.snapshot = snapshot;
	expect_ok(vd_image_open_on(host, v->format, "d", &opts, &img, &e), &e);
	size = vd_image_size(img);
	bytes = malloc(size + 1);
	expect_ok(vd_image_pread(img, bytes, size, 0, &e), &e);
	sum = mix(mix(sum, &size, sizeof(size)), bytes, size);
	free(bytes);
	vd_image_abort(img);
	vd_key_free(key);
	return sum;
}

static uint64_t sum_image(const struct variant *v, struct vd_host *host)
{
	struct vd_open_opts opts = disk_open_opts(v->format, VD_OPEN_METADATA);
	uint64_t sum = sum_disk(v, host, NULL, UINT64_C(0xcbf29ce484222325));
	struct vd_info info = { .struct_size = sizeof(info) };
	struct vd_image *img = NULL;
	struct vd_snapshot *list;
	struct vd_error e;
	size_t n;

	if (!v->format->snap)
		return sum;
	expect_ok(vd_image_open_on(host, v->format, "d", &opts, &img, &e), &e);
	expect_ok(vd_image_info(img, &info, &e), &e);
	sum = mix(mix(sum, &info.qcow2_version, sizeof(info.qcow2_version)), &info.refcount_bits, sizeof(info.refcount_bits));
	expect_ok(vd_snapshot_list(img, &list, &n, &e), &e);
	for (size_t i = 0; i < n; i++)
		sum = sum_disk(v, host, list[i].name, mix(sum, list[i].name, strlen(list[i].name)));
	vd_snapshot_list_free(list);
	vd_image_abort(img);
	return sum;
}

/* ---- the work ----------------------------------------------------------------------------------------- */

/* Of formats without snapshots some only grow. */
static bool knows(const struct variant *v, const struct act *act)
{
	if (act->suits || v->format->snap || act->run == do_grow)
		return !act->suits || act->suits(v);
	return act->run == do_shrink && v->format->cuts_zeros_only;
}

/* A disk that shares some of its clusters with a snapshot and some not. Version 2 has no resize beside a snapshot. */
static bool prepare(const struct variant *v, const struct act *act, struct model *m)
{
	bool is_resize = act->run == do_grow || act->run == do_shrink;
	struct vd_image *img;
	struct vd_error e;

	if (!variant_make(v, m))
		return false;
	img = variant_open(v, VD_OPEN_WRITE);
	model_write(m, img, 0, m->size / 2);
	if (v->format->snap && (!is_resize || !(v->opts.flags & VD_CREATE_COMPAT_V2)))
		expect_ok(vd_snapshot_create(img, "old", &e), &e);
	model_write(m, img, m->size / 4, m->size / 3);
	model_write(m, img, m->size - 700, 700);
	if (act->run == do_shrink && v->format->cuts_zeros_only)
		model_zero(m, img, m->size / 3 / 512 * 512, m->size - m->size / 3 / 512 * 512);
	if (act->run == do_shift_back)
		expect_ok(do_shift_up(img, &e), &e);
	disk_close(img);
	return true;
}

/* Without payload nothing is needed but tables; resizing writes zeros. */
static void do_recorded(const struct variant *v, const struct act *act, struct vd_record *record)
{
	struct vd_image *img = NULL;
	struct vd_error e;

	expect_ok(variant_open_on(v, vd_record_host(record), "d", VD_OPEN_WRITE | act->flags, 0, &img, &e), &e);
	expect_ok(act->run(img, &e), &e);
	disk_close(img);
}

struct sums {
	uint64_t before, after;
	size_t n_before, n_after;       /* states of each kind */
};

static void check_state(const struct variant *v, const struct act *act, const struct vd_crash *c, size_t nth, struct sums *s)
{
	struct qcow2_verdict verdict = { 0 };
	uint64_t sum;

	if (v->format == &vd_format_qcow2)
		verdict = qcow2_check(c->host, "d");
	if (verdict.n_errors)
		fail_msg("%s, %s, crash after %zu events, variant %u: %s", v->name, act->name, c->cut, c->variant, verdict.first);
	sum = sum_image(v, c->host);
	if (sum != s->before && sum != s->after)
		fail_msg("%s, %s, crash after %zu events, variant %u: neither before nor after", v->name, act->name, c->cut,
			 c->variant);
	*(sum == s->before ? &s->n_before : &s->n_after) += 1;
	if (nth % PEER_EVERY == 0 && peer_knows(v))
		peer_check(v, c->host, true);
}

static void check_states(const struct variant *v, const struct act *act, struct vd_record *record, struct sums *s)
{
	size_t all = vd_crash_count(record, N_RANDOM), wanted = setting("VD_CRASH_STATES", N_STATES);
	struct vd_error e;

	if (!wanted || wanted > all)
		wanted = all;
	for (size_t i = 0; i < wanted; i++) {
		struct vd_crash c;

		/* The last state of all, too. */
		expect_ok(vd_crash_state(record, N_RANDOM, 1, wanted == 1 ? 0 : i * (all - 1) / (wanted - 1), &c, &e), &e);
		check_state(v, act, &c, i, s);
		vd_mem_host_free(c.host);
	}
}

static void crash_leaves_before_or_after(void **state)
{
	const struct act *act = *state;

	for (size_t i = 0; i < N_KINDS; i++) {
		const struct variant *v = variant_named(kinds[i]);
		struct vd_record *record;
		struct sums s = { 0 };
		struct model m;

		if (!knows(v, act))
			continue;
		assert_int_equal(disks_start(NULL), 0);
		model_init(&m, v->size, i + 1);
		assert_true(prepare(v, act, &m));
		s.before = sum_image(v, disks.mem);
		assert_int_equal(vd_record_new(disks.mem, &record, NULL), 0);
		do_recorded(v, act, record);
		s.after = sum_image(v, disks.mem);
		assert_true(s.before != s.after);
		check_states(v, act, record, &s);
		/* Else nothing was seen. */
		assert_true(s.n_before && s.n_after);
		vd_record_free(record);
		model_free(&m);
		assert_int_equal(disks_stop(NULL), 0);
	}
}

int main(void)
{
	struct CMUnitTest tests[N_ACTS];
	void *folder;
	int r;

	if (vd_tempdir_enter(&folder) < 0)
		return 1;
	for (size_t i = 0; i < N_ACTS; i++)
		tests[i] = (struct CMUnitTest){ acts[i].name, crash_leaves_before_or_after, NULL, NULL, (void *)&acts[i] };
	r = _cmocka_run_group_tests("crash while the shape changes", tests, N_ACTS, NULL, NULL);
	return vd_tempdir_leave(&folder) < 0 ? 1 : r;
}
