/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Keeps the ends of a stream in memory, the last bytes in a ring. What they mean is its readers' business. */
#include "libvdisk/io/capture.h"

#include <stdlib.h>
#include <string.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"

struct vd_capture {
	struct vd_host host;
	uint64_t size;                  /* so far */
	uint8_t *head;                  /* VD_CAPTURE_HEAD, made when the first byte comes */
	uint8_t *ring;                  /* byte `off` of the stream, if one of the last VD_CAPTURE_TAIL, is at off % that */
};

struct capture_io {
	struct vd_io io;
	const struct vd_capture *c;
};

int vd_capture_add(struct vd_capture *c, const void *bytes, size_t len, struct vd_error *e)
{
	const uint8_t *p = bytes;
	uint64_t end;

	if (!vd_add_u64(c->size, len, &end) || end > INT64_MAX)
		return vd_fail(e, VD_EARG, "the stream is too long");
	if (c->size < VD_CAPTURE_HEAD)
		memcpy(c->head + c->size, p, vd_min_u64(len, VD_CAPTURE_HEAD - c->size));
	if (len > VD_CAPTURE_TAIL) {
		p += len - VD_CAPTURE_TAIL;
		len = VD_CAPTURE_TAIL;
	}
	for (uint64_t at = end - len; len; ) {
		size_t n = vd_min_u64(len, VD_CAPTURE_TAIL - at % VD_CAPTURE_TAIL);

		memcpy(c->ring + at % VD_CAPTURE_TAIL, p, n);
		at += n;
		p += n;
		len -= n;
	}
	c->size = end;
	return 0;
}

/* ---- as a file -------------------------------------------------------------------------------------------- */

static int capture_pread(struct vd_io *io, void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	const struct vd_capture *c = ((struct capture_io *)io)->c;
	uint64_t tail = c->size > VD_CAPTURE_TAIL ? c->size - VD_CAPTURE_TAIL : 0;
	uint8_t *out = buf;

	for (size_t n; len; off += n, out += n, len -= n) {
		if (off >= c->size) {
			memset(out, 0, len);
			return 0;
		}
		if (off < VD_CAPTURE_HEAD) {
			n = vd_min_u64(vd_min_u64(len, VD_CAPTURE_HEAD - off), c->size - off);
			memcpy(out, c->head + off, n);
			continue;
		}
		if (off < tail)
			return vd_fail(e, VD_EAGAIN, "%s: the bytes at %llu went by: of a stream the first %llu MiB and the last are kept",
				       io->name, (unsigned long long)off, (unsigned long long)(VD_CAPTURE_HEAD >> 20));
		n = vd_min_u64(vd_min_u64(len, VD_CAPTURE_TAIL - off % VD_CAPTURE_TAIL), c->size - off);
		memcpy(out, c->ring + off % VD_CAPTURE_TAIL, n);
	}
	return 0;
}

static int capture_size(struct vd_io *io, uint64_t *size, struct vd_error *e)
{
	(void)e;
	*size = ((struct capture_io *)io)->c->size;
	return 0;
}

static int capture_extent(struct vd_io *io, uint64_t off, bool *is_data, uint64_t *len, struct vd_error *e)
{
	(void)e;
	*is_data = true;
	*len = ((struct capture_io *)io)->c->size - off;
	return 0;
}

static int capture_close(struct vd_io *io, struct vd_error *e)
{
	(void)e;
	free(io->name);
	free(io);
	return 0;
}

/* Only what readers use: it is never opened for writing. */
static const struct vd_io_ops capture_ops = {
	.pread = capture_pread,
	.size = capture_size,
	.extent = capture_extent,
	.allocated = capture_size,
	.close = capture_close,
};

static int capture_open(struct vd_host *h, const char *path, unsigned flags, struct vd_io **out, struct vd_error *e)
{
	struct capture_io *io;
	int r;

	if (flags & (VD_IO_WRITE | VD_IO_CREATE))
		return vd_fail(e, VD_EREADONLY, "%s: a stream is only read", path);
	r = vd_alloc(1, sizeof(*io), &io, e);
	if (r < 0)
		return r;
	io->c = (struct vd_capture *)h;
	r = vd_io_init(&io->io, &capture_ops, path, flags, e);
	if (r < 0) {
		free(io);
		return r;
	}
	*out = &io->io;
	return 0;
}

struct vd_host *vd_capture_host(struct vd_capture *c)
{
	return &c->host;
}

int vd_capture_new(struct vd_capture **out, struct vd_error *e)
{
	struct vd_capture *c;
	int r = vd_alloc(1, sizeof(*c), &c, e);

	if (r < 0)
		return r;
	c->host.open = capture_open;
	r = vd_alloc(1, VD_CAPTURE_HEAD, &c->head, e);
	if (r == 0)
		r = vd_alloc(1, VD_CAPTURE_TAIL, &c->ring, e);
	if (r < 0) {
		vd_capture_free(c);
		return r;
	}
	*out = c;
	return 0;
}

void vd_capture_free(struct vd_capture *c)
{
	if (!c)
		return;
	free(c->head);
	free(c->ring);
	free(c);
}
