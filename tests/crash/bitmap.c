/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Takes what changes bitmaps, recorded, and looks at the states in which a crash could have left the image:
 *
 *  - no table has an error, and the image takes a write and a new bitmap;
 *  - each bitmap is as before or as after, or, where the act writes to the disk, unusable;
 *  - one that is usable is dirty wherever the disk is not as it was before.
 *
 * VD_CRASH_STATES: how many states of each act, drawn evenly from all; 0: all.
 */
#include <stdio.h>

#include "libvdisk/base/checked.h"
#include "tests/support/bitmaps.h"
#include "tests/support/qcow2_check.h"
#include "tests/support/tempdir.h"
#include "tests/support/variant.h"

#define N_STATES 36
#define N_RANDOM 4              /* random states at each cut, beside "all arrived" and "only what was flushed" */
#define PEER_EVERY 25
#define BITMAPS 4

static uint64_t setting(const char *name, uint64_t otherwise)
{
	const char *value = getenv(name);

	return value ? strtoull(value, NULL, 0) : otherwise;
}

/* ---- the acts ----------------------------------------------------------------------------------------- */

static int do_session(struct vd_image *img, struct vd_error *e)
{
	uint64_t size = vd_image_size(img);
	uint8_t bytes[9000];

	memset(bytes, 0x5a, sizeof(bytes));
	expect_ok(vd_image_pwrite(img, bytes, sizeof(bytes), size / 2, e), e);
	expect_ok(vd_image_flush(img, e), e);
	expect_ok(vd_image_pwrite(img, bytes, 700, 100, e), e);
	expect_ok(vd_image_discard(img, size / 4, size / 8, e), e);
	expect_ok(vd_image_flush(img, e), e);
	return vd_image_write_zeroes(img, size - 100000, 100000, 0, e);
}

/* Writing, an act in the middle of it, and writing again. */
static int do_act_between_writes(struct vd_image *img, struct vd_error *e)
{
	uint8_t bytes[600];

	memset(bytes, 0x5a, sizeof(bytes));
	expect_ok(vd_image_pwrite(img, bytes, sizeof(bytes), 200000, e), e);
	expect_ok(vd_bitmap_create(img, "new", 0, 0, e), e);
	return vd_image_pwrite(img, bytes, sizeof(bytes), 300000, e);
}

static int do_create(struct vd_image *img, struct vd_error *e)
{
	return vd_bitmap_create(img, "new", 512, 0, e);
}

static int do_remove(struct vd_image *img, struct vd_error *e)
{
	return vd_bitmap_remove(img, "fine", e);
}

static int do_clear(struct vd_image *img, struct vd_error *e)
{
	return vd_bitmap_clear(img, "fine", e);
}

static int do_disable(struct vd_image *img, struct vd_error *e)
{
	return vd_bitmap_disable(img, "fine", e);
}

static int do_merge(struct vd_image *img, struct vd_error *e)
{
	const char *const source = "off";

	return vd_bitmap_merge(img, "fine", NULL, &source, 1, e);
}

static int do_grow(struct vd_image *img, struct vd_error *e)
{
	return vd_image_resize(img, vd_image_size(img) * 2, 0, e);
}

static int do_shrink(struct vd_image *img, struct vd_error *e)
{
	return vd_image_resize(img, vd_image_size(img) / 3 / 512 * 512, VD_RESIZE_SHRINK, e);
}

static const struct act {
	const char *name;
	int (*run)(struct vd_image *img, struct vd_error *e);
	bool writes;            /* bitmaps do not hold meanwhile */
} acts[] = {
	{ "session", do_session, true }, { "act between writes", do_act_between_writes, true }, { "create", do_create, false },
	{ "remove", do_remove, false }, { "clear", do_clear, false }, { "disable", do_disable, false },
	{ "merge", do_merge, false }, { "grow", do_grow, true }, { "shrink", do_shrink, true },
};
#define N_ACTS (sizeof(acts) / sizeof(acts[0]))

static const char *const kinds[] = {
	"qcow2", "qcow2 512", "qcow2 4k refcount 64", "qcow2 extended l2 over raw", "qcow2 luks", "qcow2 data file",
};
#define N_KINDS (sizeof(kinds) / sizeof(kinds[0]))

