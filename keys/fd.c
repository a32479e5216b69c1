/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Secrets from an open descriptor, and into one: straight from and to locked memory, no buffer in between. */
#include "keys/key.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "libvdisk/core/keysrc.h"

/* One read; 0 at the end of the file. */
static ssize_t read_some(int fd, void *buf, size_t len)
{
	ssize_t n;

	do
		n = read(fd, buf, len);
	while (n < 0 && errno == EINTR);
	return n;
}

/*
 * A line is read byte by byte: the next line of a descriptor that stays open may be for another reader. One byte more
 * than a key may have tells a secret that is too long from one that just fits.
 */
static int fill(int fd, enum vd_key_extent extent, const char *what, struct vd_secret *s, struct vd_error *e)
{
	size_t step = extent == VD_KEY_LINE ? 1 : s->len, got = 0;
	ssize_t n = 1;

	while (got < s->len && n > 0) {
		n = read_some(fd, s->p + got, step < s->len - got ? step : s->len - got);
		if (n < 0)
			return vd_fail_errno(e, errno, "reading the secret from %s", what);
		if (extent == VD_KEY_LINE && n && s->p[got] == '\n') {
			s->p[got] = 0;
			break;
		}
		got += (size_t)n;
	}
	if (got > VD_KEY_MAX)
		return vd_fail(e, VD_EARG, "the secret from %s is longer than %d bytes", what, VD_KEY_MAX);
	s->len = got;
	return 0;
}

int vd_key_read(int fd, enum vd_key_extent extent, const char *what, struct vd_key **out, struct vd_error *e)
{
	vd_auto_secret struct vd_secret s = { 0 };
	int r = vd_secret_alloc(&s, VD_KEY_MAX + 1, e);

	if (r < 0 || (r = fill(fd, extent, what, &s, e)) < 0)
		return r;
	return vd_key_adopt(&s, what, out, e);
}

VD_PUBLIC int vd_key_from_fd(int fd, bool verbatim, struct vd_key **out, struct vd_error *e)
{
	char what[32];

	snprintf(what, sizeof(what), "descriptor %d", fd);
	return vd_key_read(fd, verbatim ? VD_KEY_ALL : VD_KEY_LINE, what, out, e);
}

VD_PUBLIC int vd_key_to_fd(const struct vd_key *key, int fd, struct vd_error *e)
{
	struct vd_bytes left = vd_key_bytes(key);
	int r = vd_key_judge_secret(key, "a descriptor", e);

	while (left.len && r == 0) {
		ssize_t n = write(fd, left.p, left.len);

		if (n < 0 && errno != EINTR)
			return vd_fail_errno(e, errno, "writing the secret to descriptor %d", fd);
		if (n > 0)
			left = (struct vd_bytes){ left.p + n, left.len - (size_t)n };
	}
	return r;
}
