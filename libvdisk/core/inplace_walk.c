/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Goes over every byte that the image's files had when the conversion began, in their order: data are turned where they
 * lie, each once whoever shares them; what is nobody's is overwritten, unless the target is plain.
 */
#include "libvdisk/core/inplace.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/core/host.h"

#define UNIT 512                        /* tweaks count these */

struct walk {
	struct vd_inplace *p;
	struct vd_mover *m;
	uint8_t *zeros, *seen;          /* VD_MOVER_CHUNK each */
	bool scrubs;
	bool only_scrubs;               /* of what is not zeros already */
};

static int refuse(const struct vd_inplace *p, const struct vd_host_run *run, const char *what, struct vd_error *e)
{
	return vd_fail_at(e, VD_ECORRUPT, run->off, "%s: %s", vd_set_name(p->img->set, run->file), what);
}

static bool counts_guest_bytes(const struct vd_inplace *p)
{
	return p->j->state.is_container;
}

/* The first unit of the run; *skip: so much of it is the container's header, which is not turned. */
static uint64_t unit_of(const struct vd_inplace *p, const struct vd_host_run *run, uint64_t *skip)
{
	/* Before: the container that there is; after: that which will be. Its payload begins where a plain disk does. */
	uint64_t base = p->j->state.from_sector ? p->j->state.payload_off : 0;

	*skip = 0;
	if (!counts_guest_bytes(p))
		return run->off / UNIT;
	if (run->guest_off < base)
		*skip = vd_min_u64(run->len, base - run->guest_off);
	return (run->guest_off + *skip - base) / UNIT;
}

static int turn_run(struct walk *w, const struct vd_host_run *run, struct vd_error *e)
{
	struct vd_inplace *p = w->p;
	uint64_t piece = vd_mover_piece(w->m), skip, unit = unit_of(p, run, &skip), at = run->off + skip, end = run->off + run->len;
	int r = 0;

	if (counts_guest_bytes(p) && run->flags & VD_HOST_SHARED)
		return refuse(p, run, "these bytes are two places of the disk: they cannot be encrypted for both", e);
	if ((run->off | run->len) % UNIT)
		return refuse(p, run, "data that are no whole sectors cannot be encrypted", e);
	for (uint64_t n; at < end && r == 0; at += n) {
		n = vd_min_u64(end - at, piece - at % piece);
		r = vd_mover_add(w->m, &(struct vd_chunk){
			.file = run->file, .len = (uint32_t)n, .src = at, .dst = at, .unit = unit + (at - run->off - skip) / UNIT,
		}, at + n, e);
	}
	return r;
}

static bool is_blank(struct walk *w, uint32_t file, uint64_t at, uint64_t len)
{
	return vd_set_pread(w->p->img->set, file, w->seen, len, at, NULL) == 0 && !memcmp(w->seen, w->zeros, len);
}

static int scrub_run(struct walk *w, const struct vd_host_run *run, struct vd_error *e)
{
	int r = 0;

	if (!w->scrubs || run->flags & VD_HOST_SPARSE)
		return 0;
	for (uint64_t at = run->off, n; at < run->off + run->len && r == 0; at += n) {
		n = vd_min_u64(run->off + run->len - at, VD_MOVER_CHUNK);
		if (w->only_scrubs && is_blank(w, run->file, at, n))
			continue;
		r = vd_set_pwrite(w->p->img->set, run->file, w->zeros, n, at, e);
		if (r == 0)
			r = vd_inplace_progress(w->p, e);
	}
	atomic_store(&w->p->scrubbed, true);
	w->p->report->scrubbed += run->len;
	return r;
}

static bool is_nobodys(enum vd_owner owner)
{
	return owner == VD_OWNER_FREE || owner == VD_OWNER_LEAKED || owner == VD_OWNER_TAIL;
}

static int do_run(struct walk *w, const struct vd_host_run *run, struct vd_error *e)
{
	if (w->only_scrubs && !is_nobodys(run->owner))
		return 0;
	switch (run->owner) {
	case VD_OWNER_DATA:
	case VD_OWNER_VMSTATE:
		return turn_run(w, run, e);
	case VD_OWNER_SLACK:
		/* Of the last cluster: what a larger disk would show. */
		if (run->why == VD_SLACK_PAST_END && !counts_guest_bytes(w->p))
			return turn_run(w, run, e);
		return scrub_run(w, run, e);
	case VD_OWNER_FREE:
	case VD_OWNER_LEAKED:
	case VD_OWNER_TAIL:
	case VD_OWNER_ZEROED:
		return scrub_run(w, run, e);
	case VD_OWNER_PACKED:
		return w->scrubs ? refuse(w->p, run, "compressed bytes are left", e) : 0;
	case VD_OWNER_CORRUPT:
		return refuse(w->p, run, "these bytes belong to two that cannot share them", e);
	default:
		return 0;
	}
}

static struct vd_host_run clip(const struct vd_host_run *run, uint64_t from, uint64_t end)
{
	struct vd_host_run part = *run;
	uint64_t skip = from > run->off ? from - run->off : 0;

