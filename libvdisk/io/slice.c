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
	uint64_t off, len;
};

static struct slice *slice_of(struct vd_io *io)
{
	return (struct slice *)io;
}

static int slice_pread(struct vd_io *io, void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	struct slice *s = slice_of(io);
	size_t inside = off < s->len ? vd_min_u64(len, s->len - off) : 0;

	memset((uint8_t *)buf + inside, 0, len - inside);
	return inside ? vd_io_pread(s->whole, buf, inside, s->off + off, e) : 0;
}

static int slice_size(struct vd_io *io, uint64_t *size, struct vd_error *e)
{
	(void)e;
	*size = slice_of(io)->len;
	return 0;
}

static int slice_extent(struct vd_io *io, uint64_t off, bool *is_data, uint64_t *len, struct vd_error *e)
{
	struct slice *s = slice_of(io);
	int r = vd_io_extent(s->whole, s->off + off, is_data, len, e);

	if (r == 0)
		*len = vd_min_u64(*len, s->len - off);
	return r;
}

static int slice_flush(struct vd_io *io, struct vd_error *e)
{
	return vd_io_flush(slice_of(io)->whole, e);
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
	.flush = slice_flush,
	.size = slice_size,
	.extent = slice_extent,
	.allocated = slice_size,
	.close = slice_close,
};

int vd_slice_new(struct vd_io *whole, uint64_t off, uint64_t len, const char *name, struct vd_io **out, struct vd_error *e)
{
	struct slice *s;
	int r = vd_alloc(1, sizeof(*s), &s, e);

	if (r < 0)
		return r;
	r = vd_io_init(&s->io, &slice_ops, name, whole->flags & ~(unsigned)VD_IO_WRITE, e);
	if (r < 0) {
		free(s);
		return r;
	}
	s->io.dev = whole->dev;
	s->io.ino = whole->ino;
	s->whole = whole;
	s->off = off;
	s->len = len;
	*out = &s->io;
	return 0;
}
