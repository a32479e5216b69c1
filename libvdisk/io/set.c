/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The host files of one image by index, and which of them hold writes that are not durable. Whether a name may be
 * opened is the gate's to say, when to flush the core's.
 *
 * S1 A file's place in memory never changes while the set lives: readers take no lock.
 * S2 durable <= io->n_changes; the file is clean when they are equal. n_changes counts changes that have ended, so a
 *    flush makes durable at least those that it counted before it began (io.c).
 * S3 A file whose flush failed once is never clean again: Linux drops the pages that it could not write and
 *    reports success from the next fsync on.
 */
#include "libvdisk/io/set.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/io/atomic.h"
#include "libvdisk/io/pool.h"

struct member {
	struct vd_io *io;               /* NULL: only named */
	char *name;                     /* as the image names it; NULL: the io's name counts */
	pthread_mutex_t flush_lock;     /* one flush at a time; those who waited find their writes durable already */
	uint_fast64_t durable;          /* value of n_changes that the last good flush covered; under flush_lock */
	bool has_failed;                /* under flush_lock; keeps S3 */
};

#define PER_BLOCK 64
#define OPEN_EXTENTS_MAX 256            /* descriptors; 1024 is what a process may commonly have */

struct vd_set {
	struct vd_set_opts opts;
	pthread_mutex_t add_lock;
	struct vd_pool *pool;           /* of extents; NULL: has none yet */
	atomic_uint n;
	struct member *blocks[VD_SET_MAX / PER_BLOCK];
};

static struct member *member_of(const struct vd_set *s, uint32_t file)
{
	return &s->blocks[file / PER_BLOCK][file % PER_BLOCK];
}

/* Takes io and name on success. */
static int append(struct vd_set *s, struct vd_io *io, char *name, uint32_t *index, struct vd_error *e)
{
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&s->add_lock);
	unsigned n = atomic_load(&s->n);
	struct member *m;

	if (n == VD_SET_MAX)
		return vd_fail(e, VD_EUNSUPPORTED, "%s: the image consists of more than %d files",
			       vd_set_name(s, 0), VD_SET_MAX);
	if (n % PER_BLOCK == 0) {
		int r = vd_alloc(PER_BLOCK, sizeof(*m), &s->blocks[n / PER_BLOCK], e);

		if (r < 0)
			return r;
	}
	m = member_of(s, n);
	m->io = io;
	m->name = name;
	/* What was written before the file came here may not be durable. */
	m->durable = 0;
	pthread_mutex_init(&m->flush_lock, NULL);
	atomic_store(&s->n, n + 1);
	*index = n;
	return 0;
}

int vd_set_new(const struct vd_set_opts *opts, struct vd_io *image, struct vd_set **out, struct vd_error *e)
{
	struct vd_set *s;
	uint32_t index;
	int r = vd_alloc(1, sizeof(*s), &s, e);

	if (r < 0)
		return r;
	s->opts = *opts;
	if (!s->opts.gate)
		s->opts.gate = vd_gate_own_folder;
	pthread_mutex_init(&s->add_lock, NULL);
	r = append(s, image, NULL, &index, e);
	if (r < 0) {
		free(s);
		return r;
	}
	*out = s;
	return 0;
}

int vd_set_resolve(struct vd_set *s, enum vd_reference_kind kind, const char *name, const char *format,
		   char *path, size_t path_len, struct vd_error *e)
{
	return s->opts.gate(s->opts.gate_ctx, kind, vd_set_name(s, 0), name, format, path, path_len, e);
}

/* A file that an image names twice would be locked against itself, and flushed in an order that nobody chose. */
static int check_new(struct vd_set *s, const struct vd_io *io, struct vd_error *e)
{
	for (uint32_t i = 0; i < vd_set_count(s); i++) {
		const struct vd_io *other = member_of(s, i)->io;

		if (other && other->dev == io->dev && other->ino == io->ino)
			return vd_fail(e, VD_ECORRUPT, "%s: the image names the same file twice: %s",
				       vd_set_name(s, 0), io->name);
	}
	return 0;
}

static int open_extent(struct vd_set *s, const char *path, struct vd_io **out, struct vd_error *e)
{
	int r = s->pool ? 0 : vd_pool_new(s->opts.host, OPEN_EXTENTS_MAX, &s->pool, e);

	return r < 0 ? r : vd_pool_open(s->pool, path, s->opts.io_flags, out, e);
}

static int open_reference(struct vd_set *s, enum vd_reference_kind kind, const char *name, const char *format,
			  struct vd_io **out, struct vd_error *e)
{
	vd_auto_free char *path = NULL;
	int r = vd_alloc(PATH_MAX, 1, &path, e);

	if (r < 0)
		return r;
	r = vd_set_resolve(s, kind, name, format, path, PATH_MAX, e);
	if (r < 0)
		return r;
	if (kind == VD_REF_EXTENT)
		r = open_extent(s, path, out, e);
	else
		r = s->opts.host->open(s->opts.host, path, s->opts.io_flags, out, e);
	if (r < 0)
		return vd_error_prefix(e, r, "%s: a file that it needs: ", vd_set_name(s, 0));
	return 0;
}

