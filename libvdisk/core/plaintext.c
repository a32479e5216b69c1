/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The leak scan: goes through every file of an encrypted image in pieces, on all cores, and tells what is readable without
 * the key. What may lie where, plaintext_judge.c knows.
 *
 * P1  Pieces are taken, and told of, in the order of the files; they are read and judged in any.
 * P2  A worker that has taken a piece comes to its turn whatever happens, since the next ones wait for it.
 * P3  No lock of the scan is held while another worker's read waits for the image; scrubbing waits for readers alone.
 */
#include <stdio.h>
#include <stdlib.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/core/host.h"
#include "libvdisk/core/job.h"
#include "libvdisk/core/keysrc.h"
#include "libvdisk/core/plaintext.h"

#define RUNS_AHEAD 256
#define N_KINDS 5               /* of enum vd_plaintext_kind, and 0 */

struct scan {
	struct vd_image *img;
	const struct vd_plaintext_opts *opts;
	struct vd_crew crew;
	struct vd_bytes clear;          /* of the LUKS header */
	struct vd_snapshot *views;      /* names of the views from 1 on */
	size_t n_views;

	pthread_mutex_t plan;           /* what follows: the pieces that are still to be taken */
	struct vd_host_walk *walk;
	struct vd_host_run ahead[RUNS_AHEAD];
	size_t n_ahead, next_ahead;
	uint64_t n_pieces, holes;

	pthread_mutex_t turn;           /* what follows: what comes out, in order */
	pthread_cond_t turns;
	uint64_t next_turn;
	bool has_failed;
	struct vd_plaintext pending[N_KINDS];   /* may go on; where.len 0: none */
	struct vd_noise sums[VD_N_OWNERS];
	struct vd_plaintext_report *report;
};

VD_PUBLIC const char *vd_plaintext_name(enum vd_plaintext_kind kind)
{
	static const char *const names[] = {
#define NAME(sym, value, name, text) [value] = name,
		VD_PLAINTEXT_TABLE(NAME)
#undef NAME
	};

	return kind > 0 && kind < sizeof(names) / sizeof(names[0]) ? names[kind] : "unknown";
}

/* ---- taking pieces -------------------------------------------------------------------------------------- */

static bool is_hole(const struct vd_host_run *r)
{
	return r->owner == VD_OWNER_HOSTHOLE || r->flags & VD_HOST_SPARSE;
}

/* The next run that the host stores, or NULL at the end. */
static int look_ahead(struct scan *s, struct vd_host_run **run, struct vd_error *e)
{
	int r = 0;

	*run = NULL;
	while (r == 0 && !*run) {
		if (s->next_ahead == s->n_ahead) {
			s->next_ahead = 0;
			r = vd_host_walk_next(s->walk, s->ahead, RUNS_AHEAD, &s->n_ahead, e);
			if (r < 0 || !s->n_ahead)
				return r;
		}
		if (is_hole(&s->ahead[s->next_ahead])) {
			s->holes += s->ahead[s->next_ahead].len;
			atomic_fetch_add(&s->crew.done, s->ahead[s->next_ahead].len);
			s->next_ahead++;
		} else {
			*run = &s->ahead[s->next_ahead];
		}
	}
	return r;
}

/* What of a run is `by` bytes further on. */
static void advance(struct vd_host_run *r, uint64_t by)
{
	r->off += by;
	r->len -= by;
	if (r->guest_off != VD_HOST_NOWHERE && r->owner != VD_OWNER_PACKED)
		r->guest_off += by;
}

/* Up to the next MiB of the file, a hole, or as many runs as there is room for. len 0: nothing is left. */
static int take_piece(struct scan *s, struct vd_piece *p, struct vd_error *e)
{
	struct vd_host_run *run;
	uint64_t end = 0;
	int r;

	p->len = p->n_runs = 0;
	for (r = look_ahead(s, &run, e); r == 0 && run && p->n_runs < VD_PIECE_RUNS; r = look_ahead(s, &run, e)) {
		uint64_t n;

		if (!p->n_runs) {
			p->file = run->file;
			p->off = run->off;
			end = vd_round_down(run->off, VD_PIECE_MAX) + VD_PIECE_MAX;
		}
		if (run->file != p->file || run->off != p->off + p->len || run->off >= end)
			break;
		n = vd_min_u64(run->len, end - run->off);
		p->runs[p->n_runs] = *run;
		p->runs[p->n_runs++].len = n;
		p->len += n;
		advance(run, n);
		s->next_ahead += !run->len;
	}
	p->number = s->n_pieces;
	s->n_pieces += p->len > 0;
	return r;
}

