/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Asks by FIEMAP, which flushes first, or where there is none by SEEK_DATA. An overwrite was in place if every old range lies where it
 * lay: more may have come, as where a hole was filled. What a journal keeps this does not see.
 */
#include "wipe/extents.h"

#include <errno.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fail.h"
#include "ui.h"
#include "wipe/cipher.h"

#define ASKED 512               /* extents in one call */
/* Their place means nothing, or there is none. */
#define NO_PLACE (FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_DELALLOC | FIEMAP_EXTENT_ENCODED | FIEMAP_EXTENT_DATA_INLINE | \
		  FIEMAP_EXTENT_DATA_TAIL | FIEMAP_EXTENT_NOT_ALIGNED)

void wipe_window_init(struct wipe_window *w)
{
	*w = (struct wipe_window){ .at = calloc(WIPE_EXTENTS_MAX, sizeof(w->at[0])) };
	if (!w->at)
		ui_out_of_memory();
}

void wipe_window_free(struct wipe_window *w)
{
	free(w->at);
	w->at = NULL;
}

/* ---- asking ----------------------------------------------------------------------------------------------- */

union answer {
	struct fiemap map;
	char room[sizeof(struct fiemap) + ASKED * sizeof(struct fiemap_extent)];
};

/* The extents at or behind `from`; 0 or -errno. */
static int ask(int fd, uint64_t from, union answer *a)
{
	memset(&a->map, 0, sizeof(a->map));
	a->map.fm_start = from;
	a->map.fm_length = FIEMAP_MAX_OFFSET - from;
	a->map.fm_flags = FIEMAP_FLAG_SYNC;
	a->map.fm_extent_count = ASKED;
	return ioctl(fd, FS_IOC_FIEMAP, &a->map) ? -errno : 0;
}

bool wipe_has_map(int fd)
{
	union answer a;

	return ask(fd, 0, &a) == 0;
}

/* Calls take() with each extent from `from` on, until it returns false or there are none. */
static int each_extent(int fd, uint64_t from, bool (*take)(void *ctx, const struct fiemap_extent *x), void *ctx, struct vd_error *e)
{
	union answer a;

	for (;;) {
		const struct fiemap_extent *last;
		int err = ask(fd, from, &a);

		if (err)
			return fail_errno(e, -err, "where the file lies cannot be asked for");
		for (unsigned i = 0; i < a.map.fm_mapped_extents; i++)
			if (!take(ctx, &a.map.fm_extents[i]))
				return 0;
		if (!a.map.fm_mapped_extents)
			return 0;
		last = &a.map.fm_extents[a.map.fm_mapped_extents - 1];
		if (last->fe_flags & FIEMAP_EXTENT_LAST || last->fe_logical + last->fe_length <= from)
			return 0;
		from = last->fe_logical + last->fe_length;
	}
}

/* ---- windows ---------------------------------------------------------------------------------------------- */

struct filling {
	struct wipe_window *w;
	uint64_t size, bytes_max;
};

/* False: the window is full. `to` is the end of what is in it. */
static bool add(struct filling *f, struct wipe_extent x)
{
	struct wipe_window *w = f->w;

	if (x.off < w->from) {
		x.phys += w->from - x.off;
		x.len = x.off + x.len > w->from ? x.len - (w->from - x.off) : 0;
		x.off = w->from;
	}
	if (x.off >= f->size)
		return false;
	if (x.len > f->size - x.off)
		x.len = f->size - x.off;
	if (!x.len)
		return true;
	if (w->n == WIPE_EXTENTS_MAX || w->bytes == f->bytes_max)
		return false;
	if (x.len > f->bytes_max - w->bytes)
		x.len = f->bytes_max - w->bytes;
	w->at[w->n++] = x;
	w->bytes += x.len;
	w->to = x.off + x.len;
	return true;
}

static bool add_mapped(void *ctx, const struct fiemap_extent *x)
{
	return add(ctx, (struct wipe_extent){ x->fe_logical, x->fe_length, x->fe_physical, x->fe_flags });
}

static int seek_data(int fd, struct filling *f, struct vd_error *e)
{
	off_t at = (off_t)f->w->from, end;

	while ((uint64_t)at < f->size) {
		at = lseek(fd, at, SEEK_DATA);
		if (at < 0 && errno == ENXIO)
			return 0;
		/* A file system that knows no holes: all of it is data. */
		if (at < 0 && errno == EINVAL) {
			add(f, (struct wipe_extent){ .off = f->w->from, .len = f->size - f->w->from });
			return 0;
		}
		end = at < 0 ? -1 : lseek(fd, at, SEEK_HOLE);
		if (end < 0)
			return fail_errno(e, errno, "its holes cannot be asked for");
		if (!add(f, (struct wipe_extent){ .off = (uint64_t)at, .len = (uint64_t)(end - at) }))
			return 0;
		at = end;
	}
	return 0;
}

