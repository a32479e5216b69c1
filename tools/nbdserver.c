/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Starts nbdkit and hears from the plugin what opening and closing the image came to. Keys go through pipes, the socket as
 * systemd hands sockets over: neither ever has a name that another process could use. The plugin's side is nbdkit/plugin.c.
 */
#include "nbdserver.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fail.h"
#include "ui.h"

#define LISTEN_FD 3             /* sd_listen_fds(3): the first that is handed over */
#define FIRST_FD 10             /* ours lie above all that have a meaning */
#define WORDS_MAX (2 * TEXTS_MAX + 3 * KEYS_MAX + 32)

/* ---- the command line -------------------------------------------------------------------------------------- */

struct words {
	char *at[WORDS_MAX + 1];
	size_t n;
};

static void add_word(struct words *w, const char *fmt, ...) VD_PRINTF(2, 3);
static void add_word(struct words *w, const char *fmt, ...)
{
	va_list ap;
	int n = -1;

	va_start(ap, fmt);
	if (w->n < WORDS_MAX)
		n = vasprintf(&w->at[w->n], fmt, ap);
	va_end(ap);
	if (n < 0)
		ui_out_of_memory();
	w->at[++w->n] = NULL;
}

static void add_parameter(struct words *w, const char *name, const char *value)
{
	if (value)
		add_word(w, "%s=%s", name, value);
}

static void free_words(struct words *w)
{
	while (w->n)
		free(w->at[--w->n]);
}

/* In the build tree the plugin lies beside the command; else nbdkit knows where its plugins are. */
static void add_plugin(struct words *w)
{
	char path[PATH_MAX + 32];
	ssize_t n = readlink("/proc/self/exe", path, PATH_MAX);
	char *slash;

	path[n > 0 ? n : 0] = '\0';
	slash = strrchr(path, '/');
	if (slash)
		strcpy(slash + 1, "nbdkit-vdisk-plugin.so");
	add_word(w, "%s", slash && access(path, R_OK) == 0 ? path : "vdisk");
}

static void add_tls(struct words *w, const struct settings *s)
{
	if (!s->serve.address)
		return;
	add_word(w, "--tls=require");
	if (s->serve.tls_psk)
		add_word(w, "--tls-psk=%s", s->serve.tls_psk);
	else
		add_word(w, "--tls-certificates=%s", s->serve.tls_certificates);
	/* Encryption alone would let everybody in. */
	if (s->serve.tls_certificates)
		add_word(w, "--tls-verify-peer");
}

/* Those whose secret is not known here. */
static bool add_key_commands(struct words *w, const struct settings *s)
{
	bool has_any = false;

	for (size_t i = 0; i < s->keys.n; i++) {
		if (s->keys.at[i].kind != SECRET_KEY_COMMAND)
			continue;
		if (!has_any)
			add_parameter(w, "token-file", s->token_file);
		if (!has_any && s->key_timeout)
			add_word(w, "key-timeout=%llu", (unsigned long long)s->key_timeout);
		add_parameter(w, "key-command", s->keys.at[i].value);
		has_any = true;
	}
	return has_any;
}

static void add_image(struct words *w, const struct nbdserver *n)
{
	const struct settings *s = n->s;

	add_parameter(w, "file", n->image);
	add_parameter(w, "format", s->format);
	add_parameter(w, "backing-format", s->backing_format);
	add_parameter(w, "snapshot", s->snapshot);
	add_parameter(w, "disk", s->disk);
	add_parameter(w, "header", s->header);
	for (size_t i = 0; i < s->allow.n; i++)
		add_parameter(w, "allow", s->allow.at[i]);
	if (s->serve.read_write)
		add_word(w, "read-write=true");
	if (s->force_share)
		add_word(w, "force-share=true");
}

/* ---- pipes ------------------------------------------------------------------------------------------------- */

/* Both ends above FIRST_FD, and only here. */
static int make_pipe(int ends[2], struct vd_error *e)
{
	int low[2];

	if (pipe2(low, O_CLOEXEC) < 0)
		return fail_errno(e, errno, "no pipe can be made");
	for (int i = 0; i < 2; i++) {
		ends[i] = fcntl(low[i], F_DUPFD_CLOEXEC, FIRST_FD);
		close(low[i]);
	}
	if (ends[0] >= 0 && ends[1] >= 0)
		return 0;
	fail_errno(e, errno, "no pipe can be made");
	close(ends[0]);
	close(ends[1]);
	return e->code;
}

/* The ends that the server reads its keys from. */
struct key_pipes {
	int at[KEYS_MAX];
	size_t n;
};

