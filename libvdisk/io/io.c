/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is the same for every kind of host file: bounds, the read-only rule, and the count of changes by which a
 * set knows what is not durable yet. How bytes are moved is left to the implementations of struct vd_io_ops.
 */
#include "libvdisk/io/io.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"

int vd_io_init(struct vd_io *io, const struct vd_io_ops *ops, const char *name, unsigned flags, struct vd_error *e)
{
	io->ops = ops;
	io->flags = flags;
	return vd_strdup(name, &io->name, e);
}

/* Offsets of host files are signed 64-bit numbers in every system interface. */
static int check_range(const struct vd_io *io, uint64_t off, uint64_t len, struct vd_error *e)
{
	if (vd_range_inside(off, len, INT64_MAX))
		return 0;
	return vd_fail_at(e, VD_ERANGE, off, "%s: %llu bytes do not fit in any file", io->name,
			  (unsigned long long)len);
}

static int check_writable(const struct vd_io *io, struct vd_error *e)
{
	if (io->flags & VD_IO_WRITE)
		return 0;
	return vd_fail(e, VD_EREADONLY, "%s: opened for reading only", io->name);
}

static int check_change(const struct vd_io *io, uint64_t off, uint64_t len, struct vd_error *e)
{
	int r = check_writable(io, e);

	return r < 0 ? r : check_range(io, off, len, e);
}

/* After the change, also after a failed one: a flush that starts earlier must not count it as durable. */
static int changed(struct vd_io *io, int result)
{
	atomic_fetch_add(&io->n_changes, 1);
	return result;
}

int vd_io_pread(struct vd_io *io, void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	int r;

	if (!len)
		return 0;
	r = check_range(io, off, len, e);
	return r < 0 ? r : io->ops->pread(io, buf, len, off, e);
}

int vd_io_pread_exact(struct vd_io *io, void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	uint64_t size;
	int r = vd_io_size(io, &size, e);

	if (r < 0)
		return r;
	if (!vd_range_inside(off, len, size)) {
		r = vd_fail_at(e, VD_ECORRUPT, off, "%s: %zu bytes reach past the end of the file (%llu bytes)",
			       io->name, len, (unsigned long long)size);
		return vd_hint(e, r, "the file is damaged or was cut short: compare its size with the original's");
	}
	return vd_io_pread(io, buf, len, off, e);
}

int vd_io_pwrite(struct vd_io *io, const void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	int r = check_change(io, off, len, e);

	if (r < 0 || !len)
		return r;
	return changed(io, io->ops->pwrite(io, buf, len, off, e));
}

int vd_io_descriptor(const struct vd_io *io)
{
	return io->ops->descriptor ? io->ops->descriptor(io) : -1;
}

void vd_io_finished(struct vd_io *io, uint64_t off, uint64_t len)
{
	if (len && io->ops->finished)
		io->ops->finished(io, off, len);
}

int vd_io_flush(struct vd_io *io, struct vd_error *e)
{
	return io->ops->flush(io, e);
}

int vd_io_size(struct vd_io *io, uint64_t *size, struct vd_error *e)
{
	return io->ops->size(io, size, e);
}

int vd_io_truncate(struct vd_io *io, uint64_t size, struct vd_error *e)
{
	int r = check_change(io, 0, size, e);

	return r < 0 ? r : changed(io, io->ops->truncate(io, size, e));
}

/* What lies past the end is zeros already: only the existing part reaches the implementation. */
int vd_io_punch(struct vd_io *io, uint64_t off, uint64_t len, struct vd_error *e)
{
	uint64_t size;
	int r = check_change(io, off, len, e);

	if (r >= 0)
		r = vd_io_size(io, &size, e);
	if (r < 0)
		return r;
	if (!len || off >= size)
		return 0;
	return changed(io, io->ops->punch(io, off, vd_min_u64(len, size - off), e));
}

int vd_io_extent(struct vd_io *io, uint64_t off, bool *is_data, uint64_t *len, struct vd_error *e)
{
	return io->ops->extent(io, off, is_data, len, e);
}

int vd_io_allocated(struct vd_io *io, uint64_t *bytes, struct vd_error *e)
{
	return io->ops->allocated(io, bytes, e);
}

int vd_io_close(struct vd_io *io, struct vd_error *e)
{
	return io->ops->close(io, e);
}

void vd_io_abort(struct vd_io *io)
{
	int dropped;

	if (!io)
		return;
	dropped = io->ops->close(io, NULL);
	(void)dropped;
}
