/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Repairs damaged images, recorded, and looks at the states in which a crash could have left them: none has a fault of a kind
 * that the damaged image had not, none has more of them, and every byte that could be read reads as before.
 *
 * VD_CRASH_STATES: how many states of each repair, drawn evenly from all; 0: all. VD_DAMAGE_FIRST: the first seed.
 */
#include <inttypes.h>
#include <stdio.h>

#include "libvdisk/base/checked.h"
#include "tests/support/damage.h"
#include "tests/support/qcow2_bytes.h"
#include "tests/support/variant.h"

#define N_STATES 16
#define N_RANDOM 3              /* random states at each cut, beside "all arrived" and "only what was flushed" */
#define N_SEEDS 24
#define N_VIEWS 2
#define N_KINDS_MAX 32

static const char *const views[N_VIEWS] = { NULL, "one" };

static const char *const kinds[] = {
	"qcow2 4k", "qcow2 512", "qcow2 v2", "qcow2 extended l2", "qcow2 lazy", "qcow2 deflate",
};
#define N_KINDS (sizeof(kinds) / sizeof(kinds[0]))

static uint64_t setting(const char *name, uint64_t otherwise)
{
	const char *value = getenv(name);

	return value ? strtoull(value, NULL, 0) : otherwise;
}

/* ---- what an image is like ------------------------------------------------------------------------------ */

struct state {
	uint64_t n[N_KINDS_MAX];        /* findings of each kind */
	uint8_t *is_read[N_VIEWS], *bytes[N_VIEWS];
	uint64_t piece, n_pieces;
};

static int note(void *ctx, const struct vd_finding *f)
{
	struct state *s = ctx;

	s->n[f->kind] += f->n;
	return 0;
}

static void look_at_faults(const struct variant *v, struct vd_host *host, struct state *s)
{
	struct vd_check_report rep = { .struct_size = sizeof(rep) };
	struct vd_image *img = NULL;
	struct vd_error e;

	expect_ok(variant_open_on(v, host, "d", VD_OPEN_METADATA, 0, &img, &e), &e);
	expect_ok(vd_image_check(img, VD_REPAIR_NONE, note, s, NULL, &rep, &e), &e);
	vd_image_abort(img);
}

static void look_at_bytes(const struct variant *v, struct vd_host *host, struct state *s, int view)
{
	struct vd_open_opts opts = disk_open_opts(v->format, 0);
	struct vd_image *img = NULL;

	s->is_read[view] = calloc(1, s->n_pieces);
	s->bytes[view] = calloc(s->n_pieces, s->piece);
	opts.snapshot = views[view];
	if (vd_image_open_on(host, v->format, "d", &opts, &img, NULL) < 0)
		return;
	for (uint64_t i = 0; i < s->n_pieces && (i + 1) * s->piece <= vd_image_size(img); i++)
		s->is_read[view][i] = vd_image_pread(img, s->bytes[view] + i * s->piece, s->piece, i * s->piece, NULL) == 0;
	vd_image_abort(img);
}

static struct state look_at(const struct variant *v, struct vd_host *host)
{
	struct state s = { .piece = vd_max_u64(v->unit, 4096) };

	s.n_pieces = v->size / s.piece;
	look_at_faults(v, host, &s);
	for (int view = 0; view < N_VIEWS; view++)
		look_at_bytes(v, host, &s, view);
	return s;
}

static void forget(struct state *s)
{
	for (int view = 0; view < N_VIEWS; view++) {
		free(s->is_read[view]);
		free(s->bytes[view]);
	}
}

/* Why `b` is worse than `a`, or NULL. */
static const char *worse(const struct state *a, const struct state *b)
{
	for (int kind = 0; kind < N_KINDS_MAX; kind++)
		if (b->n[kind] > a->n[kind])
			return vd_finding_name(kind);
	for (int view = 0; view < N_VIEWS; view++)
		for (uint64_t i = 0; i < a->n_pieces; i++)
			if (a->is_read[view][i] && (!b->is_read[view][i] ||
						    memcmp(a->bytes[view] + i * a->piece, b->bytes[view] + i * a->piece, a->piece)))
				return "a byte reads otherwise";
	return NULL;
}

/* ---- the work ------------------------------------------------------------------------------------------- */

