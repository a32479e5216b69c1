/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Files in memory behind struct vd_host. A file that was unlinked or replaced lives on until its last close, as on
 * disk. It leaves to the callers to give it names that mean something: there are no folders.
 */
#include "libvdisk/io/mem.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"

#define PIECE 65536u /* small enough that a sparse 64 TiB image costs little, large enough that few are searched */

struct piece {
	uint64_t index;         /* file offset / PIECE */
	uint8_t *bytes;         /* PIECE of them; zeros past the end of the file */
};

struct mem_file {
	pthread_rwlock_t lock;  /* size and pieces */
	uint64_t size;
	struct piece *pieces;   /* sorted by index */
	size_t n_pieces, room;
	uint64_t ino;
	/* Under the host's lock. */
	bool is_nameless;       /* unlinked or replaced: its last close frees it */
	unsigned n_open, n_readers, n_writers;
	atomic_uint n_flushes;
};

struct entry {
	char *name;
	struct mem_file *file;
};

struct mem_host {
	struct vd_host host;
	pthread_mutex_t lock;   /* entries, and who has a file open */
	struct entry *entries;
	size_t n, room;
	uint64_t last_ino;
};

struct mem_io {
	struct vd_io io;
	struct mem_host *host;
	struct mem_file *file;
};

static struct mem_file *file_of(struct vd_io *io)
{
	return ((struct mem_io *)io)->file;
}

static struct mem_host *mem_of(struct vd_host *h)
{
	return (struct mem_host *)h;
}

static void unlock_rw(pthread_rwlock_t **lock)
{
	pthread_rwlock_unlock(*lock);
}
#define auto_rw __attribute__((cleanup(unlock_rw), unused))

static pthread_rwlock_t *for_reading(struct mem_file *f)
{
	pthread_rwlock_rdlock(&f->lock);
	return &f->lock;
}

static pthread_rwlock_t *for_writing(struct mem_file *f)
{
	pthread_rwlock_wrlock(&f->lock);
	return &f->lock;
}

/* ---- pieces: the caller holds the file's lock ---- */

