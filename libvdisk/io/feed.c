/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reads ahead as far as somebody looks. What the bytes are, and whether enough came, is for the readers to tell. */
#include "libvdisk/io/feed.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"

#define PIPE_SIZE (1 << 20)     /* the usual 64 KiB cost a switch each; what is not allowed is not needed */
#define PATIENCE_MS 100

struct vd_feed {
	char *name;
	int fd;                         /* -1: from memory */
	struct vd_bytes memory;         /* what is left of it */
	const atomic_bool *stop;
	uint64_t at;
	uint8_t *ahead;                 /* VD_FEED_PEEK bytes */
	size_t from, to;                /* what of them was read and not taken */
	bool ended;
};

static int make(const char *name, struct vd_feed **out, struct vd_error *e)
{
	struct vd_feed *f;
	int r = vd_alloc(1, sizeof(*f), &f, e);

	if (r < 0)
		return r;
	f->fd = -1;
	r = vd_strdup(name, &f->name, e);
	if (r == 0)
		r = vd_alloc(1, VD_FEED_PEEK, &f->ahead, e);
	if (r < 0)
		vd_feed_free(f);
	else
		*out = f;
	return r;
}

int vd_feed_new(int fd, const char *name, struct vd_feed **out, struct vd_error *e)
{
	int flags = fcntl(fd, F_GETFL), r;

	if (flags < 0)
		return vd_fail_errno(e, errno, "%s", name);
	if ((flags & O_ACCMODE) == O_WRONLY)
		return vd_fail(e, VD_EACCESS, "%s: is open for writing only", name);
	r = make(name, out, e);
	if (r < 0)
		return r;
	(*out)->fd = fd;
	fcntl(fd, F_SETPIPE_SZ, PIPE_SIZE);
	return 0;
}

int vd_feed_new_bytes(struct vd_bytes bytes, const char *name, struct vd_feed **out, struct vd_error *e)
{
	int r = make(name, out, e);

	if (r == 0)
		(*out)->memory = bytes;
	return r;
}

void vd_feed_free(struct vd_feed *f)
{
	if (!f)
		return;
	free(f->ahead);
	free(f->name);
	free(f);
}

void vd_feed_obey(struct vd_feed *f, const atomic_bool *stop)
{
	f->stop = stop;
}

const char *vd_feed_name(const struct vd_feed *f)
{
	return f->name;
}

uint64_t vd_feed_at(const struct vd_feed *f)
{
	return f->at;
}

bool vd_feed_size(const struct vd_feed *f, uint64_t *size)
{
	uint64_t taken = f->at + (f->to - f->from);
	struct stat st;
	off_t at;

	if (f->fd < 0) {
		*size = taken + f->memory.len;
		return true;
	}
	if (fstat(f->fd, &st) < 0 || !S_ISREG(st.st_mode))
		return false;
	at = lseek(f->fd, 0, SEEK_CUR);
	if (at < 0 || at > st.st_size)
		return false;
	*size = taken + (uint64_t)(st.st_size - at);
	return true;
}

static size_t read_memory(struct vd_feed *f, void *buf, size_t len)
{
	size_t n = vd_min_u64(len, f->memory.len);

	memcpy(buf, f->memory.p, n);
	f->memory = (struct vd_bytes){ f->memory.p + n, f->memory.len - n };
	return n;
}

static int cancelled(const struct vd_feed *f, struct vd_error *e)
{
	return vd_fail(e, VD_ECANCELLED, "%s: cancelled while it waited for more", f->name);
}

/* Until there is something to read, or the end. */
static int wait_for_writer(const struct vd_feed *f, struct vd_error *e)
{
	struct pollfd p = { .fd = f->fd, .events = POLLIN };
	int n = 0;

	while (n <= 0) {
		if (f->stop && atomic_load(f->stop))
			return cancelled(f, e);
		n = poll(&p, 1, PATIENCE_MS);
		if (n < 0 && errno != EINTR)
			return vd_fail_errno(e, errno, "%s: waiting for more failed", f->name);
	}
	return 0;
}

/* At least a byte, if there is one. */
static int read_some(struct vd_feed *f, void *buf, size_t len, size_t *got, struct vd_error *e)
{
	ssize_t n = -1;

	*got = 0;
	if (f->fd < 0) {
		*got = read_memory(f, buf, len);
		f->ended = !*got;
		return 0;
	}
	while (n < 0) {
		int r = f->stop ? wait_for_writer(f, e) : 0;

		if (r < 0)
			return r;
		n = read(f->fd, buf, len);
		if (n < 0 && errno == EAGAIN)
			r = wait_for_writer(f, e);
		else if (n < 0 && errno == EINTR)
			r = f->stop ? 0 : cancelled(f, e);
		else if (n < 0)
			r = vd_fail_errno(e, errno, "%s: reading at %llu failed", f->name, (unsigned long long)f->at);
		if (r < 0)
			return r;
	}
	*got = (size_t)n;
	f->ended = !n;
	return 0;
}

int vd_feed_peek(struct vd_feed *f, size_t len, struct vd_bytes *next, struct vd_error *e)
{
	size_t got;

	if (f->from && f->to - f->from < len) {
		memmove(f->ahead, f->ahead + f->from, f->to - f->from);
		f->to -= f->from;
		f->from = 0;
	}
	while (f->to - f->from < len && !f->ended) {
		int r = read_some(f, f->ahead + f->to, VD_FEED_PEEK - f->to, &got, e);

		if (r < 0)
			return r;
		f->to += got;
	}
	*next = (struct vd_bytes){ f->ahead + f->from, vd_min_u64(len, f->to - f->from) };
	return 0;
}

static size_t take_ahead(struct vd_feed *f, uint8_t *out, uint64_t len)
{
	size_t n = vd_min_u64(len, f->to - f->from);

	if (out)
		memcpy(out, f->ahead + f->from, n);
	f->from += n;
	f->at += n;
	return n;
}

int vd_feed_take(struct vd_feed *f, void *buf, uint64_t len, uint64_t *got, struct vd_error *e)
{
	uint8_t *out = buf;
	size_t n = 0;
	int r = 0;

	for (*got = 0; *got < len && r == 0; *got += n) {
		uint8_t *to = out ? out + *got : NULL;

		n = take_ahead(f, to, len - *got);
		if (n)
			continue;
		if (f->ended)
			break;
		/* Small pieces are read in large ones. */
		if (to && len - *got >= VD_FEED_PEEK) {
			r = read_some(f, to, len - *got, &n, e);
			f->at += n;
		} else {
			f->from = 0;
			r = read_some(f, f->ahead, VD_FEED_PEEK, &f->to, e);
		}
	}
	return r;
}