static int repair(const struct variant *v, struct vd_host *host, struct vd_error *e)
{
	struct vd_check_report rep = { .struct_size = sizeof(rep) };
	struct vd_image *img = NULL;
	int r = variant_open_on(v, host, "d", VD_OPEN_REPAIR, 0, &img, e);

	if (r == 0)
		r = vd_image_check(img, VD_REPAIR_ALL, NULL, NULL, NULL, &rep, e);
	if (r == 0)
		return vd_image_close(img, e);
	vd_image_abort(img);
	return r;
}

static void check_states(const struct variant *v, struct vd_record *record, const struct state *before, const char *story)
{
	size_t all = vd_crash_count(record, N_RANDOM), wanted = setting("VD_CRASH_STATES", N_STATES);
	struct vd_error e;

	if (!wanted || wanted > all)
		wanted = all;
	for (size_t i = 0; i < wanted; i++) {
		struct vd_crash c;
		struct state s;
		const char *why;

		expect_ok(vd_crash_state(record, N_RANDOM, 1, wanted == 1 ? 0 : i * (all - 1) / (wanted - 1), &c, &e), &e);
		s = look_at(v, c.host);
		why = worse(before, &s);
		if (why)
			fail_msg("%s, crash after %zu events, variant %u: %s\n%s", v->name, c.cut, c.variant, why, story);
		forget(&s);
		vd_mem_host_free(c.host);
	}
}

/* True when there was something to see. */
static bool try_seed(const struct variant *v, const struct damage_base *base, uint64_t seed)
{
	uint8_t *copy = malloc(base->size);
	struct vd_record *record;
	struct state before, after;
	struct vd_image *img = NULL;
	struct vd_error e;
	char story[1200];
	uint64_t size;
	bool changed;
	int r;

	damage_apply(base, copy, &size, seed, story, sizeof(story));
	assert_int_equal(vd_mem_put(disks.mem, "d", copy, size, NULL), 0);
	free(copy);
	if (variant_open_on(v, disks.mem, "d", VD_OPEN_METADATA, 0, &img, NULL) < 0)
		return false;
	vd_image_abort(img);
	before = look_at(v, disks.mem);
	assert_int_equal(vd_record_new(disks.mem, &record, NULL), 0);
	r = repair(v, vd_record_host(record), &e);
	if (r < 0 && r != VD_ECORRUPT)
		fail_msg("%s: %s\n%s", v->name, e.message, story);
	after = look_at(v, disks.mem);
	changed = memcmp(before.n, after.n, sizeof(before.n));
	check_states(v, record, &before, story);
	vd_record_free(record);
	forget(&before);
	forget(&after);
	return changed;
}

static void make(const struct variant *v, struct damage_base *base)
{
	struct vd_image *img;
	struct model m;
	struct vd_error e;
	uint64_t size;
	uint8_t *bytes;

	model_init(&m, v->size, 7);
	assert_true(variant_make(v, &m));
	img = variant_open(v, VD_OPEN_WRITE);
	model_write(&m, img, 0, m.size / 3);
	expect_ok(vd_snapshot_create(img, "one", &e), &e);
	model_write(&m, img, m.size / 4, m.size / 3);
	model_zero(&m, img, m.size / 8, m.size / 16);
	disk_close(img);
	model_free(&m);
	size = bytes_size("d");
	bytes = malloc(size);
	bytes_read("d", 0, bytes, size);
	damage_survey(base, bytes, size);
}

static void crash_leaves_no_worse_image(void **state)
{
	const struct variant *v = variant_named(*state);
	uint64_t first = setting("VD_DAMAGE_FIRST", 0);
	struct damage_base base;
	size_t n_changed = 0;

	assert_int_equal(disks_start(NULL), 0);
	make(v, &base);
	for (uint64_t seed = first; seed < first + N_SEEDS / N_KINDS * 4; seed++)
		n_changed += try_seed(v, &base, seed);
	/* Else nothing was seen. */
	assert_true(n_changed > N_SEEDS / N_KINDS);
	damage_free(&base);
	assert_int_equal(disks_stop(NULL), 0);
}

int main(void)
{
	struct CMUnitTest tests[N_KINDS];

	for (size_t i = 0; i < N_KINDS; i++)
		tests[i] = (struct CMUnitTest){ kinds[i], crash_leaves_no_worse_image, NULL, NULL, (void *)kinds[i] };
	return _cmocka_run_group_tests("crash while an image is repaired", tests, N_KINDS, NULL, NULL);
}
