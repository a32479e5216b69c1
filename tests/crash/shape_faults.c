/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Lets each operation on the host fail once, and each allocation, while the shape of an image changes: the image is as it
 * was or as it was to be, and a handle that says that it goes on does so.
 */
#include <errno.h>
#include <stdio.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "tests/support/qcow2_check.h"
#include "tests/support/variant.h"

#define KINDS (VD_OP_READ | VD_OP_WRITE | VD_OP_FLUSH | VD_OP_TRUNCATE | VD_OP_SIZE)

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
	return vd_image_resize(img, 5 << 20, 0, e);
}

static int do_shrink(struct vd_image *img, struct vd_error *e)
{
	return vd_image_resize(img, 700 * 512, VD_RESIZE_SHRINK, e);
}

static const struct act {
	const char *name;
	int (*run)(struct vd_image *img, struct vd_error *e);
} acts[] = {
	{ "create", do_create }, { "apply", do_apply }, { "delete", do_delete }, { "grow", do_grow }, { "shrink", do_shrink },
};
#define N_ACTS (sizeof(acts) / sizeof(acts[0]))

static const char *const kinds[] = { "qcow2 4k", "qcow2 extended l2 over raw" };
#define N_KINDS (sizeof(kinds) / sizeof(kinds[0]))

/* ---- what an image holds ------------------------------------------------------------------------------ */

struct view {
	uint64_t size, n_snapshots;
	uint8_t *bytes;
};

static struct view look(const struct variant *v, struct vd_host *host)
{
	struct vd_image *img = NULL;
	struct vd_snapshot *list;
	struct view view;
	struct vd_error e;
	size_t n;

	expect_ok(variant_open_on(v, host, "d", 0, 0, &img, &e), &e);
	view.size = vd_image_size(img);
	view.bytes = malloc(view.size + 1);
	expect_ok(vd_image_pread(img, view.bytes, view.size, 0, &e), &e);
	expect_ok(vd_snapshot_list(img, &list, &n, &e), &e);
	view.n_snapshots = n;
	vd_snapshot_list_free(list);
	vd_image_abort(img);
	return view;
}

static bool is_same(const struct view *a, const struct view *b)
{
	return a->size == b->size && a->n_snapshots == b->n_snapshots && !memcmp(a->bytes, b->bytes, a->size);
}

/* ---- one failure -------------------------------------------------------------------------------------- */

static struct scene {
	const struct variant *v;
	const struct act *act;
	struct view before, after;
	bool memory;                    /* allocations fail, not operations */
} scene;

static void check_image(struct vd_host *mem, uint64_t nth, bool may_be_after)
{
	struct qcow2_verdict verdict = qcow2_check(mem, "d");
	struct view now = look(scene.v, mem);

	if (verdict.n_errors)
		fail_msg("%s, %s, failure %llu: %s", scene.v->name, scene.act->name, (unsigned long long)nth, verdict.first);
	if (!is_same(&now, &scene.before) && !(may_be_after && is_same(&now, &scene.after)))
		fail_msg("%s, %s, failure %llu: not as it has to be", scene.v->name, scene.act->name, (unsigned long long)nth);
	free(now.bytes);
}

static bool run_with(struct vd_fault *fault, struct vd_image *img, uint64_t nth, int *result, struct vd_error *e)
{
	struct vd_fault_plan plan = { .kinds = KINDS, .nth = nth, .err = EIO };
	bool fired;

	if (scene.memory) {
		vd_alloc_fail_after((long)nth - 1);
		*result = scene.act->run(img, e);
		return vd_alloc_fail_after(-1) < 0;
	}
	vd_fault_arm(fault, &plan);
	*result = scene.act->run(img, e);
	fired = vd_fault_fired(fault) > 0;
	vd_fault_arm(fault, NULL);
	return fired;
}

/* False: nothing was left to fail. */
static bool fail_once(uint64_t nth)
{
	struct vd_host *mem = disks_clone();
	struct vd_fault *fault;
	struct vd_image *img = NULL;
	struct vd_error e;
	bool fired;
	int r;

	assert_int_equal(vd_fault_new(mem, &fault, NULL), 0);
	expect_ok(variant_open_on(scene.v, vd_fault_host(fault), "d", VD_OPEN_WRITE, 0, &img, &e), &e);
	fired = run_with(fault, img, nth, &r, &e);
	if (!fired)
		expect_ok(r, &e);
	/* A handle that does not know says so from then on; another one tries again. */
	if (r < 0 && scene.act->run(img, &e) == 0) {
		assert_int_not_equal(r, VD_EPOISONED);
		r = 0;
	}
	vd_image_abort(img);
	vd_fault_free(fault);
	if (r < 0)
		check_image(mem, nth, r == VD_EPOISONED);
	else
		check_image(mem, nth, true);
	vd_mem_host_free(mem);
	return fired;
}

/* ---- the tests ---------------------------------------------------------------------------------------- */

static void prepare(void)
{
	struct vd_host *mem;
	struct vd_image *img;
	struct vd_error e;
	struct model m;

	model_init(&m, scene.v->size, 1);
	assert_true(variant_make(scene.v, &m));
	img = variant_open(scene.v, VD_OPEN_WRITE);
	model_write(&m, img, 0, m.size / 8);
	expect_ok(vd_snapshot_create(img, "old", &e), &e);
	model_write(&m, img, m.size / 16, m.size / 8);
	disk_close(img);
	model_free(&m);
	scene.before = look(scene.v, disks.mem);
	mem = disks_clone();
	expect_ok(variant_open_on(scene.v, mem, "d", VD_OPEN_WRITE, 0, &img, &e), &e);
	expect_ok(scene.act->run(img, &e), &e);
	disk_close(img);
	scene.after = look(scene.v, mem);
	vd_mem_host_free(mem);
}

static void sweep(const struct act *act, bool memory)
{
	for (size_t i = 0; i < N_KINDS; i++) {
		uint64_t nth = 1;

		scene = (struct scene){ .v = variant_named(kinds[i]), .act = act, .memory = memory };
		assert_int_equal(disks_start(NULL), 0);
		prepare();
		while (fail_once(nth))
			nth++;
		/* Else nothing was tried. */
		assert_true(nth > 5);
		free(scene.before.bytes);
		free(scene.after.bytes);
		assert_int_equal(disks_stop(NULL), 0);
	}
}

static void failed_operation_leaves_before_or_after(void **state)
{
	sweep(*state, false);
}

static void failed_allocation_leaves_before(void **state)
{
	sweep(*state, true);
}

int main(void)
{
	struct CMUnitTest tests[2 * N_ACTS];
	char names[2 * N_ACTS][40];

	for (size_t i = 0; i < 2 * N_ACTS; i++) {
		const struct act *act = &acts[i / 2];

		snprintf(names[i], sizeof(names[i]), "%s, %s", act->name, i % 2 ? "allocations" : "operations");
		tests[i] = (struct CMUnitTest){ names[i], i % 2 ? failed_allocation_leaves_before : failed_operation_leaves_before_or_after,
						NULL, NULL, (void *)act };
	}
	return _cmocka_run_group_tests("failures while the shape changes", tests, 2 * N_ACTS, NULL, NULL);
}
