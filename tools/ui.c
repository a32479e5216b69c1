/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Prints, asks, colours. Decides nothing. */
#include "ui.h"

#include <errno.h>
#include <fcntl.h>
#include <langinfo.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "exit.h"
#include "fail.h"
#include "json.h"
#include "signals.h"

#define LINE_SIZE 4096

static struct {
	bool json, quiet, colour, status_is_shown, results_to_stderr;
} ui;

static bool wants_colour(int when)
{
	const char *term = getenv("TERM"), *no = getenv("NO_COLOR");

	if (when != COLOUR_AUTO)
		return when == COLOUR_ALWAYS;
	return isatty(fileno(ui_results())) && !(no && no[0]) && term && strcmp(term, "dumb") != 0;
}

void ui_setup_early(bool json)
{
	ui.json = json;
}

void ui_setup(const struct settings *s)
{
	ui.json = s->output == OUTPUT_JSON;
	ui.quiet = s->quiet;
	ui.colour = wants_colour(s->colour);
}

bool ui_is_json(void)
{
	return ui.json;
}

void ui_give_up_stdout(void)
{
	ui.results_to_stderr = true;
}

FILE *ui_results(void)
{
	return ui.results_to_stderr ? stderr : stdout;
}

bool ui_is_utf8(void)
{
	return !strcmp(nl_langinfo(CODESET), "UTF-8");
}

const char *ui_colour(enum ui_colour c)
{
	static const char *const codes[] = {
		[UI_PLAIN] = "\033[0m", [UI_GREEN] = "\033[32m", [UI_YELLOW] = "\033[33m", [UI_RED] = "\033[31m",
		[UI_MAGENTA] = "\033[35m", [UI_DIM] = "\033[2m",
	};

	return ui.colour ? codes[c] : "";
}

/* ---- lines ---------------------------------------------------------------------------------------------- */

static bool is_control(const unsigned char *p)
{
	return p[0] < 0x20 || p[0] == 0x7f || (p[0] == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f);
}

/* Names come from images and folders: escape sequences in them must not reach the terminal. */
static void print_safely(FILE *f, const char *prefix, const char *text)
{
	fputs(prefix, f);
	for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
		bool control = is_control(p);

		putc(control ? '?' : *p, f);
		p += control && *p == 0xc2;
	}
	putc('\n', f);
}

static void print_formatted(FILE *f, const char *prefix, const char *fmt, va_list ap)
{
	char line[LINE_SIZE];

	vsnprintf(line, sizeof(line), fmt, ap);
	print_safely(f, prefix, line);
}

static void print_error_object(const struct vd_error *e, int status, const char *image)
{
	struct json_object *j = json_new();

	json_put_text(j, "type", "error");
	json_put_u64(j, "code", (uint64_t)status);
	json_put_text(j, "name", exit_name_of(e->code));
	json_put_text(j, "message", e->message);
	json_put_text(j, "hint", e->hint);
	if (image)
		json_put_text(j, "image", image);
	if (e->has_offset)
		json_put_u64(j, "offset", e->offset);
	json_print(j);
}

void ui_error(const struct vd_error *e, int status, const char *image)
{
	const char *message = e->message[0] ? e->message : vd_code_text(e->code);

	ui_status_end();
	fflush(stdout);
	if (ui.json) {
		print_error_object(e, status, image);
		return;
	}
	print_safely(stderr, "vdisk: ", message);
	if (e->hint[0])
		print_safely(stderr, "hint: ", e->hint);
}

void ui_warn(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	print_formatted(stderr, "warning: ", fmt, ap);
	va_end(ap);
}

void ui_note(const char *fmt, ...)
{
	va_list ap;

	if (ui.quiet)
		return;
	va_start(ap, fmt);
	print_formatted(stderr, "note: ", fmt, ap);
	va_end(ap);
}

void ui_line(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	print_formatted(ui_results(), "", fmt, ap);
	va_end(ap);
}

void ui_summary(const char *fmt, ...)
{
	va_list ap;

	if (ui.quiet)
		return;
	va_start(ap, fmt);
	print_formatted(ui_results(), "", fmt, ap);
	va_end(ap);
}

void ui_status(const char *text)
{
	if (ui.quiet || !isatty(STDERR_FILENO))
		return;
	fprintf(stderr, "%s ...", text);
	ui.status_is_shown = true;
}

