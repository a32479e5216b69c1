/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Starts shell commands and learns how they ended. What is said to them and what they say, the callers know. */
#include "keys/child.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static int add_actions(posix_spawn_file_actions_t *actions, int in, int out)
{
	int err = in >= 0 ? posix_spawn_file_actions_adddup2(actions, in, STDIN_FILENO) : 0;

	return err ? err : posix_spawn_file_actions_adddup2(actions, out, STDOUT_FILENO);
}

/* The child gets SIGPIPE as a new program expects it, even where the application ignores that signal. */
static int set_attributes(posix_spawnattr_t *attr, bool own_group)
{
	short flags = POSIX_SPAWN_SETSIGDEF | (own_group ? POSIX_SPAWN_SETPGROUP : 0);
	sigset_t reset;
	int err;

	sigemptyset(&reset);
	sigaddset(&reset, SIGPIPE);
	err = posix_spawnattr_setsigdefault(attr, &reset);
	if (!err && own_group)
		err = posix_spawnattr_setpgroup(attr, 0);
	return err ? err : posix_spawnattr_setflags(attr, flags);
}

static int spawn(pid_t *pid, const char *command, int in, int out, bool own_group)
{
	const char *argv[] = { "sh", "-c", command, NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	int err = posix_spawn_file_actions_init(&actions);

	if (err)
		return err;
	err = posix_spawnattr_init(&attr);
	if (err) {
		posix_spawn_file_actions_destroy(&actions);
		return err;
	}
	err = add_actions(&actions, in, out);
	if (!err)
		err = set_attributes(&attr, own_group);
	if (!err)
		err = posix_spawn(pid, "/bin/sh", &actions, &attr, (char *const *)argv, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	return err;
}

int vd_child_start(struct vd_child *child, const char *command, int in, int out, bool own_group, struct vd_error *e)
{
	int err = spawn(&child->pid, command, in, out, own_group);

	return err ? vd_fail_errno(e, err, "starting %s", child->what) : 0;
}

bool vd_child_has_ended(const struct vd_child *child)
{
	siginfo_t info = { 0 };

	return waitid(P_PID, (id_t)child->pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 ? errno != EINTR : info.si_pid != 0;
}

int vd_child_wait(const struct vd_child *child, int *status, struct vd_error *e)
{
	int raw;

	*status = -1;
	while (waitpid(child->pid, &raw, 0) < 0)
		if (errno != EINTR)
			return vd_fail_errno(e, errno, "learning how %s ended", child->what);
	if (WIFSIGNALED(raw))
		return vd_fail(e, VD_EFAILED, "%s was killed by signal %d", child->what, WTERMSIG(raw));
	*status = WEXITSTATUS(raw);
	return *status ? vd_fail(e, VD_EFAILED, "%s failed with status %d", child->what, *status) : 0;
}
