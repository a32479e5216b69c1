/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Keeps the newest bytes back, and pushes the others out. In which order they come is for the callers to see to. */
#include "libvdisk/io/sink.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/base/secret.h"

#define HELD_MAX (1u << 20)     /* all that formats lay out before the first payload has its place in it: see sink_pwrite() */
#define PIPE_SIZE (1 << 20)     /* what an unprivileged process may ask for; the usual 64 KiB cost a switch each */
#define PATIENCE_MS 100         /* between two looks at whether to give up */

struct sink {
	struct vd_io io;
	int fd;
	bool is_own;                    /* another way to the same pipe, which does not block */
	bool has_failed;                /* what has gone out is not known any more */
	const atomic_bool *stop;
	pthread_mutex_t lock;
	uint64_t out;                   /* so many bytes have gone out */
	uint64_t size;                  /* of the whole, as far as it is known */
	uint8_t *held;                  /* those that follow */
	size_t n_held;
};

static struct sink *sink_of(struct vd_io *io)
{
	return (struct sink *)io;
}

static uint64_t end_of(const struct sink *s)
{
	return s->out + s->n_held;
}

static int write_failed(const struct sink *s, int err, struct vd_error *e)
{
	if (err != EPIPE)
		return vd_fail_errno(e, err, "%s: writing at %llu failed", s->io.name, (unsigned long long)s->out);
	vd_fail_errno(e, err, "%s: the reader has gone after %llu bytes", s->io.name, (unsigned long long)s->out);
	return vd_hint(e, VD_EIO, "see what ended the program that reads");
}

static int wait_for_reader(const struct sink *s, struct vd_error *e)
{
	struct pollfd p = { .fd = s->fd, .events = POLLOUT };

	if (s->stop && atomic_load(s->stop))
		return vd_fail(e, VD_ECANCELLED, "%s: cancelled while it waited for the reader", s->io.name);
	if (poll(&p, 1, PATIENCE_MS) < 0 && errno != EINTR)
		return vd_fail_errno(e, errno, "%s: waiting for the reader failed", s->io.name);
	return 0;
}

static int push(struct sink *s, const uint8_t *p, size_t len, struct vd_error *e)
{
	int r = 0;

	if (s->has_failed)
		return vd_fail(e, VD_EPOISONED, "%s: an earlier write failed; nothing more goes out", s->io.name);
	while (len && r == 0) {
		ssize_t n = write(s->fd, p, len);

		if (n >= 0) {
			p += n;
			len -= (size_t)n;
			s->out += (uint64_t)n;
		} else if (errno == EAGAIN || errno == EINTR) {
			r = wait_for_reader(s, e);
		} else {
			r = write_failed(s, errno, e);
		}
	}
	s->has_failed = r < 0;
	return r;
}

static int push_held(struct sink *s, struct vd_error *e)
{
	size_t n = s->n_held;

	s->n_held = 0;
	return push(s, s->held, n, e);
}

/* bytes NULL: zeros. */
static int append(struct sink *s, const uint8_t *bytes, uint64_t len, struct vd_error *e)
{
	int r = 0;

	while (len && r == 0) {
		size_t n = vd_min_u64(len, HELD_MAX - s->n_held);

		if (bytes && !s->n_held && n == HELD_MAX) {
			r = push(s, bytes, n, e);
		} else {
			if (bytes)
				memcpy(s->held + s->n_held, bytes, n);
			else
				memset(s->held + s->n_held, 0, n);
			s->n_held += n;
		}
		if (r == 0 && s->n_held == HELD_MAX)
			r = push_held(s, e);
		bytes = bytes ? bytes + n : NULL;
		len -= n;
	}
	return r;
}

static int gone(const struct sink *s, uint64_t off, struct vd_error *e)
{
	return vd_fail_at(e, VD_EUNSUPPORTED, off, "%s: the bytes at %llu have gone out, and there is no way back in a stream",
			  s->io.name, (unsigned long long)off);
}

static int sink_pread(struct vd_io *io, void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	struct sink *s = sink_of(io);
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&s->lock);
	size_t inside = off < end_of(s) ? vd_min_u64(len, end_of(s) - off) : 0;

	if (off < s->out)
		return gone(s, off, e);
	memcpy(buf, s->held + (off - s->out), inside);
	memset((uint8_t *)buf + inside, 0, len - inside);
	return 0;
}