/* ---- telling -------------------------------------------------------------------------------------------- */

static void describe(const struct scan *s, struct vd_plaintext *p)
{
	static const char *const texts[] = {
#define TEXT(sym, value, name, text) [value] = text,
		VD_PLAINTEXT_TABLE(TEXT)
#undef TEXT
	};
	const struct vd_host_run *r = &p->where;
	int n = snprintf(p->text, sizeof(p->text), "%llu bytes at %llu", (unsigned long long)r->len, (unsigned long long)r->off);

	if (vd_set_count(s->img->set) > 1)
		n += snprintf(p->text + n, sizeof(p->text) - n, " of %.120s", p->file);
	n += snprintf(p->text + n, sizeof(p->text) - n, " (%s%s%s", vd_owner_name(r->owner), *vd_why_name(r->why) ? ", " : "",
		      vd_why_name(r->why));
	if (r->guest_off != VD_HOST_NOWHERE)
		n += snprintf(p->text + n, sizeof(p->text) - n, ", byte %llu of %s%.60s%s", (unsigned long long)r->guest_off,
			      p->view ? "snapshot '" : "the disk", p->view ? p->view : "", p->view ? "'" : "");
	snprintf(p->text + n, sizeof(p->text) - n, "): %s", texts[p->kind]);
}

static int tell(struct scan *s, struct vd_plaintext *p, struct vd_error *e)
{
	struct vd_plaintext_report *rep = s->report;

	if (p->kind != VD_PLAINTEXT_ZEROS) {
		rep->findings++;
		rep->left += !p->scrubbed;
	}
	if (s->opts && s->opts->found && s->opts->found(s->opts->ctx, p))
		return vd_fail(e, VD_ECANCELLED, "cancelled");
	return 0;
}

static int tell_pending(struct scan *s, struct vd_plaintext *p, struct vd_error *e)
{
	int r;

	if (!p->where.len)
		return 0;
	describe(s, p);
	r = tell(s, p, e);
	p->where.len = 0;
	return r;
}

static bool goes_on(const struct vd_plaintext *a, const struct vd_plaintext *b)
{
	const struct vd_host_run *x = &a->where, *y = &b->where;
	uint64_t guest_off = x->guest_off;

	if (guest_off != VD_HOST_NOWHERE && x->owner != VD_OWNER_PACKED)
		guest_off += x->len;
	return x->len && x->file == y->file && x->off + x->len == y->off && x->owner == y->owner && x->why == y->why &&
	       x->view == y->view && a->scrubbed == b->scrubbed && guest_off == y->guest_off;
}

static int note(struct scan *s, const struct vd_piece *p, const struct vd_sighting *at, bool scrubbed, struct vd_error *e)
{
	struct vd_plaintext now = {
		.kind = at->kind, .where = p->runs[at->run], .file = vd_host_file_name(s->img, p->file), .scrubbed = scrubbed,
		.can_scrub = vd_owner_is_nobody(p->runs[at->run].owner),
	}, *pending = &s->pending[at->kind];
	uint32_t view = now.where.view;
	int r;

	if (view && view <= s->n_views)
		now.view = s->views[view - 1].name;
	advance(&now.where, at->off - now.where.off);
	now.where.len = at->len;
	if (at->kind == VD_PLAINTEXT_ZEROS)
		s->report->zeros += at->len;
	else
		s->report->readable += at->len;
	if (goes_on(pending, &now)) {
		pending->where.len += at->len;
		return 0;
	}
	r = tell_pending(s, pending, e);
	*pending = now;
	return r;
}

static int scrub(struct scan *s, const struct vd_piece *p, struct vd_error *e)
{
	int r = 0;

	for (size_t i = 0; i < p->n_runs && r == 0; i++) {
		const struct vd_host_run *run = &p->runs[i];

		if (!p->not_zeros[i] || !vd_owner_is_nobody(run->owner))
			continue;
		r = vd_host_scrub(s->img, run->file, run->off, run->len, NULL, 0, e);
		if (r == 0) {
			s->report->scrubbed += run->len;
			s->report->changed = true;
		}
	}
	return r;
}

