/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads take requests of up to 4 MiB from a list of extents. Each makes its pattern while the others' requests are under way, so
 * that the device is never idle. What to overwrite, and what it proves, is member.c's business.
 */
#include "wipe/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fail.h"
#include "ui.h"

#define SECTOR 512u             /* how exactly a difference is told */
#define SLICE 65536u            /* of what was read, compared at a time */

/* ---- files ------------------------------------------------------------------------------------------------ */

/* What was judged and confirmed, and not what the name leads to by now. */
static bool is_same(int fd, const struct wipe_member *m)
{
	struct stat st;

	if (fstat(fd, &st))
		return false;
	return m->is_device ? S_ISBLK(st.st_mode) && st.st_rdev == m->ino : st.st_dev == m->dev && st.st_ino == m->ino;
}

int wipe_file_open(const struct wipe_member *m, struct wipe_file *f, struct vd_error *e)
{
	int flags = O_RDWR | O_NOFOLLOW | O_CLOEXEC | (m->is_device ? O_EXCL : 0);

	f->direct = -1;
	f->plain = open(m->path, flags);
	if (f->plain < 0 && errno == EBUSY)
		return fail(e, VD_EBUSY, "%s: somebody uses it now", m->path);
	if (f->plain < 0)
		return fail_errno(e, errno, "%s cannot be opened for writing", m->path);
	/* The device is held by the first descriptor. */
	f->direct = open(m->path, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_DIRECT);
	if (is_same(f->plain, m) && (f->direct < 0 || is_same(f->direct, m)))
		return 0;
	close(f->plain);
	if (f->direct >= 0)
		close(f->direct);
	return fail(e, VD_EBUSY, "%s: another file has this name now", m->path);
}

int wipe_file_sync(const struct wipe_file *f, const struct wipe_member *m, struct vd_error *e)
{
	if (fdatasync(f->plain) || (f->direct >= 0 && fdatasync(f->direct)))
		return fail_errno(e, errno, "%s: what was written did not reach the device", m->path);
	if (m->is_device)
		(void)ioctl(f->plain, BLKFLSBUF, 0);
	(void)posix_fadvise(f->plain, 0, 0, POSIX_FADV_DONTNEED);
	return 0;
}

int wipe_file_close(struct wipe_file *f, const struct wipe_member *m, struct vd_error *e)
{
	int a = f->direct >= 0 ? close(f->direct) : 0, b = f->plain >= 0 ? close(f->plain) : 0;

	f->direct = f->plain = -1;
	return a || b ? fail_errno(e, errno, "%s: closing it failed", m->path) : 0;
}

int wipe_flush_folder_of(const char *path, struct vd_error *e)
{
	char folder[PATH_MAX];
	const char *slash = strrchr(path, '/');
	int fd, r = 0;

	snprintf(folder, sizeof(folder), "%.*s", slash ? (int)(slash - path) + (slash == path) : 1, slash ? path : ".");
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd))
		r = fail_errno(e, errno, "%s cannot be flushed", folder);
	if (fd >= 0)
		close(fd);
	return r;
}

/* ---- the list ---------------------------------------------------------------------------------------------- */

struct pool {
	struct wipe_work *w;
	pthread_mutex_t lock;
	size_t i;                       /* the next byte: at[i].off + skip */
	uint64_t skip;
};

/* The next request: as much as is side by side in the file. False: there is none. */
static bool take(struct pool *p, struct wipe_span *to)
{
	struct wipe_work *w = p->w;

	*to = (struct wipe_span){ 0, 0 };
	pthread_mutex_lock(&p->lock);
	while (p->i < w->n && to->len < WIPE_CHUNK) {
		const struct wipe_extent *x = &w->at[p->i];
		uint64_t off = x->off + p->skip, len = x->len - p->skip, room = WIPE_CHUNK - to->len;

		if (to->len && to->off + to->len != off)
			break;
		if (!to->len)
			to->off = off;
		if (len > room)
			len = room;
		to->len += len;
		p->skip += len;
		if (p->skip == x->len) {
			p->i++;
			p->skip = 0;
		}
	}
	w->bytes += to->len;
	pthread_mutex_unlock(&p->lock);
	return to->len;
}

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void keep_pace(struct wipe_shared *s, uint64_t len)
{
	double now, from;

	if (!s->bytes_per_second)
		return;
	pthread_mutex_lock(&s->pace);
	now = now_s();
	from = s->next > now ? s->next : now;
	s->next = from + (double)len / (double)s->bytes_per_second;
	pthread_mutex_unlock(&s->pace);
	for (; now < from && !atomic_load(&s->stop); now = now_s()) {
		double wait = from - now < 0.1 ? from - now : 0.1;

		nanosleep(&(struct timespec){ .tv_nsec = (long)(wait * 1e9) }, NULL);
	}
}

/* ---- one request ------------------------------------------------------------------------------------------- */

struct worker {
	struct pool *p;
	struct wipe_stream *stream;
	uint8_t *pattern, *seen;        /* what is written, or a slice of what should have been read; what was */
	pthread_t thread;
};

void wipe_bad_add(struct wipe_bad *bad, uint64_t off, uint64_t len)
{
	bad->bytes += len;
	for (size_t i = 0; i < bad->n; i++)
		if (bad->at[i].off + bad->at[i].len == off) {
			bad->at[i].len += len;
			return;
		}
	if (bad->n < WIPE_BAD_MAX)
		bad->at[bad->n++] = (struct wipe_span){ off, len };
}

static bool is_bad(const struct wipe_bad *bad, uint64_t off, uint64_t len)
{
	for (size_t i = 0; i < bad->n; i++)
		if (bad->at[i].off <= off && off + len <= bad->at[i].off + bad->at[i].len)
			return true;
	return false;
}

