/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Works on an image of each kind, recorded, then looks at the states in which a crash could have left it: each opens,
 * its tables are sound, it holds what was flushed and nothing that was never written there, and it can be written on.
 *
 * VD_CRASH_STATES: how many states of each kind, drawn evenly from all; 0: all. VD_RANDOM_SEED: other work.
 */
#include <pthread.h>
#include <stdio.h>

#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "tests/support/history.h"
#include "tests/support/latency.h"
#include "tests/support/qcow2_check.h"
#include "tests/support/tempdir.h"
#include "tests/support/variant.h"

#define N_STATES 60
#define N_RANDOM 3              /* random states at each cut, beside "all arrived" and "only what was flushed" */
#define N_OPS 60
#define N_THREADS 3
#define PEER_EVERY 30           /* a state in so many is shown to qemu-img: it costs a process */
#define GO_ON_EVERY 3           /* in so many is written on */

static uint64_t setting(const char *name, uint64_t otherwise)
{
	const char *value = getenv(name);

	return value ? strtoull(value, NULL, 0) : otherwise;
}

/* One thread's part of the disk and what it did there. */
struct part {
	pthread_t thread;
	struct vd_image *img;
	struct model m;                 /* of the whole disk; the part of it is this thread's */
	struct history h;
	size_t n_ops;
	uint32_t unit;
	bool is_alone;
	unsigned most_fsyncs;           /* of one flush, when alone */
	char failure[200];              /* cmocka's assertions belong to the main thread */
};

static struct work {
	const struct variant *v;
	struct vd_latency slow;         /* under the recorder: who writes while a flush is under way, has the time to */
	struct vd_record *record;
	struct model m;
	struct part parts[N_THREADS];
	size_t n_parts;
	uint64_t cache_bytes;
} work;

/* ---- the work ----------------------------------------------------------------------------------------- */

static void draw(struct part *p, uint64_t *off, uint64_t *len)
{
	uint64_t *chance = &p->m.chance, size = p->h.end - p->h.start;
	uint64_t most = chance_below(chance, 3) ? 3 * (uint64_t)p->unit : 1000;

	*off = p->h.start + chance_below(chance, size);
	if (chance_below(chance, 2))
		*off = vd_max_u64(p->h.start, vd_round_down(*off, chance_below(chance, 2) ? p->unit : 512));
	*len = 1 + chance_below(chance, most);
	if (chance_below(chance, 3) == 0)
		*len = vd_round_up(*len, p->unit);
	*len = vd_min_u64(*len, p->h.end - *off);
}

/* Each byte stays or is zero: which, a read tells, and that is what a flush makes durable. */
static int discard(struct part *p, uint64_t off, uint64_t len, struct vd_error *e)
{
	uint64_t tick = vd_record_tick(work.record);
	int r = vd_image_discard(p->img, off, len, e);

	if (r == 0)
		r = vd_image_pread(p->img, p->m.bytes + off, len, off, e);
	history_add(&p->h, off, len, p->m.bytes + off, tick);
	return r;
}

static int change(struct part *p, struct vd_error *e)
{
	uint64_t off, len, tick = vd_record_tick(work.record);
	bool is_zeros = chance_below(&p->m.chance, 4) == 0;

	draw(p, &off, &len);
	if (chance_below(&p->m.chance, 10) == 0)
		return discard(p, off, len, e);
	for (uint64_t i = off; i < off + len; i++)
		p->m.bytes[i] = is_zeros ? 0 : chance_next(&p->m.chance);
	/* First into the list: it may have begun to arrive whatever the result. */
	history_add(&p->h, off, len, p->m.bytes + off, tick);
	return is_zeros ? vd_image_write_zeroes(p->img, off, len, chance_below(&p->m.chance, 3) ? 0 : VD_ZERO_ALLOCATED, e) :
	       vd_image_pwrite(p->img, p->m.bytes + off, len, off, e);
}

static int flush(struct part *p, struct vd_error *e)
{
	uint64_t tick = vd_record_tick(work.record);
	size_t n_ops = p->h.n_ops;
	int r = vd_image_flush(p->img, e);

	if (r < 0)
		return r;
	history_ack(&p->h, n_ops, vd_record_tick(work.record));
	if (p->is_alone)
		p->most_fsyncs = vd_max_u64(p->most_fsyncs, vd_record_count(work.record, VD_OP_FLUSH, tick));
	return 0;
}

static void *do_part(void *arg)
{
	struct part *p = arg;
	struct vd_error e;
	int r = 0;

	for (size_t i = 0; i < p->n_ops && r == 0; i++)
		r = chance_below(&p->m.chance, 8) ? change(p, &e) : flush(p, &e);
	if (r < 0)
		snprintf(p->failure, sizeof(p->failure), "%.190s", e.message);
	return NULL;
}

