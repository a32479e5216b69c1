/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Secrets that a command prints, such as a password manager's. Only its standard output is ours; input, messages and
 * environment it has in common with the application.
 */
#include "keys/key.h"

#include "libvdisk/base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* What a command may print behind its first line (password managers keep notes there) before it counts as a mistake. */
#define MAX_REST (64 << 10)

static int launch_failed(int err, struct vd_error *e)
{
	return vd_fail_errno(e, err, "starting the passphrase command");
}

/* The child gets SIGPIPE as a new program expects it, even where the application ignores that signal. */
static int spawn_shell(const char *command, int out_fd, pid_t *pid, struct vd_error *e)
{
	const char *argv[] = { "sh", "-c", command, NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t reset;
	int err = posix_spawn_file_actions_init(&actions);

	if (err)
		return launch_failed(err, e);
	err = posix_spawnattr_init(&attr);
	if (err) {
		posix_spawn_file_actions_destroy(&actions);
		return launch_failed(err, e);
	}
	sigemptyset(&reset);
	sigaddset(&reset, SIGPIPE);
	err = posix_spawn_file_actions_adddup2(&actions, out_fd, STDOUT_FILENO);
	if (!err)
		err = posix_spawnattr_setsigdefault(&attr, &reset);
	if (!err)
		err = posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGDEF);
	if (!err)
		err = posix_spawn(pid, "/bin/sh", &actions, &attr, (char *const *)argv, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	return err ? launch_failed(err, e) : 0;
}

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

static int wait_for(pid_t pid, struct vd_error *e)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return vd_fail_errno(e, errno, "learning how the passphrase command ended");
	if (WIFSIGNALED(status))
		return vd_fail(e, VD_EFAILED, "the passphrase command was killed by signal %d", WTERMSIG(status));
	if (WEXITSTATUS(status))
		return vd_fail(e, VD_EFAILED, "the passphrase command failed with status %d", WEXITSTATUS(status));
	return 0;
}

/* Starts the command; *from is the descriptor that its output is read from. */
static int launch(const char *command, int *from, pid_t *pid, struct vd_error *e)
{
	int ends[2], r;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return launch_failed(errno, e);
	r = spawn_shell(command, ends[1], pid, e);
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
	int from = -1, got, rest, status;
	pid_t pid;
	int r = launch(command, &from, &pid, e);

	if (r < 0)
		return r;
	got = vd_key_read(from, VD_KEY_LINE, "the passphrase command", &key, &unread);
	rest = drain(from, e);
	close(from);
	status = wait_for(pid, rest < 0 ? NULL : e);
	if (rest < 0)
		return rest;
	if (status < 0)
		return status;
	if (got < 0) {
		if (e)
			*e = unread;
		return got;
	}
	*out = vd_steal(&key);
	return 0;
}
