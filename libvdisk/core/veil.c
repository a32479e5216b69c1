/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Hides sectors of an image's file, shows them to its own driver, brings them back. What the stub says is stub.c's. */
#include "libvdisk/core/veil.h"

#include <pthread.h>
#include <stdlib.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/core/stub.h"

#define SECTOR VD_JOURNAL_SECTOR

struct vd_veil {
	struct vd_host host;            /* first: a pointer to it is one to the veil */
	struct vd_host *inner;
	struct vd_journal *j;           /* NULL: nothing is hidden yet */
	char *path;
	struct vd_io *file;
	bool is_open;                   /* through the host */
	pthread_mutex_t lock;           /* the hidden sectors */
	uint8_t sector[VD_JOURNAL_HIDDEN][SECTOR];      /* as in the journal */
};

/* The image's file as its driver sees it. */
struct veiled {
	struct vd_io io;
	struct vd_veil *v;
};

static struct vd_veil *veil_of(struct vd_io *io)
{
	return ((struct veiled *)io)->v;
}

static struct vd_io *file_of(struct vd_io *io)
{
	return veil_of(io)->file;
}

static uint32_t n_hidden(const struct vd_veil *v)
{
	return v->j ? v->j->state.n_hidden : 0;
}

static uint32_t short_size(const struct vd_veil *v)
{
	return v->j ? v->j->state.short_size : 0;
}

/* The part of [off, off+len) that is the i-th hidden sector's. */
static bool meets(const struct vd_veil *v, uint32_t i, uint64_t off, uint64_t len, uint64_t *from, uint64_t *to)
{
	uint64_t at = v->j->state.hidden[i];

	*from = vd_max_u64(off, at);
	*to = vd_min_u64(off + len, at + SECTOR);
	return *from < *to;
}

static int veiled_pread(struct vd_io *io, void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	struct vd_veil *v = veil_of(io);
	int r = vd_io_pread(file_of(io), buf, len, off, e);
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&v->lock);
	uint64_t from, to;

	for (uint32_t i = 0; i < n_hidden(v) && r == 0; i++)
		if (meets(v, i, off, len, &from, &to))
			memcpy((uint8_t *)buf + (from - off), v->sector[i] + (from - v->j->state.hidden[i]), to - from);
	return r;
}

/* Zeros if buf is NULL. */
static int write_hidden(struct vd_veil *v, uint32_t i, const uint8_t *buf, uint64_t from, uint64_t to, struct vd_error *e)
{
	uint8_t *at = v->sector[i] + (from - v->j->state.hidden[i]);

	if (buf)
		memcpy(at, buf, to - from);
	else
		memset(at, 0, to - from);
	return vd_journal_write_hidden(v->j, i, v->sector[i], e);
}

/* The first hidden sector that the range meets; n_hidden: none. */
static uint32_t first_met(const struct vd_veil *v, uint64_t off, uint64_t len, uint64_t *from, uint64_t *to)
{
	uint32_t n = n_hidden(v), best = n;
	uint64_t f, t;

	*from = *to = off + len;
	for (uint32_t i = 0; i < n; i++) {
		if (!meets(v, i, off, len, &f, &t) || f >= *from)
			continue;
		best = i;
		*from = f;
		*to = t;
	}
	return best;
}

/* What is hidden of the range is changed in the journal, the rest in the file. buf NULL: made zeros. */
static int change(struct vd_io *io, const uint8_t *buf, uint64_t off, uint64_t len, struct vd_error *e)
{
	struct vd_veil *v = veil_of(io);
	uint64_t end = off + len;
	int r = 0;

	while (off < end && r == 0) {
		vd_auto_unlock pthread_mutex_t *held = NULL;
		uint64_t from, to;
		uint32_t i;

		held = vd_locked(&v->lock);
		i = first_met(v, off, end - off, &from, &to);
		if (from == off && i < n_hidden(v)) {
			r = write_hidden(v, i, buf, from, to, e);
			from = to;
		} else {
			/* Nobody takes the lock for long but who writes hidden sectors, which is rare. */
			pthread_mutex_unlock(held);
			held = NULL;
			r = buf ? vd_io_pwrite(file_of(io), buf, from - off, off, e) : vd_io_punch(file_of(io), off, from - off, e);
		}
		buf = buf ? buf + (from - off) : NULL;
		off = from;
	}
	return r;
}