	part.off += skip;
	part.len = vd_min_u64(run->off + run->len, end) - part.off;
	if (part.guest_off != VD_HOST_NOWHERE)
		part.guest_off += skip;
	return part;
}

/* Up to the window's end, which *at becomes. */
static int do_window(struct walk *w, uint32_t file, uint64_t *at, uint64_t end, struct vd_error *e)
{
	struct vd_inplace *p = w->p;
	struct vd_host_run run;
	struct vd_window win;
	struct vd_cover cover;
	bool got = true;
	int r = vd_host_look(p->img, file, vd_round_down(*at, VD_WINDOW_ALIGN), UINT64_MAX, &win, e);

	if (r == 0 && win.n_findings) {
		if (e)
			*e = win.first_finding;
		r = vd_error_prefix(e, VD_ECORRUPT, "%s: ", p->path);
	}
	if (r == 0)
		vd_cover_start(&cover, p->img, &win, *at);
	while (r == 0 && got && *at < end) {
		r = vd_cover_next(&cover, &run, &got, e);
		if (r < 0 || !got || run.off + run.len <= *at)
			continue;
		run = clip(&run, *at, end);
		r = do_run(w, &run, e);
		*at = run.off + run.len;
	}
	vd_window_fini(&win);
	return r;
}

/* [cursor, end) of the cursor's file. */
static int do_file(struct walk *w, uint64_t end, struct vd_error *e)
{
	struct vd_journal_state *s = &w->p->j->state;
	uint64_t at = s->cursor;
	int r = 0;

	while (at < end && r == 0)
		r = do_window(w, s->cursor_file, &at, end, e);
	/* Nothing of this file is under way when the next one begins: the cursor is of one file. */
	return r < 0 ? r : vd_mover_end(w->m, e);
}

/* How far of a file the first pass goes: back, no further than it had come. */
static uint64_t end_of(const struct vd_inplace *p, uint32_t file)
{
	const struct vd_journal_state *s = &p->j->state;

	if (!s->is_back || file < s->stop_file)
		return p->j->ends[file];
	return file == s->stop_file ? s->stop : 0;
}

static int do_files(struct walk *w, struct vd_error *e)
{
	struct vd_inplace *p = w->p;
	struct vd_journal_state *s = &p->j->state;
	int r = 0;

	while (s->cursor_file < s->n_files && r == 0) {
		uint64_t end = end_of(p, s->cursor_file);

		if (s->is_born)
			r = vd_host_file_size(p->img, s->cursor_file, &end, e);
		if (r == 0)
			r = do_file(w, end, e);
		if (r < 0)
			return r;
		s->cursor_file++;
		s->cursor = s->is_born && s->cursor_file < s->n_files ? p->j->ends[s->cursor_file] : 0;
	}
	return r;
}

/* What was born converted lies past the ends of the beginning. */
static int begin_born(struct walk *w, struct vd_error *e)
{
	struct vd_journal_state *s = &w->p->j->state;

	s->is_born = true;
	s->cursor_file = 0;
	s->cursor = w->p->j->ends[0];
	w->p->at_file = 0;
	w->p->at = s->cursor;
	s->record = w->p->j->n_records;
	return vd_journal_write_state(w->p->j, e);
}

int vd_inplace_scrub(struct vd_inplace *p, struct vd_error *e)
{
	struct walk w = { .p = p, .scrubs = true, .only_scrubs = true };
	vd_auto_free uint8_t *zeros = NULL, *seen = NULL;
	int r = vd_alloc(1, VD_MOVER_CHUNK, &zeros, e);

	if (r == 0)
		r = vd_alloc_buffer(VD_MOVER_CHUNK, &seen, e);
	w.zeros = zeros;
	w.seen = seen;
	for (uint32_t i = 0; i < vd_set_count(p->img->set) && r == 0; i++) {
		uint64_t at = 0, end = 0;

		r = vd_host_file_size(p->img, i, &end, e);
		while (at < end && r == 0)
			r = do_window(&w, i, &at, end, e);
	}
	return r < 0 ? r : vd_set_flush(p->img->set, e);
}

int vd_inplace_walk(struct vd_inplace *p, struct vd_error *e)
{
	struct walk w = { .p = p, .scrubs = p->cipher[!p->j->state.is_back] };
	vd_auto_free uint8_t *zeros = NULL;
	int r = vd_alloc(1, VD_MOVER_CHUNK, &zeros, e);

	if (r == 0)
		r = vd_mover_new(p, &w.m, e);
	if (r < 0)
		return r;
	w.zeros = zeros;
	r = do_files(&w, e);
	if (r == 0 && p->j->state.is_back && !p->j->state.is_born) {
		r = begin_born(&w, e);
		if (r == 0)
			r = do_files(&w, e);
	}
	if (r == 0)
		r = vd_set_flush(p->img->set, e);
	if (r == VD_ECANCELLED)
		r = vd_mover_stop(w.m, r, e);
	vd_mover_free(w.m);
	return r;
}
