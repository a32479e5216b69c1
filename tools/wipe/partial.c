/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Goes over the host walk, has the library overwrite what is nobody's, and proves of each batch what a whole wipe proves: where it lies,
 * before and after, and that zeros are read. What is nobody's the library decides, anew for each range.
 */
#include "wipe/partial.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fail.h"
#include "signals.h"
#include "source.h"
#include "ui.h"
#include "wipe/guest.h"

#define RUNS 256
#define PIECE (UINT64_C(256) << 20)     /* of a run: what is overwritten between two proofs */
#define SECTOR UINT64_C(512)

struct partial {
	struct wipe_run *run;
	struct wipe_shared shared;
	struct vd_image *img;
	size_t *member_of;              /* of the image's files */
	struct wipe_file *files;
	struct wipe_window window, whole;       /* what is overwritten, and the whole sectors of it */
	bool is_ciphered;               /* zeros are read through the image alone: `whole` is then ranges of the disk */
	struct vd_error *e;
};

/* ---- the set ---------------------------------------------------------------------------------------------- */

static int add_files(struct vd_image *img, struct wipe_set *set, size_t *member_of, struct vd_error *e)
{
	int r = 0;

	for (uint32_t i = 0; i < vd_host_file_count(img) && r == 0; i++)
		r = wipe_set_add(set, vd_host_file_name(img, i), i ? WIPE_EXTENT : WIPE_IMAGE, i ? 0 : SIZE_MAX, &member_of[i], e);
	return r;
}

static size_t *new_members(const struct vd_image *img)
{
	size_t *member_of = calloc(vd_host_file_count(img) + 1, sizeof(*member_of));

	if (!member_of)
		ui_out_of_memory();
	return member_of;
}

/* What the guest's file systems say, before anything is asked of the user. */
static int judge_guest(const struct settings *s, const char *path, struct wipe_run *run, struct vd_error *e)
{
	struct vd_image *img = NULL;
	struct vd_info info;
	int r = source_open(s, path, s->format, run->keys, &img, e);

	if (r == 0)
		r = source_info(img, &info, e);
	if (r == 0 && info.backing_file)
		wipe_set_note(&run->rec.set, "%s is left as it is, with what it has in the guest's free space", info.backing_file);
	if (r == 0 && info.n_snapshots)
		wipe_set_note(&run->rec.set, "%s: snapshots in it keep what they have in the guest's free space", path);
	if (r == 0)
		r = wipe_guest_free(img, &run->rec.set, NULL, NULL, e);
	vd_image_abort(img);
	return r;
}

int wipe_partial_find(const struct settings *s, const char *path, struct wipe_run *run, struct vd_error *e)
{
	struct wipe_set *set = &run->rec.set;
	struct vd_image *img = NULL;
	struct vd_info info;
	size_t *member_of;
	int r = source_open_whole(s, path, s->format, false, &img, e);

	if (r < 0)
		return r;
	member_of = new_members(img);
	r = source_info(img, &info, e);
	if (r == 0)
		r = add_files(img, set, member_of, e);
	for (size_t i = 0; r == 0 && i < set->n; i++)
		snprintf(set->at[i].format, sizeof(set->at[i].format), "%s", info.format);
	free(member_of);
	vd_image_abort(img);
	return r == 0 && s->wipe.guest_free ? judge_guest(s, path, run, e) : r;
}

/* ---- batches ---------------------------------------------------------------------------------------------- */

static bool is_nobodys(const struct vd_host_run *x)
{
	switch (x->owner) {
	case VD_OWNER_FREE: case VD_OWNER_LEAKED: case VD_OWNER_SLACK: case VD_OWNER_TAIL: case VD_OWNER_ZEROED:
		return !(x->flags & VD_HOST_SPARSE);
	default:
		return false;
	}
}

static void append(struct wipe_window *w, uint64_t from, uint64_t to, const struct wipe_extent *x)
{
	if (from >= to || w->n == WIPE_EXTENTS_MAX)
		return;
	if (!w->n)
		w->from = from;
	w->at[w->n] = *x;
	w->at[w->n].off = from;
	w->at[w->n].len = to - from;
	w->at[w->n++].phys = x->phys + (from - x->off);
	w->bytes += to - from;
	w->to = to;
}

