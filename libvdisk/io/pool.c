/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Opens and closes files as they are wanted.
 *
 * P1 A file with pins is open. A file without is on the list of idle ones if it is open.
 * P2 What was written is durable before the file is closed; a failure to make it so is told by every later flush.
 * P3 A file that is opened again is the same file: what was put in its place meanwhile is refused.
 */
#include "libvdisk/io/pool.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/queue.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

struct pooled {
	struct vd_io io;
	struct vd_pool *pool;
	/* Under the pool's lock. */
	struct vd_io *inner;            /* NULL: closed */
	unsigned n_pins;
	int lost;                       /* code of the failure to flush before a close */
	TAILQ_ENTRY(pooled) idle;
};

TAILQ_HEAD(idle_list, pooled);

struct vd_pool {
	struct vd_host *host;
	pthread_mutex_t lock;
	unsigned max_open, n_open;
	struct idle_list idle;          /* the last is the one to close first */
};

int vd_pool_new(struct vd_host *host, unsigned max_open, struct vd_pool **out, struct vd_error *e)
{
	struct vd_pool *p;
	int r = vd_alloc(1, sizeof(*p), &p, e);

	if (r < 0)
		return r;
	p->host = host;
	p->max_open = max_open;
	pthread_mutex_init(&p->lock, NULL);
	TAILQ_INIT(&p->idle);
	*out = p;
	return 0;
}

void vd_pool_free(struct vd_pool *p)
{
	if (!p)
		return;
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static int close_inner(struct pooled *f, struct vd_error *e)
{
	int r = 0, c;

	/* Keeps P2. */
	if (f->io.flags & VD_IO_WRITE)
		r = vd_io_flush(f->inner, e);
	c = vd_io_close(vd_steal(&f->inner), r < 0 ? NULL : e);
	f->pool->n_open--;
	return r < 0 ? r : c;
}

static void make_room(struct vd_pool *p)
{
	while (p->n_open >= p->max_open && !TAILQ_EMPTY(&p->idle)) {
		struct pooled *f = TAILQ_LAST(&p->idle, idle_list);
		int r;

		TAILQ_REMOVE(&p->idle, f, idle);
		r = close_inner(f, NULL);
		if (r < 0 && !f->lost)
			f->lost = r;
	}
}

static int open_inner(struct pooled *f, struct vd_error *e)
{
	unsigned flags = f->io.flags & ~(unsigned)VD_IO_CREATE;
	struct vd_io *io;
	int r;

	make_room(f->pool);
	r = f->pool->host->open(f->pool->host, f->io.name, flags, &io, e);
	if (r < 0)
		return r;
	if (io->dev != f->io.dev || io->ino != f->io.ino) {
		vd_io_abort(io);
		return vd_fail(e, VD_EIO, "%s: the file was replaced while it was in use", f->io.name);
	}
	f->inner = io;
	f->pool->n_open++;
	return 0;
}

/* Opened, and not closed until unpin(). */
static int pin(struct vd_io *io, struct vd_io **inner, struct vd_error *e)
{
	struct pooled *f = (struct pooled *)io;
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&f->pool->lock);
	int r = 0;

	if (!f->inner)
		r = open_inner(f, e);
	else if (!f->n_pins)
		TAILQ_REMOVE(&f->pool->idle, f, idle);
	if (r < 0)
		return r;
	f->n_pins++;
	*inner = f->inner;
	return 0;
}

static void unpin(struct vd_io *io)
{
	struct pooled *f = (struct pooled *)io;
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&f->pool->lock);

	if (!--f->n_pins)
		TAILQ_INSERT_HEAD(&f->pool->idle, f, idle);
}

static int pool_pread(struct vd_io *io, void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	struct vd_io *inner;
	int r = pin(io, &inner, e);

	if (r < 0)
		return r;
	r = vd_io_pread(inner, buf, len, off, e);
	unpin(io);
	return r;
}

static int pool_pwrite(struct vd_io *io, const void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	struct vd_io *inner;
	int r = pin(io, &inner, e);

	if (r < 0)
		return r;
	r = vd_io_pwrite(inner, buf, len, off, e);
	unpin(io);
	return r;
}

static void pool_finished(struct vd_io *io, uint64_t off, uint64_t len)
{
	struct vd_io *inner;

	if (pin(io, &inner, NULL) < 0)
		return;
	vd_io_finished(inner, off, len);
	unpin(io);
}

