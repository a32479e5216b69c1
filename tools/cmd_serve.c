/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vdisk serve: gives the disk in an image to programs that speak NBD, for as long as one command runs or until it is
 * stopped. Where it is served is listen.c's, by whom nbdserver.c's.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "exit.h"
#include "fail.h"
#include "json.h"
#include "listen.h"
#include "nbdserver.h"
#include "signals.h"
#include "source.h"
#include "ui.h"
#include "verbs.h"

#define WHERE(member) offsetof(struct settings, member)
#define LOOK_MS 200             /* how long a signal that came between two looks waits */

static const struct opt place[] = {
	{ .name = "read-write", .kind = OPT_FLAG, .where = WHERE(serve.read_write),
	  .help = "let clients write; otherwise no byte of any file changes" },
	{ .name = "socket", .kind = OPT_TEXT, .where = WHERE(serve.socket), .arg = "PATH",
	  .help = "serve at this new socket, which only its owner can use (default: one in a folder of its own)" },
	{ .name = "listen", .kind = OPT_TEXT, .where = WHERE(serve.address), .arg = "HOST[:PORT]",
	  .help = "serve over TCP, to those who authenticate; port 0 is any that is free (default 10809)" },
	{ .name = "tls-certificates", .kind = OPT_TEXT, .where = WHERE(serve.tls_certificates), .arg = "DIR",
	  .help = "with ca-cert.pem, server-cert.pem and server-key.pem in DIR; clients need a certificate of that CA" },
	{ .name = "tls-psk", .kind = OPT_TEXT, .where = WHERE(serve.tls_psk), .arg = "FILE",
	  .help = "with the keys in FILE, lines of NAME:HEX; clients need one of them" },
	{ 0 },
};
static const struct opt_group place_group = { "Serving", place };

static const struct opt_group *const groups[] = {
	&place_group, &opts_format, &opts_backing, &opts_snapshot, &opts_header, &opts_sharing, &opts_keys,
	&opts_output_form, &opts_speech, NULL,
};

static const char *const examples[] = {
	"vdisk serve disk.vmdk -- 'nbdcopy \"$uri\" disk.raw'",
	"vdisk serve --key-file key disk.qcow2 -- 'qemu-img info \"$uri\"'",
	"vdisk serve --read-write --socket /run/user/1000/web.sock web.vhdx",
	"vdisk serve --listen 0.0.0.0 --tls-certificates /etc/pki/nbd disk.qcow2",
	NULL,
};

/* ---- the command ------------------------------------------------------------------------------------------- */

/* Does not return. One word is for the shell, which knows $uri; several are a program and its arguments. */
static void become_command(const struct settings *s, const struct listener *l)
{
	const char *words[OPERANDS_MAX + 4] = { "/bin/sh", "-c", s->operands[1] };

	if (s->n_operands > 2)
		memcpy(words, s->operands + 1, (s->n_operands - 1) * sizeof(*words));
	setenv("uri", l->uri, 1);
	if (l->path[0])
		setenv("unixsocket", l->path, 1);
	execvp(words[0], (char *const *)words);
	fprintf(stderr, "vdisk: %s: %s\n", words[0], strerror(errno));
	_exit(errno == ENOENT ? 127 : 126);
}

/* A stop is passed on once; what the terminal sends the command gets itself. */
static void pass_on(pid_t command, bool *has_passed)
{
	int sig = signals_stop();

	if (!sig || *has_passed)
		return;
	*has_passed = true;
	if (sig != SIGINT)
		kill(command, sig);
}

