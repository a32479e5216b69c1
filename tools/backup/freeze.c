/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Freezes, and sees to it that the guest is thawed whatever becomes of this process. When to freeze is live.c's to know. */
#include "backup/freeze.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backup/qmp.h"
#include "fail.h"

#define FREEZE_SECONDS 30       /* a guest that writes all it has first */
#define THAW_SECONDS 30

struct freeze {
	struct qmp *agent;
	pid_t guard;
	int pipe;                       /* the guard's: a byte that all is well, or its end */
};

/* In the child, which may call nothing that takes locks. It lives as long as the pipe says nothing. */
static void guard(int from_parent, int agent)
{
	static const char thaw[] = "{\"execute\":\"guest-fsfreeze-thaw\"}\n";
	sigset_t all;
	char byte;
	ssize_t n;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	setsid();
	do
		n = read(from_parent, &byte, 1);
	while (n < 0 && errno == EINTR);
	if (n != 1)
		n = send(agent, thaw, sizeof(thaw) - 1, MSG_NOSIGNAL);
	_exit(n < 0);
}

static int start_guard(struct freeze *f, struct vd_error *e)
{
	int ends[2];

	if (pipe2(ends, 0) < 0)
		return fail_errno(e, errno, "a pipe");
	f->guard = fork();
	if (f->guard < 0) {
		close(ends[0]);
		close(ends[1]);
		return fail_errno(e, errno, "a process that would thaw the guest");
	}
	if (!f->guard) {
		close(ends[1]);
		guard(ends[0], qmp_fd(f->agent));
	}
	close(ends[0]);
	f->pipe = ends[1];
	return 0;
}

static void dismiss_guard(struct freeze *f, bool is_thawed)
{
	if (f->guard <= 0)
		return;
	/* Without the byte it tries once more by itself. */
	if (is_thawed && write(f->pipe, "t", 1) != 1)
		kill(f->guard, SIGKILL);
	close(f->pipe);
	while (waitpid(f->guard, NULL, 0) < 0 && errno == EINTR)
		;
}

int freeze_begin(const char *agent_socket, struct freeze **out, struct vd_error *e)
{
	struct freeze *f = calloc(1, sizeof(*f));
	struct vd_error ignored;
	int r;

	if (!f)
		return fail(e, VD_ENOMEM, "not enough memory");
	r = qmp_connect_agent(agent_socket, &f->agent, e);
	if (r == 0)
		r = start_guard(f, e);
	if (r == 0)
		r = qmp_run(f->agent, "guest-fsfreeze-freeze", NULL, FREEZE_SECONDS, NULL, e);
	if (r == 0) {
		*out = f;
		return 0;
	}
	if (f->guard > 0)
		freeze_end(f, &ignored);
	else {
		qmp_close(f->agent);
		free(f);
	}
	return r;
}

int freeze_end(struct freeze *f, struct vd_error *e)
{
	int r;

	if (!f)
		return 0;
	r = qmp_run(f->agent, "guest-fsfreeze-thaw", NULL, THAW_SECONDS, NULL, e);
	dismiss_guard(f, r == 0);
	qmp_close(f->agent);
	free(f);
	return r;
}
