/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changes a chain, recorded, and looks at the states in which a crash could have left its files: the overlay reads the
 * same in all of them, stands on what it stood on or on what it is to stand on, and no table of any layer has an error.
 *
 * VD_CRASH_STATES: how many states of each act, drawn evenly from all; 0: all.
 */
#include <stdio.h>

#include "tests/support/chain_acts.h"
#include "tests/support/qcow2_check.h"

#define N_STATES 120
#define N_RANDOM 4              /* random states at each cut, beside "all arrived" and "only what was flushed" */

static struct chain c;

static uint64_t setting(const char *name, uint64_t otherwise)
{
	const char *value = getenv(name);

	return value ? strtoull(value, NULL, 0) : otherwise;
}

/* ---- the chains --------------------------------------------------------------------------------------- */

/* Bottom, middle, top, other. */
static const char *const chains[][4] = {
	{ "raw", "qcow2 4k", "qcow2", "packed" },
	{ "packed", "qcow2 512", "qcow2 512", "raw" },
	{ "luks", "qcow2 extended l2", "qcow2 v2", "qcow2 luks" },
	{ "qcow2 luks", "qcow2", "qcow2 extended l2", "luks" },
	{ "qcow2 v2", "qcow2 luks", "qcow2 4k", "qcow2" },
	{ "luks", "qcow2", "qcow2 4k", "raw" },
	{ "vhd", "vhd 64k", "vhd", "vhd" },
	{ "vhd 64k", "vhd", "vhd 64k", "vhd" },
	{ "vhdx", "vhdx", "vhdx", "vhdx" },
	{ "vmdk", "vmdk 4k", "vmdk", "vmdk in parts" }, { "vmdk 4k", "vmdk", "vmdk in parts", "vmdk" },
};
#define N_CHAINS (sizeof(chains) / sizeof(chains[0]))

/* ---- looking ------------------------------------------------------------------------------------------ */

static void fail_state(const struct chain_act *act, const struct vd_crash *s, const char *why)
{
	fail_msg("%s of a %s over %s over %s, crash after %zu events, variant %u: %s", act->name, c.at[2].kind->name,
		 c.at[1].kind->name, c.at[0].kind->name, s->cut, s->variant, why);
}

static void check_tables(const struct chain_act *act, const struct vd_crash *s)
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

static void check_state(const struct chain_act *act, const struct vd_crash *s, size_t n[2])
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

static void check_states(const struct chain_act *act, struct vd_record *record)
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
	const struct chain_act *act = *state;

	for (size_t i = 0; i < N_CHAINS; i++) {
		struct vd_record *record;
		struct vd_image *img = NULL;
		struct vd_error e;

		if (!chain_act_suits(act, chains[i]))
			continue;
		assert_int_equal(disks_start(NULL), 0);
		chain_make(&c, chains[i], 100 + i);
		assert_int_equal(vd_record_new(disks.mem, &record, NULL), 0);
		expect_ok(chain_open_on(&c, vd_record_host(record), 2, VD_OPEN_WRITE, &img, &e), &e);
		expect_ok(act->run(&c, img, &e), &e);
		disk_close(img);
		check_states(act, record);
		vd_record_free(record);
		chain_free(&c);
		assert_int_equal(disks_stop(NULL), 0);
	}
}

int main(void)
{
	struct CMUnitTest tests[CHAIN_ACTS];

	for (size_t i = 0; i < CHAIN_ACTS; i++)
		tests[i] = (struct CMUnitTest){ chain_acts[i].name, crash_leaves_the_disk, NULL, NULL, (void *)&chain_acts[i] };
	return _cmocka_run_group_tests("crash while a chain changes", tests, CHAIN_ACTS, NULL, NULL);
}
