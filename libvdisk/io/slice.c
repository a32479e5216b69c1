/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Moves offsets, and shows nothing outside the part. */
#include "libvdisk/io/slice.h"

#include <stdlib.h>
#include <string.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"

struct slice {
	struct vd_io io;
	struct vd_io *whole;
	uint64_t off;
	atomic_uint_fast64_t len;       /* as far as anything was written, of one for writing */
};

static struct slice *slice_of(struct vd_io *io)
{
	return (struct slice *)io;
}

static int slice_pread(struct vd_io *io, void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	struct slice *s = slice_of(io);
	uint64_t end = atomic_load(&s->len);
	size_t inside = off < end ? vd_min_u64(len, end - off) : 0;

	memset((uint8_t *)buf + inside, 0, len - inside);
	return inside ? vd_io_pread(s->whole, buf, inside, s->off + off, e) : 0;
}

static void reach(struct slice *s, uint64_t end)
{
	uint64_t len = atomic_load(&s->len);

	while (len < end && !atomic_compare_exchange_weak(&s->len, &len, end))
		;
}

static int slice_pwrite(struct vd_io *io, const void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	struct slice *s = slice_of(io);
	int r = vd_io_pwrite(s->whole, buf, len, s->off + off, e);

	if (r == 0)
		reach(s, off + len);
	return r;
}

static void slice_finished(struct vd_io *io, uint64_t off, uint64_t len)
{
	vd_io_finished(slice_of(io)->whole, slice_of(io)->off + off, len);
}

static int slice_flush(struct vd_io *io, struct vd_error *e)
{
	return vd_io_flush(slice_of(io)->whole, e);
}

static int slice_size(struct vd_io *io, uint64_t *size, struct vd_error *e)
{
	(void)e;
	*size = atomic_load(&slice_of(io)->len);
	return 0;
}

static int slice_truncate(struct vd_io *io, uint64_t size, struct vd_error *e)
{
	struct slice *s = slice_of(io);
	int r = vd_io_truncate(s->whole, s->off + size, e);

	if (r == 0)
		atomic_store(&s->len, size);
	return r;
}

static int slice_punch(struct vd_io *io, uint64_t off, uint64_t len, struct vd_error *e)
{
	return vd_io_punch(slice_of(io)->whole, slice_of(io)->off + off, len, e);
}

static int slice_extent(struct vd_io *io, uint64_t off, bool *is_data, uint64_t *len, struct vd_error *e)
{
	struct slice *s = slice_of(io);
	int r = vd_io_extent(s->whole, s->off + off, is_data, len, e);

	if (r == 0)
		*len = vd_min_u64(*len, atomic_load(&s->len) - off);
	return r;
}

static int slice_close(struct vd_io *io, struct vd_error *e)
{
	struct slice *s = slice_of(io);
	int r = vd_io_close(s->whole, e);

	free(io->name);
	free(s);
	return r;
}

static const struct vd_io_ops slice_ops = {
	.pread = slice_pread,
	.pwrite = slice_pwrite,
	.finished = slice_finished,
	.flush = slice_flush,
	.size = slice_size,
	.truncate = slice_truncate,
	.punch = slice_punch,
	.extent = slice_extent,
	.allocated = slice_size,
	.close = slice_close,
};

static int make(struct vd_io *whole, uint64_t off, uint64_t len, const char *name, unsigned flags, struct vd_io **out,
		struct vd_error *e)
{
	struct slice *s;
	int r = vd_alloc(1, sizeof(*s), &s, e);

	if (r < 0)
		return r;
	r = vd_io_init(&s->io, &slice_ops, name, flags, e);
	if (r < 0) {
		free(s);
		return r;
	}
	s->io.dev = whole->dev;
	s->io.ino = whole->ino;
	s->whole = whole;
	s->off = off;
	atomic_init(&s->len, len);
	*out = &s->io;
	return 0;
}

int vd_slice_new(struct vd_io *whole, uint64_t off, uint64_t len, const char *name, struct vd_io **out, struct vd_error *e)
{
	return make(whole, off, len, name, whole->flags & ~(unsigned)VD_IO_WRITE, out, e);
}

int vd_slice_new_output(struct vd_io *whole, uint64_t off, const char *name, struct vd_io **out, struct vd_error *e)
{
	return make(whole, off, 0, name, whole->flags, out, e);
}