/* Where the range lies now; of what it has of a sector no more is read back than whole ones. */
static int note_extents(struct partial *p, size_t member, uint64_t off, uint64_t end, struct wipe_window *part, struct vd_error *e)
{
	int r = 0;

	while (r == 0 && off < end) {
		r = wipe_window_read(p->files[member].plain, &p->run->rec.set.at[member], off, end - off, part, e);
		for (size_t i = 0; r == 0 && i < part->n; i++) {
			const struct wipe_extent *x = &part->at[i];
			uint64_t to = x->off + x->len < end ? x->off + x->len : end;

			append(&p->window, x->off, to, x);
			append(&p->whole, (x->off + SECTOR - 1) / SECTOR * SECTOR, to / SECTOR * SECTOR, x);
		}
		off = part->to > off ? part->to : end;
	}
	return r;
}

/* Through the image, and from the device all the same: the cache was dropped. */
static int read_back(struct partial *p, struct wipe_member *m, struct vd_error *e)
{
	static uint8_t block[65536], zeros[65536];
	int r = 0;

	for (size_t i = 0; i < p->whole.n && r == 0; i++) {
		const struct wipe_extent *x = &p->whole.at[i];

		for (uint64_t at = 0, n; at < x->len && r == 0; at += n) {
			n = x->len - at < sizeof(block) ? x->len - at : sizeof(block);
			r = vd_image_pread(p->img, block, n, x->off + at, e);
			if (r == 0 && memcmp(block, zeros, n))
				wipe_bad_add(&m->mismatch, x->off + at, n);
			m->verified += n;
		}
	}
	m->through_cache = true;
	return r;
}

static int prove(struct partial *p, size_t member, struct vd_error *e)
{
	struct wipe_member *m = &p->run->rec.set.at[member];
	struct wipe_work k = {
		.shared = &p->shared, .file = &p->files[member], .at = p->whole.at, .n = p->whole.n, .verifies = true,
		.known = &m->unwritable, .failed = &m->unreadable, .mismatch = &m->mismatch,
	};
	uint64_t moved = 0;
	int r = vd_image_flush(p->img, e);

	if (r == 0)
		r = wipe_file_sync(&p->files[member], m, e);
	if (r == 0 && m->has_map)
		r = wipe_window_moved(p->files[member].plain, &p->window, &moved, e);
	m->moved += moved;
	if (r < 0 || p->run->rec.plan.verify == WIPE_VERIFY_NONE)
		return r;
	if (p->is_ciphered)
		return read_back(p, m, e);
	r = wipe_work(&k, e);
	m->through_cache |= k.through_cache;
	m->verified += k.bytes;
	return r;
}

static int wipe_piece(struct partial *p, uint32_t file, uint64_t off, uint64_t len, struct wipe_window *part, struct vd_error *e)
{
	size_t member = p->member_of[file];
	int r = note_extents(p, member, off, off + len, part, e);

	if (r == 0)
		r = vd_host_scrub(p->img, file, off, len, NULL, 0, e);
	if (r == 0)
		p->run->rec.set.at[member].written += len;
	return r;
}

/* Runs of one file, in order. */
static int wipe_batch(struct partial *p, const struct vd_host_run *runs, size_t n, struct wipe_window *part, struct vd_error *e)
{
	int r = 0;

	p->window.n = p->whole.n = 0;
	p->window.bytes = p->whole.bytes = 0;
	for (size_t i = 0; i < n && r == 0; i++) {
		for (uint64_t at = 0; r == 0 && is_nobodys(&runs[i]) && at < runs[i].len; at += PIECE) {
			uint64_t left = runs[i].len - at;

			r = wipe_piece(p, runs[i].file, runs[i].off + at, left < PIECE ? left : PIECE, part, e);
			if (r < 0 || (p->window.bytes < PIECE && p->window.n < WIPE_EXTENTS_MAX / 2))
				continue;
			r = prove(p, p->member_of[runs[i].file], e);
			p->window.n = p->whole.n = 0;
			p->window.bytes = p->whole.bytes = 0;
		}
	}
	if (r == 0 && p->window.n)
		r = prove(p, p->member_of[runs[0].file], e);
	return r;
}

static int report(struct partial *p, uint64_t done, struct vd_error *e)
{
	struct vd_progress progress = { "wipe", done, 0 };

	for (size_t i = 0; i < p->run->rec.set.n; i++)
		progress.total += p->run->rec.set.at[i].size;
	if (progress.done > progress.total)
		progress.done = progress.total;
	return p->run->job->progress(p->run->job->ctx, &progress) ? fail(e, VD_ECANCELLED, "stopped") : signals_check(e);
}

