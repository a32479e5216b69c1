/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Lets the first, second, third ... operation on the host fail, or the allocation of memory, until a whole run has no
 * failure left. Each time: the failure is told, what was flushed is there, nothing else has come up, the tables are
 * sound, no output has its final name, and a handle that is not poisoned goes on. With VD_CRASH_STATES set none of the
 * operations is passed over.
 */
#include <errno.h>
#include <stdio.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "tests/support/history.h"
#include "tests/support/qcow2_check.h"
#include "tests/support/tempdir.h"
#include "tests/support/variant.h"

#define N_OPS 14
/* Closing and unlinking have results only where something was written, and tests of their own. */
#define KINDS (VD_OP_ANY & ~(unsigned)(VD_OP_CLOSE | VD_OP_UNLINK))

struct plan {
	const char *name;
	struct vd_fault_plan fault;
	bool memory;                    /* allocations fail, not operations */
};

static const struct plan plans[] = {
	{ "each operation once", { .kinds = KINDS, .err = EIO }, false },
	{ "no space any more",
	  { .kinds = VD_OP_WRITE | VD_OP_TRUNCATE, .err = ENOSPC, .for_ever = true, .half_done = true }, false },
	{ "each flush and all after it", { .kinds = VD_OP_FLUSH, .err = EIO, .for_ever = true }, false },
	{ "each allocation once", { 0 }, true },
};
#define N_PLANS (sizeof(plans) / sizeof(plans[0]))

/* One run: the images as they were made, on a host of its own behind the injector. */
static struct scene {
	const struct variant *v;
	struct model made;              /* what was made */
	struct vd_host *mem;
	struct vd_fault *fault;
	struct vd_host *host;
	const struct plan *plan;
	uint64_t nth;
	bool has_fired;
} scene;

static void load(struct vd_host *host, const char *name, uint8_t **bytes, uint64_t *size)
{
	struct vd_io *io;

	assert_int_equal(host->open(host, name, 0, &io, NULL), 0);
	assert_int_equal(vd_io_size(io, size, NULL), 0);
	*bytes = malloc(*size + 1);
	assert_int_equal(vd_io_pread(io, *bytes, *size, 0, NULL), 0);
	vd_io_abort(io);
}

static void clone_files(void)
{
	const char *name;

	assert_int_equal(vd_mem_host_new(&scene.mem, NULL), 0);
	for (size_t i = 0; (name = vd_mem_name(disks.mem, i)); i++) {
		vd_auto_free uint8_t *bytes = NULL;
		uint64_t size;

		load(disks.mem, name, &bytes, &size);
		assert_int_equal(vd_mem_put(scene.mem, name, bytes, size, NULL), 0);
	}
	assert_int_equal(vd_fault_new(scene.mem, &scene.fault, NULL), 0);
	scene.host = vd_fault_host(scene.fault);
}

static void arm(void)
{
	struct vd_fault_plan fault = scene.plan->fault;

	fault.nth = scene.nth;
	vd_fault_arm(scene.fault, &fault);
	if (scene.plan->memory)
		vd_alloc_fail_after(scene.nth - 1);
}

static void disarm(void)
{
	bool has_run_out = vd_alloc_fail_after(-1) < 0;

	scene.has_fired = scene.plan->memory ? has_run_out : vd_fault_fired(scene.fault) > 0;
	vd_fault_arm(scene.fault, NULL);
}

