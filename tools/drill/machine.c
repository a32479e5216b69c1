/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Runs qemu-system-x86_64 as a child that dies with us. Its streams come through pipes that it knows by number alone. */
#include "drill/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fail.h"
#include "json.h"
#include "ui.h"

#define QEMU "qemu-system-x86_64"
#define OVMF "/usr/share/OVMF/OVMF_CODE.fd"
#define WORDS_MAX 64
#define VGA_PAGE 0xb8000        /* IBM VGA, mode 3: 80 x 25 letters, each with its colour behind it */
#define VGA_BYTES 4000
/* Descriptors in the child. */
#define SERIAL_FD 10
#define FIRMWARE_FD 11

struct words {
	char *at[WORDS_MAX + 1];
	size_t n;
};

static void add_word(struct words *w, char *word)
{
	if (!word || w->n == WORDS_MAX)
		ui_out_of_memory();
	w->at[w->n++] = word;
	w->at[w->n] = NULL;
}

/* An option and its value. */
static void add(struct words *w, const char *name, const char *fmt, ...) VD_PRINTF(3, 4);
static void add(struct words *w, const char *name, const char *fmt, ...)
{
	char *value = NULL;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&value, fmt, ap);
	va_end(ap);
	add_word(w, strdup(name));
	add_word(w, n < 0 ? NULL : value);
}

static void add_disk(struct words *w, const struct machine_plan *p)
{
	static const char *const devices[] = { [DRILL_VIRTIO] = "virtio-blk-pci", [DRILL_SATA] = "ide-hd,bus=ahci.0", [DRILL_IDE] = "ide-hd" };

	add(w, "-drive", "if=none,id=disk,format=raw,snapshot=on,cache=unsafe,file.driver=nbd,file.server.type=unix,file.server.path=%s", p->socket);
	if (p->bus == DRILL_SATA)
		add(w, "-device", "ich9-ahci,id=ahci");
	add(w, "-device", "%s,drive=disk,bootindex=0", devices[p->bus]);
}

/* A pipe that the child has as `fd`: what the guest writes there we read. */
static void add_pipe(struct words *w, const char *id, int fd, int set)
{
	add(w, "-add-fd", "fd=%d,set=%d", fd, set);
	/* Appended to: a file that is not is cut to nothing first, which a pipe refuses. */
	add(w, "-chardev", "file,id=%s,append=on,path=/dev/fdset/%d", id, set);
}

static void put_words(struct words *w, const struct machine_plan *p, const char *qmp)
{
	add_word(w, strdup(QEMU));
	add_word(w, strdup("-nodefaults"));
	add_word(w, strdup("-no-user-config"));
	add(w, "-display", "none");
	add(w, "-vga", "std");
	add(w, "-nic", "none");
	add(w, "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
	add(w, "-machine", "pc,accel=%s", p->accel == DRILL_KVM ? "kvm" : "tcg");
	add(w, "-m", "%u", p->memory_mib);
	add(w, "-rtc", "base=utc");
	add(w, "-device", "pvpanic");
	if (p->firmware == DRILL_UEFI)
		add(w, "-drive", "if=pflash,format=raw,readonly=on,file=%s", OVMF);
	add_pipe(w, "serial", SERIAL_FD, 1);
	add(w, "-serial", "chardev:serial");
	/* SeaBIOS and OVMF say on this port what they do. */
	add_pipe(w, "firmware", FIRMWARE_FD, 2);
	add(w, "-device", "isa-debugcon,iobase=0x402,chardev=firmware");
	add(w, "-qmp", "unix:%s,server=on,wait=off", qmp);
	add_disk(w, p);
}

/* Does not return. `pipes`: serial, firmware, errors. */
static void become_qemu(struct words *w, const struct machine_plan *p, int pipes[3][2])
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(pipes[2][1], 2) < 0 || dup2(pipes[0][1], SERIAL_FD) < 0 ||
	    dup2(pipes[1][1], FIRMWARE_FD) < 0)
		_exit(126);
	/* The overlay is a file without a name there. */
	setenv("TMPDIR", p->folder, 1);
	execvp(QEMU, w->at);
	dprintf(2, "%s: %s\n", QEMU, strerror(errno));
	_exit(127);
}

static void close_all(int pipes[3][2], int side)
{
	for (int i = 0; i < 3; i++)
		if (pipes[i][side] >= 0)
			close(pipes[i][side]);
}

static int make_pipes(int pipes[3][2], struct vd_error *e)
{
	for (int i = 0; i < 3; i++)
		pipes[i][0] = pipes[i][1] = -1;
	for (int i = 0; i < 3; i++) {
		if (pipe2(pipes[i], O_CLOEXEC) < 0) {
			int r = fail_errno(e, errno, "no pipe");

			close_all(pipes, 0);
			close_all(pipes, 1);
			return r;
		}
		/* Above what the child puts in their place. */
		pipes[i][1] = fcntl(pipes[i][1], F_DUPFD_CLOEXEC, FIRMWARE_FD + 1);
		fcntl(pipes[i][0], F_SETFL, O_NONBLOCK);
	}
	return 0;
}