static int walk(struct partial *p, struct vd_error *e)
{
	struct vd_host_run runs[RUNS];
	struct vd_host_walk *w = NULL;
	struct wipe_window part;
	uint64_t done = 0;
	size_t n = 1, same;
	int r = vd_host_walk_start(p->img, 0, 0, &w, e);

	wipe_window_init(&part);
	while (r == 0 && n) {
		r = vd_host_walk_next(w, runs, RUNS, &n, e);
		for (size_t i = 0; i < n && r == 0; i += same) {
			for (same = 1; i + same < n && runs[i + same].file == runs[i].file; same++)
				;
			r = wipe_batch(p, &runs[i], same, &part, e);
		}
		for (size_t i = 0; i < n; i++)
			done += runs[i].len;
		if (r == 0)
			r = report(p, done, e);
	}
	if (r == 0 && vd_host_walk_findings(w, NULL))
		r = fail(e, VD_ECORRUPT, "the image is damaged: what is nobody's in it cannot be told");
	vd_host_walk_end(w);
	wipe_window_free(&part);
	return r;
}

/* ---- all of it -------------------------------------------------------------------------------------------- */

static int open_all(const struct settings *s, struct partial *p, bool for_guest, struct vd_error *e)
{
	struct wipe_set *set = &p->run->rec.set;
	struct settings scrubs = *s;
	int r;

	scrubs.scrub = true;
	scrubs.snapshot = NULL;
	if (for_guest)
		r = source_open_writable(&scrubs, set->at[0].path, set->at[0].format, p->run->keys, &p->img, e);
	else
		r = source_open_whole(&scrubs, set->at[0].path, set->at[0].format, true, &p->img, e);
	if (r < 0)
		return r;
	p->member_of = new_members(p->img);
	r = add_files(p->img, set, p->member_of, e);
	p->files = calloc(set->n, sizeof(*p->files));
	if (!p->files)
		ui_out_of_memory();
	for (size_t i = 0; i < set->n; i++)
		p->files[i] = (struct wipe_file){ -1, -1 };
	for (size_t i = 0; i < set->n && r == 0; i++)
		r = wipe_file_open(&set->at[i], &p->files[i], e);
	return r;
}

static int close_all(struct partial *p, int r, struct vd_error *e)
{
	struct wipe_set *set = &p->run->rec.set;
	struct vd_error ignored;
	int c = 0;

	for (size_t i = 0; p->files && i < set->n; i++)
		if (p->files[i].plain >= 0)
			(void)wipe_file_close(&p->files[i], &set->at[i], &ignored);
	if (p->img)
		c = vd_image_close(p->img, r < 0 ? &ignored : e);
	free(p->files);
	free(p->member_of);
	p->files = NULL;
	p->member_of = NULL;
	p->img = NULL;
	return r < 0 ? r : c;
}

/* ---- what the guest calls free ------------------------------------------------------------------------------ */

static int prove_batch(struct partial *p, size_t member, struct vd_error *e)
{
	int r = p->window.n || p->whole.n ? prove(p, member, e) : 0;

	p->window.n = p->whole.n = 0;
	p->window.bytes = p->whole.bytes = 0;
	return r ? r : signals_check(e);
}

static size_t member_of_extent(const struct partial *p, const struct vd_extent *x)
{
	uint32_t i = 0, n = vd_host_file_count(p->img);

	while (x->file && i < n && strcmp(vd_host_file_name(p->img, i), x->file))
		i++;
	return p->member_of[x->file && i < n ? i : 0];
}

/* Written as a guest writes: what a snapshot has of it stays the snapshot's. Where it lies in place, that is proven. */
static int zero_extent(struct partial *p, const struct vd_extent *x, struct vd_error *e)
{
	static const uint8_t zeros[1 << 20];
	size_t member = member_of_extent(p, x), n_whole = p->whole.n;
	struct wipe_window part;
	int r = 0;

	wipe_window_init(&part);
	if (x->flags & VD_EXTENT_HOST && !(x->flags & VD_EXTENT_PACKED))
		r = note_extents(p, member, x->host_off, x->host_off + x->len, &part, e);
	wipe_window_free(&part);
	if (p->is_ciphered) {
		p->whole.n = n_whole;
		append(&p->whole, x->off, x->off + x->len, &(struct wipe_extent){ .off = x->off });
	}
	for (uint64_t at = 0, n; at < x->len && r == 0; at += n) {
		n = x->len - at < sizeof(zeros) ? x->len - at : sizeof(zeros);
		r = vd_image_pwrite(p->img, zeros, n, x->off + at, e);
	}
	if (r == 0)
		p->run->rec.set.at[member].written += x->len;
	if (r < 0 || (p->window.bytes < PIECE && p->window.n < WIPE_EXTENTS_MAX / 2 && p->whole.n < WIPE_EXTENTS_MAX / 2))
		return r;
	return prove_batch(p, member, e);
}

