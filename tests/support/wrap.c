/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Forwards each operation of a host and its files between two hooks; knows nothing of what the hooks are for. */
#include "tests/support/wrap.h"

#include <stdlib.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

struct wrap_io {
	struct vd_io io;
	struct vd_wrap *wrap;
	struct vd_io *inner;
	uint64_t mark;
};

static struct wrap_io *wrap_of(struct vd_io *io)
{
	return (struct wrap_io *)io;
}

static int begin(struct vd_wrap *w, struct vd_op *op, struct vd_error *e)
{
	return w->before ? w->before(w, op, e) : 0;
}

static int end(struct vd_wrap *w, struct vd_op *op, int result)
{
	if (w->after)
		w->after(w, op, result);
	return result;
}

static struct vd_op op_on(struct vd_io *io, unsigned kind, uint64_t off, uint64_t len)
{
	struct wrap_io *w = wrap_of(io);

	return (struct vd_op){ .kind = kind, .name = io->name, .off = off, .len = len, .inner = w->inner,
			       .mark = &w->mark };
}

static int wrap_pread(struct vd_io *io, void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	struct vd_op op = op_on(io, VD_OP_READ, off, len);
	int r = begin(wrap_of(io)->wrap, &op, e);

	return end(wrap_of(io)->wrap, &op, r < 0 ? r : vd_io_pread(op.inner, buf, len, off, e));
}

static int wrap_descriptor(const struct vd_io *io)
{
	int fd = ((const struct wrap_io *)io)->wrap->descriptor;

	return fd ? fd : -1;
}

static int wrap_pwrite(struct vd_io *io, const void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	struct vd_op op = op_on(io, VD_OP_WRITE, off, len);
	int r;

	op.data = buf;
	r = begin(wrap_of(io)->wrap, &op, e);
	return end(wrap_of(io)->wrap, &op, r < 0 ? r : vd_io_pwrite(op.inner, buf, len, off, e));
}

static int wrap_flush(struct vd_io *io, struct vd_error *e)
{
	struct vd_op op = op_on(io, VD_OP_FLUSH, 0, 0);
	int r = begin(wrap_of(io)->wrap, &op, e);

	return end(wrap_of(io)->wrap, &op, r < 0 ? r : vd_io_flush(op.inner, e));
}

static int wrap_size(struct vd_io *io, uint64_t *size, struct vd_error *e)
{
	struct vd_op op = op_on(io, VD_OP_SIZE, 0, 0);
	int r = begin(wrap_of(io)->wrap, &op, e);

	return end(wrap_of(io)->wrap, &op, r < 0 ? r : vd_io_size(op.inner, size, e));
}

static int wrap_truncate(struct vd_io *io, uint64_t size, struct vd_error *e)
{
	struct vd_op op = op_on(io, VD_OP_TRUNCATE, size, 0);
	int r = begin(wrap_of(io)->wrap, &op, e);

	return end(wrap_of(io)->wrap, &op, r < 0 ? r : vd_io_truncate(op.inner, size, e));
}

static int wrap_punch(struct vd_io *io, uint64_t off, uint64_t len, struct vd_error *e)
{
	struct vd_op op = op_on(io, VD_OP_PUNCH, off, len);
	int r = begin(wrap_of(io)->wrap, &op, e);

	return end(wrap_of(io)->wrap, &op, r < 0 ? r : vd_io_punch(op.inner, off, len, e));
}

static int wrap_extent(struct vd_io *io, uint64_t off, bool *is_data, uint64_t *len, struct vd_error *e)
{
	struct vd_op op = op_on(io, VD_OP_EXTENT, off, 0);
	int r = begin(wrap_of(io)->wrap, &op, e);

	return end(wrap_of(io)->wrap, &op, r < 0 ? r : vd_io_extent(op.inner, off, is_data, len, e));
}