/* Position of the first piece with an index not below the one asked for. */
static size_t find_piece(const struct mem_file *f, uint64_t index)
{
	size_t low = 0, high = f->n_pieces;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (f->pieces[mid].index < index)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static uint8_t *piece_at(const struct mem_file *f, uint64_t index)
{
	size_t i = find_piece(f, index);

	return i < f->n_pieces && f->pieces[i].index == index ? f->pieces[i].bytes : NULL;
}

static int add_piece(struct mem_file *f, uint64_t index, uint8_t **bytes, struct vd_error *e)
{
	size_t at = find_piece(f, index);
	int r = 0;

	if (at < f->n_pieces && f->pieces[at].index == index) {
		*bytes = f->pieces[at].bytes;
		return 0;
	}
	if (f->n_pieces == f->room)
		r = vd_realloc(&f->pieces, f->room * 2 + 8, sizeof(*f->pieces), e);
	if (r < 0)
		return r;
	if (f->n_pieces == f->room)
		f->room = f->room * 2 + 8;
	r = vd_alloc(PIECE, 1, bytes, e);
	if (r < 0)
		return r;
	memmove(f->pieces + at + 1, f->pieces + at, (f->n_pieces - at) * sizeof(*f->pieces));
	f->pieces[at] = (struct piece){ index, *bytes };
	f->n_pieces++;
	return 0;
}

/* Drops the pieces at positions [from, to). */
static void drop_pieces(struct mem_file *f, size_t from, size_t to)
{
	if (from >= to)
		return;
	for (size_t i = from; i < to; i++)
		free(f->pieces[i].bytes);
	memmove(f->pieces + from, f->pieces + to, (f->n_pieces - to) * sizeof(*f->pieces));
	f->n_pieces -= to - from;
}

static void zero_part(struct mem_file *f, uint64_t off, uint64_t len)
{
	uint8_t *bytes = len ? piece_at(f, off / PIECE) : NULL;

	if (bytes)
		memset(bytes + off % PIECE, 0, len);
}

/* Zeros [off, end): whole pieces go away, what sticks out on either side is wiped. */
static void make_hole(struct mem_file *f, uint64_t off, uint64_t end)
{
	uint64_t first = vd_round_up(off, PIECE), last = vd_round_down(end, PIECE);

	if (first > last) {
		zero_part(f, off, end - off);
		return;
	}
	zero_part(f, off, first - off);
	zero_part(f, last, end - last);
	drop_pieces(f, find_piece(f, first / PIECE), find_piece(f, last / PIECE));
}

/* ---- struct vd_io_ops ---- */

static int mem_pread(struct vd_io *io, void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	struct mem_file *f = file_of(io);
	auto_rw pthread_rwlock_t *held = for_reading(f);
	uint8_t *to = buf;

	(void)e;
	while (len) {
		size_t part = (size_t)vd_min_u64(len, PIECE - off % PIECE);
		const uint8_t *bytes = piece_at(f, off / PIECE);

		if (bytes)
			memcpy(to, bytes + off % PIECE, part);
		else
			memset(to, 0, part);
		to += part;
		off += part;
		len -= part;
	}
	return 0;
}

static int mem_pwrite(struct vd_io *io, const void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	struct mem_file *f = file_of(io);
	auto_rw pthread_rwlock_t *held = for_writing(f);
	const uint8_t *from = buf;

	while (len) {
		size_t part = (size_t)vd_min_u64(len, PIECE - off % PIECE);
		uint8_t *bytes;
		int r = add_piece(f, off / PIECE, &bytes, e);

		if (r < 0)
			return r;
		memcpy(bytes + off % PIECE, from, part);
		from += part;
		off += part;
		len -= part;
		f->size = vd_max_u64(f->size, off);
	}
	return 0;
}

static int mem_flush(struct vd_io *io, struct vd_error *e)
{
	(void)e;
	atomic_fetch_add(&file_of(io)->n_flushes, 1);
	return 0;
}

static int mem_size(struct vd_io *io, uint64_t *size, struct vd_error *e)
{
	struct mem_file *f = file_of(io);
	auto_rw pthread_rwlock_t *held = for_reading(f);

	(void)e;
	*size = f->size;
	return 0;
}

static int mem_truncate(struct vd_io *io, uint64_t size, struct vd_error *e)
{
	struct mem_file *f = file_of(io);
	auto_rw pthread_rwlock_t *held = for_writing(f);

	(void)e;
	if (size < f->size)
		make_hole(f, size, vd_round_up(f->size, PIECE));
	f->size = size;
	return 0;
}

static int mem_punch(struct vd_io *io, uint64_t off, uint64_t len, struct vd_error *e)
{
	struct mem_file *f = file_of(io);
	auto_rw pthread_rwlock_t *held = for_writing(f);

	(void)e;
	make_hole(f, off, off + len);
	return 0;
}

static int mem_extent(struct vd_io *io, uint64_t off, bool *is_data, uint64_t *len, struct vd_error *e)
{
	struct mem_file *f = file_of(io);
	auto_rw pthread_rwlock_t *held = for_reading(f);
	uint64_t end = f->size, index = off / PIECE;
	size_t i = find_piece(f, index);

	if (off >= f->size)
		return vd_fail_at(e, VD_ERANGE, off, "%s: the file ends before (%llu bytes)", io->name,
				  (unsigned long long)f->size);
	*is_data = i < f->n_pieces && f->pieces[i].index == index;
	if (*is_data) {
		while (i < f->n_pieces && f->pieces[i].index == index) {
			i++;
			index++;
		}
		end = index * PIECE;
	} else if (i < f->n_pieces) {
		end = f->pieces[i].index * PIECE;
	}
	*len = vd_min_u64(end, f->size) - off;
	return 0;
}

static int mem_allocated(struct vd_io *io, uint64_t *bytes, struct vd_error *e)
{
	struct mem_file *f = file_of(io);
	auto_rw pthread_rwlock_t *held = for_reading(f);

	(void)e;
	*bytes = (uint64_t)f->n_pieces * PIECE;
	return 0;
}

/* ---- the folder: the caller holds the host's lock ---- */

static void free_file(struct mem_file *f)
{
	drop_pieces(f, 0, f->n_pieces);
	free(f->pieces);
	pthread_rwlock_destroy(&f->lock);
	free(f);
}

static struct entry *find_entry(struct mem_host *m, const char *name)
{
	for (size_t i = 0; i < m->n; i++)
		if (!strcmp(m->entries[i].name, name))
			return &m->entries[i];
	return NULL;
}

static void remove_entry(struct mem_host *m, struct entry *entry)
{
	if (!entry->file->n_open)
		free_file(entry->file);
	else
		entry->file->is_nameless = true;
	free(entry->name);
	memmove(entry, entry + 1, (size_t)(m->entries + m->n - entry - 1) * sizeof(*entry));
	m->n--;
}

static int add_entry(struct mem_host *m, const char *name, struct mem_file **out, struct vd_error *e)
{
	vd_auto_free char *copy = NULL;
	struct mem_file *f;
	int r = vd_strdup(name, &copy, e);

	if (r >= 0 && m->n == m->room) {
		r = vd_realloc(&m->entries, m->room * 2 + 4, sizeof(*m->entries), e);
		m->room = r < 0 ? m->room : m->room * 2 + 4;
	}
	if (r >= 0)
		r = vd_alloc(1, sizeof(*f), &f, e);
	if (r < 0)
		return r;
	pthread_rwlock_init(&f->lock, NULL);
	f->ino = ++m->last_ino;
	m->entries[m->n++] = (struct entry){ vd_steal(&copy), f };
	*out = f;
	return 0;
}

/* A writer excludes all but those who do not mind it; readers exclude writers. */
static bool is_busy(const struct mem_file *f, unsigned flags)
{
	if (flags & VD_IO_WRITE)
		return f->n_readers || f->n_writers;
	return f->n_writers && !(flags & VD_IO_FORCE_SHARE);
}

static void count_open(struct mem_file *f, unsigned flags, int by)
{
	f->n_open += (unsigned)by;
	if (flags & VD_IO_WRITE)
		f->n_writers += (unsigned)by;
	else if (!(flags & VD_IO_FORCE_SHARE))
		f->n_readers += (unsigned)by;
}

static int mem_close(struct vd_io *io, struct vd_error *e)
{
	struct mem_io *mio = (struct mem_io *)io;
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&mio->host->lock);

	(void)e;
	count_open(mio->file, io->flags, -1);
	if (!mio->file->n_open && mio->file->is_nameless)
		free_file(mio->file);
	free(io->name);
	free(io);
	return 0;
}

