/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Takes each change of keyslots, recorded, and looks at the states in which a crash could have left the header: at every one
 * of them the old secret or the new one opens the disk, and what it holds is what it held.
 *
 * VD_CRASH_STATES: how many states of each act, drawn evenly from all; 0: all.
 */
#include <stdio.h>
#include <unistd.h>

#include "libvdisk/base/checked.h"
#include "tests/support/disks.h"
#include "tests/support/tempdir.h"

#define MIB ((uint64_t)1 << 20)
#define N_STATES 16
#define N_RANDOM 4              /* random states at each cut, beside "all arrived" and "only what was flushed" */
#define BYTE 0x5a

static const struct kind {
	const char *name, *format;
	enum vd_luks_type type;
	const char *header;             /* file of its own that it is in */
} kinds[] = {
	{ "luks1 container", "raw", VD_LUKS1, NULL },
	{ "luks2 container", "raw", VD_LUKS2, NULL },
	{ "qcow2", "qcow2", VD_LUKS1, NULL },
	{ "luks1 detached", "raw", VD_LUKS1, "h" },
};
#define N_KINDS (sizeof(kinds) / sizeof(kinds[0]))

static struct vd_key *old_key, *new_key;
static const struct vd_kdf_opts cheap[] = { [VD_LUKS1] = { 1000, 0 }, [VD_LUKS2] = { 4, 32 } };

static struct vd_keyslot_opts slot_opts(const struct kind *k)
{
	return (struct vd_keyslot_opts){ .struct_size = sizeof(struct vd_keyslot_opts), .kdf = cheap[k->type] };
}

/* ---- the acts ------------------------------------------------------------------------------------------- */

static int do_add(const struct kind *k, struct vd_image *img, struct vd_error *e)
{
	struct vd_keyslot_opts o = slot_opts(k);

	return vd_keyslot_add(img, old_key, new_key, &o, NULL, e);
}

static int do_change(const struct kind *k, struct vd_image *img, struct vd_error *e)
{
	struct vd_keyslot_opts o = slot_opts(k);

	return vd_keyslot_change(img, old_key, new_key, &o, NULL, e);
}

/* With a label, which qcow2 keeps in notes of its own. */
static int do_label(const struct kind *k, struct vd_image *img, struct vd_error *e)
{
	struct vd_keyslot_opts o = slot_opts(k);

	o.label = k->type == VD_LUKS1 && !strcmp(k->format, "raw") ? NULL : "a label";
	return vd_keyslot_add(img, old_key, new_key, &o, NULL, e);
}

/* Of the slot that add made before. */
static int do_remove(const struct kind *k, struct vd_image *img, struct vd_error *e)
{
	uint32_t slot;
	int r = vd_keyslot_find(img, old_key, &slot, e);

	(void)k;
	return r < 0 ? r : vd_keyslot_remove(img, slot, 0, e);
}

/* The header of before goes into a file, then the key changes. */
static int back_up_and_change(const struct kind *k, struct vd_image *img, struct vd_error *e)
{
	int r;

	unlink("header");
	r = vd_header_backup(img, "header", e);
	return r < 0 ? r : do_change(k, img, e);
}

static int do_restore(const struct kind *k, struct vd_image *img, struct vd_error *e)
{
	(void)k;
	return vd_header_restore(img, "header", old_key, e);
}

#define OLD 1
#define NEW 2

/* What opens before and after: OLD, NEW or both. `recovery` and `escrow` of the command are an add. */
static const struct act {
	const char *name;
	unsigned before, after;
	int (*prepare)(const struct kind *k, struct vd_image *img, struct vd_error *e);
	int (*run)(const struct kind *k, struct vd_image *img, struct vd_error *e);
} acts[] = {
	{ "add", OLD, OLD | NEW, NULL, do_add },
	{ "add with a label", OLD, OLD | NEW, NULL, do_label },
	{ "change", OLD, NEW, NULL, do_change },
	{ "remove", OLD | NEW, NEW, do_add, do_remove },
	{ "restore the header", NEW, OLD, back_up_and_change, do_restore },
};
#define N_ACTS (sizeof(acts) / sizeof(acts[0]))

/* ---- the work ------------------------------------------------------------------------------------------- */

static const char *format_of(const struct kind *k)
{
	return strcmp(k->format, "raw") ? k->format : "luks";
}

