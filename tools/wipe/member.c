/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Overwrites a file window by window: where it lies, the pattern, flush, where it lies now. Memory is bounded by the window, and
 * what a window proves needs no look back. A checkpoint is told only of what is flushed and compared.
 */
#include "wipe/member.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fail.h"
#include "ui.h"

#define WINDOW (UINT64_C(4) << 30)      /* bytes between two checkpoints, each of which waits for the disk */
#define WINDOW_S 4                      /* or seconds, where the speed is limited */
#define PASS_KEYS UINT32_MAX            /* numbers of streams that are no pass's */
#define PASS_SAMPLES (UINT32_MAX - 1)

/* ---- before ----------------------------------------------------------------------------------------------- */

static void hash_head(int fd, char text[65])
{
	struct wipe_hash *h = wipe_hash_new();
	uint8_t head[65536];
	ssize_t n = pread(fd, head, sizeof(head), 0);

	if (n > 0)
		wipe_hash_add(h, head, (size_t)n);
	wipe_hash_end_text(h, text);
}

int wipe_member_probe(struct wipe_member *m, struct vd_error *e)
{
	int fd = open(m->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), r;
	struct wipe_map map;

	if (fd < 0)
		return fail_errno(e, errno, "%s cannot be opened", m->path);
	m->has_map = !m->is_device && wipe_has_map(fd);
	hash_head(fd, m->head_sha256);
	r = wipe_map_sum(fd, m, &map, e);
	m->before_extents = map.extents;
	m->before_bytes = map.bytes;
	memcpy(m->before_sha256, map.sha256, sizeof(m->before_sha256));
	close(fd);
	return r < 0 ? r : wipe_member_find_keeps(m, e);
}

int wipe_member_find_keeps(struct wipe_member *m, struct vd_error *e)
{
	int r = vd_host_keeps(m->path, m->keeps, WIPE_KEEPS_MAX, &m->n_keeps, e);

	if (r < 0 || m->n_keeps > WIPE_KEEPS_MAX)
		m->n_keeps = r < 0 ? 0 : WIPE_KEEPS_MAX;
	return r;
}

uint64_t wipe_member_cost(const struct wipe_member *m, const struct wipe_plan *plan)
{
	uint64_t bytes = m->before_bytes - (m->past_end < m->before_bytes ? m->past_end : 0);

	if (plan->erases_only && m->is_encrypted)
		return 0;
	return bytes * (plan->n_passes + (plan->verify == WIPE_VERIFY_FULL));
}

/* ---- the canary ------------------------------------------------------------------------------------------- */

static int write_back(const struct wipe_file *f, const struct wipe_extent *x, const char *path, struct vd_error *e)
{
	_Alignas(WIPE_ALIGN) uint8_t block[WIPE_ALIGN];
	int fd = f->direct >= 0 && x->len == WIPE_ALIGN ? f->direct : f->plain;
	ssize_t n = pread(fd, block, x->len, (off_t)x->off), back;

	if (n <= 0)
		return fail_errno(e, n < 0 ? errno : EIO, "%s: its first block cannot be read", path);
	back = pwrite(fd, block, (size_t)n, (off_t)x->off);
	if (back < 0 && errno == EINVAL)
		back = pwrite(f->plain, block, (size_t)n, (off_t)x->off);
	if (back != n)
		return fail_errno(e, back < 0 ? errno : EIO, "%s: its first block cannot be written", path);
	return 0;
}

/* Where it lies is asked of a descriptor for reading: opened for writing, a file of an overlay becomes another. */
int wipe_member_canary(struct wipe_member *m, struct vd_error *e)
{
	int ro = open(m->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), r;
	struct wipe_file f = { -1, -1 };
	struct wipe_window w;
	uint64_t moved = 0;

	if (ro < 0)
		return fail_errno(e, errno, "%s cannot be opened", m->path);
	wipe_window_init(&w);
	r = wipe_window_read(ro, m, 0, WIPE_ALIGN, &w, e);
	if (r == 0)
		r = wipe_file_open(m, &f, e);
	if (r == 0 && w.n)
		r = write_back(&f, &w.at[0], m->path, e);
	if (r == 0)
		r = wipe_file_sync(&f, m, e);
	if (r == 0 && m->has_map)
		r = wipe_window_moved(f.plain, &w, &moved, e);
	m->canary_moved = moved > 0;
	if (f.plain >= 0)
		(void)wipe_file_close(&f, m, e);
	close(ro);
	wipe_window_free(&w);
	return r;
}

/* ---- keys ------------------------------------------------------------------------------------------------- */

