/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Expands packed units in place. Which table entries lead to them the host walk says, where the new ones go and how they are
 * linked the driver; here is what moves the bytes.
 *
 *  U1  All entries that lead to a unit are known before it is expanded, and are changed together: units are taken in the order
 *      of their places in the file, a window of it at a time, as far as the entries of whole units fit vd_unpack_entries.
 *  U2  A unit's new bytes are written before it is linked, so they are durable before any table says so (I2 in meta.h). Old
 *      bytes stay until a commit has made sure that nothing leads to them.
 *  U3  Commits are made of many units, so that the disk is not flushed for each.
 */
#include "libvdisk/core/inplace_unpack.h"

#include <stdlib.h>
#include <string.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/base/secret.h"
#include "libvdisk/core/job.h"
#include "libvdisk/core/shape.h"

#define SLICE_BYTES (UINT64_C(8) << 20)         /* expanded and written at once; four of qcow2's largest units */
#define COMMIT_BYTES (UINT64_C(128) << 20)      /* of units linked between two commits */
#define ENTRIES_FIRST 256

size_t vd_unpack_entries = 256u << 10;          /* 12 MiB */

struct unpack {
	struct vd_image *img;
	const struct vd_layer *to;
	const struct vd_job *job;
	uint64_t at, end;               /* of file 0: no packed unit begins before `at`; the end it had at first */
	bool begun;

	struct vd_window w;
	struct vd_claim *entries;       /* that lead to packed units which begin in the window */
	size_t n_entries, max_entries;
	uint64_t uncommitted;           /* bytes */
	uint8_t *bytes;                 /* of a slice */
};

/* Units that get space side by side. */
struct slice {
	struct unpack *u;
	struct vd_claim **first;        /* entry of each unit, and one more for the end */
	uint64_t n, host_off;
	atomic_uint_fast64_t next;      /* that no worker has taken yet */
};

/* ---- finding -------------------------------------------------------------------------------------------- */

static int by_unit(const void *va, const void *vb)
{
	const struct vd_claim *a = va, *b = vb;

	if (a->host_off != b->host_off)
		return a->host_off < b->host_off ? -1 : 1;
	return a->parent_off < b->parent_off ? -1 : a->parent_off > b->parent_off;
}

/* A table that many lead to may be told in parts. */
static void settle(struct unpack *u)
{
	size_t n = 0;

	if (u->n_entries)
		qsort(u->entries, u->n_entries, sizeof(*u->entries), by_unit);
	for (size_t i = 0; i < u->n_entries; i++) {
		struct vd_claim *last = n ? &u->entries[n - 1] : NULL;

		if (last && last->parent_off == u->entries[i].parent_off && last->guest_off == u->entries[i].guest_off)
			last->refs += u->entries[i].refs;
		else
			u->entries[n++] = u->entries[i];
	}
	u->n_entries = n;
}

/* Leaves the far half of the window's units to the next one. */
static int shrink_window(struct unpack *u, struct vd_error *e)
{
	size_t i = u->n_entries / 2;

	while (i < u->n_entries && u->entries[i].host_off == u->entries[0].host_off)
		i++;
	if (i == u->n_entries)
		return vd_fail_at(e, VD_ECORRUPT, u->entries[0].host_off, "%s: more than %zu table entries lead to the compressed "
				  "cluster at %llu", u->img->path, vd_unpack_entries / 2, (unsigned long long)u->entries[0].host_off);
	u->w.end = u->entries[i].host_off;
	while (u->n_entries && u->entries[u->n_entries - 1].host_off >= u->w.end)
		u->n_entries--;
	return 0;
}

static int make_room(struct unpack *u, struct vd_error *e)
{
	size_t n = vd_min_u64(u->max_entries ? u->max_entries * 2 : ENTRIES_FIRST, vd_unpack_entries);
	int r;

	if (u->max_entries < n) {
		r = vd_realloc(&u->entries, n, sizeof(*u->entries), e);
		if (r == 0)
			u->max_entries = n;
		return r;
	}
	settle(u);
	return u->n_entries < u->max_entries / 4 * 3 ? 0 : shrink_window(u, e);
}

static int take_claim(void *ctx, const struct vd_claim *c, struct vd_error *e)
{
	struct unpack *u = ctx;
	int r = 0;

	if (c->owner != VD_OWNER_PACKED)
		return 0;
	if (u->n_entries == u->max_entries)
		r = make_room(u, e);
	/* The window may just have become smaller. */
	if (r == 0 && c->host_off < u->w.end)
		u->entries[u->n_entries++] = *c;
	return r;
}

/* What is not understood might lead there, too. */
static int refuse_damaged(const struct unpack *u, struct vd_error *e)
{
	const struct vd_claim *c = u->entries;

	if (u->w.n_findings) {
		if (e)
			*e = u->w.first_finding;
		vd_error_prefix(e, VD_ECORRUPT, "%s: it is damaged and stays as it is: ", u->img->path);
		return vd_hint(e, VD_ECORRUPT, "check the image and repair it first");
	}
	for (size_t i = 1; i < u->n_entries; i++)
		if (c[i].host_off == c[i - 1].host_off && (c[i].guest_off != c[i - 1].guest_off || c[i].len != c[i - 1].len))
			return vd_fail_at(e, VD_ECORRUPT, c[i].parent_off, "%s: the compressed cluster at %llu is at two places of "
					  "the disk, or has two lengths", u->img->path, (unsigned long long)c[i].host_off);
	return 0;
}

/* All entries of the units that begin in [u->at, u->w.end). */
static int find_entries(struct unpack *u, struct vd_error *e)
{
	int r;

	vd_window_init(&u->w, 0, u->at, u->end);
	u->w.list = take_claim;
	u->w.list_ctx = u;
	u->n_entries = 0;
	r = u->img->format->walk(u->img->state, &u->w, e);
	if (r == 0)
		settle(u);
	return r < 0 ? r : refuse_damaged(u, e);
}