int wipe_window_read(int fd, const struct wipe_member *m, uint64_t from, uint64_t bytes_max, struct wipe_window *w, struct vd_error *e)
{
	struct filling f = { w, m->size, bytes_max };
	int r = 0;

	w->n = 0;
	w->bytes = 0;
	w->from = from;
	w->to = from;
	if (m->is_device)
		add(&f, (struct wipe_extent){ .off = from, .len = m->size - from, .phys = from });
	else
		r = m->has_map ? each_extent(fd, from, add_mapped, &f, e) : seek_data(fd, &f, e);
	/* Nothing stopped it: what is left is holes. */
	if (r == 0 && w->n < WIPE_EXTENTS_MAX && w->bytes < bytes_max)
		w->to = m->size;
	return r;
}

/* ---- comparing -------------------------------------------------------------------------------------------- */

struct comparison {
	const struct wipe_window *before;
	size_t i;
	uint64_t at;                    /* up to here, of before->at[i], is dealt with */
	uint64_t in_place;
};

static bool compare(void *ctx, const struct fiemap_extent *x)
{
	struct comparison *c = ctx;
	uint64_t end = x->fe_logical + x->fe_length;

	for (; c->i < c->before->n; c->i++) {
		const struct wipe_extent *b = &c->before->at[c->i];
		uint64_t from = c->at > b->off ? c->at : b->off, to = b->off + b->len;

		if (from < x->fe_logical)
			from = x->fe_logical < to ? x->fe_logical : to;
		if (from >= end && from < to)
			return true;
		if (to > end)
			to = end;
		if (from < to && !((x->fe_flags | b->flags) & NO_PLACE) &&
		    x->fe_physical + (from - x->fe_logical) == b->phys + (from - b->off))
			c->in_place += to - from;
		c->at = to;
		if (to < b->off + b->len)
			return true;
	}
	return false;
}

int wipe_window_moved(int fd, const struct wipe_window *before, uint64_t *moved, struct vd_error *e)
{
	struct comparison c = { .before = before };
	int r = each_extent(fd, before->from, compare, &c, e);

	*moved = before->bytes - c.in_place;
	return r;
}

/* ---- the whole file --------------------------------------------------------------------------------------- */

struct sum {
	struct wipe_member *m;
	struct wipe_map *map;
	struct wipe_hash *hash;
};

static bool sum_up(void *ctx, const struct fiemap_extent *x)
{
	struct sum *s = ctx;
	uint64_t page = 4096, end = (s->m->size + page - 1) & ~(page - 1);
	uint8_t row[24];

	wipe_put_be(row, x->fe_logical, 8);
	wipe_put_be(row + 8, x->fe_physical, 8);
	wipe_put_be(row + 16, x->fe_length, 8);
	wipe_hash_add(s->hash, row, sizeof(row));
	s->map->extents++;
	s->map->bytes += x->fe_length;
	if (x->fe_flags & FIEMAP_EXTENT_SHARED)
		s->m->shared += x->fe_length;
	if (x->fe_flags & NO_PLACE)
		s->m->encoded += x->fe_length;
	if (x->fe_flags & FIEMAP_EXTENT_UNWRITTEN)
		s->m->unwritten += x->fe_length;
	if (x->fe_logical + x->fe_length > end)
		s->m->past_end += x->fe_logical + x->fe_length - (x->fe_logical > end ? x->fe_logical : end);
	return true;
}

int wipe_map_sum(int fd, struct wipe_member *m, struct wipe_map *map, struct vd_error *e)
{
	struct sum s = { .m = m, .map = map, .hash = wipe_hash_new() };
	struct stat st;
	int r = 0;

	*map = (struct wipe_map){ 0 };
	m->shared = m->encoded = m->unwritten = m->past_end = 0;
	if (m->is_device)
		sum_up(&s, &(struct fiemap_extent){ .fe_length = m->size });
	else if (m->has_map)
		r = each_extent(fd, 0, sum_up, &s, e);
	else
		map->bytes = fstat(fd, &st) ? m->allocated : (uint64_t)st.st_blocks * 512;
	wipe_hash_end_text(s.hash, map->sha256);
	return r;
}