/* ---- what an image says -------------------------------------------------------------------------------- */

struct shot {
	uint8_t *disk;
	uint64_t size;
	size_t n;
	struct {
		char name[16], text[1500];
		bool usable;
	} b[BITMAPS];
};

/* One that is not open. */
static void free_shot(struct shot *s)
{
	free(s->disk);
	s->disk = NULL;
}

static void shoot_bitmaps(struct vd_image *img, struct shot *s)
{
	struct vd_bitmap *list;
	struct vd_error e;

	expect_ok(vd_bitmap_list(img, &list, &s->n, &e), &e);
	assert_true(s->n <= BITMAPS);
	for (size_t i = 0; i < s->n; i++) {
		s->b[i].usable = !list[i].unusable;
		snprintf(s->b[i].name, sizeof(s->b[i].name), "%s", list[i].name);
		snprintf(s->b[i].text, sizeof(s->b[i].text), "%d %s", list[i].enabled,
			 list[i].unusable ? "void" : dirty_since(img, list[i].name));
	}
	vd_bitmap_list_free(list);
}

static struct vd_image *open_state(const struct variant *v, struct vd_host *host, unsigned flags)
{
	struct vd_image *img = NULL;
	struct vd_error e;

	expect_ok(variant_open_on(v, host, "d", flags, 0, &img, &e), &e);
	return img;
}

static void shoot(const struct variant *v, struct vd_host *host, struct shot *s)
{
	struct vd_image *img = open_state(v, host, 0);
	struct vd_error e;

	*s = (struct shot){ .size = vd_image_size(img) };
	s->disk = malloc(s->size + 1);
	expect_ok(vd_image_pread(img, s->disk, s->size, 0, &e), &e);
	shoot_bitmaps(img, s);
	vd_image_abort(img);
}

static const char *text_of(const struct shot *s, const char *name)
{
	for (size_t i = 0; i < s->n; i++)
		if (!strcmp(s->b[i].name, name))
			return s->b[i].text;
	return "absent";
}

/* The text has a run that holds the byte. */
static bool has_byte(const char *text, uint64_t at)
{
	unsigned long long off, len;
	int used;

	for (text += 2; sscanf(text, "%llu+%llu%n", &off, &len, &used) == 2; text += used)
		if (at >= off && at < off + len)
			return true;
	return false;
}

/* ---- claims -------------------------------------------------------------------------------------------- */

struct claim {
	const struct variant *v;
	const struct act *act;
	const struct vd_crash *c;
	const struct shot *before, *after;
};

static void complain(const struct claim *k, const char *name, const char *what)
{
	fail_msg("%s, %s, crash after %zu events, variant %u: %s: %s", k->v->name, k->act->name, k->c->cut, k->c->variant, name,
		 what);
}

/* The bitmaps that there were before record what the act writes. */
static void misses_no_write(const struct claim *k, const struct shot *now, size_t i)
{
	bool is_old = strcmp(text_of(k->before, now->b[i].name), "absent");

	if (!is_old || !now->b[i].usable || now->b[i].text[0] != '1')
		return;
	for (uint64_t at = 0; at < vd_min_u64(now->size, k->before->size); at++)
		if (now->disk[at] != k->before->disk[at] && !has_byte(now->b[i].text, at))
			complain(k, now->b[i].name, "misses a write");
	if (now->size > k->before->size && !has_byte(now->b[i].text, now->size - 1))
		complain(k, now->b[i].name, "misses what the disk has more");
}

/* An image is one before, or one after: bitmaps do not go their own ways. */
static void is_before_or_after(const struct claim *k, const struct shot *now)
{
	static const char *const names[] = { "fine", "coarse", "off", "new" };
	bool can_be_before = true, can_be_after = true;

	for (size_t i = 0; i < BITMAPS; i++) {
		const char *text = text_of(now, names[i]);
		bool is_void = k->act->writes && !strcmp(text + 1, " void");

		can_be_before &= is_void || !strcmp(text, text_of(k->before, names[i]));
		can_be_after &= is_void || !strcmp(text, text_of(k->after, names[i]));
	}
	/* This one has a state between, too: the new bitmap is there, and nothing is written after it. */
	if (!can_be_before && !can_be_after && k->act->run != do_act_between_writes)
		complain(k, "the bitmaps", "neither before nor after");
}