int machine_start(const struct machine_plan *plan, struct machine *m, struct vd_error *e)
{
	struct words w = { .n = 0 };
	int pipes[3][2], r;

	*m = (struct machine){ .serial_fd = -1, .firmware_fd = -1, .error_fd = -1 };
	if (plan->firmware == DRILL_UEFI && access(OVMF, R_OK) < 0) {
		fail(e, VD_ENOENT, "%s is not there", OVMF);
		return fail_hint(e, VD_ENOENT, "install ovmf, or say --firmware=bios");
	}
	if ((size_t)snprintf(m->qmp_path, sizeof(m->qmp_path), "%s/qmp-%d", plan->folder, plan->accel) >= sizeof(m->qmp_path))
		return fail(e, VD_EARG, "%s: the name is too long", plan->folder);
	r = make_pipes(pipes, e);
	if (r < 0)
		return r;
	put_words(&w, plan, m->qmp_path);
	m->pid = fork();
	if (m->pid == 0)
		become_qemu(&w, plan, pipes);
	while (w.n)
		free(w.at[--w.n]);
	close_all(pipes, 1);
	m->serial_fd = pipes[0][0];
	m->firmware_fd = pipes[1][0];
	m->error_fd = pipes[2][0];
	if (m->pid > 0)
		return 0;
	r = fail_errno(e, errno, "%s cannot be started", QEMU);
	m->pid = 0;
	machine_stop(m);
	return r;
}

void machine_stop(struct machine *m)
{
	int *const fds[] = { &m->serial_fd, &m->firmware_fd, &m->error_fd };

	qmp_close(m->qmp);
	m->qmp = NULL;
	if (m->pid > 0) {
		kill(m->pid, SIGKILL);
		while (waitpid(m->pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	m->pid = 0;
	for (size_t i = 0; i < 3; i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
	if (m->qmp_path[0])
		unlink(m->qmp_path);
}

bool machine_has_ended(struct machine *m, int *how)
{
	if (m->pid <= 0 || waitpid(m->pid, how, WNOHANG) != m->pid)
		return false;
	m->pid = 0;
	return true;
}

void machine_reach(struct machine *m, void (*on_event)(void *ctx, const char *name), void *ctx)
{
	struct vd_error ignored;

	if (m->qmp || access(m->qmp_path, F_OK) < 0 || qmp_connect(m->qmp_path, &m->qmp, &ignored) < 0)
		return;
	qmp_on_event(m->qmp, on_event, ctx);
}

void machine_version(char *text, size_t size)
{
	FILE *f = popen(QEMU " --version 2>/dev/null", "r");

	*text = 0;
	if (!f)
		return;
	if (fgets(text, (int)size, f))
		text[strcspn(text, "\n")] = 0;
	pclose(f);
}

int machine_picture(struct machine *m, const char *path, struct vd_error *e)
{
	struct json_object *arguments = json_new();

	json_put_text(arguments, "filename", path);
	json_put_text(arguments, "format", "png");
	if (!m->qmp) {
		json_object_put(arguments);
		return fail(e, VD_EFAILED, "qemu does not answer");
	}
	return qmp_run(m->qmp, "screendump", arguments, 10, NULL, e);
}

/* "00000000000b8000: 0x20 0x07 ...", a line for eight bytes: every other one is a letter. */
static void take_dump(const char *dump, struct evidence *out)
{
	size_t n = 0;

	for (const char *at = strstr(dump, "0x"); at; at = strstr(at + 2, "0x")) {
		unsigned value = (unsigned)strtoul(at, NULL, 16);
		char c = value >= 0x20 && value < 0x7f ? (char)value : ' ';

		if (n++ % 2 == 0)
			evidence_add(out, &c, 1);
		if (n % 160 == 0)
			evidence_add(out, "\n", 1);
	}
}

void machine_screen_text(struct machine *m, struct evidence *out)
{
	struct json_object *arguments = json_new(), *result = NULL;
	struct vd_error ignored;
	char command[64];

	*out = (struct evidence){ .n = 0 };
	snprintf(command, sizeof(command), "xp /%dxb 0x%x", VGA_BYTES, VGA_PAGE);
	json_put_text(arguments, "command-line", command);
	if (!m->qmp) {
		json_object_put(arguments);
		return;
	}
	if (qmp_run(m->qmp, "human-monitor-command", arguments, 5, &result, &ignored) == 0 && json_object_is_type(result, json_type_string))
		take_dump(json_object_get_string(result), out);
	json_object_put(result);
}