/* The command's status as a shell has it. */
static int run_command(const struct settings *s, const struct listener *l, int *status, struct vd_error *e)
{
	pid_t command = fork();
	bool has_passed = false;
	struct pollfd ended;
	int how;

	if (command == 0)
		become_command(s, l);
	if (command < 0)
		return fail_errno(e, errno, "%s: cannot be started", s->operands[1]);
	ended = (struct pollfd){ .fd = pidfd_open(command, 0), .events = POLLIN };
	while (ended.fd >= 0 && poll(&ended, 1, LOOK_MS) <= 0)
		pass_on(command, &has_passed);
	while (waitpid(command, &how, 0) < 0 && errno == EINTR)
		pass_on(command, &has_passed);
	if (ended.fd >= 0)
		close(ended.fd);
	*status = WIFSIGNALED(how) ? 128 + WTERMSIG(how) : WEXITSTATUS(how);
	return 0;
}

/* ---- without one ------------------------------------------------------------------------------------------- */

static int print_place(const struct nbdserver *n, const struct listener *l, struct vd_error *e)
{
	struct json_object *j;

	if (!ui_is_json()) {
		ui_line("%s", l->uri);
		return fflush(stdout) ? fail_errno(e, errno, "standard output cannot be written") : 0;
	}
	j = json_new();
	json_put_text(j, "uri", l->uri);
	if (l->path[0])
		json_put_text(j, "socket", l->path);
	json_put_u64(j, "server-pid", (uint64_t)n->pid);
	json_put_bool(j, "read-write", n->s->serve.read_write);
	json_print(j);
	return 0;
}

/* Until a signal stops it, which is how it is meant to end, or the server has gone. */
static int wait_for_stop(const struct nbdserver *n, const struct listener *l, struct vd_error *e)
{
	struct pollfd ended = { .fd = pidfd_open(n->pid, 0), .events = POLLIN };
	int r = print_place(n, l, e);

	if (r == 0 && ended.fd < 0)
		r = fail_errno(e, errno, "the server cannot be watched");
	while (r == 0 && !signals_stop() && poll(&ended, 1, LOOK_MS) <= 0)
		;
	if (ended.fd >= 0)
		close(ended.fd);
	return r;
}

/* ---- all of it --------------------------------------------------------------------------------------------- */

static int attempt_start(void *ctx, const struct keys *keys, struct vd_error *e)
{
	int r;

	secrets_status(keys->at, keys->n);
	r = nbdserver_start(ctx, keys, e);
	ui_status_end();
	return r;
}

static int serve(const struct settings *s, const struct listener *l, struct nbdserver *n, int *status, struct vd_error *e)
{
	struct keys keys = { .n = 0 };
	struct vd_error at_end = { 0 };
	int r = source_unlock(s, n->image, &keys, attempt_start, n, e), end;

	secrets_free(&keys);
	if (r == 0)
		r = s->n_operands > 1 ? run_command(s, l, status, e) : wait_for_stop(n, l, e);
	end = nbdserver_stop(n, &at_end);
	if (r < 0 || end == 0)
		return r;
	/* The command's own failure is its user's first concern. */
	if (*status)
		ui_warn("%s", at_end.message);
	else
		*e = at_end;
	return *status ? 0 : end;
}

static int run(struct settings *s, struct vd_error *e)
{
	struct nbdserver n = { .s = s, .image = s->operands[0] };
	struct listener l;
	int status = 0, r;

	if (s->force_share && s->serve.read_write)
		return fail(e, VD_EARG, "--force-share is for reading: it does not go with --read-write");
	r = listener_open(&l, s, e);
	if (r < 0)
		return r;
	n.listen_fd = l.fd;
	r = serve(s, &l, &n, &status, e);
	listener_close(&l);
	return r < 0 ? r : status;
}

const struct verb verb_serve = {
	.name = "serve",
	.operands = "IMAGE [-- COMMAND...]",
	.min_operands = 1,
	.max_operands = OPERANDS_MAX,
	.summary = "serve the disk over NBD, for one command or until stopped",
	.about = "Serves the disk in IMAGE, decrypted and with what its backing files add, to programs that speak NBD. With "
		 "COMMAND it does so while that runs, with the address in $uri, and ends with its status; COMMAND of one word is "
		 "for the shell. Without, it prints the address and serves until it is stopped. nbdkit has to be installed.",
	.groups = groups,
	.examples = examples,
	.run = run,
};