static int wrap_allocated(struct vd_io *io, uint64_t *bytes, struct vd_error *e)
{
	struct vd_op op = op_on(io, VD_OP_EXTENT, 0, 0);
	int r = begin(wrap_of(io)->wrap, &op, e);

	return end(wrap_of(io)->wrap, &op, r < 0 ? r : vd_io_allocated(op.inner, bytes, e));
}

static int wrap_close(struct vd_io *io, struct vd_error *e)
{
	struct vd_op op = op_on(io, VD_OP_CLOSE, 0, 0);
	int refused = begin(wrap_of(io)->wrap, &op, e);
	int r = vd_io_close(op.inner, refused < 0 ? NULL : e);

	r = end(wrap_of(io)->wrap, &op, refused < 0 ? refused : r);
	free(io->name);
	free(io);
	return r;
}

static const struct vd_io_ops wrap_ops = {
	.pread = wrap_pread,
	.pwrite = wrap_pwrite,
	.descriptor = wrap_descriptor,
	.flush = wrap_flush,
	.size = wrap_size,
	.truncate = wrap_truncate,
	.punch = wrap_punch,
	.extent = wrap_extent,
	.allocated = wrap_allocated,
	.close = wrap_close,
};

static struct vd_wrap *host_of(struct vd_host *h)
{
	return (struct vd_wrap *)h;
}

static int open_inner(struct vd_wrap *w, struct wrap_io *wio, const char *path, unsigned flags, struct vd_error *e)
{
	int r = w->inner->open(w->inner, path, flags, &wio->inner, e);

	if (r < 0)
		return r;
	r = vd_io_init(&wio->io, &wrap_ops, path, wio->inner->flags, e);
	if (r < 0) {
		vd_io_abort(wio->inner);
		return r;
	}
	wio->wrap = w;
	wio->io.is_device = wio->inner->is_device;
	wio->io.dev = wio->inner->dev;
	wio->io.ino = wio->inner->ino;
	return 0;
}

static int wrap_open(struct vd_host *h, const char *path, unsigned flags, struct vd_io **out, struct vd_error *e)
{
	struct vd_wrap *w = host_of(h);
	vd_auto_free struct wrap_io *wio = NULL;
	struct vd_op op = { .kind = VD_OP_OPEN, .name = path, .flags = flags };
	int r = vd_alloc(1, sizeof(*wio), &wio, e);

	if (r < 0)
		return r;
	op.mark = &wio->mark;
	r = begin(w, &op, e);
	if (r >= 0)
		r = open_inner(w, wio, path, flags, e);
	op.inner = wio->inner;
	if (end(w, &op, r) >= 0)
		*out = &vd_steal(&wio)->io;
	return r;
}

static int wrap_rename(struct vd_host *h, const char *from, const char *to, bool replace, struct vd_error *e)
{
	struct vd_wrap *w = host_of(h);
	struct vd_op op = { .kind = VD_OP_RENAME, .name = from, .to = to, .replace = replace };
	int r = begin(w, &op, e);

	return end(w, &op, r < 0 ? r : w->inner->rename(w->inner, from, to, replace, e));
}

static int wrap_unlink(struct vd_host *h, const char *path, struct vd_error *e)
{
	struct vd_wrap *w = host_of(h);
	struct vd_op op = { .kind = VD_OP_UNLINK, .name = path };
	int r = begin(w, &op, e);

	return end(w, &op, r < 0 ? r : w->inner->unlink(w->inner, path, e));
}

static bool wrap_exists(struct vd_host *h, const char *path)
{
	return host_of(h)->inner->exists(host_of(h)->inner, path);
}

void vd_wrap_init(struct vd_wrap *w, struct vd_host *inner)
{
	w->host = (struct vd_host){ wrap_open, wrap_rename, wrap_unlink, wrap_exists };
	w->inner = inner;
}

const char *vd_op_name(unsigned kind)
{
	static const char *const names[] = { "open", "read", "write", "flush", "truncate", "punch", "size", "extent",
					     "close", "rename", "unlink" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (kind == 1u << i)
			return names[i];
	return "?";
}