static const struct vd_io_ops mem_ops = {
	.pread = mem_pread,
	.pwrite = mem_pwrite,
	.flush = mem_flush,
	.size = mem_size,
	.truncate = mem_truncate,
	.punch = mem_punch,
	.extent = mem_extent,
	.allocated = mem_allocated,
	.close = mem_close,
};

static int find_or_make(struct mem_host *m, const char *path, unsigned flags, struct mem_file **out,
			struct vd_error *e)
{
	struct entry *entry = find_entry(m, path);

	if (flags & VD_IO_CREATE) {
		if (entry)
			return vd_fail(e, VD_EEXIST, "%s: exists already", path);
		return add_entry(m, path, out, e);
	}
	if (!entry)
		return vd_fail(e, VD_ENOENT, "%s: does not exist", path);
	if (is_busy(entry->file, flags))
		return vd_fail(e, VD_EBUSY, "%s: in use: this process itself has it open", path);
	*out = entry->file;
	return 0;
}

static int mem_open(struct vd_host *h, const char *path, unsigned flags, struct vd_io **out, struct vd_error *e)
{
	struct mem_host *m = mem_of(h);
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&m->lock);
	vd_auto_free struct mem_io *mio = NULL;
	int r = vd_alloc(1, sizeof(*mio), &mio, e);

	if (flags & VD_IO_CREATE)
		flags |= VD_IO_WRITE;
	if (r >= 0)
		r = vd_io_init(&mio->io, &mem_ops, path, flags, e);
	if (r < 0)
		return r;
	r = find_or_make(m, path, flags, &mio->file, e);
	if (r < 0) {
		free(mio->io.name);
		return r;
	}
	mio->host = m;
	mio->io.dev = (uintptr_t)m;
	mio->io.ino = mio->file->ino;
	count_open(mio->file, flags, 1);
	*out = &vd_steal(&mio)->io;
	return 0;
}