static int veiled_pwrite(struct vd_io *io, const void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	struct vd_veil *v = veil_of(io);
	int r = change(io, buf, off, len, e);

	/* A text that was shorter than the stub grows. */
	if (r == 0 && short_size(v) && off + len > short_size(v)) {
		v->j->state.short_size = off + len >= SECTOR ? 0 : (uint32_t)(off + len);
		r = vd_journal_write_state(v->j, e);
	}
	return r;
}

static int veiled_punch(struct vd_io *io, uint64_t off, uint64_t len, struct vd_error *e)
{
	return change(io, NULL, off, len, e);
}

static int veiled_flush(struct vd_io *io, struct vd_error *e)
{
	return vd_io_flush(file_of(io), e);
}

static int veiled_size(struct vd_io *io, uint64_t *size, struct vd_error *e)
{
	int r = vd_io_size(file_of(io), size, e);

	if (r == 0 && short_size(veil_of(io)))
		*size = short_size(veil_of(io));
	return r;
}

/* The stub stays whole. */
static int veiled_truncate(struct vd_io *io, uint64_t size, struct vd_error *e)
{
	struct vd_veil *v = veil_of(io);
	uint32_t was = short_size(v), now = size < SECTOR ? (uint32_t)size : 0;
	int r = vd_io_truncate(file_of(io), n_hidden(v) ? vd_max_u64(size, SECTOR) : size, e);

	if (r < 0 || !n_hidden(v) || was == now)
		return r;
	v->j->state.short_size = now;
	return vd_journal_write_state(v->j, e);
}

static int veiled_extent(struct vd_io *io, uint64_t off, bool *is_data, uint64_t *len, struct vd_error *e)
{
	return vd_io_extent(file_of(io), off, is_data, len, e);
}

static int veiled_allocated(struct vd_io *io, uint64_t *bytes, struct vd_error *e)
{
	return vd_io_allocated(file_of(io), bytes, e);
}

static int veiled_close(struct vd_io *io, struct vd_error *e)
{
	(void)e;
	veil_of(io)->is_open = false;
	free(io->name);
	free(io);
	return 0;
}

static const struct vd_io_ops veiled_ops = {
	.pread = veiled_pread, .pwrite = veiled_pwrite, .flush = veiled_flush, .size = veiled_size,
	.truncate = veiled_truncate, .punch = veiled_punch, .extent = veiled_extent, .allocated = veiled_allocated,
	.close = veiled_close,
};

/* ---- the host ------------------------------------------------------------------------------------------- */

static struct vd_veil *of_host(struct vd_host *h)
{
	return (struct vd_veil *)h;
}

static int veil_open(struct vd_host *h, const char *path, unsigned flags, struct vd_io **out, struct vd_error *e)
{
	struct vd_veil *v = of_host(h);
	vd_auto_free struct veiled *w = NULL;
	int r;

	if (strcmp(path, v->path) || v->is_open || flags & VD_IO_CREATE)
		return v->inner->open(v->inner, path, flags, out, e);
	r = vd_alloc(1, sizeof(*w), &w, e);
	if (r == 0)
		r = vd_io_init(&w->io, &veiled_ops, v->file->name, flags, e);
	if (r < 0)
		return r;
	w->io.is_device = v->file->is_device;
	w->io.dev = v->file->dev;
	w->io.ino = v->file->ino;
	w->v = v;
	v->is_open = true;
	*out = &vd_steal(&w)->io;
	return 0;
}

static int veil_rename(struct vd_host *h, const char *from, const char *to, bool replace, struct vd_error *e)
{
	return of_host(h)->inner->rename(of_host(h)->inner, from, to, replace, e);
}

