/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Secrets that a command prints, such as a password manager's. Only its standard output is ours; input, messages and
 * environment it has in common with the application.
 */
#include "keys/child.h"
#include "keys/key.h"

#include "libvdisk/base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

/* What a command may print behind its first line (password managers keep notes there) before it counts as a mistake. */
#define MAX_REST (64 << 10)

/* Reads on to the end: a command that is cut off would die of SIGPIPE and look as if it had failed. */
static int drain(int fd, struct vd_error *e)
{
	vd_auto_secret struct vd_secret buf = { 0 };
	size_t rest = 0;
	int r = vd_secret_alloc(&buf, 4096, e);

	while (r == 0) {
		ssize_t n = read(fd, buf.p, buf.len);

		if (n == 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return vd_fail_errno(e, errno, "reading from the passphrase command");
		rest += n > 0 ? (size_t)n : 0;
		if (rest > MAX_REST)
			r = vd_fail(e, VD_EARG, "the passphrase command prints more than %d bytes", MAX_REST);
	}
	return r;
}

/* Starts the command; *from is the descriptor that its output is read from. */
static int launch(struct vd_child *child, const char *command, int *from, struct vd_error *e)
{
	int ends[2], r;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return vd_fail_errno(e, errno, "starting %s", child->what);
	r = vd_child_start(child, command, -1, ends[1], false, e);
	close(ends[1]);
	if (r < 0)
		close(ends[0]);
	*from = ends[0];
	return r;
}

static void cleanup_key(struct vd_key **key)
{
	vd_key_free(*key);
}

/* Of several failures too much output is told first (it ends the command by a signal), then the command's own. */
VD_PUBLIC int vd_key_from_command(const char *command, struct vd_key **out, struct vd_error *e)
{
	__attribute__((cleanup(cleanup_key))) struct vd_key *key = NULL;
	struct vd_error unread = { 0 };
	struct vd_child child = { .what = "the passphrase command" };
	int from = -1, got, rest, ended, status;
	int r = launch(&child, command, &from, e);

	if (r < 0)
		return r;
	got = vd_key_read(from, VD_KEY_LINE, "the passphrase command", &key, &unread);
	rest = drain(from, e);
	close(from);
	ended = vd_child_wait(&child, &status, rest < 0 ? NULL : e);
	if (rest < 0)
		return rest;
	if (ended < 0)
		return ended;
	if (got < 0) {
		if (e)
			*e = unread;
		return got;
	}
	*out = vd_steal(&key);
	return 0;
}
