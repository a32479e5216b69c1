/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Compares two disks on all cores, leaving out what the tables of both call zeros. The shorter disk counts as if zeros
 * followed it.
 *
 * What is reported is what a reader from the start would meet first, a difference or a failure, whichever worker finds
 * it: pieces are handed out in order, and a finding ends only the work on what lies behind it.
 */
#include "libvdisk/core/image.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/base/secret.h"
#include "libvdisk/core/job.h"
#include "libvdisk/core/walk.h"

#define PIECE (256u << 10)              /* two of them fit in a core's own cache; more where units are larger */
#define MEMORY (64u << 20)              /* all workers' buffers */

/* The foremost finding so far; at UINT64_MAX: none. */
struct finding {
	uint64_t off;
	int result;                     /* 0: a difference */
	bool b_failed;
	struct vd_error error;
};

struct compare {
	struct vd_image *a, *b;
	uint64_t size;                  /* of the larger */
	uint64_t piece_max;
	struct vd_crew crew;
	pthread_mutex_t lock;           /* on all below */
	struct vd_walk walk_a, walk_b;
	uint64_t at;
	struct finding first;
};

/* The end of what is zeros on both sides from c->at; c->at: not both are. The failure of a table is a finding there. */
static uint64_t zeros_until(struct compare *c, struct finding *f)
{
	struct vd_extent a, b;

	*f = (struct finding){ .off = c->at };
	f->result = vd_walk_to(&c->walk_a, c->at, &a, &f->error);
	if (f->result == 0) {
		f->result = vd_walk_to(&c->walk_b, c->at, &b, &f->error);
		f->b_failed = f->result < 0;
	}
	if (f->result < 0 || !vd_extent_is_zero(&a) || !vd_extent_is_zero(&b))
		return c->at;
	return vd_min_u64(vd_min_u64(vd_extent_end(&a), vd_extent_end(&b)), c->size);
}

/* The next piece to read: its length, or 0 when nothing is left that matters. */
static size_t take_piece(struct compare *c, uint64_t *off)
{
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&c->lock);
	struct finding f;

	while (c->at < c->size && c->at < c->first.off) {
		uint64_t end = zeros_until(c, &f);

		if (f.result < 0) {
			c->first = f;
			return 0;
		}
		*off = c->at;
		c->at = end;
		if (end == *off) {
			c->at = vd_min_u64(vd_round_down(*off, c->piece_max) + c->piece_max, c->size);
			return c->at - *off;
		}
		atomic_fetch_add(&c->crew.done, end - *off);
	}
	return 0;
}

static void found(struct compare *c, const struct finding *f)
{
	pthread_mutex_lock(&c->lock);
	if (f->off < c->first.off)
		c->first = *f;
	pthread_mutex_unlock(&c->lock);
}

static int read_padded(struct vd_image *img, uint8_t *buf, size_t len, uint64_t off, struct vd_error *e)
{
	size_t inside = off >= img->size ? 0 : vd_min_u64(len, img->size - off);

	memset(buf + inside, 0, len - inside);
	return inside ? vd_image_pread(img, buf, inside, off, e) : 0;
}

static size_t first_difference(const uint8_t *a, const uint8_t *b, size_t len)
{
	size_t i = 0;

	while (i < len && a[i] == b[i])
		i++;
	return i;
}

static void compare_piece(struct compare *c, uint8_t *buf, uint64_t off, size_t len)
{
	uint8_t *a = buf, *b = buf + c->piece_max;
	struct finding f = { .off = off };

	f.result = read_padded(c->a, a, len, off, &f.error);
	if (f.result == 0) {
		f.result = read_padded(c->b, b, len, off, &f.error);
		f.b_failed = f.result < 0;
	}
	if (f.result == 0) {
		if (!memcmp(a, b, len)) {
			atomic_fetch_add(&c->crew.done, len);
			return;
		}
		f.off += first_difference(a, b, len);
	}
	found(c, &f);
}

static int work(void *ctx, struct vd_error *e)
{
	struct compare *c = ctx;
	vd_auto_free uint8_t *buf = NULL;
	int r = vd_alloc_buffer(2 * c->piece_max, &buf, e);
	uint64_t off;
	size_t len;

	while (r == 0 && !vd_crew_is_stopped(&c->crew)) {
		len = take_piece(c, &off);
		if (!len)
			break;
		compare_piece(c, buf, off, len);
	}
	if (buf)
		vd_wipe(buf, 2 * c->piece_max);
	return r;
}

static int run(struct compare *c, const struct vd_job *job, struct vd_error *e)
{
	unsigned n = vd_min_u64(vd_job_threads(job), MEMORY / (2 * c->piece_max));
	int r;

	c->crew = (struct vd_crew){ .phase = "compare", .total = c->size, .work = work, .ctx = c };
	pthread_mutex_init(&c->lock, NULL);
	r = vd_crew_run(&c->crew, n, job, e);
	pthread_mutex_destroy(&c->lock);
	if (r == 0 && c->first.result < 0) {
		r = c->first.result;
		if (e)
			*e = c->first.error;
	}
	return r;
}

static void tell(const struct compare *c, unsigned flags, struct vd_compare_report *report)
{
	report->size_differs = c->a->size != c->b->size;
	report->has_offset = c->first.off != UINT64_MAX && c->first.result == 0;
	report->offset = report->has_offset ? c->first.off : 0;
	report->same = !report->has_offset && (!report->size_differs || (flags & VD_COMPARE_IGNORE_TRAILING_ZEROS));
}

VD_PUBLIC int vd_image_compare(struct vd_image *a, struct vd_image *b, unsigned flags, const struct vd_job *job,
			       struct vd_compare_report *report, struct vd_error *e)
{
	vd_auto_free struct compare *c = NULL;
	int r = vd_job_check(job, e);

	if (r < 0)
		return r;
	if (report->struct_size != sizeof(*report))
		return vd_fail(e, VD_EARG, "struct vd_compare_report: struct_size is %zu, want %zu", report->struct_size,
			       sizeof(*report));
	*report = (struct vd_compare_report){ .struct_size = sizeof(*report) };
	r = vd_alloc(1, sizeof(*c), &c, e);
	if (r < 0)
		return r;
	c->a = a;
	c->b = b;
	c->size = vd_max_u64(a->size, b->size);
	c->piece_max = vd_walk_piece(b, vd_walk_piece(a, PIECE));
	c->first.off = UINT64_MAX;
	r = vd_walk_start(&c->walk_a, a, e);
	if (r == 0) {
		r = vd_walk_start(&c->walk_b, b, e);
		report->b_failed = r < 0;
	}
	if (r == 0) {
		r = run(c, job, e);
		report->b_failed = r < 0 && c->first.b_failed;
	}
	if (r == 0)
		tell(c, flags, report);
	return r;
}
