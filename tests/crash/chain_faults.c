/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fails each operation of the host, and each allocation, of an act on a chain: the overlay reads the same afterwards, on
 * the same handle unless that says that it does not know, and no table of any layer has an error.
 */
#include <errno.h>
#include <stdio.h>

#include "libvdisk/base/alloc.h"
#include "tests/support/chain_acts.h"
#include "tests/support/qcow2_check.h"

#define KINDS (VD_OP_READ | VD_OP_WRITE | VD_OP_TRUNCATE | VD_OP_PUNCH | VD_OP_FLUSH | VD_OP_OPEN)

/* Bottom, middle, top, other: small clusters, so that there is much to fail in little time. */
static const char *const chains[][4] = {
	{ "raw", "qcow2 512", "qcow2 4k", "packed" },
	{ "qcow2 4k", "qcow2 v2", "qcow2 512", "raw" },
	{ "vhd", "vhd", "vhd 64k", "vhd" },
	{ "vhdx", "vhdx", "vhdx", "vhdx" },
};
#define N_CHAINS (sizeof(chains) / sizeof(chains[0]))

static struct scene {
	struct chain c;
	const struct chain_act *act;
	bool memory;                    /* allocations fail, not operations */
} scene;

static void fail_case(uint64_t nth, const char *why)
{
	fail_msg("%s of a %s over %s, failure %llu: %s", scene.act->name, scene.c.at[2].kind->name, scene.c.at[1].kind->name,
		 (unsigned long long)nth, why);
}

static void check_disk(struct vd_image *img, uint64_t nth)
{
	const struct model *m = &scene.c.at[2].m;
	uint8_t *bytes = malloc(m->size + 1);
	struct vd_error e;

	if (vd_image_size(img) != m->size || vd_image_pread(img, bytes, m->size, 0, &e) < 0)
		fail_case(nth, e.message);
	if (memcmp(bytes, m->bytes, m->size))
		fail_case(nth, "the disk is another one");
	free(bytes);
}

static void check_files(struct vd_host *mem, uint64_t nth)
{
	struct vd_image *img = NULL;
	struct vd_error e;

	for (size_t i = 0; i < scene.c.n; i++) {
		struct qcow2_verdict v;

		if (scene.c.at[i].kind->format != &vd_format_qcow2)
			continue;
		v = qcow2_check(mem, scene.c.at[i].name);
		if (v.n_errors)
			fail_case(nth, v.first);
	}
	if (chain_open_on(&scene.c, mem, 2, 0, &img, &e) < 0)
		fail_case(nth, e.message);
	check_disk(img, nth);
	vd_image_abort(img);
}

static bool run_with(struct vd_fault *fault, struct vd_image *img, uint64_t nth, int *result, struct vd_error *e)
{
	struct vd_fault_plan plan = { .kinds = KINDS, .nth = nth, .err = EIO };
	bool fired;

	if (scene.memory) {
		vd_alloc_fail_after((long)nth - 1);
		*result = scene.act->run(&scene.c, img, e);
		return vd_alloc_fail_after(-1) < 0;
	}
	vd_fault_arm(fault, &plan);
	*result = scene.act->run(&scene.c, img, e);
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
	expect_ok(chain_open_on(&scene.c, vd_fault_host(fault), 2, VD_OPEN_WRITE, &img, &e), &e);
	fired = run_with(fault, img, nth, &r, &e);
	if (!fired)
		expect_ok(r, &e);
	if (r != VD_EPOISONED)
		check_disk(img, nth);
	vd_image_abort(img);
	vd_fault_free(fault);
	check_files(mem, nth);
	vd_mem_host_free(mem);
	return fired;
}

static void sweep(const struct chain_act *act, bool memory)
{
	uint64_t tried = 0, n_chains = 0;

	for (size_t i = 0; i < 3 * N_CHAINS; i++) {
		uint64_t nth = 1;

		if (!chain_act_suits(act, chains[i % N_CHAINS]))
			continue;
		assert_int_equal(disks_start(NULL), 0);
		scene = (struct scene){ .act = act, .memory = memory };
		chain_make(&scene.c, chains[i % N_CHAINS], 300 + i);
		while (fail_once(nth))
			nth++;
		/* Else nothing was tried. What opening a chain has in its caches already takes no memory in the act. */
		assert_true(nth > 5);
		tried += nth;
		n_chains++;
		chain_free(&scene.c);
		assert_int_equal(disks_stop(NULL), 0);
	}
	assert_true(tried > 10 * n_chains);
}

static void failed_operation_leaves_the_disk(void **state)
{
	sweep(*state, false);
}

static void failed_allocation_leaves_the_disk(void **state)
{
	sweep(*state, true);
}

int main(void)
{
	struct CMUnitTest tests[2 * CHAIN_ACTS];
	char names[2 * CHAIN_ACTS][40];

	for (size_t i = 0; i < 2 * CHAIN_ACTS; i++) {
		const struct chain_act *act = &chain_acts[i / 2];

		snprintf(names[i], sizeof(names[i]), "%s, %s", act->name, i % 2 ? "allocations" : "operations");
		tests[i] = (struct CMUnitTest){ names[i], i % 2 ? failed_allocation_leaves_the_disk : failed_operation_leaves_the_disk,
						NULL, NULL, (void *)act };
	}
	return _cmocka_run_group_tests("failures while a chain changes", tests, 2 * CHAIN_ACTS, NULL, NULL);
}
