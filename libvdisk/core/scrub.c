/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Overwrites host bytes that are nobody's. Tools never write to host files but through here.
 *
 * X1  Whose a byte is, is looked up while nobody else is in the handle and every table is committed, for the whole range
 *     before the first byte is written.
 * X2  What was looked up is kept for the next call, and holds as long as no file of the image has changed but by scrubbing.
 */
#include "libvdisk/core/host.h"

#include <stdlib.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"

#define PIECE (1u << 20)        /* written at once */

struct vd_scrubber {
	struct vd_window w;
	struct vd_cover c;
	bool has_window;
	struct vd_host_run run;         /* the last that the cover gave; len 0: none yet */
	uint64_t n_changes;             /* of all files when it was looked up */
};

static void forget_window(struct vd_scrubber *s)
{
	vd_window_fini(&s->w);
	s->has_window = false;
}

void vd_host_forget(struct vd_image *img)
{
	if (img->scrubber)
		forget_window(img->scrubber);
	free(img->scrubber);
	img->scrubber = NULL;
}

static uint64_t count_changes(const struct vd_image *img)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < vd_set_count(img->set); i++)
		if (vd_set_io(img->set, i))
			n += atomic_load(&vd_set_io(img->set, i)->n_changes);
	return n;
}

/* ---- looking up ----------------------------------------------------------------------------------------- */

static int refuse_damaged(const struct vd_image *img, const struct vd_window *w, struct vd_error *e)
{
	if (!w->n_findings)
		return 0;
	if (e)
		*e = w->first_finding;
	vd_error_prefix(e, VD_ECORRUPT, "%s: what is free cannot be told, nothing was overwritten: ", img->path);
	return vd_hint(e, VD_ECORRUPT, "check the image and repair it first");
}

static int look(struct vd_image *img, uint32_t file, uint64_t off, struct vd_error *e)
{
	struct vd_scrubber *s = img->scrubber;
	int r;

	forget_window(s);
	r = vd_host_look(img, file, vd_round_down(off, VD_WINDOW_ALIGN), UINT64_MAX, &s->w, e);
	s->has_window = r == 0;
	if (r == 0)
		r = refuse_damaged(img, &s->w, e);
	s->n_changes = count_changes(img);
	vd_cover_start(&s->c, img, &s->w, off);
	s->run = (struct vd_host_run){ 0 };
	if (r < 0)
		forget_window(s);
	return r;
}

/* Brings s->run to the run that holds `off`, which lies inside the file. */
static int find_run(struct vd_image *img, uint32_t file, uint64_t off, struct vd_error *e)
{
	struct vd_scrubber *s = img->scrubber;
	bool got = true;
	int r = 0;

	if (!s->has_window || s->w.file != file || off < s->w.start || off >= s->w.end)
		r = look(img, file, off, e);
	if (r == 0 && off < s->run.off) {
		vd_cover_start(&s->c, img, &s->w, off);
		s->run = (struct vd_host_run){ 0 };
	}
	while (r == 0 && got && off - s->run.off >= s->run.len)
		r = vd_cover_next(&s->c, &s->run, &got, e);
	return r;
}

bool vd_owner_is_nobody(int owner)
{
	switch (owner) {
	case VD_OWNER_FREE:
	case VD_OWNER_LEAKED:
	case VD_OWNER_SLACK:
	case VD_OWNER_TAIL:
	case VD_OWNER_ZEROED:
	case VD_OWNER_HOSTHOLE:
		return true;
	default:
		return false;
	}
}

static int judge_range(struct vd_image *img, uint32_t file, uint64_t off, uint64_t end, struct vd_error *e)
{
	int r = 0;

	while (off < end && r == 0) {
		const struct vd_host_run *run = &img->scrubber->run;

		r = find_run(img, file, off, e);
		if (r == 0 && !vd_owner_is_nobody(run->owner))
			return vd_fail_at(e, VD_EARG, off, "%s: the bytes from %llu on are not free: %s", vd_set_name(img->set, file),
					  (unsigned long long)off, vd_owner_text(run->owner));
		off = run->off + run->len;
	}
	return r;
}