/* What of the window lies before `end`. */
static void cut(struct wipe_window *w, uint64_t end)
{
	while (w->n && w->at[w->n - 1].off >= end)
		w->bytes -= w->at[--w->n].len;
	if (w->n && w->at[w->n - 1].off + w->at[w->n - 1].len > end) {
		struct wipe_extent *x = &w->at[w->n - 1];

		w->bytes -= x->off + x->len - end;
		x->len = end - x->off;
	}
	if (w->to > end)
		w->to = end;
}

static int do_work(struct wipe_member *m, struct wipe_work *k, struct vd_error *e)
{
	int r = wipe_work(k, e);

	m->through_cache |= k->through_cache;
	if (r == 0 && !k->verifies)
		r = wipe_file_sync(k->file, m, e);
	return r;
}

static int erase_window(struct wipe_member *m, struct wipe_work *k, const struct wipe_window *w, struct vd_error *e)
{
	uint64_t moved = 0;
	int r;

	k->at = w->at;
	k->n = w->n;
	k->verifies = false;
	k->failed = &m->unwritable;
	k->mismatch = &m->mismatch;
	r = do_work(m, k, e);
	if (r == 0 && m->has_map)
		r = wipe_window_moved(k->file->plain, w, &moved, e);
	m->moved += moved;
	k->verifies = true;
	k->failed = &m->unreadable;
	return r < 0 ? r : do_work(m, k, e);
}

int wipe_member_erase_keys(struct wipe_member *m, uint32_t number, struct wipe_shared *shared, struct vd_error *e)
{
	struct wipe_file f;
	struct wipe_window w;
	struct wipe_work k = { .shared = shared, .file = &f, .fill = { true, 0, number, PASS_KEYS }, .known = &m->unwritable };
	int r, c;

	r = wipe_file_open(m, &f, e);
	if (r < 0)
		return r;
	wipe_window_init(&w);
	m->erased_bytes = 0;
	for (size_t i = 0; i < m->n_key_areas && r == 0; i++) {
		uint64_t at = m->key_areas[i].off, end = at + m->key_areas[i].len;

		while (r == 0 && at < end && at < m->size) {
			r = wipe_window_read(f.plain, m, at, end - at, &w, e);
			cut(&w, end);
			if (r == 0)
				r = erase_window(m, &k, &w, e);
			m->erased_bytes += w.bytes;
			at = w.to > at ? w.to : end;
		}
	}
	wipe_window_free(&w);
	c = wipe_file_close(&f, m, r < 0 ? &(struct vd_error){ 0 } : e);
	m->erased = r == 0 && !m->moved && !m->unwritable.n && !m->unreadable.n && !m->mismatch.n;
	return r < 0 ? r : c;
}

/* ---- passes ----------------------------------------------------------------------------------------------- */

struct pass {
	struct wipe_member *m;
	const struct wipe_steps *s;
	const struct wipe_file *file;
	struct wipe_window *w;
	uint64_t *samples;              /* numbers of blocks of all that is allocated, in order */
	size_t n_samples;
};

static struct wipe_work work_of(const struct pass *p, uint32_t pass)
{
	const struct wipe_pass *fill = &p->s->plan->passes[pass];

	return (struct wipe_work){
		.shared = p->s->shared, .file = p->file, .at = p->w->at, .n = p->w->n,
		.fill = { fill->is_random, fill->byte, p->s->number, pass }, .mismatch = &p->m->mismatch,
		.known = &p->m->unwritable,
	};
}

static int write_window(struct pass *p, struct vd_error *e)
{
	struct wipe_work k = work_of(p, p->m->pass);
	uint64_t moved = 0;
	int r;

	k.failed = &p->m->unwritable;
	r = do_work(p->m, &k, e);
	if (r == 0 && p->m->has_map)
		r = wipe_window_moved(p->file->plain, p->w, &moved, e);
	if (r < 0)
		return r;
	p->m->moved += moved;
	p->m->written += k.bytes;
	return 0;
}

static int read_window(struct pass *p, struct vd_error *e)
{
	struct wipe_work k = work_of(p, (uint32_t)p->s->plan->n_passes - 1);
	int r;

	k.verifies = true;
	k.failed = &p->m->unreadable;
	r = do_work(p->m, &k, e);
	if (r == 0)
		p->m->verified += k.bytes;
	return r;
}

static uint64_t window_size(const struct wipe_shared *shared)
{
	uint64_t at_that_speed = shared->bytes_per_second * WINDOW_S;

	if (!shared->bytes_per_second || at_that_speed > WINDOW)
		return WINDOW;
	return at_that_speed > WIPE_CHUNK ? at_that_speed : WIPE_CHUNK;
}