static void takes_writes(const struct claim *k)
{
	struct vd_image *img = open_state(k->v, k->c->host, VD_OPEN_WRITE);
	struct vd_error e;
	int closed;

	expect_ok(vd_image_pwrite(img, "x", 1, 5000, &e), &e);
	expect_ok(vd_bitmap_create(img, "post", 0, 0, &e), &e);
	closed = vd_image_close(img, &e);
	expect_ok(closed, &e);
	if (qcow2_check(k->c->host, "d").n_errors)
		complain(k, "after a write", qcow2_check(k->c->host, "d").first);
}

static void check_state(const struct claim *k, size_t nth, size_t *n_usable)
{
	struct qcow2_verdict verdict = qcow2_check(k->c->host, "d");
	struct shot now;

	if (verdict.n_errors)
		complain(k, "the tables", verdict.first);
	if (nth % PEER_EVERY == 0 && peer_knows(k->v))
		peer_check(k->v, k->c->host, true);
	shoot(k->v, k->c->host, &now);
	is_before_or_after(k, &now);
	for (size_t i = 0; i < now.n; i++) {
		misses_no_write(k, &now, i);
		*n_usable += now.b[i].usable && now.b[i].text[0] == '1';
	}
	free_shot(&now);
	takes_writes(k);
}

/* ---- the work ------------------------------------------------------------------------------------------ */

static bool prepare(const struct variant *v, struct model *m)
{
	struct vd_image *img;
	struct vd_error e;

	if (!variant_make(v, m))
		return false;
	img = variant_open(v, VD_OPEN_WRITE);
	bitmap_make(img, "fine", 512);
	bitmap_make(img, "coarse", 65536);
	model_write(m, img, 1000, 3000);
	expect_ok(vd_bitmap_create(img, "off", 4096, 0, &e), &e);
	model_write(m, img, m->size / 3, 10000);
	expect_ok(vd_bitmap_disable(img, "off", &e), &e);
	disk_close(img);
	return true;
}

static void do_recorded(const struct variant *v, const struct act *act, struct vd_record *record)
{
	struct vd_image *img = open_state(v, vd_record_host(record), VD_OPEN_WRITE);
	struct vd_error e;

	expect_ok(act->run(img, &e), &e);
	disk_close(img);
}

static void check_states(struct claim *k, struct vd_record *record)
{
	size_t all = vd_crash_count(record, N_RANDOM), wanted = setting("VD_CRASH_STATES", N_STATES), n_usable = 0;
	struct vd_error e;

	if (!wanted || wanted > all)
		wanted = all;
	for (size_t i = 0; i < wanted; i++) {
		struct vd_crash c;

		/* The last state of all, too. */
		expect_ok(vd_crash_state(record, N_RANDOM, 1, wanted == 1 ? 0 : i * (all - 1) / (wanted - 1), &c, &e), &e);
		k->c = &c;
		check_state(k, i, &n_usable);
		vd_mem_host_free(c.host);
	}
	/* Else nothing was seen. */
	assert_true(n_usable);
}

static void crash_leaves_bitmaps_that_hold_or_say_that_they_do_not(void **state)
{
	const struct act *act = *state;

	for (size_t i = 0; i < N_KINDS; i++) {
		const struct variant *v = variant_named(kinds[i]);
		struct shot before, after;
		struct claim k = { .v = v, .act = act, .before = &before, .after = &after };
		struct vd_record *record;
		struct model m;

		assert_int_equal(disks_start(NULL), 0);
		model_init(&m, v->size, i + 1);
		assert_true(prepare(v, &m));
		shoot(v, disks.mem, &before);
		assert_int_equal(vd_record_new(disks.mem, &record, NULL), 0);
		do_recorded(v, act, record);
		shoot(v, disks.mem, &after);
		check_states(&k, record);
		free_shot(&before);
		free_shot(&after);
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
		tests[i] = (struct CMUnitTest){
			acts[i].name, crash_leaves_bitmaps_that_hold_or_say_that_they_do_not, NULL, NULL, (void *)&acts[i],
		};
	r = _cmocka_run_group_tests("crash while bitmaps change", tests, N_ACTS, NULL, NULL);
	return vd_tempdir_leave(&folder) < 0 ? 1 : r;
}