static int tell_piece(struct scan *s, const struct vd_piece *p, struct vd_error *e)
{
	bool scrubs = s->opts && s->opts->flags & VD_PLAINTEXT_SCRUB;
	int r = scrubs ? scrub(s, p, e) : 0;

	s->report->looked_at += p->looked_at;
	s->report->known += p->known;
	for (size_t i = 0; i < p->n_seen && r == 0; i++)
		r = note(s, p, &p->seen[i], scrubs && vd_owner_is_nobody(p->runs[p->seen[i].run].owner), e);
	return r;
}

/* Waits for the turn of the piece, which may have failed, and ends it. */
static int take_turn(struct scan *s, const struct vd_piece *p, int r, struct vd_error *e)
{
	pthread_mutex_lock(&s->turn);
	while (s->next_turn != p->number)
		pthread_cond_wait(&s->turns, &s->turn);
	if (r == 0 && !s->has_failed)
		r = tell_piece(s, p, e);
	s->has_failed |= r < 0;
	s->next_turn++;
	pthread_cond_broadcast(&s->turns);
	pthread_mutex_unlock(&s->turn);
	return r;
}

/* ---- working -------------------------------------------------------------------------------------------- */

static int work_on(struct scan *s, struct vd_piece *p, struct vd_noise *sums, struct vd_error *e)
{
	int r = 0;

	while (r == 0 && !vd_crew_is_stopped(&s->crew)) {
		pthread_mutex_lock(&s->plan);
		r = take_piece(s, p, e);
		pthread_mutex_unlock(&s->plan);
		if (!p->len)
			return r;
		if (r == 0)
			r = vd_host_read(s->img, p->file, p->bytes, p->len, p->off, e);
		if (r == 0)
			vd_piece_judge(p, s->clear, sums);
		r = take_turn(s, p, r, e);
		atomic_fetch_add(&s->crew.done, p->len);
	}
	return r;
}

static int work(void *ctx, struct vd_error *e)
{
	struct scan *s = ctx;
	vd_auto_free struct vd_noise *sums = NULL;
	vd_auto_free struct vd_sighting *seen = NULL;
	vd_auto_free uint8_t *bytes = NULL;
	vd_auto_free struct vd_piece *p = NULL;
	int r = vd_alloc(1, sizeof(*p), &p, e);

	if (r == 0)
		r = vd_alloc(VD_N_OWNERS, sizeof(*sums), &sums, e);
	if (r == 0)
		r = vd_alloc(VD_PIECE_SIGHTINGS, sizeof(*seen), &seen, e);
	if (r == 0)
		r = vd_alloc_buffer(VD_PIECE_MAX, &bytes, e);
	if (r < 0)
		return r;
	p->seen = seen;
	p->bytes = bytes;
	r = work_on(s, p, sums, e);
	pthread_mutex_lock(&s->turn);
	for (int i = 0; i < VD_N_OWNERS; i++)
		vd_noise_add(&s->sums[i], &sums[i]);
	pthread_mutex_unlock(&s->turn);
	return r;
}

/* ---- the whole ------------------------------------------------------------------------------------------ */

static int judge_arguments(const struct vd_image *img, const struct vd_plaintext_opts *opts, const struct vd_job *job,
			   const struct vd_plaintext_report *report, struct vd_error *e)
{
	if (report->struct_size != sizeof(*report))
		return vd_fail(e, VD_EARG, "struct vd_plaintext_report: struct_size is %zu, want %zu", report->struct_size,
			       sizeof(*report));
	if (opts && opts->struct_size != sizeof(*opts))
		return vd_fail(e, VD_EARG, "struct vd_plaintext_opts: struct_size is %zu, want %zu", opts->struct_size,
			       sizeof(*opts));
	if (opts && opts->flags & VD_PLAINTEXT_SCRUB && !img->writable)
		return vd_fail(e, VD_EREADONLY, "%s is open for reading only", img->path);
	return vd_job_check(job, e);
}

/* Each file has to be there, and the whole has to claim that it is encrypted. */
static int judge_image(struct scan *s, struct vd_error *e)
{
	struct vd_image *img = s->img;
	int r = 0;

	for (uint32_t i = 0; i < vd_set_count(img->set) && r == 0; i++) {
		uint64_t size = 0;

		r = vd_host_file_size(img, i, &size, e);
		s->crew.total += size;
	}
	if (r == 0 && img->content_is_unknown)
		r = vd_fail(e, VD_EREFERENCE, "%s: whether it is encrypted cannot be told", img->path);
	if (r == 0 && !img->layer.encryption)
		r = vd_fail(e, VD_EMISMATCH, "%s is not encrypted: all of it is readable", img->path);
	return r;
}