/* One pass, or the verification, from m->offset to the end. */
static int go_through(struct pass *p, int (*step)(struct pass *p, struct vd_error *e), struct vd_error *e)
{
	uint64_t window = window_size(p->s->shared);
	struct wipe_member *m = p->m;
	int r = 0;

	while (r == 0 && m->offset < m->size) {
		r = wipe_window_read(p->file->plain, m, m->offset, window, p->w, e);
		if (r == 0 && p->w->n)
			r = step(p, e);
		if (r < 0)
			return r;
		m->offset = p->w->to;
		if (m->offset < m->size)
			r = p->s->checkpoint(p->s->ctx, e);
	}
	return r;
}

/* ---- samples ---------------------------------------------------------------------------------------------- */

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* By the key of the run: who has it draws the same. */
static int draw_samples(struct pass *p, struct vd_error *e)
{
	uint64_t total = 0, blocks, from = 0;
	struct wipe_stream *stream;
	int r = 0;

	while (r == 0 && from < p->m->size) {
		r = wipe_window_read(p->file->plain, p->m, from, UINT64_MAX, p->w, e);
		total += p->w->bytes;
		from = p->w->to;
	}
	blocks = (total + WIPE_ALIGN - 1) / WIPE_ALIGN;
	p->n_samples = (size_t)p->s->plan->samples;
	if (r < 0 || blocks <= p->n_samples) {
		p->n_samples = 0;
		return r;
	}
	p->samples = calloc(p->n_samples, sizeof(p->samples[0]));
	if (!p->samples)
		ui_out_of_memory();
	stream = wipe_stream_new(p->s->shared->key);
	wipe_stream_fill(stream, p->s->number, PASS_SAMPLES, 0, (uint8_t *)p->samples, p->n_samples * sizeof(p->samples[0]));
	wipe_stream_free(stream);
	for (size_t i = 0; i < p->n_samples; i++)
		p->samples[i] %= blocks;
	qsort(p->samples, p->n_samples, sizeof(p->samples[0]), by_number);
	return 0;
}

/* The window's extents become the blocks of it that were drawn; `before` is what was allocated ahead of it. */
static void keep_samples(const struct pass *p, struct wipe_window *drawn, uint64_t before)
{
	uint64_t at = before;
	size_t k = 0;

	drawn->n = 0;
	for (size_t i = 0; i < p->w->n; at += p->w->at[i++].len) {
		const struct wipe_extent *x = &p->w->at[i];

		for (; k < p->n_samples && p->samples[k] * WIPE_ALIGN < at + x->len; k++) {
			uint64_t skip = p->samples[k] * WIPE_ALIGN - at, left = x->len - skip;

			if (p->samples[k] * WIPE_ALIGN < at || (k && p->samples[k] == p->samples[k - 1]) || drawn->n == WIPE_EXTENTS_MAX)
				continue;
			drawn->at[drawn->n++] = (struct wipe_extent){ .off = x->off + skip, .len = left < WIPE_ALIGN ? left : WIPE_ALIGN };
		}
	}
}

static int read_samples(struct pass *p, struct vd_error *e)
{
	struct wipe_window drawn, *all = p->w;
	uint64_t before = 0;
	int r = 0;

	wipe_window_init(&drawn);
	p->m->offset = 0;
	while (r == 0 && p->m->offset < p->m->size) {
		r = wipe_window_read(p->file->plain, p->m, p->m->offset, WINDOW, all, e);
		if (r < 0)
			break;
		keep_samples(p, &drawn, before);
		before += all->bytes;
		p->m->offset = all->to;
		p->w = &drawn;
		r = drawn.n ? read_window(p, e) : 0;
		p->w = all;
	}
	wipe_window_free(&drawn);
	return r;
}

static int verify(struct pass *p, struct vd_error *e)
{
	int r = 0;

	if (p->s->plan->verify == WIPE_VERIFY_NONE)
		return 0;
	if (p->s->plan->verify == WIPE_VERIFY_SAMPLE)
		r = draw_samples(p, e);
	if (r == 0)
		r = p->n_samples ? read_samples(p, e) : go_through(p, read_window, e);
	free(p->samples);
	return r;
}

/* ---- all of it -------------------------------------------------------------------------------------------- */

static int run_passes(struct pass *p, struct vd_error *e)
{
	struct wipe_member *m = p->m;
	size_t n = p->s->plan->n_passes;
	int r = 0;

	while (r == 0 && m->pass < n) {
		r = go_through(p, write_window, e);
		if (r < 0)
			return r;
		m->pass++;
		m->offset = 0;
		r = p->s->checkpoint(p->s->ctx, e);
	}
	if (r == 0)
		r = verify(p, e);
	if (r == 0)
		m->is_done = true;
	return r < 0 ? r : p->s->checkpoint(p->s->ctx, e);
}

