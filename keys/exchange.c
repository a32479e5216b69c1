/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Runs a key command: one request, one reply, a limit of time. What they say, others know (key_command.c, key_reply.c).
 *
 *  E1  The request lies in the pipe as a whole before the command starts: nothing here waits for a reader or dies of one that
 *      is gone.
 *  E2  Output goes from the pipe into locked memory; its length and the time for it are bounded.
 *  E3  Whatever fails, the process group is killed before its leader is waited for: until then its number is nobody else's.
 */
#include "keys/child.h"
#include "keys/keycommand.h"

#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define TICK_MS 50              /* how often it is looked at whether the command has ended */
#define LINGER_MS 1000          /* for output that is on its way when it has */

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- the terminal --------------------------------------------------------------------------------------- */

/* Somebody may have to type a PIN, which the kernel lets no group in the background read. */
struct terminal {
	int fd;                         /* -1: nothing was lent */
	pid_t owner;
	struct termios modes;
};

static void lend_terminal(struct terminal *t, pid_t to)
{
	t->fd = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
	if (t->fd < 0)
		return;
	t->owner = tcgetpgrp(t->fd);
	if (t->owner != getpgrp() || tcgetattr(t->fd, &t->modes) < 0 || tcsetpgrp(t->fd, to) < 0) {
		close(t->fd);
		t->fd = -1;
		return;
	}
	/* It may have asked before it was allowed to, which has stopped it. */
	kill(-to, SIGCONT);
}

/* In the background by now, this process would be stopped for it. Who is killed at a question has left the echo off. */
static void take_terminal_back(const struct terminal *t)
{
	sigset_t ttou, old;

	if (t->fd < 0)
		return;
	sigemptyset(&ttou);
	sigaddset(&ttou, SIGTTOU);
	pthread_sigmask(SIG_BLOCK, &ttou, &old);
	(void)!tcsetpgrp(t->fd, t->owner);
	(void)!tcsetattr(t->fd, TCSADRAIN, &t->modes);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	close(t->fd);
}

/* ---- the reply ------------------------------------------------------------------------------------------ */

struct talk {
	struct vd_child child;
	int from;
	int64_t deadline;
	unsigned timeout_s;
	bool has_ended;
};

static int too_late(const struct talk *t, struct vd_error *e)
{
	if (t->has_ended)
		return vd_fail(e, VD_EFAILED, "the key command has ended, but something that it started keeps its output open");
	vd_fail(e, VD_EFAILED, "the key command took more than %u second%s, and was stopped", t->timeout_s,
		t->timeout_s == 1 ? "" : "s");
	return vd_hint(e, VD_EFAILED, "--key-timeout allows it more");
}

/* Waits for a tick, or for output where there may be some; 1: there is. */
static int wait_a_tick(struct talk *t, int fd, struct vd_error *e)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int64_t left = t->deadline - now_ms();
	int n;

	if (left <= 0)
		return too_late(t, e);
	n = poll(&p, 1, left < TICK_MS ? (int)left : TICK_MS);
	if (n < 0 && errno != EINTR)
		return vd_fail_errno(e, errno, "waiting for the key command");
	if (n <= 0 && !t->has_ended && vd_child_has_ended(&t->child)) {
		t->has_ended = true;
		t->deadline = t->deadline < now_ms() + LINGER_MS ? t->deadline : now_ms() + LINGER_MS;
	}
	return n > 0;
}

static int read_reply(struct talk *t, struct vd_secret *reply, struct vd_error *e)
{
	size_t got = 0;
	ssize_t n = 1;

	while (n) {
		int r = wait_a_tick(t, t->from, e);

		if (r < 0)
			return r;
		if (r == 0)
			continue;
		n = read(t->from, reply->p + got, reply->len - got);
		if (n < 0 && errno != EINTR)
			return vd_fail_errno(e, errno, "reading the key command's reply");
		got += n > 0 ? (size_t)n : 0;
		if (got > VD_KEY_REPLY_MAX)
			return vd_fail(e, VD_EFAILED, "the key command says more than %d bytes", VD_KEY_REPLY_MAX);
	}
	reply->len = got;
	return 0;
}

static int wait_for_end(struct talk *t, struct vd_error *e)
{
	int r = 0;

	while (r >= 0 && !t->has_ended)
		r = wait_a_tick(t, -1, e);
	return r < 0 ? r : 0;
}

static int converse(struct talk *t, struct vd_secret *reply, int *status, struct vd_error *e)
{
	struct terminal tty = { .fd = -1 };
	struct vd_error ignored;
	int r, ended;

	lend_terminal(&tty, t->child.pid);
	r = read_reply(t, reply, e);
	if (r == 0)
		r = wait_for_end(t, e);
	if (r < 0)
		kill(-t->child.pid, SIGKILL);
	ended = vd_child_wait(&t->child, status, r < 0 ? &ignored : e);
	take_terminal_back(&tty);
	if (r < 0)
		return r;
	/* A status goes with an error that it has told; a signal with nothing. */
	return *status >= 0 ? 0 : ended;
}

/* ---- the request ---------------------------------------------------------------------------------------- */

/* *in: the pipe's end that the request comes out of (E1). */
static int put_request(struct vd_bytes request, int *in, struct vd_error *e)
{
	int ends[2];
	ssize_t n;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return vd_fail_errno(e, errno, "starting the key command");
	*in = ends[0];
	n = fcntl(ends[1], F_SETFL, O_NONBLOCK) < 0 ? -1 : write(ends[1], request.p, request.len);
	if (n != (ssize_t)request.len) {
		close(ends[1]);
		return vd_fail(e, VD_EFAILED, "a pipe of this system holds no request of %zu bytes for the key command", request.len);
	}
	close(ends[1]);
	return 0;
}

int vd_exchange(const char *command, unsigned timeout_s, struct vd_bytes request, struct vd_secret *reply, int *status,
		struct vd_error *e)
{
	struct talk t = { .child.what = "the key command", .timeout_s = timeout_s };
	vd_auto_fd int in = -1, out = -1;
	int ends[2], r = vd_secret_alloc(reply, VD_KEY_REPLY_MAX + 1, e);

	if (r < 0 || (r = put_request(request, &in, e)) < 0)
		return r;
	if (pipe2(ends, O_CLOEXEC) < 0)
		return vd_fail_errno(e, errno, "starting the key command");
	t.from = out = ends[0];
	t.deadline = now_ms() + (int64_t)timeout_s * 1000;
	r = vd_child_start(&t.child, command, in, ends[1], true, e);
	close(ends[1]);
	return r < 0 ? r : converse(&t, reply, status, e);
}