static int pool_flush(struct vd_io *io, struct vd_error *e)
{
	struct pooled *f = (struct pooled *)io;
	struct vd_io *inner;
	int r = pin(io, &inner, e);

	if (r < 0)
		return r;
	r = f->lost ? vd_fail(e, f->lost, "%s: what was written could not be made durable", io->name) :
	    vd_io_flush(inner, e);
	unpin(io);
	return r;
}

static int pool_size(struct vd_io *io, uint64_t *size, struct vd_error *e)
{
	struct vd_io *inner;
	int r = pin(io, &inner, e);

	if (r < 0)
		return r;
	r = vd_io_size(inner, size, e);
	unpin(io);
	return r;
}

static int pool_truncate(struct vd_io *io, uint64_t size, struct vd_error *e)
{
	struct vd_io *inner;
	int r = pin(io, &inner, e);

	if (r < 0)
		return r;
	r = vd_io_truncate(inner, size, e);
	unpin(io);
	return r;
}

static int pool_punch(struct vd_io *io, uint64_t off, uint64_t len, struct vd_error *e)
{
	struct vd_io *inner;
	int r = pin(io, &inner, e);

	if (r < 0)
		return r;
	r = vd_io_punch(inner, off, len, e);
	unpin(io);
	return r;
}

static int pool_extent(struct vd_io *io, uint64_t off, bool *is_data, uint64_t *len, struct vd_error *e)
{
	struct vd_io *inner;
	int r = pin(io, &inner, e);

	if (r < 0)
		return r;
	r = vd_io_extent(inner, off, is_data, len, e);
	unpin(io);
	return r;
}

static int pool_allocated(struct vd_io *io, uint64_t *bytes, struct vd_error *e)
{
	struct vd_io *inner;
	int r = pin(io, &inner, e);

	if (r < 0)
		return r;
	r = vd_io_allocated(inner, bytes, e);
	unpin(io);
	return r;
}

static int pool_close(struct vd_io *io, struct vd_error *e)
{
	struct pooled *f = (struct pooled *)io;
	struct vd_pool *p = f->pool;
	int r = 0;

	pthread_mutex_lock(&p->lock);
	if (f->inner) {
		TAILQ_REMOVE(&p->idle, f, idle);
		p->n_open--;
		r = vd_io_close(vd_steal(&f->inner), e);
	}
	pthread_mutex_unlock(&p->lock);
	if (r == 0 && f->lost)
		r = vd_fail(e, f->lost, "%s: what was written could not be made durable", io->name);
	free(io->name);
	free(io);
	return r;
}

static const struct vd_io_ops pool_ops = {
	.pread = pool_pread, .pwrite = pool_pwrite, .finished = pool_finished, .flush = pool_flush, .size = pool_size,
	.truncate = pool_truncate, .punch = pool_punch, .extent = pool_extent, .allocated = pool_allocated,
	.close = pool_close,
};

/* The file's own facts, which it keeps while it is closed. */
static int adopt(struct vd_pool *p, struct vd_io *inner, const char *path, unsigned flags, struct pooled **out,
		 struct vd_error *e)
{
	struct pooled *f;
	int r = vd_alloc(1, sizeof(*f), &f, e);

	if (r < 0)
		return r;
	r = vd_io_init(&f->io, &pool_ops, path, flags, e);
	if (r < 0) {
		free(f);
		return r;
	}
	f->io.is_device = inner->is_device;
	f->io.dev = inner->dev;
	f->io.ino = inner->ino;
	f->pool = p;
	f->inner = inner;
	*out = f;
	return 0;
}

int vd_pool_open(struct vd_pool *p, const char *path, unsigned flags, struct vd_io **out, struct vd_error *e)
{
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&p->lock);
	struct vd_io *inner;
	struct pooled *f;
	int r;

	make_room(p);
	r = p->host->open(p->host, path, flags, &inner, e);
	if (r < 0)
		return r;
	r = adopt(p, inner, path, flags, &f, e);
	if (r < 0) {
		vd_io_abort(inner);
		return r;
	}
	p->n_open++;
	TAILQ_INSERT_HEAD(&p->idle, f, idle);
	*out = &f->io;
	return 0;
}