/* Parts meet inside units and sectors. */
static void start_part(size_t i, struct vd_image *img)
{
	uint64_t size = work.m.size / work.n_parts;
	uint64_t start = i * size, end = i + 1 == work.n_parts ? work.m.size : start + size;
	struct part *p = &work.parts[i];

	*p = (struct part){
		.img = img, .n_ops = N_OPS / work.n_parts, .unit = work.v->unit, .is_alone = work.n_parts == 1,
	};
	model_init(&p->m, work.m.size, work.m.chance + i);
	history_init(&p->h, start, end, work.m.bytes + start);
	pthread_create(&p->thread, NULL, do_part, p);
}

/* Recorded from the opening on; a small cache makes commits of its own between the flushes. */
static void do_work(void)
{
	struct vd_image *img = NULL;
	struct vd_error e;

	vd_latency_init(&work.slow, disks.mem);
	work.slow.flush_us = work.n_parts > 1 ? 300 : 0;
	assert_int_equal(vd_record_new(&work.slow.wrap.host, &work.record, NULL), 0);
	expect_ok(variant_open_on(work.v, vd_record_host(work.record), "d", VD_OPEN_WRITE, work.cache_bytes, &img,
				  &e), &e);
	for (size_t i = 0; i < work.n_parts; i++)
		start_part(i, img);
	for (size_t i = 0; i < work.n_parts; i++)
		pthread_join(work.parts[i].thread, NULL);
	disk_close(img);
	for (size_t i = 0; i < work.n_parts; i++) {
		struct part *p = &work.parts[i];

		history_ack(&p->h, p->h.n_ops, vd_record_tick(work.record));
		if (p->failure[0])
			fail_msg("%s: %s", work.v->name, p->failure);
	}
}

/* ---- the states --------------------------------------------------------------------------------------- */