static int fill_pipes(struct key_pipes *p, const struct keys *keys, struct words *w, struct vd_error *e)
{
	int r = 0;

	for (size_t i = 0; i < keys->n && r == 0; i++) {
		int ends[2];

		if (vd_key_is_command(keys->at[i]))
			continue;
		r = make_pipe(ends, e);
		if (r < 0)
			return r;
		r = vd_key_to_fd(keys->at[i], ends[1], e);
		close(ends[1]);
		p->at[p->n++] = ends[0];
		add_word(w, "key-fd=%d", ends[0]);
	}
	return r;
}

static void close_pipes(struct key_pipes *p)
{
	while (p->n)
		close(p->at[--p->n]);
}

/* ---- the child --------------------------------------------------------------------------------------------- */

static void hand_over(int fd)
{
	fcntl(fd, F_SETFD, 0);
}

static void say_missing(int report, int err)
{
	struct vd_error e = { 0 };

	fail_errno(&e, err, "nbdkit cannot be started");
	if (err == ENOENT)
		fail_hint(&e, e.code, "install nbdkit: it is what speaks NBD to the clients");
	(void)!write(report, &e, sizeof(e));
}

/* Does not return. Between fork and exec of a program of one thread. */
static void become_server(const struct nbdserver *n, const struct words *w, const struct key_pipes *p, int report, bool own_group)
{
	char pid[16];

	/* What the terminal sends is for the command that uses the disk; but who is to ask for a PIN has to stay in its group. */
	if (own_group)
		setpgid(0, 0);
	if (n->listen_fd != LISTEN_FD)
		dup2(n->listen_fd, LISTEN_FD);
	hand_over(LISTEN_FD);
	hand_over(report);
	for (size_t i = 0; i < p->n; i++)
		hand_over(p->at[i]);
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	setenv("LISTEN_PID", pid, 1);
	setenv("LISTEN_FDS", "1", 1);
	unsetenv("LISTEN_FDNAMES");
	execvp(w->at[0], w->at);
	say_missing(report, errno);
	_exit(127);
}

/* *said: one report. False when the server has ended without one. */
static bool hear(const struct nbdserver *n, struct vd_error *said)
{
	size_t got = 0;
	ssize_t k = 1;

	while (got < sizeof(*said) && k != 0) {
		k = read(n->report_fd, (char *)said + got, sizeof(*said) - got);
		if (k < 0 && errno != EINTR)
			break;
		got += k > 0 ? (size_t)k : 0;
	}
	return got == sizeof(*said);
}

static int wait_for_report(struct nbdserver *n, struct vd_error *e)
{
	struct vd_error said, ignored;
	bool has_said = hear(n, &said);

	if (has_said && said.code == 0)
		return 0;
	(void)!nbdserver_stop(n, &ignored);
	if (!has_said)
		return fail(e, VD_EFAILED, "nbdkit ended before it served %s", n->image);
	*e = said;
	return e->code;
}

int nbdserver_start(struct nbdserver *n, const struct keys *keys, struct vd_error *e)
{
	struct key_pipes pipes = { .n = 0 };
	struct words w = { .n = 0 };
	int report[2], r = make_pipe(report, e);
	bool has_commands;

	if (r < 0)
		return r;
	add_word(&w, "nbdkit");
	add_word(&w, "--exit-with-parent");
	add_tls(&w, n->s);
	add_plugin(&w);
	add_image(&w, n);
	add_word(&w, "report-fd=%d", report[1]);
	has_commands = add_key_commands(&w, n->s);
	r = fill_pipes(&pipes, keys, &w, e);
	if (r == 0)
		n->pid = fork();
	if (r == 0 && n->pid == 0)
		become_server(n, &w, &pipes, report[1], !has_commands);
	if (r == 0 && n->pid < 0)
		r = fail_errno(e, errno, "nbdkit cannot be started");
	close_pipes(&pipes);
	free_words(&w);
	close(report[1]);
	n->report_fd = report[0];
	if (r == 0)
		return wait_for_report(n, e);
	close(report[0]);
	n->pid = 0;
	return r;
}

int nbdserver_stop(struct nbdserver *n, struct vd_error *e)
{
	struct vd_error said;
	bool has_said;
	int status;

	if (!n->pid)
		return 0;
	kill(n->pid, SIGTERM);
	has_said = hear(n, &said);
	while (waitpid(n->pid, &status, 0) < 0 && errno == EINTR)
		;
	close(n->report_fd);
	n->pid = 0;
	if (has_said && said.code) {
		*e = said;
		return e->code;
	}
	return has_said ? 0 : fail(e, VD_EFAILED, "the server of %s has ended before its time", n->image);
}