static void fail_scene(const char *fmt, ...) VD_PRINTF(1, 2);
static void fail_scene(const char *fmt, ...)
{
	char text[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fail_msg("%s, %s, number %llu: %s", scene.v->name, scene.plan->name, (unsigned long long)scene.nth, text);
}

static void expect_told(int r, const struct vd_error *e)
{
	/* Where memory is short things may be done without: space that is given up is leaked then. */
	if (scene.has_fired && r >= 0 && !scene.plan->memory)
		fail_scene("the failure was not told");
	if (!scene.has_fired && r < 0)
		fail_scene("failed by itself: %s", e->message);
	if (r < 0 && (e->code != r || !e->message[0]))
		fail_scene("code %d came without words", r);
}

static void check_tables(const char *name, bool may_leak)
{
	struct qcow2_verdict v = { 0 };

	if (scene.v->format == &vd_format_qcow2)
		v = qcow2_check(scene.mem, name);
	if (v.n_errors)
		fail_scene("%u errors in the tables: %s", v.n_errors, v.first);
	if (!may_leak && v.n_leaks)
		fail_scene("%u leaks", v.n_leaks);
}

static struct vd_image *reopen(const char *name)
{
	struct vd_image *img = NULL;
	struct vd_error e;

	if (variant_open_on(scene.v, scene.mem, name, VD_OPEN_WRITE, 0, &img, &e) < 0)
		fail_scene("does not open again: %s", e.message);
	return img;
}

static int start(void **state)
{
	(void)state;
	scene = (struct scene){ 0 };
	return disks_start(NULL);
}

/* Runs the job with the nth failure for every n; the job says what has to hold. */
static void sweep(const struct variant *v, const struct plan *plan, void (*job)(void))
{
	scene.v = v;
	scene.plan = plan;
	model_init(&scene.made, v->size, (uint64_t)(v - variants));
	if (!variant_make(v, &scene.made))
		skip();
	do {
		/* The first ones each, later ones ever more seldom. */
		scene.nth += 1 + (getenv("VD_CRASH_STATES") ? 0 : scene.nth / 30);
		scene.has_fired = false;
		clone_files();
		job();
		vd_fault_free(scene.fault);
		vd_mem_host_free(scene.mem);
	} while (scene.has_fired);
	assert_true(scene.nth > 1);
	model_free(&scene.made);
}

/* ---- writing ------------------------------------------------------------------------------------------ */

struct writing {
	struct vd_image *img;
	struct model m;
	struct history h;
	uint64_t off, len;              /* of the last operation */
};

static int write_one(struct writing *w, struct vd_error *e)
{
	uint64_t unit = scene.v->unit, *chance = &w->m.chance;
	bool is_zeros = chance_below(chance, 3) == 0;

	w->off = chance_below(chance, w->m.size);
	w->len = 1 + chance_below(chance, chance_below(chance, 2) ? 1000 : 2 * unit);
	if (chance_below(chance, 2)) {
		w->off = vd_round_down(w->off, unit);
		w->len = vd_round_up(w->len, unit);
	}
	w->len = vd_min_u64(w->len, w->m.size - w->off);
	for (uint64_t i = w->off; i < w->off + w->len; i++)
		w->m.bytes[i] = is_zeros ? 0 : chance_next(chance);
	history_add(&w->h, w->off, w->len, w->m.bytes + w->off, 0);
	return is_zeros ? vd_image_write_zeroes(w->img, w->off, w->len, 0, e) :
	       vd_image_pwrite(w->img, w->m.bytes + w->off, w->len, w->off, e);
}

static int write_some(struct writing *w, struct vd_error *e)
{
	int r = 0;

	for (int i = 0; i < N_OPS && r == 0; i++) {
		r = write_one(w, e);
		if (r == 0 && i % 5 == 4)
			r = vd_image_flush(w->img, e);
		if (r == 0 && i % 5 == 4)
			history_ack(&w->h, w->h.n_ops, 1);
	}
	return r;
}

/* With the fault gone: a handle that flushes is as good as new, any other is poisoned. */
static bool go_on(struct writing *w)
{
	struct vd_error e;
	int r = vd_image_flush(w->img, &e);

	if (r < 0) {
		if (r != VD_EPOISONED)
			fail_scene("neither usable nor poisoned: %s", e.message);
		if (vd_image_close(vd_steal(&w->img), &e) != VD_EPOISONED)
			fail_scene("closing does not tell of the poison");
		return false;
	}
	model_write(&w->m, w->img, w->off, w->len);
	r = vd_image_close(vd_steal(&w->img), &e);
	if (r < 0)
		fail_scene("does not close: %s", e.message);
	/* The write that failed has given its space back. */
	check_tables("d", scene.plan->memory);
	w->img = reopen("d");
	model_check_all(&w->m, w->img);
	vd_image_abort(vd_steal(&w->img));
	return true;
}

static void check_history(struct writing *w)
{
	struct model got;
	struct vd_image *img = reopen("d");
	struct vd_error e;
	uint64_t bad;

	model_init(&got, w->m.size, 0);
	if (vd_image_pread(img, got.bytes, got.size, 0, &e) < 0)
		fail_scene("does not read: %s", e.message);
	if (!history_allows(&w->h, 2, got.bytes, &bad))
		fail_scene("byte %llu is 0x%02x; flushed was 0x%02x", (unsigned long long)bad, got.bytes[bad],
			   w->h.durable[bad]);
	vd_image_abort(img);
	model_free(&got);
}

/* What it then holds is exact, except after a poisoning. Odd failures end with an abort instead. */
static bool goes_on(struct writing *w)
{
	return w->img && w->h.n_ops && scene.nth % 2 == 0 && go_on(w);
}

static void write_job(void)
{
	struct writing w = { 0 };
	struct vd_error e;
	int r;

	model_init(&w.m, scene.made.size, 7);
	memcpy(w.m.bytes, scene.made.bytes, w.m.size);
	history_init(&w.h, 0, w.m.size, w.m.bytes);
	arm();
	r = variant_open_on(scene.v, scene.host, "d", VD_OPEN_WRITE, 0, &w.img, &e);
	if (r == 0)
		r = write_some(&w, &e);
	if (r == 0)
		r = vd_image_close(vd_steal(&w.img), &e);
	disarm();
	expect_told(r, &e);
	if (r == 0)
		history_ack(&w.h, w.h.n_ops, 1);
	if (!goes_on(&w)) {
		vd_image_abort(vd_steal(&w.img));
		check_tables("d", scene.has_fired);
		check_history(&w);
	}
	model_free(&w.m);
	history_free(&w.h);
}

/* ---- making and copying ------------------------------------------------------------------------------- */

/* An empty partial file stays if it cannot be seen whose it is; the next run removes it. */
static void check_no_output(void)
{
	const char *name;

	for (size_t i = 0; (name = vd_mem_name(scene.mem, i)); i++) {
		vd_auto_free uint8_t *bytes = NULL;
		uint64_t size;

		load(scene.mem, name, &bytes, &size);
		if (!strcmp(name, "n") || (strstr(name, "partial") && size))
			fail_scene("leaves %s with %llu bytes", name, (unsigned long long)size);
	}
}

static void check_output(const struct model *m)
{
	struct vd_image *img = reopen("n");

	check_tables("n", scene.has_fired);
	model_check_all(m, img);
	vd_image_abort(img);
}

static void end_output(struct vd_image *img, int r, struct vd_error *e, const struct model *m)
{
	if (r == 0)
		r = vd_image_commit(img, e);
	disarm();
	expect_told(r, e);
	vd_image_abort(img);
	if (r < 0)
		check_no_output();
	else
		check_output(m);
}

static void create_job(void)
{
	struct vd_image *img = NULL;
	struct vd_error e;
	struct model m;
	int r;

	model_init(&m, scene.v->size, 9);
	arm();
	r = variant_create_on(scene.v, scene.host, "n", &img, &e);
	for (uint64_t off = 0, len; off < m.size && r == 0; off += len) {
		len = vd_min_u64(100000, m.size - off);
		memset(m.bytes + off, off / len + 1, len);
		r = vd_image_pwrite(img, m.bytes + off, len, off, &e);
	}
	end_output(img, r, &e, &m);
	model_free(&m);
}

static void check_source_is_untouched(void)
{
	const char *name;

	for (size_t i = 0; (name = vd_mem_name(disks.mem, i)); i++) {
		vd_auto_free uint8_t *before = NULL, *after = NULL;
		uint64_t size, size_after;

		load(disks.mem, name, &before, &size);
		load(scene.mem, name, &after, &size_after);
		if (size != size_after || memcmp(before, after, size))
			fail_scene("%s is not what it was", name);
	}
}

static void copy_job(void)
{
	struct vd_job job = { .struct_size = sizeof(job), .n_threads = scene.nth % 2 ? 3 : 1 };
	struct vd_image *src = NULL, *dst = NULL;
	struct vd_error e;
	int r;

	arm();
	r = variant_open_on(scene.v, scene.host, "d", 0, 0, &src, &e);
	if (r == 0)
		r = variant_create_on(scene.v, scene.host, "n", &dst, &e);
	if (r == 0)
		r = vd_image_copy(src, dst, scene.v->flags & VARIANT_PACKED, &job, NULL, &e);
	end_output(dst, r, &e, &scene.made);
	vd_image_abort(src);
	check_source_is_untouched();
}

/* ---- the tests ---------------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	void (*run)(void);
} jobs[] = { { "write", write_job }, { "create", create_job }, { "copy", copy_job } };
#define N_JOBS (sizeof(jobs) / sizeof(jobs[0]))

/* Data files are left out of the copies: the second would replace the first's. */
static const struct {
	const char *variant;
	unsigned n_jobs;
} swept[] = {
	{ "raw", 3 }, { "toy over raw", 3 }, { "qcow2 4k", 3 }, { "qcow2 512 refcount 1", 1 }, { "qcow2 data file", 2 },
	{ "qcow2 extended l2 over raw", 2 }, { "qcow2 deflate", 3 }, { "qcow2 snapshot", 1 },
	{ "qcow2 luks 4k over raw", 3 }, { "luks1", 2 },
	{ "vhd 4k", 3 }, { "vhd fixed", 1 }, { "vhd over vhd", 2 }, { "vhdx", 3 },
	{ "vhdx over vhdx", 1 },
};
#define N_SWEPT (sizeof(swept) / sizeof(swept[0]))

struct test {
	char name[100];
	const struct variant *v;
	const struct plan *plan;
	void (*job)(void);
};

static void failures_are_told_and_harm_nothing(void **state)
{
	const struct test *t = *state;

	sweep(t->v, t->plan, t->job);
}

static size_t list_tests(struct test *list)
{
	size_t n = 0;

	for (size_t i = 0; i < N_SWEPT * N_PLANS * N_JOBS; i++) {
		size_t s = i / N_JOBS / N_PLANS, p = i / N_JOBS % N_PLANS, j = i % N_JOBS;

		if (j >= swept[s].n_jobs)
			continue;
		list[n] = (struct test){ .v = variant_named(swept[s].variant), .plan = &plans[p], .job = jobs[j].run };
		snprintf(list[n].name, sizeof(list[n].name), "%s, %s, %s", swept[s].variant, jobs[j].name,
			 plans[p].name);
		n++;
	}
	return n;
}

int main(void)
{
	static struct test list[N_SWEPT * N_PLANS * N_JOBS];
	static struct CMUnitTest tests[N_SWEPT * N_PLANS * N_JOBS];
	size_t n = list_tests(list);
	void *folder;
	int r;

	if (vd_tempdir_enter(&folder) < 0)
		return 1;
	for (size_t i = 0; i < n; i++)
		tests[i] = (struct CMUnitTest){ list[i].name, failures_are_told_and_harm_nothing, start, disks_stop,
						&list[i] };
	r = _cmocka_run_group_tests("faults", tests, n, NULL, NULL);
	return vd_tempdir_leave(&folder) < 0 ? 1 : r;
}
