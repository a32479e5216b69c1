/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Eight threads on one handle: each alone on a slice of the disk, whose bytes it knows, and all together on the rest,
 * where a byte is what one of those who wrote it last has written. VD_RANDOM_OPS: how many operations a thread.
 */
#include <pthread.h>
#include <stdio.h>

#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "tests/support/tempdir.h"
#include "tests/support/variant.h"

#define N_THREADS 8
#define OPS 150
#define LEN_MAX 20000

struct worker {
	struct vd_image *img;
	pthread_t thread;
	uint64_t n_ops, chance;
	uint8_t value;                  /* what it writes in the common part */
	uint8_t *bytes;                 /* of the disk; its slice of them is its own */
	uint64_t start, end;            /* the slice */
	uint64_t common, size;          /* the part of all */
	uint8_t *has_written, *has_zeroed, *has_discarded;      /* bytes of the common part */
	char failure[200];              /* cmocka's assertions belong to the main thread */
};

static void complain(struct worker *w, const char *what, uint64_t off, uint64_t len, const char *why)
{
	if (!w->failure[0])
		snprintf(w->failure, sizeof(w->failure), "%s of %llu at %llu: %.100s", what, (unsigned long long)len,
			 (unsigned long long)off, why);
}

static void draw(struct worker *w, uint64_t start, uint64_t end, uint64_t *off, uint64_t *len)
{
	*off = start + chance_below(&w->chance, end - start);
	if (chance_below(&w->chance, 2))
		*off = vd_max_u64(start, vd_round_down(*off, 512));
	*len = vd_min_u64(end - *off, 1 + chance_below(&w->chance, chance_below(&w->chance, 2) ? 600 : LEN_MAX));
}

/* In the slice, where a read finds what this thread wrote, at any time. */
static void work_alone(struct worker *w)
{
	vd_auto_free uint8_t *got = malloc(LEN_MAX);
	uint64_t off, len, die = chance_below(&w->chance, 4);
	struct vd_error e;
	int r;

	draw(w, w->start, w->end, &off, &len);
	if (die < 2) {
		memset(w->bytes + off, chance_next(&w->chance), len);
		r = vd_image_pwrite(w->img, w->bytes + off, len, off, &e);
	} else if (die == 2) {
		memset(w->bytes + off, 0, len);
		r = vd_image_write_zeroes(w->img, off, len, chance_below(&w->chance, 2) ? VD_ZERO_ALLOCATED : 0, &e);
	} else {
		r = vd_image_pread(w->img, got, len, off, &e);
		if (r == 0 && memcmp(got, w->bytes + off, len))
			complain(w, "read", off, len, "other bytes than were written");
	}
	if (r < 0)
		complain(w, "own operation", off, len, e.message);
}

static void work_together(struct worker *w)
{
	vd_auto_free uint8_t *buf = malloc(LEN_MAX);
	uint64_t off, len, die = chance_below(&w->chance, 5);
	struct vd_extent x[16];
	struct vd_error e;
	size_t n;
	int r;

	draw(w, w->common, w->size, &off, &len);
	if (die < 2) {
		memset(buf, w->value, len);
		memset(w->has_written + off - w->common, 1, len);
		r = vd_image_pwrite(w->img, buf, len, off, &e);
	} else if (die == 2) {
		memset(w->has_zeroed + off - w->common, 1, len);
		r = vd_image_write_zeroes(w->img, off, len, 0, &e);
	} else if (die == 3) {
		memset(w->has_discarded + off - w->common, 1, len);
		r = vd_image_discard(w->img, off, len, &e);
	} else {
		r = vd_image_pread(w->img, buf, len, off, &e);
		if (r == 0)
			r = vd_image_extents(w->img, off, len, x, 16, &n, &e);
	}
	if (r < 0)
		complain(w, "common operation", off, len, e.message);
}

static void *work(void *arg)
{
	struct worker *w = arg;
	struct vd_error e;

	for (uint64_t i = 0; i < w->n_ops; i++) {
		uint64_t die = chance_below(&w->chance, 20);

		if (die < 10)
			work_alone(w);
		else if (die < 19)
			work_together(w);
		else if (vd_image_flush(w->img, &e) < 0)
			complain(w, "flush", 0, 0, e.message);
	}
	return NULL;
}