static void tell_bad(struct pool *p, struct wipe_bad *bad, uint64_t off, uint64_t len)
{
	pthread_mutex_lock(&p->lock);
	wipe_bad_add(bad, off, len);
	pthread_mutex_unlock(&p->lock);
}

/* 0 or -errno: all of it, by one descriptor. */
static int move(int fd, bool reads, uint8_t *buf, uint64_t off, size_t len)
{
	while (len) {
		ssize_t n = reads ? pread(fd, buf, len, (off_t)off) : pwrite(fd, buf, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		buf += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

/* Past the cache as far as that goes: the end of a file may be no whole block. */
static int move_best(struct worker *t, uint8_t *buf, uint64_t off, size_t len)
{
	struct wipe_work *w = t->p->w;
	size_t whole = w->file->direct >= 0 && off % SECTOR == 0 ? len - len % SECTOR : 0;
	int err = whole ? move(w->file->direct, w->verifies, buf, off, whole) : 0;

	if (err == -EINVAL || (!whole && len >= WIPE_ALIGN)) {
		w->through_cache = true;
		whole = 0;
		err = 0;
	}
	if (!err && whole < len)
		err = move(w->file->plain, w->verifies, buf + whole, off + whole, len - whole);
	return err;
}

static void make_pattern(struct worker *t, uint64_t off, size_t len)
{
	const struct wipe_fill *fill = &t->p->w->fill;

	if (fill->is_random)
		wipe_stream_fill(t->stream, fill->member, fill->pass, off, t->pattern, len);
}

static void compare_slice(struct worker *t, const uint8_t *seen, uint64_t off, size_t len)
{
	make_pattern(t, off, len);
	if (memcmp(seen, t->pattern, len) == 0)
		return;
	for (size_t at = 0; at < len; at += SECTOR) {
		size_t n = len - at < SECTOR ? len - at : SECTOR;

		if (memcmp(seen + at, t->pattern + at, n) != 0 && !is_bad(t->p->w->known, off + at, n))
			tell_bad(t->p, t->p->w->mismatch, off + at, n);
	}
}

/* The pattern is made again in slices that never leave the processor's cache: only what was read comes from memory. */
static void compare(struct worker *t, const uint8_t *seen, uint64_t off, size_t len)
{
	for (size_t at = 0; at < len; at += SLICE)
		compare_slice(t, seen + at, off + at, len - at < SLICE ? len - at : SLICE);
}

/* In the smallest pieces: all but those that really fail. */
static void move_bit_by_bit(struct worker *t, uint8_t *buf, uint64_t off, size_t len)
{
	struct wipe_work *w = t->p->w;

	for (size_t at = 0; at < len; at += WIPE_ALIGN) {
		size_t n = len - at < WIPE_ALIGN ? len - at : WIPE_ALIGN;

		if (move_best(t, buf + at, off + at, n))
			tell_bad(t->p, w->failed, off + at, n);
		else if (w->verifies)
			compare(t, buf + at, off + at, n);
	}
}

static void serve(struct worker *t, const struct wipe_span *q)
{
	struct wipe_work *w = t->p->w;
	size_t len = (size_t)q->len;
	uint8_t *buf = w->verifies ? t->seen : t->pattern;

	if (!w->verifies)
		make_pattern(t, q->off, len);
	if (move_best(t, buf, q->off, len))
		move_bit_by_bit(t, buf, q->off, len);
	else if (w->verifies)
		compare(t, buf, q->off, len);
	atomic_fetch_add(&w->shared->done, len);
}

static void *work(void *arg)
{
	struct worker *t = arg;
	struct wipe_shared *s = t->p->w->shared;
	struct wipe_span q = { 0, 0 };

	while (!atomic_load(&s->stop) && take(t->p, &q)) {
		keep_pace(s, q.len);
		if (atomic_load(&s->stop))
			break;
		serve(t, &q);
	}
	return NULL;
}

/* ---- all of it --------------------------------------------------------------------------------------------- */

static uint8_t *new_buffer(size_t size)
{
	void *p = NULL;

	if (posix_memalign(&p, WIPE_ALIGN, size))
		ui_out_of_memory();
	return p;
}

int wipe_work(struct wipe_work *w, struct vd_error *e)
{
	struct pool p = { .w = w };
	unsigned n = w->shared->depth, started = 0;
	size_t pattern_size = w->verifies ? SLICE : WIPE_CHUNK;
	struct worker *t = calloc(n, sizeof(*t));

	if (!t)
		ui_out_of_memory();
	pthread_mutex_init(&p.lock, NULL);
	for (unsigned i = 0; i < n; i++) {
		t[i] = (struct worker){ .p = &p, .pattern = new_buffer(pattern_size) };
		if (w->verifies)
			t[i].seen = new_buffer(WIPE_CHUNK);
		if (w->fill.is_random)
			t[i].stream = wipe_stream_new(w->shared->key);
		else
			memset(t[i].pattern, w->fill.byte, pattern_size);
	}
	for (; started < n && pthread_create(&t[started].thread, NULL, work, &t[started]) == 0; started++)
		;
	if (!started)
		work(&t[0]);
	for (unsigned i = 0; i < started; i++)
		pthread_join(t[i].thread, NULL);
	for (unsigned i = 0; i < n; i++) {
		free(t[i].pattern);
		free(t[i].seen);
		wipe_stream_free(t[i].stream);
	}
	pthread_mutex_destroy(&p.lock);
	free(t);
	return atomic_load(&w->shared->stop) ? fail(e, VD_ECANCELLED, "stopped") : 0;
}