/* ---- writing -------------------------------------------------------------------------------------------- */

struct paint {
	const uint8_t *pattern;
	size_t len;
	uint64_t phase;                 /* offset in the file where the pattern begins */
	uint8_t *buf;                   /* PIECE bytes */
};

static void mix(const struct paint *p, uint64_t off, size_t len)
{
	size_t at = p->len ? (off - p->phase) % p->len : 0;

	if (!p->len) {
		memset(p->buf, 0, len);
		return;
	}
	for (size_t done = 0, n; done < len; done += n, at = 0) {
		n = vd_min_u64(len - done, p->len - at);
		memcpy(p->buf + done, p->pattern + at, n);
	}
}

static int overwrite(struct vd_image *img, const struct vd_host_run *run, uint64_t from, uint64_t to,
		     const struct paint *p, struct vd_error *e)
{
	int r = 0;

	/* Where the host stores nothing, nothing is left of what was there. */
	if (run->owner == VD_OWNER_HOSTHOLE || run->flags & VD_HOST_SPARSE)
		return 0;
	for (size_t n; from < to && r == 0; from += n) {
		n = vd_min_u64(to - from, PIECE);
		mix(p, from, n);
		r = vd_set_pwrite(img->set, run->file, p->buf, n, from, e);
	}
	return r;
}

static int write_range(struct vd_image *img, uint32_t file, uint64_t off, uint64_t end, const struct paint *p,
		       struct vd_error *e)
{
	struct vd_scrubber *s = img->scrubber;
	int r = 0;

	while (off < end && r == 0) {
		struct vd_host_run run;
		uint64_t to;

		r = find_run(img, file, off, e);
		run = s->run;
		to = vd_min_u64(end, run.off + run.len);
		if (r == 0)
			r = overwrite(img, &run, off, to, p, e);
		off = to;
	}
	s->n_changes = count_changes(img);
	return r;
}

static int judge_handle(const struct vd_image *img, struct vd_error *e)
{
	int r = vd_image_poisoned(img, e);

	if (r < 0)
		return r;
	if (!img->writable)
		return vd_fail(e, VD_EREADONLY, "%s is open for reading only", img->path);
	if (img->fresh)
		return vd_fail(e, VD_EARG, "%s is being made: nothing in it is scrubbed before the commit", img->path);
	return 0;
}

static int scrub(struct vd_image *img, uint32_t file, uint64_t off, uint64_t len, const struct paint *p,
		 struct vd_error *e)
{
	uint64_t size = 0;
	int r = vd_host_file_size(img, file, &size, e);

	if (r == 0 && !vd_range_inside(off, len, size))
		r = vd_fail_at(e, VD_ERANGE, off, "%s ends before, at %llu", vd_set_name(img->set, file), (unsigned long long)size);
	if (r == 0 && !img->scrubber)
		r = vd_alloc(1, sizeof(*img->scrubber), &img->scrubber, e);
	/* Somebody wrote since, if only tables that were not committed. */
	if (r == 0 && img->scrubber->has_window && (atomic_load(&img->begun) || count_changes(img) != img->scrubber->n_changes))
		forget_window(img->scrubber);
	if (r == 0)
		r = judge_range(img, file, off, off + len, e);
	return r < 0 ? r : write_range(img, file, off, off + len, p, e);
}

VD_PUBLIC int vd_host_scrub(struct vd_image *img, uint32_t file, uint64_t off, uint64_t len, const void *pattern,
			    size_t pattern_len, struct vd_error *e)
{
	vd_auto_free uint8_t *buf = NULL;
	struct paint p = { .pattern = pattern, .len = pattern ? pattern_len : 0, .phase = off };
	int r = judge_handle(img, e);

	if (r == 0)
		r = vd_alloc_buffer(PIECE, &buf, e);
	if (r < 0)
		return r;
	p.buf = buf;
	pthread_rwlock_wrlock(&img->control);
	r = scrub(img, file, off, len, &p, e);
	pthread_rwlock_unlock(&img->control);
	return r;
}
