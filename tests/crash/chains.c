/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changes a chain, recorded, and looks at the states in which a crash could have left its files: the overlay reads the
 * same in all of them, stands on what it stood on or on what it is to stand on, and no table of any layer has an error.
 *
 * VD_CRASH_STATES: how many states of each act, drawn evenly from all; 0: all.
 */
#include <stdio.h>

#include "libvdisk/base/checked.h"
#include "tests/support/chain.h"
#include "tests/support/qcow2_check.h"

#define N_STATES 120
#define N_RANDOM 4              /* random states at each cut, beside "all arrived" and "only what was flushed" */

static struct chain c;

static uint64_t setting(const char *name, uint64_t otherwise)
{
	const char *value = getenv(name);

	return value ? strtoull(value, NULL, 0) : otherwise;
}

/* ---- the acts: on the layer 2 over 1 over 0, beside another layer 3 ----------------------------------- */

static int rebase_onto(struct vd_image *img, int parent, struct vd_error *e)
{
	struct vd_rebase_opts o = {
		.struct_size = sizeof(o), .flags = VD_REBASE_IN_CLEAR, .gate = disks_gate, .keys = &c.key, .n_keys = 1,
		.backing_file = parent < 0 ? NULL : c.at[parent].name,
		.backing_format = parent < 0 ? NULL : chain_format(&c.at[parent]),
	};

	return vd_backing_rebase(img, &o, NULL, NULL, e);
}

static int do_rebase(struct vd_image *img, struct vd_error *e)
{
	return rebase_onto(img, 3, e);
}

static int do_flatten(struct vd_image *img, struct vd_error *e)
{
	return rebase_onto(img, -1, e);
}

static int commit_to(struct vd_image *img, unsigned depth, struct vd_error *e)
{
	struct vd_commit_opts o = {
		.struct_size = sizeof(o), .flags = VD_COMMIT_IN_CLEAR, .gate = disks_gate, .keys = &c.key, .n_keys = 1, .depth = depth,
	};

	return vd_backing_commit(img, &o, NULL, NULL, e);
}

static int do_commit(struct vd_image *img, struct vd_error *e)
{
	return commit_to(img, 1, e);
}

static int do_commit_below(struct vd_image *img, struct vd_error *e)
{
	return commit_to(img, 2, e);
}

static const struct act {
	const char *name;
	int (*run)(struct vd_image *img, struct vd_error *e);
	const char *before, *after;     /* names of the overlay's parent */
} acts[] = {
	{ "rebase", do_rebase, "l1", "l3" }, { "flatten", do_flatten, "l1", "" }, { "commit", do_commit, "l1", "l1" },
	{ "commit --base", do_commit_below, "l1", "l0" },
};
#define N_ACTS (sizeof(acts) / sizeof(acts[0]))

/* Bottom, middle, top, other. */
static const char *const chains[][4] = {
	{ "raw", "qcow2 4k", "qcow2", "packed" },
	{ "packed", "qcow2 512", "qcow2 512", "raw" },
	{ "luks", "qcow2 extended l2", "qcow2 v2", "qcow2 luks" },
	{ "qcow2 luks", "qcow2", "qcow2 extended l2", "luks" },
	{ "qcow2 v2", "qcow2 luks", "qcow2 4k", "qcow2" },
};
#define N_CHAINS (sizeof(chains) / sizeof(chains[0]))

static void make_chain(size_t i)
{
	assert_int_equal(disks_start(NULL), 0);
	chain_init(&c, 100 + i);
	chain_add(&c, chain_kind_named(chains[i][0]), -1);
	chain_add(&c, chain_kind_named(chains[i][1]), 0);
	chain_add(&c, chain_kind_named(chains[i][2]), 1);
	chain_add(&c, chain_kind_named(chains[i][3]), -1);
}

/* ---- looking ------------------------------------------------------------------------------------------ */

static void fail_state(const struct act *act, const struct vd_crash *s, const char *why)
{
	fail_msg("%s of a %s over %s over %s, crash after %zu events, variant %u: %s", act->name, c.at[2].kind->name,
		 c.at[1].kind->name, c.at[0].kind->name, s->cut, s->variant, why);
}

static void check_tables(const struct act *act, const struct vd_crash *s)
{
	for (size_t i = 0; i < c.n; i++) {
		struct qcow2_verdict v;

		/* What the act did not open is not among the files. */
		if (c.at[i].kind->format != &vd_format_qcow2 || !s->host->exists(s->host, c.at[i].name))
			continue;
		v = qcow2_check(s->host, c.at[i].name);
		if (v.n_errors)
			fail_state(act, s, v.first);
	}
}

static void check_state(const struct act *act, const struct vd_crash *s, size_t n[2])
{
	struct vd_info info = { .struct_size = sizeof(info) };
	const struct model *m = &c.at[2].m;
	uint8_t *bytes = malloc(m->size + 1);
	struct vd_image *img = NULL;
	struct vd_error e;
	const char *name;

	check_tables(act, s);
	if (chain_open_on(&c, s->host, 2, 0, &img, &e) < 0 || vd_image_pread(img, bytes, m->size, 0, &e) < 0 ||
	    vd_image_info(img, &info, &e) < 0)
		fail_state(act, s, e.message);
	if (vd_image_size(img) != m->size || memcmp(bytes, m->bytes, m->size))
		fail_state(act, s, "the disk is another one");
	name = info.backing_file ? info.backing_file : "";
	if (strcmp(name, act->before) && strcmp(name, act->after))
		fail_state(act, s, name);
	n[strcmp(name, act->before) != 0]++;
	free(bytes);
	vd_image_abort(img);
}

static void check_states(const struct act *act, struct vd_record *record)
{
	size_t all = vd_crash_count(record, N_RANDOM), wanted = setting("VD_CRASH_STATES", N_STATES), n[2] = { 0, 0 };
	struct vd_error e;

	if (!wanted || wanted > all)
		wanted = all;
	for (size_t i = 0; i < wanted; i++) {
		struct vd_crash s;

		/* The last state of all, too. */
		expect_ok(vd_crash_state(record, N_RANDOM, 1, wanted == 1 ? 0 : i * (all - 1) / (wanted - 1), &s, &e), &e);
		check_state(act, &s, n);
		vd_mem_host_free(s.host);
	}
	/* Else nothing was seen. */
	assert_true(n[0]);
	assert_true(n[1] || !strcmp(act->before, act->after));
}

static void crash_leaves_the_disk(void **state)
{
	const struct act *act = *state;

	for (size_t i = 0; i < N_CHAINS; i++) {
		struct vd_record *record;
		struct vd_image *img = NULL;
		struct vd_error e;

		make_chain(i);
		assert_int_equal(vd_record_new(disks.mem, &record, NULL), 0);
		expect_ok(chain_open_on(&c, vd_record_host(record), 2, VD_OPEN_WRITE, &img, &e), &e);
		expect_ok(act->run(img, &e), &e);
		disk_close(img);
		check_states(act, record);
		vd_record_free(record);
		chain_free(&c);
		assert_int_equal(disks_stop(NULL), 0);
	}
}

int main(void)
{
	struct CMUnitTest tests[N_ACTS];

	for (size_t i = 0; i < N_ACTS; i++)
		tests[i] = (struct CMUnitTest){ acts[i].name, crash_leaves_the_disk, NULL, NULL, (void *)&acts[i] };
	return _cmocka_run_group_tests("crash while a chain changes", tests, N_ACTS, NULL, NULL);
}