/* Of the image's own layer what has content: what it lacks is not given space, and a layer below is not its own. */
static int zero_range(void *ctx, uint64_t off, uint64_t len)
{
	struct partial *p = ctx;
	struct vd_extent runs[64];
	uint64_t end = off + len;
	size_t n = 0;
	int r = 0;

	while (off < end && r == 0) {
		r = vd_image_extents(p->img, off, end - off, runs, sizeof(runs) / sizeof(runs[0]), &n, p->e);
		for (size_t i = 0; i < n && r == 0; i++) {
			off = runs[i].off + runs[i].len;
			if (runs[i].flags & VD_EXTENT_DATA && !(runs[i].flags & VD_EXTENT_ZERO) && runs[i].depth == 0)
				r = zero_extent(p, &runs[i], p->e);
		}
		if (r == 0 && !n)
			break;
	}
	return r ? r : signals_check(p->e);
}

static int wipe_guest(const struct settings *s, struct partial *p, struct vd_error *e)
{
	struct vd_info info;
	int r = open_all(s, p, true, e);

	p->e = e;
	if (r == 0)
		r = source_info(p->img, &info, e);
	if (r == 0) {
		p->is_ciphered = info.encryption != VD_PLAIN;
		r = wipe_guest_free(p->img, &p->run->rec.set, zero_range, p, e);
	}
	if (r == 0)
		r = prove_batch(p, 0, e);
	p->is_ciphered = false;
	return close_all(p, r, e);
}

/* ---- all of it, once more ----------------------------------------------------------------------------------- */

static int look_again(struct wipe_set *set, struct vd_error *e)
{
	int r = 0;

	for (size_t i = 0; i < set->n && r == 0; i++) {
		struct wipe_member after = { .path = set->at[i].path };

		r = wipe_member_look(&after, e);
		if (r == 0)
			r = wipe_member_probe(&after, e);
		set->at[i].after_extents = after.before_extents;
		set->at[i].after_bytes = after.before_bytes;
		memcpy(set->at[i].after_sha256, after.before_sha256, sizeof(after.before_sha256));
		set->at[i].is_done = r == 0;
	}
	return r;
}

static int go(const struct settings *s, struct partial *p, struct vd_error *e)
{
	int r = s->wipe.guest_free ? wipe_guest(s, p, e) : 0;

	if (r < 0)
		return r;
	r = open_all(s, p, false, e);
	if (r == 0 && s->wipe.snapshot)
		r = vd_snapshot_delete(p->img, s->wipe.snapshot, e);
	if (r == 0)
		r = walk(p, e);
	r = close_all(p, r, e);
	return r < 0 ? r : look_again(&p->run->rec.set, e);
}

int wipe_partial_run(const struct settings *s, struct wipe_run *run, struct vd_error *e)
{
	struct partial p = { .run = run, .shared = { .depth = run->depth, .bytes_per_second = run->bytes_per_second } };
	int64_t from = time(NULL);
	int r = 0;

	pthread_mutex_init(&p.shared.pace, NULL);
	wipe_window_init(&p.window);
	wipe_window_init(&p.whole);
	run->rec.set.is_stopped = wipe_run_try_canaries(run);
	if (!run->rec.set.is_stopped)
		r = go(s, &p, e);
	wipe_window_free(&p.window);
	wipe_window_free(&p.whole);
	pthread_mutex_destroy(&p.shared.pace);
	run->rec.ended = time(NULL);
	run->rec.seconds = (uint64_t)(run->rec.ended - from);
	if (r < 0)
		snprintf(run->rec.set.failure, sizeof(run->rec.set.failure), "%.255s", e->message);
	wipe_findings_free(&run->rec.findings);
	run->rec.grade = wipe_grade_set(&run->rec.set, &run->rec.plan, true, &run->rec.findings);
	return r;
}