int vd_set_add(struct vd_set *s, enum vd_reference_kind kind, const char *name, const char *format,
	       uint32_t *index, struct vd_error *e)
{
	vd_auto_free char *copy = NULL;
	struct vd_io *io = NULL;
	int r = vd_strdup(name, &copy, e);

	if (r >= 0 && (s->opts.open_references || (kind == VD_REF_EXTENT && s->opts.open_extents)))
		r = open_reference(s, kind, name, format, &io, e);
	if (r < 0)
		return r;
	if (io)
		r = check_new(s, io, e);
	if (r >= 0)
		r = append(s, io, copy, index, e);
	if (r < 0) {
		vd_io_abort(io);
		return r;
	}
	copy = NULL;
	return 0;
}

int vd_set_adopt(struct vd_set *s, struct vd_io *io, uint32_t *index, struct vd_error *e)
{
	int r = check_new(s, io, e);

	return r < 0 ? r : append(s, io, NULL, index, e);
}

int vd_set_exchange(struct vd_set *s, uint32_t file, const void *bytes, size_t len, struct vd_error *e)
{
	struct member *m = member_of(s, file);
	struct vd_io *old;
	int r = vd_output_exchange(s->opts.host, &m->io, bytes, len, &old, e);

	if (r < 0)
		return r;
	m->durable = atomic_load(&m->io->n_changes);
	/* Nobody will read it again. */
	vd_io_abort(old);
	return 0;
}

struct vd_host *vd_set_host(const struct vd_set *s)
{
	return s->opts.host;
}

uint32_t vd_set_count(const struct vd_set *s)
{
	return atomic_load(&s->n);
}

struct vd_io *vd_set_io(const struct vd_set *s, uint32_t file)
{
	return file < vd_set_count(s) ? member_of(s, file)->io : NULL;
}

const char *vd_set_name(const struct vd_set *s, uint32_t file)
{
	if (file >= vd_set_count(s))
		return "(no such file)";
	return member_of(s, file)->io ? member_of(s, file)->io->name : member_of(s, file)->name;
}

static int opened(struct vd_set *s, uint32_t file, struct vd_io **io, struct vd_error *e)
{
	*io = vd_set_io(s, file);
	if (*io)
		return 0;
	return vd_fail(e, VD_EREFERENCE, "%s: the data is in '%s', which was not opened", vd_set_name(s, 0),
		       vd_set_name(s, file));
}

int vd_set_pread(struct vd_set *s, uint32_t file, void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	struct vd_io *io;
	int r = opened(s, file, &io, e);

	return r < 0 ? r : vd_io_pread(io, buf, len, off, e);
}

int vd_set_pwrite(struct vd_set *s, uint32_t file, const void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	struct vd_io *io;
	int r = opened(s, file, &io, e);

	return r < 0 ? r : vd_io_pwrite(io, buf, len, off, e);
}

int vd_set_punch(struct vd_set *s, uint32_t file, uint64_t off, uint64_t len, struct vd_error *e)
{
	struct vd_io *io;
	int r = opened(s, file, &io, e);

	return r < 0 ? r : vd_io_punch(io, off, len, e);
}

void vd_set_finished(struct vd_set *s, uint32_t file, uint64_t off, uint64_t len)
{
	struct vd_io *io = vd_set_io(s, file);

	if (io)
		vd_io_finished(io, off, len);
}

static int flush_file(struct member *m, struct vd_error *e)
{
	uint_fast64_t wanted, counted;
	vd_auto_unlock pthread_mutex_t *held = NULL;
	int r;

	if (!m->io || !(m->io->flags & VD_IO_WRITE))
		return 0;
	wanted = atomic_load(&m->io->n_changes);
	held = vd_locked(&m->flush_lock);
	if (m->has_failed)
		return vd_fail(e, VD_EPOISONED, "%s: an earlier flush failed: what was written before may be lost",
			       m->io->name);
	if (m->durable >= wanted)
		return 0;
	counted = atomic_load(&m->io->n_changes);
	r = vd_io_flush(m->io, e);
	if (r < 0)
		m->has_failed = true;
	else
		m->durable = counted;
	return r;
}

bool vd_set_has_failed(struct vd_set *s)
{
	bool has_failed = false;

	for (uint32_t i = 0; i < vd_set_count(s) && !has_failed; i++) {
		struct member *m = member_of(s, i);

		pthread_mutex_lock(&m->flush_lock);
		has_failed = m->has_failed;
		pthread_mutex_unlock(&m->flush_lock);
	}
	return has_failed;
}

/* The image file is last: its tables point into the others. */
int vd_set_flush(struct vd_set *s, struct vd_error *e)
{
	for (uint32_t i = vd_set_count(s); i > 0; i--) {
		int r = flush_file(member_of(s, i - 1), e);

		if (r < 0)
			return r;
	}
	return 0;
}

int vd_set_close(struct vd_set *s, struct vd_error *e)
{
	int first = 0;

	for (uint32_t i = vd_set_count(s); i > 0; i--) {
		struct member *m = member_of(s, i - 1);
		int r = m->io ? vd_io_close(m->io, first ? NULL : e) : 0;

		if (!first)
			first = r;
		free(m->name);
		pthread_mutex_destroy(&m->flush_lock);
	}
	for (size_t i = 0; i < VD_SET_MAX / PER_BLOCK; i++)
		free(s->blocks[i]);
	vd_pool_free(s->pool);
	pthread_mutex_destroy(&s->add_lock);
	free(s);
	return first;
}

void vd_set_abort(struct vd_set *s)
{
	int dropped = s ? vd_set_close(s, NULL) : 0;

	(void)dropped;
}