static void fail_state(const struct vd_crash *c, const char *fmt, ...) VD_PRINTF(2, 3);
static void fail_state(const struct vd_crash *c, const char *fmt, ...)
{
	char text[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fail_msg("%s, crash after %zu events, variant %u: %s", work.v->name, c->cut, c->variant, text);
}

/* By the format's own check. A VMDK's two sets of tables may differ after a crash, which is a finding. */
static void check_by_itself(const struct vd_crash *c)
{
	struct vd_check_report rep = { .struct_size = sizeof(rep) };
	struct vd_open_opts opts = disk_open_opts(work.v->format, VD_OPEN_METADATA);
	struct vd_image *img = NULL;
	struct vd_error e;

	if (vd_image_open_on(c->host, work.v->format, "d", &opts, &img, &e) < 0 ||
	    vd_image_check(img, VD_REPAIR_NONE, NULL, NULL, NULL, &rep, &e) < 0)
		fail_state(c, "cannot be checked: %s", e.message);
	if (rep.corruptions || rep.check_errors)
		fail_state(c, "%llu errors in the tables", (unsigned long long)(rep.corruptions + rep.check_errors));
	vd_image_abort(img);
}

static void check_tables(const struct vd_crash *c)
{
	struct qcow2_verdict v;

	if (work.v->format == &vd_format_vhd || work.v->format == &vd_format_vhdx)
		check_by_itself(c);
	if (work.v->format != &vd_format_qcow2)
		return;
	v = qcow2_check(c->host, "d");
	if (v.n_errors)
		fail_state(c, "%u errors in the tables: %s", v.n_errors, v.first);
}

static struct vd_image *open_state(const struct vd_crash *c)
{
	struct vd_image *img = NULL;
	struct vd_error e;

	if (variant_open_on(work.v, c->host, "d", VD_OPEN_WRITE, 0, &img, &e) < 0)
		fail_state(c, "does not open: %s", e.message);
	return img;
}

static void check_content(const struct vd_crash *c, struct vd_image *img, struct model *got)
{
	struct vd_error e;

	if (vd_image_pread(img, got->bytes, got->size, 0, &e) < 0)
		fail_state(c, "does not read: %s", e.message);
	for (size_t i = 0; i < work.n_parts; i++) {
		struct history *h = &work.parts[i].h;
		uint64_t bad;

		if (!history_allows(h, c->tick, got->bytes + h->start, &bad))
			fail_state(c, "byte %llu is 0x%02x; flushed was 0x%02x", (unsigned long long)bad,
				   got->bytes[bad],
				   h->durable[bad - h->start]);
	}
}

static void check_snapshot(const struct vd_crash *c)
{
	struct vd_error e;

	if (!variant_keeps_snapshot(work.v, c->host, work.m.size, &e))
		fail_state(c, "%s", e.message);
}

/* What is written now stays, and so does all else: space that the crash left in between is not taken for unused. */
static void go_on(const struct vd_crash *c, struct model *m, struct vd_image *img)
{
	for (int i = 0; i < 12; i++) {
		uint64_t off = chance_below(&m->chance, m->size), len = 1 + chance_below(&m->chance, 2 * work.v->unit);

		model_write(m, img, off, vd_min_u64(len, m->size - off));
	}
	disk_close(img);
	check_tables(c);
	check_snapshot(c);
	img = open_state(c);
	model_check_all(m, img);
	vd_image_abort(img);
}

static void check_state(const struct vd_crash *c, size_t nth)
{
	struct vd_image *img;
	struct model got;

	check_tables(c);
	check_snapshot(c);
	if (nth % PEER_EVERY == 0 && peer_knows(work.v))
		peer_check(work.v, c->host, true);
	model_init(&got, work.m.size, nth);
	img = open_state(c);
	check_content(c, img, &got);
	if (nth % GO_ON_EVERY == 0)
		go_on(c, &got, img);
	else
		vd_image_abort(img);
	model_free(&got);
}

static void check_states(void (*check)(const struct vd_crash *c, size_t nth))
{
	size_t all = vd_crash_count(work.record, N_RANDOM), wanted = setting("VD_CRASH_STATES", N_STATES);
	uint64_t chance = work.m.chance;

	if (!wanted || wanted > all)
		wanted = all;
	for (size_t i = 0; i < wanted; i++) {
		size_t first = all * i / wanted, next = all * (i + 1) / wanted;
		struct vd_crash c;
		struct vd_error e;

		expect_ok(vd_crash_state(work.record, N_RANDOM, work.m.chance,
					 first + chance_below(&chance, next - first), &c, &e), &e);
		check(&c, i);
		vd_mem_host_free(c.host);
	}
}

/* ---- the tests ---------------------------------------------------------------------------------------- */

static int start(void **state)
{
	const struct variant *v = *state;

	work = (struct work){ .v = v };
	model_init(&work.m, v->size, setting("VD_RANDOM_SEED", 1) * 1000 + (uint64_t)(v - variants));
	return disks_start(NULL);
}

static int stop(void **state)
{
	(void)state;
	for (size_t i = 0; i < work.n_parts; i++) {
		history_free(&work.parts[i].h);
		model_free(&work.parts[i].m);
	}
	if (work.record)
		vd_record_free(work.record);
	model_free(&work.m);
	return disks_stop(NULL);
}

static void crash_states(const struct variant *v, size_t n_parts, uint64_t cache_bytes)
{
	print_message("# %s, VD_RANDOM_SEED=%llu\n", v->name, (unsigned long long)setting("VD_RANDOM_SEED", 1));
	if (!variant_make(v, &work.m))
		skip();
	work.n_parts = n_parts;
	work.cache_bytes = cache_bytes;
	do_work();
	check_states(check_state);
}

static void one_writer(void **state)
{
	crash_states(*state, 1, 0);
	/* A data file is flushed once besides. */
	assert_in_range(work.parts[0].most_fsyncs, 1, 4 + !!work.v->opts.data_file);
}

static void three_writers_and_a_small_cache(void **state)
{
	crash_states(*state, N_THREADS, 1);
}

/* ---- a new image -------------------------------------------------------------------------------------- */

static void check_new(const struct vd_crash *c, size_t nth)
{
	struct vd_image *img = NULL;
	struct vd_error e;

	(void)nth;
	if (!c->host->exists(c->host, "n"))
		return;
	if (variant_open_on(work.v, c->host, "n", 0, 0, &img, &e) < 0)
		fail_state(c, "has its name and does not open: %s", e.message);
	model_check_all(&work.m, img);
	vd_image_abort(img);
}

static void new_image_has_its_name_when_it_is_whole(void **state)
{
	struct vd_image *img = NULL;
	struct model m;
	struct vd_error e;

	work.v = *state;
	/* "d" and its parent; "n" is another of the kind. */
	model_init(&m, work.m.size, work.m.chance);
	assert_true(variant_make(work.v, &m));
	model_free(&m);
	assert_int_equal(vd_record_new(disks.mem, &work.record, NULL), 0);
	expect_ok(variant_create_on(work.v, vd_record_host(work.record), "n", &img, &e), &e);
	for (uint64_t off = 0, len; off < work.m.size; off += len) {
		len = vd_min_u64(work.m.size - off, 300000);
		model_write(&work.m, img, off, len);
	}
	disk_commit(img);
	disk_close(img);
	check_states(check_new);
}

#define N_KINDS 3
static void (*const kinds[N_KINDS])(void **state) = {
	one_writer, three_writers_and_a_small_cache, new_image_has_its_name_when_it_is_whole,
};
static const char *const kind_names[N_KINDS] = { "one writer", "three writers", "a new one" };

int main(void)
{
	size_t n = N_KINDS * n_variants;
	struct CMUnitTest *tests = calloc(n, sizeof(*tests));
	char (*names)[80] = calloc(n, sizeof(*names));
	void *folder;
	int r;

	if (vd_tempdir_enter(&folder) < 0)
		return 1;
	for (size_t i = 0; i < n; i++) {
		const struct variant *v = &variants[i / N_KINDS];

		snprintf(names[i], sizeof(names[i]), "%s, %s", v->name, kind_names[i % N_KINDS]);
		tests[i] = (struct CMUnitTest){ names[i], kinds[i % N_KINDS], start, stop, (void *)v };
	}
	r = _cmocka_run_group_tests("crash states", tests, n, NULL, NULL);
	free(tests);
	free(names);
	return vd_tempdir_leave(&folder) < 0 ? 1 : r;
}