static int mem_rename(struct vd_host *h, const char *from, const char *to, bool replace, struct vd_error *e)
{
	struct mem_host *m = mem_of(h);
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&m->lock);
	struct entry *target = find_entry(m, to);
	vd_auto_free char *name = NULL;
	int r;

	if (!find_entry(m, from))
		return vd_fail(e, VD_ENOENT, "%s: does not exist", from);
	if (target && !replace)
		return vd_fail(e, VD_EEXIST, "%s: exists already", to);
	r = vd_strdup(to, &name, e);
	if (r < 0 || !strcmp(from, to))
		return r;
	if (target)
		remove_entry(m, target);
	target = find_entry(m, from);
	free(target->name);
	target->name = vd_steal(&name);
	return 0;
}

static int mem_unlink(struct vd_host *h, const char *path, struct vd_error *e)
{
	struct mem_host *m = mem_of(h);
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&m->lock);
	struct entry *entry = find_entry(m, path);

	if (!entry)
		return vd_fail(e, VD_ENOENT, "%s: does not exist", path);
	remove_entry(m, entry);
	return 0;
}

static bool mem_exists(struct vd_host *h, const char *path)
{
	struct mem_host *m = mem_of(h);
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&m->lock);

	return find_entry(m, path) != NULL;
}

int vd_mem_host_new(struct vd_host **out, struct vd_error *e)
{
	struct mem_host *m;
	int r = vd_alloc(1, sizeof(*m), &m, e);

	if (r < 0)
		return r;
	m->host = (struct vd_host){ mem_open, mem_rename, mem_unlink, mem_exists };
	pthread_mutex_init(&m->lock, NULL);
	*out = &m->host;
	return 0;
}

void vd_mem_host_free(struct vd_host *h)
{
	struct mem_host *m = mem_of(h);

	if (!m)
		return;
	while (m->n)
		remove_entry(m, &m->entries[m->n - 1]);
	free(m->entries);
	pthread_mutex_destroy(&m->lock);
	free(m);
}

int vd_mem_put(struct vd_host *h, const char *name, const void *bytes, size_t len, struct vd_error *e)
{
	struct vd_io *io;
	int r = mem_open(h, name, mem_exists(h, name) ? VD_IO_WRITE : VD_IO_CREATE, &io, e);

	if (r < 0)
		return r;
	r = vd_io_truncate(io, 0, e);
	if (r >= 0)
		r = vd_io_pwrite(io, bytes, len, 0, e);
	vd_io_abort(io);
	return r;
}

const char *vd_mem_name(struct vd_host *h, size_t i)
{
	struct mem_host *m = mem_of(h);
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&m->lock);

	return i < m->n ? m->entries[i].name : NULL;
}

unsigned vd_mem_flushes(struct vd_host *h, const char *name)
{
	struct mem_host *m = mem_of(h);
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&m->lock);
	struct entry *entry = find_entry(m, name);

	return entry ? atomic_load(&entry->file->n_flushes) : 0;
}