/* ---- expanding ------------------------------------------------------------------------------------------ */

static int expand(const struct slice *s, uint64_t i, struct vd_error *e)
{
	struct vd_image *img = s->u->img;
	uint32_t unit = img->info.unit;
	const struct vd_claim *c = s->first[i];
	struct vd_run run = {
		.guest_off = c->guest_off, .len = unit, .host_off = c->host_off, .host_len = c->len,
		.unit_off = c->guest_off, .unit_len = unit, .where = VD_PACKED, .codec = img->info.codec,
	};
	uint8_t *bytes = s->u->bytes + i * unit;
	int r = vd_read_unit(img, &run, bytes, e);

	return r < 0 ? r : vd_layer_encrypt(s->u->to, bytes, unit, c->guest_off, s->host_off + i * unit, e);
}

static int work(void *ctx, struct vd_error *e)
{
	struct slice *s = ctx;
	int r = 0;

	for (uint64_t i; r == 0 && (i = atomic_fetch_add(&s->next, 1)) < s->n;)
		r = expand(s, i, e);
	return r;
}

static int fill(struct slice *s, struct vd_error *e)
{
	struct unpack *u = s->u;
	struct vd_crew crew = { .phase = "unpacking", .total = u->end, .work = work, .ctx = s };
	int r;

	atomic_init(&crew.done, s->first[s->n - 1]->host_off);
	r = vd_crew_run(&crew, vd_min_u64(vd_job_threads(u->job), s->n), u->job, e);
	return r < 0 ? r : vd_set_pwrite(u->img->set, 0, u->bytes, s->n * u->img->info.unit, s->host_off, e);
}

/* ---- linking -------------------------------------------------------------------------------------------- */

static int take_space(struct slice *s, struct vd_error *e)
{
	struct vd_image *img = s->u->img;
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&img->alloc);

	return img->format->unpack->take(img->state, &s->n, &s->host_off, e);
}

static void give_back(const struct slice *s)
{
	struct vd_image *img = s->u->img;
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&img->alloc);

	img->format->unpack->give_back(img->state, s->host_off, s->n);
}

static int relink(const struct slice *s, struct vd_error *e)
{
	struct vd_image *img = s->u->img;
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&img->alloc);
	int r = 0;

	for (uint64_t i = 0; i < s->n && r == 0; i++)
		r = img->format->unpack->relink(img->state, s->first[i], s->first[i + 1] - s->first[i],
						s->host_off + i * img->info.unit, e);
	if (r < 0)
		atomic_store(&img->poisoned, true);
	return r;
}

static int unpack_slice(struct slice *s, struct vd_error *e)
{
	struct unpack *u = s->u;
	int r = take_space(s, e);

	if (r < 0)
		return r;
	r = fill(s, e);
	if (r < 0) {
		give_back(s);
		return r;
	}
	r = relink(s, e);
	u->uncommitted += s->n * u->img->info.unit;
	if (r < 0 || (u->uncommitted < COMMIT_BYTES && !vd_meta_wants_commit(u->img->meta)))
		return r;
	u->uncommitted = 0;
	return vd_image_commit_tables(u->img, e);
}

static int unpack_units(struct unpack *u, struct vd_error *e)
{
	uint64_t most = vd_max_u64(SLICE_BYTES / u->img->info.unit, 1);
	vd_auto_free struct vd_claim **first = NULL;
	struct vd_claim *c = u->entries, *end = u->entries + u->n_entries;
	int r = vd_alloc(most + 1, sizeof(*first), &first, e);

	if (r == 0)
		r = vd_alloc_buffer(most * u->img->info.unit, &u->bytes, e);
	while (r == 0 && c < end) {
		struct slice s = { .u = u, .first = first };

		for (; c < end && s.n < most; s.n++) {
			first[s.n] = c;
			while (c < end && c->host_off == first[s.n]->host_off)
				c++;
		}
		first[s.n] = c;
		r = unpack_slice(&s, e);
		/* With less space than wanted. */
		c = first[s.n];
	}
	if (u->bytes)
		vd_wipe(u->bytes, most * u->img->info.unit);
	free(vd_steal(&u->bytes));
	return r;
}

/* ---- the whole ------------------------------------------------------------------------------------------ */

static int begin(struct unpack *u, struct vd_error *e)
{
	struct vd_image *img = u->img;
	int r = vd_host_file_size(img, 0, &u->end, e);

	if (r == 0 && img->format->begin_write)
		r = img->format->begin_write(img->state, e);
	u->begun = r == 0;
	return r;
}

static int unpack_window(struct vd_image *img, const void *arg, struct vd_error *e)
{
	struct unpack *u = *(struct unpack *const *)arg;
	int r = u->begun ? 0 : begin(u, e), settled;

	if (r == 0)
		r = find_entries(u, e);
	if (r == 0 && u->n_entries)
		r = unpack_units(u, e);
	/* What was done before a failure, or before somebody cancelled, is done. */
	settled = vd_shape_settle(img, r < 0 ? NULL : e);
	u->uncommitted = 0;
	u->at = u->w.end;
	return r < 0 ? r : settled;
}

int vd_inplace_unpack(struct vd_image *img, const struct vd_layer *to, const struct vd_job *job, struct vd_error *e)
{
	struct unpack u = { .img = img, .to = to, .job = job }, *arg = &u;
	int r = vd_job_check(job, e);

	if (!img->format->unpack)
		return r;
	do {
		if (r == 0)
			r = vd_shape_run(img, unpack_window, &arg, e);
	} while (r == 0 && u.at < u.end);
	free(u.entries);
	return r;
}