static int veil_unlink(struct vd_host *h, const char *path, struct vd_error *e)
{
	return of_host(h)->inner->unlink(of_host(h)->inner, path, e);
}

static bool veil_exists(struct vd_host *h, const char *path)
{
	return of_host(h)->inner->exists(of_host(h)->inner, path);
}

int vd_veil_open(struct vd_host *inner, const char *path, struct vd_veil **out, struct vd_error *e)
{
	struct vd_veil *v = NULL;
	int r = vd_alloc(1, sizeof(*v), &v, e);

	if (r < 0)
		return r;
	v->host = (struct vd_host){ .open = veil_open, .rename = veil_rename, .unlink = veil_unlink, .exists = veil_exists };
	v->inner = inner;
	pthread_mutex_init(&v->lock, NULL);
	r = vd_strdup(path, &v->path, e);
	if (r == 0)
		r = inner->open(inner, path, VD_IO_WRITE, &v->file, e);
	if (r < 0)
		vd_veil_abort(v);
	else
		*out = v;
	return r;
}

int vd_veil_use(struct vd_veil *v, struct vd_journal *j, struct vd_error *e)
{
	int r = 0;

	for (uint32_t i = 0; i < j->state.n_hidden && r == 0; i++)
		r = vd_journal_read_hidden(j, i, v->sector[i], e);
	if (r == 0)
		v->j = j;
	return r;
}

int vd_veil_close(struct vd_veil *v, struct vd_error *e)
{
	struct vd_io *file = vd_steal(&v->file);
	int r = vd_io_close(file, e);

	vd_veil_abort(v);
	return r;
}

void vd_veil_abort(struct vd_veil *v)
{
	if (!v)
		return;
	vd_io_abort(v->file);
	pthread_mutex_destroy(&v->lock);
	vd_wipe(v->sector, sizeof(v->sector));
	free(v->path);
	free(v);
}

struct vd_host *vd_veil_host(struct vd_veil *v)
{
	return &v->host;
}

struct vd_io *vd_veil_file(struct vd_veil *v)
{
	return v->file;
}

/* ---- hiding and bringing back --------------------------------------------------------------------------- */

int vd_veil_hide(struct vd_veil *v, uint64_t off, struct vd_error *e)
{
	struct vd_journal_state *s = &v->j->state;
	uint8_t stub[VD_STUB_SIZE], sector[SECTOR];
	uint64_t size = 0;
	int r = vd_io_size(v->file, &size, e);

	if (r == 0)
		r = vd_io_pread(v->file, sector, sizeof(sector), off, e);
	if (r == 0)
		r = vd_journal_write_hidden(v->j, s->n_hidden, sector, e);
	if (r < 0)
		return r;
	pthread_mutex_lock(&v->lock);
	memcpy(v->sector[s->n_hidden], sector, sizeof(sector));
	s->hidden[s->n_hidden++] = off;
	if (off == 0 && size < SECTOR)
		s->short_size = (uint32_t)size;
	pthread_mutex_unlock(&v->lock);
	r = vd_journal_write_state(v->j, e);
	vd_stub_make(stub, s->uuid);
	if (r == 0)
		r = vd_io_pwrite(v->file, stub, sizeof(stub), off, e);
	return r < 0 ? r : vd_io_flush(v->file, e);
}

int vd_veil_lift(struct vd_veil *v, struct vd_error *e)
{
	const struct vd_journal_state *s = &v->j->state;
	uint64_t size = 0;
	int r = vd_io_size(v->file, &size, e);

	for (uint32_t i = s->n_hidden; i-- > 0 && r == 0;) {
		/* The file may have become shorter. */
		if (s->hidden[i] + SECTOR <= size)
			r = vd_io_pwrite(v->file, v->sector[i], SECTOR, s->hidden[i], e);
		if (r == 0)
			r = vd_io_flush(v->file, e);
		/* A stub that is cut is known for nothing: the sector is there before the end is. */
		if (r == 0 && i == 0 && s->short_size && (r = vd_io_truncate(v->file, s->short_size, e)) == 0)
			r = vd_io_flush(v->file, e);
	}
	return r;
}