/* What of the header is in clear by its nature, filled up to whole sectors: behind it there is nothing. */
static int read_clear(struct scan *s, uint8_t **clear, struct vd_error *e)
{
	vd_auto_free uint8_t *header = NULL;
	struct vd_image *img = s->img;
	size_t len = 0, n = 0;
	int r;

	if (img->layer.encryption != VD_ENCRYPTED_LUKS)
		return 0;
	pthread_rwlock_rdlock(&img->control);
	r = vd_layer_read_header(img, img->layer.is_container, &header, &len, e);
	pthread_rwlock_unlock(&img->control);
	if (r == 0) {
		n = vd_min_u64(vd_luks_clear_len((struct vd_bytes){ header, len }), len);
		r = vd_alloc(vd_round_up(n, VD_NOISE_SECTOR), 1, clear, e);
	}
	if (r < 0)
		return r;
	memcpy(*clear, header, n);
	s->clear = (struct vd_bytes){ *clear, vd_round_up(n, VD_NOISE_SECTOR) };
	return 0;
}

/* Findings are told by their snapshots' names; a list that cannot be read is no reason to look at nothing. */
static void name_views(struct scan *s)
{
	if (s->img->format->snap && vd_snapshot_list(s->img, &s->views, &s->n_views, NULL) < 0)
		s->n_views = 0;
}

/* What no piece showed may show in all of them together. */
static int tell_sums(struct scan *s, struct vd_error *e)
{
	int r = 0;

	for (int owner = 0; owner < VD_N_OWNERS && r == 0; owner++) {
		struct vd_plaintext p = {
			.kind = VD_PLAINTEXT_UNEVEN,
			.where = { .owner = owner, .guest_off = VD_HOST_NOWHERE, .parent_off = VD_HOST_NOWHERE },
		};

		if (vd_noise_may_be(&s->sums[owner]))
			continue;
		snprintf(p.text, sizeof(p.text), "all that is %s together is too uneven for ciphertext", vd_owner_name(owner));
		p.can_scrub = vd_owner_is_nobody(owner);
		p.scrubbed = p.can_scrub && s->report->scrubbed;
		r = tell(s, &p, e);
	}
	return r;
}

static int run(struct scan *s, const struct vd_job *job, struct vd_error *e)
{
	struct vd_plaintext_report *rep = s->report;
	int r = vd_host_walk_start(s->img, 0, 0, &s->walk, e);

	if (r < 0)
		return r;
	pthread_mutex_init(&s->plan, NULL);
	pthread_mutex_init(&s->turn, NULL);
	pthread_cond_init(&s->turns, NULL);
	r = vd_crew_run(&s->crew, vd_job_threads(job), job, e);
	for (int kind = 0; kind < N_KINDS && r == 0; kind++)
		r = tell_pending(s, &s->pending[kind], e);
	if (r == 0)
		r = tell_sums(s, e);
	rep->holes = s->holes;
	rep->damage = vd_host_walk_findings(s->walk, NULL);
	vd_host_walk_end(s->walk);
	pthread_cond_destroy(&s->turns);
	pthread_mutex_destroy(&s->turn);
	pthread_mutex_destroy(&s->plan);
	if (r == 0 && rep->changed)
		r = vd_image_flush(s->img, e);
	return r;
}

VD_PUBLIC int vd_plaintext_scan(struct vd_image *img, const struct vd_plaintext_opts *opts, const struct vd_job *job,
				struct vd_plaintext_report *report, struct vd_error *e)
{
	vd_auto_free struct scan *s = NULL;
	vd_auto_free uint8_t *clear = NULL;
	int r = judge_arguments(img, opts, job, report, e);

	if (r == 0)
		r = vd_alloc(1, sizeof(*s), &s, e);
	if (r < 0)
		return r;
	*report = (struct vd_plaintext_report){ .struct_size = sizeof(*report) };
	s->img = img;
	s->opts = opts;
	s->report = report;
	s->crew.phase = "plaintext";
	s->crew.work = work;
	s->crew.ctx = s;
	r = judge_image(s, e);
	if (r == 0)
		r = read_clear(s, &clear, e);
	if (r < 0)
		return r;
	name_views(s);
	r = run(s, job, e);
	vd_snapshot_list_free(s->views);
	return r;
}