int wipe_member_overwrite(struct wipe_member *m, const struct wipe_steps *s, struct vd_error *e)
{
	struct wipe_member after = { .size = m->size, .is_device = m->is_device, .has_map = m->has_map };
	struct wipe_file f;
	struct wipe_window w;
	struct wipe_map map;
	struct pass p = { .m = m, .s = s, .file = &f, .w = &w };
	int r, c;

	r = wipe_file_open(m, &f, e);
	if (r < 0)
		return r;
	wipe_window_init(&w);
	r = run_passes(&p, e);
	if (r == 0)
		r = wipe_map_sum(f.plain, &after, &map, e);
	if (r == 0) {
		m->after_extents = map.extents;
		m->after_bytes = map.bytes;
		memcpy(m->after_sha256, map.sha256, sizeof(m->after_sha256));
	}
	wipe_window_free(&w);
	c = wipe_file_close(&f, m, r < 0 ? &(struct vd_error){ 0 } : e);
	return r < 0 ? r : c;
}

/* ---- after a kill ----------------------------------------------------------------------------------------- */

/* What a pass, or the erasure of keys, has left at `off`. */
static bool is_pattern(int fd, const struct wipe_member *m, const uint8_t key[WIPE_KEY_SIZE], const struct wipe_fill *fill, uint64_t off)
{
	uint8_t seen[WIPE_ALIGN], wanted[WIPE_ALIGN];
	uint64_t left = off < m->size ? m->size - off : 0;
	size_t len = left < WIPE_ALIGN ? (size_t)left : WIPE_ALIGN;

	if (!len || pread(fd, seen, len, (off_t)off) != (ssize_t)len)
		return false;
	if (fill->is_random) {
		struct wipe_stream *stream = wipe_stream_new(key);

		wipe_stream_fill(stream, fill->member, fill->pass, off, wanted, len);
		wipe_stream_free(stream);
	} else {
		memset(wanted, fill->byte, len);
	}
	return memcmp(seen, wanted, len) == 0;
}

int wipe_member_holds_pattern(const struct wipe_member *m, uint32_t number, const struct wipe_plan *plan,
			      const uint8_t key[WIPE_KEY_SIZE], bool *holds, struct vd_error *e)
{
	struct wipe_fill keys = { true, 0, number, PASS_KEYS };
	int fd = open(m->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), r = 0;
	struct wipe_window w;

	if (fd < 0)
		return fail_errno(e, errno, "%s cannot be opened", m->path);
	*holds = m->erased && m->n_key_areas && is_pattern(fd, m, key, &keys, m->key_areas[0].off);
	wipe_window_init(&w);
	r = wipe_window_read(fd, m, 0, WIPE_ALIGN, &w, e);
	/* A file without a byte on the disk has nothing to show. */
	if (r == 0 && !w.n)
		*holds = true;
	/* It may be further than the last checkpoint says. */
	for (uint32_t pass = m->pass ? m->pass - 1 : 0; r == 0 && w.n && pass < plan->n_passes; pass++) {
		struct wipe_fill fill = { plan->passes[pass].is_random, plan->passes[pass].byte, number, pass };

		*holds |= is_pattern(fd, m, key, &fill, w.at[0].off);
	}
	wipe_window_free(&w);
	close(fd);
	return r;
}

/* ---- the end ---------------------------------------------------------------------------------------------- */

int wipe_member_unlink(struct wipe_member *m, struct vd_error *e)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz234567";
	char name[PATH_MAX];
	const char *slash = strrchr(m->path, '/');
	size_t len = strlen(slash + 1);
	uint8_t random[NAME_MAX];
	int r = wipe_random(random, sizeof(random), e);

	if (r < 0 || m->is_device)
		return r;
	snprintf(name, sizeof(name), "%s", m->path);
	for (size_t i = 0; i < len && i < sizeof(random); i++)
		name[slash + 1 - m->path + i] = letters[random[i] % 32];
	if (renameat2(AT_FDCWD, m->path, AT_FDCWD, name, RENAME_NOREPLACE))
		return fail_errno(e, errno, "%s cannot be renamed", m->path);
	r = wipe_flush_folder_of(m->path, e);
	if (r == 0 && unlink(name))
		r = fail_errno(e, errno, "%s, renamed to %s, cannot be removed", m->path, name);
	if (r == 0)
		r = wipe_flush_folder_of(m->path, e);
	m->is_unlinked = r == 0;
	return r;
}