static struct vd_image *open_control(const struct kind *k, struct vd_host *host)
{
	struct vd_open_opts o = { .struct_size = sizeof(o), .format = format_of(k), .flags = VD_OPEN_CONTROL, .header = k->header };
	struct vd_image *img = NULL;
	struct vd_error e;

	expect_ok(vd_image_open_on(host, NULL, "d", &o, &img, &e), &e);
	return img;
}

static void prepare(const struct kind *k, const struct act *act)
{
	struct vd_create_opts o = {
		.struct_size = sizeof(o), .format = k->format, .size = MIB, .key = old_key, .luks_type = k->type,
		.kdf = cheap[k->type], .header = k->header,
	};
	struct vd_image *img = NULL;
	struct vd_error e;

	expect_ok(vd_image_create_on(disks.mem, NULL, "d", &o, &img, &e), &e);
	disk_write(img, 0, MIB, BYTE);
	disk_commit(img);
	disk_close(img);
	if (!act->prepare)
		return;
	img = open_control(k, disks.mem);
	expect_ok(act->prepare(k, img, &e), &e);
	disk_close(img);
}

static bool opens(const struct kind *k, struct vd_host *host, struct vd_key *key, struct vd_error *e)
{
	struct vd_open_opts o = {
		.struct_size = sizeof(o), .format = format_of(k), .keys = &key, .n_keys = 1, .header = k->header,
	};
	struct vd_image *img = NULL;
	int r = vd_image_open_on(host, NULL, "d", &o, &img, e);

	if (r < 0)
		return false;
	disk_expect(img, 0, MIB, BYTE);
	vd_image_abort(img);
	return true;
}

/* What of both keys opens: bit 0 the old one, bit 1 the new one. */
static unsigned look(const struct kind *k, const struct act *act, const struct vd_crash *c)
{
	struct vd_error old_error, new_error;
	unsigned opened = opens(k, c->host, old_key, &old_error) | opens(k, c->host, new_key, &new_error) << 1;

	if (!opened)
		fail_msg("%s, %s, crash after %zu events, variant %u: no key opens it: %s; %s", k->name, act->name, c->cut,
			 c->variant, old_error.message, new_error.message);
	return opened;
}

static void check_states(const struct kind *k, const struct act *act, struct vd_record *record)
{
	const char *setting = getenv("VD_CRASH_STATES");
	size_t all = vd_crash_count(record, N_RANDOM), wanted = setting ? strtoull(setting, NULL, 0) : N_STATES;
	unsigned seen = 0;
	struct vd_error e;

	if (!wanted || wanted > all)
		wanted = all;
	for (size_t i = 0; i < wanted; i++) {
		struct vd_crash c;

		expect_ok(vd_crash_state(record, N_RANDOM, 1, wanted == 1 ? 0 : i * (all - 1) / (wanted - 1), &c, &e), &e);
		seen |= 1u << look(k, act, &c);
		vd_mem_host_free(c.host);
	}
	/* Before and after were both seen, or the states are of something else. */
	assert_true(seen & 1u << act->before);
	assert_true(seen & 1u << act->after);
}

static void crash_leaves_a_key_that_opens(void **state)
{
	const struct act *act = *state;

	for (size_t i = 0; i < N_KINDS; i++) {
		struct vd_record *record;
		struct vd_image *img;
		struct vd_error e;

		assert_int_equal(disks_start(NULL), 0);
		prepare(&kinds[i], act);
		assert_int_equal(vd_record_new(disks.mem, &record, NULL), 0);
		img = open_control(&kinds[i], vd_record_host(record));
		expect_ok(act->run(&kinds[i], img, &e), &e);
		disk_close(img);
		check_states(&kinds[i], act, record);
		vd_record_free(record);
		assert_int_equal(disks_stop(NULL), 0);
	}
}

int main(void)
{
	struct CMUnitTest tests[N_ACTS];
	void *dir = NULL;
	int r;

	if (vd_tempdir_enter(&dir) || vd_key_from_bytes("before", 6, &old_key, NULL) < 0 || vd_key_from_bytes("behind", 6, &new_key, NULL) < 0)
		return 1;
	for (size_t i = 0; i < N_ACTS; i++)
		tests[i] = (struct CMUnitTest){ acts[i].name, crash_leaves_a_key_that_opens, NULL, NULL, (void *)&acts[i] };
	r = _cmocka_run_group_tests("crash while a keyslot changes", tests, N_ACTS, NULL, NULL);
	vd_key_free(old_key);
	vd_key_free(new_key);
	return vd_tempdir_leave(&dir) || r;
}