static void start_workers(struct worker *w, struct model *m, struct vd_image *img)
{
	const char *ops = getenv("VD_RANDOM_OPS");
	uint64_t slice = m->size / 2 / N_THREADS;

	for (size_t i = 0; i < N_THREADS; i++) {
		w[i] = (struct worker){ .img = img, .chance = i + 1, .value = i + 1, .bytes = m->bytes,
					.start = i * slice,
					.end = (i + 1) * slice, .common = N_THREADS * slice, .size = m->size };
		w[i].n_ops = ops ? strtoull(ops, NULL, 0) : OPS;
		w[i].has_written = calloc(1, m->size - w[i].common);
		w[i].has_zeroed = calloc(1, m->size - w[i].common);
		w[i].has_discarded = calloc(1, m->size - w[i].common);
	}
	for (size_t i = 0; i < N_THREADS; i++)
		assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
}

/* Whether somebody wrote this value here; nobody at all leaves what was there before, and a discard may. */
static bool is_possible(const struct worker *w, uint64_t i, uint8_t value, uint8_t before)
{
	bool is_touched = false;

	for (size_t t = 0; t < N_THREADS; t++) {
		bool may_be_zero = w[t].has_zeroed[i] || w[t].has_discarded[i];

		if ((w[t].has_written[i] && value == w[t].value) || (may_be_zero && !value))
			return true;
		is_touched |= w[t].has_written[i] || w[t].has_zeroed[i];
	}
	return !is_touched && value == before;
}

static void check_common(struct worker *w, struct model *m, struct vd_image *img)
{
	uint64_t common = w->common, len = m->size - common;
	vd_auto_free uint8_t *got = malloc(len);

	assert_int_equal(vd_image_pread(img, got, len, common, NULL), 0);
	for (uint64_t i = 0; i < len; i++)
		if (!is_possible(w, i, got[i], m->bytes[common + i]))
			fail_msg("byte %llu is 0x%02x: nobody wrote that", (unsigned long long)(common + i), got[i]);
	memcpy(m->bytes + common, got, len);
}

static struct model model;

static int start(void **state)
{
	const struct variant *v = *state;

	model_init(&model, v->size, 1);
	return disks_start(NULL);
}

static int stop(void **state)
{
	(void)state;
	model_free(&model);
	return disks_stop(NULL);
}

static void threads_write_side_by_side(void **state)
{
	const struct variant *v = *state;
	struct worker w[N_THREADS];
	struct vd_image *img;

	if (!variant_make(v, &model))
		skip();
	img = variant_open(v, VD_OPEN_WRITE);
	start_workers(w, &model, img);
	for (size_t i = 0; i < N_THREADS; i++)
		pthread_join(w[i].thread, NULL);
	for (size_t i = 0; i < N_THREADS; i++)
		if (w[i].failure[0])
			fail_msg("%s: thread %zu: %s", v->name, i, w[i].failure);
	check_common(w, &model, img);
	disk_close(img);
	img = variant_open(v, 0);
	model_check_all(&model, img);
	disk_close(img);
	for (size_t i = 0; i < N_THREADS; i++) {
		free(w[i].has_written);
		free(w[i].has_zeroed);
		free(w[i].has_discarded);
	}
	if (peer_knows(v)) {
		peer_check(v, disks.mem, false);
		peer_compare(v, disks.mem, &model);
	}
}

int main(void)
{
	struct CMUnitTest *tests = calloc(n_variants, sizeof(*tests));
	void *folder;
	int r;

	if (vd_tempdir_enter(&folder) < 0)
		return 1;
	for (size_t i = 0; i < n_variants; i++)
		tests[i] = (struct CMUnitTest){ variants[i].name, threads_write_side_by_side, start, stop,
						(void *)&variants[i] };
	r = _cmocka_run_group_tests("threads", tests, n_variants, NULL, NULL);
	free(tests);
	return vd_tempdir_leave(&folder) < 0 ? 1 : r;
}