static int sink_pwrite(struct vd_io *io, const void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	struct sink *s = sink_of(io);
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&s->lock);
	const uint8_t *bytes = buf;
	size_t inside;
	int r = 0;

	if (off < s->out)
		return gone(s, off, e);
	if (off > end_of(s))
		r = append(s, NULL, off - end_of(s), e);
	if (r < 0)
		return r;
	inside = vd_min_u64(len, end_of(s) - off);
	memcpy(s->held + (off - s->out), bytes, inside);
	r = append(s, bytes + inside, len - inside, e);
	s->size = vd_max_u64(s->size, end_of(s));
	return r;
}

static int sink_flush(struct vd_io *io, struct vd_error *e)
{
	(void)io;
	(void)e;
	return 0;
}

static int sink_size(struct vd_io *io, uint64_t *size, struct vd_error *e)
{
	struct sink *s = sink_of(io);
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&s->lock);

	(void)e;
	*size = s->size;
	return 0;
}

static int sink_truncate(struct vd_io *io, uint64_t size, struct vd_error *e)
{
	struct sink *s = sink_of(io);
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&s->lock);

	if (size < s->out)
		return gone(s, size, e);
	s->n_held = vd_min_u64(s->n_held, size - s->out);
	s->size = size;
	return 0;
}

static int sink_punch(struct vd_io *io, uint64_t off, uint64_t len, struct vd_error *e)
{
	(void)off;
	(void)len;
	return vd_fail(e, VD_EUNSUPPORTED, "%s: a stream has no holes", io->name);
}

static int sink_extent(struct vd_io *io, uint64_t off, bool *is_data, uint64_t *len, struct vd_error *e)
{
	int r = sink_size(io, len, e);

	*is_data = true;
	*len -= off;
	return r;
}

static int sink_close(struct vd_io *io, struct vd_error *e)
{
	struct sink *s = sink_of(io);
	int r = 0;

	if (s->is_own && close(s->fd) < 0)
		r = vd_fail_errno(e, errno, "%s: closing failed", io->name);
	pthread_mutex_destroy(&s->lock);
	/* It may have been a disk that was encrypted. */
	vd_wipe(s->held, HELD_MAX);
	free(s->held);
	free(io->name);
	free(s);
	return r;
}

static const struct vd_io_ops sink_ops = {
	.pread = sink_pread,
	.pwrite = sink_pwrite,
	.flush = sink_flush,
	.size = sink_size,
	.truncate = sink_truncate,
	.punch = sink_punch,
	.extent = sink_extent,
	.allocated = sink_size,
	.close = sink_close,
};

/*
 * A write to a pipe that is full would wait in the kernel, deaf to a cancel. The flag that forbids that belongs to all who
 * share the description, so we take one of our own; without it the write waits.
 */
static void open_unblocked(struct sink *s)
{
	char path[32];
	struct stat st;
	int fd;

	if (fstat(s->fd, &st) < 0 || !S_ISFIFO(st.st_mode))
		return;
	fcntl(s->fd, F_SETPIPE_SZ, PIPE_SIZE);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", s->fd);
	fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return;
	s->fd = fd;
	s->is_own = true;
}

int vd_sink_new(int fd, const char *name, struct vd_io **out, struct vd_error *e)
{
	int flags = fcntl(fd, F_GETFL), r;
	struct sink *s;

	if (flags < 0)
		return vd_fail_errno(e, errno, "%s", name);
	if ((flags & O_ACCMODE) == O_RDONLY)
		return vd_fail(e, VD_EREADONLY, "%s: is open for reading only", name);
	r = vd_alloc(1, sizeof(*s), &s, e);
	if (r < 0)
		return r;
	s->fd = fd;
	pthread_mutex_init(&s->lock, NULL);
	r = vd_alloc_buffer(HELD_MAX, &s->held, e);
	if (r == 0)
		r = vd_io_init(&s->io, &sink_ops, name, VD_IO_WRITE, e);
	if (r < 0) {
		free(s->held);
		free(s);
		return r;
	}
	open_unblocked(s);
	*out = &s->io;
	return 0;
}

void vd_sink_obey(struct vd_io *io, const atomic_bool *stop)
{
	sink_of(io)->stop = stop;
}

int vd_sink_end(struct vd_io *io, struct vd_error *e)
{
	struct sink *s = sink_of(io);
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&s->lock);
	struct stat st;
	int r = append(s, NULL, s->size - end_of(s), e);

	if (r == 0)
		r = push_held(s, e);
	if (r == 0 && fstat(s->fd, &st) == 0 && S_ISREG(st.st_mode) && fdatasync(s->fd) < 0)
		r = vd_fail_errno(e, errno, "%s: flushing failed", io->name);
	return r;
}