void ui_status_end(void)
{
	if (ui.status_is_shown)
		fputs("\r\033[K", stderr);
	ui.status_is_shown = false;
}

/* ---- the terminal --------------------------------------------------------------------------------------- */

/* One line without its newline; what does not fit is an error, not cut off. */
static int read_line(int tty, char *buf, size_t size, struct vd_error *e)
{
	size_t n = 0;

	for (;;) {
		char c;
		ssize_t got = read(tty, &c, 1);
		int r = signals_check(e);

		if (r < 0)
			return r;
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return fail_errno(e, errno, "the terminal cannot be read");
		if (got == 0 && n == 0)
			return fail(e, VD_ENOKEY, "the terminal gave no line");
		if (got == 0 || c == '\n')
			break;
		if (n + 1 == size)
			return fail(e, VD_EARG, "the line is longer than %zu bytes", size - 1);
		buf[n++] = c;
	}
	buf[n] = '\0';
	return 0;
}

static int ask(int tty, const char *prompt, char *buf, size_t size, struct vd_error *e)
{
	struct termios old, silent;
	int r;

	if (tcgetattr(tty, &old) < 0)
		return fail_errno(e, errno, "the terminal cannot be used");
	silent = old;
	silent.c_lflag &= ~(tcflag_t)(ECHO | ECHOE | ECHOK | ECHONL);
	silent.c_lflag |= ICANON | ISIG;
	if (tcsetattr(tty, TCSAFLUSH, &silent) < 0)
		return fail_errno(e, errno, "the terminal cannot be silenced");
	r = dprintf(tty, "%s", prompt) < 0 ? fail_errno(e, errno, "the terminal cannot be written") : 0;
	if (r == 0)
		r = read_line(tty, buf, size, e);
	if (tcsetattr(tty, TCSAFLUSH, &old) < 0 && r == 0)
		r = fail_errno(e, errno, "the terminal cannot be restored");
	if (write(tty, "\n", 1) < 0 && r == 0)
		r = fail_errno(e, errno, "the terminal cannot be written");
	return r;
}

int ui_ask_secret(const char *prompt, char *buf, size_t size, struct vd_error *e)
{
	int tty = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC), r;

	if (tty < 0)
		return fail(e, VD_ENOKEY, "there is no terminal to ask for a passphrase");
	r = ask(tty, prompt, buf, size, e);
	close(tty);
	return r;
}

static int confirm_on(int tty, const char *question, const char *wanted, struct vd_error *e)
{
	char answer[512] = "";
	int r = VD_EIO;

	if (dprintf(tty, "%s\ntype %s to go on: ", question, wanted) >= 0)
		r = read_line(tty, answer, sizeof(answer), e);
	if (r == VD_ECANCELLED)
		return r;
	return r == 0 && !strcmp(answer, wanted) ? 0 : fail(e, EXIT_ECONFIRM, "not confirmed");
}

int ui_confirm_name(const char *question, const char *wanted, const char *hint, struct vd_error *e)
{
	int tty = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC), r;

	if (tty < 0) {
		fail(e, EXIT_ECONFIRM, "%s", question);
		return fail_hint(e, EXIT_ECONFIRM, "%s", hint);
	}
	r = confirm_on(tty, question, wanted, e);
	close(tty);
	return r;
}

int ui_confirm(bool yes, const char *question, struct vd_error *e)
{
	return yes ? 0 : ui_confirm_name(question, "yes", "repeat the command with --yes if that is what you want", e);
}

bool ui_is_interactive(void)
{
	return isatty(STDIN_FILENO) && isatty(STDERR_FILENO) && !ui.json;
}

int ui_offer(const char *question, struct vd_error *e)
{
	char answer[16] = "";
	int r;

	fprintf(stderr, "%s [y/N] ", question);
	r = read_line(STDIN_FILENO, answer, sizeof(answer), e);
	if (r == VD_ECANCELLED)
		return r;
	return r == 0 && (!strcmp(answer, "y") || !strcmp(answer, "yes"));
}

/* ---- the end -------------------------------------------------------------------------------------------- */

void ui_out_of_memory(void)
{
	static const char text[] = "vdisk: not enough memory\n";
	ssize_t ignored = write(STDERR_FILENO, text, sizeof(text) - 1);

	(void)ignored;
	_exit(1);
}

int ui_finish(struct vd_error *e)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return 0;
	return fail_errno(e, errno, "standard output cannot be written");
}
