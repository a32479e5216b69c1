/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Tells the drawing program what is to be drawn. What it looks like is tools/pdf/'s business. */
#include "ledger/pdf.h"

#include <errno.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fail.h"
#include "ledger/schema.h"

extern char **environ;

static void put(struct bytes *to, enum pdf_record kind, const char *text)
{
	char letter = (char)kind;

	bytes_add(to, &letter, 1);
	bytes_add(to, text, strlen(text) + 1);
}

static void pdf_title(void *ctx, const char *title, enum sheet_tone tone, const char *verdict)
{
	static const enum pdf_record kinds[] = { [SHEET_GOOD] = PDF_GOOD, [SHEET_DOUBTFUL] = PDF_DOUBTFUL, [SHEET_BAD] = PDF_BAD };

	put(ctx, PDF_TITLE, title);
	put(ctx, kinds[tone], verdict);
}

static void pdf_section(void *ctx, const char *name)
{
	put(ctx, PDF_SECTION, name);
}

static void pdf_pair(void *ctx, const char *label, const char *value)
{
	put(ctx, PDF_LABEL, label);
	put(ctx, PDF_VALUE, value);
}

static void pdf_item(void *ctx, const char *text)
{
	put(ctx, PDF_ITEM, text);
}

static void describe(const struct sheet *s, struct bytes *to)
{
	const struct sheet_sink sink = { pdf_title, pdf_section, pdf_pair, pdf_item, to };
	struct bytes text = { 0 };

	put(to, PDF_DATE, schema_text(s->c->doc, "issued"));
	bytes_format(&text, "SHA-256 %s", s->c->sha256);
	put(to, PDF_FOOT, (const char *)text.at);
	sheet_walk(s, &sink);
	text.n = 0;
	bytes_add(&text, s->c->sig_text.at, s->c->sig_text.n);
	bytes_add(&text, "", 1);
	put(to, PDF_VERBATIM, (const char *)text.at);
	bytes_free(&text);
	put(to, PDF_SIGN, sheet_operator_line(s));
	put(to, PDF_SIGN, sheet_validator_line(s));
	put(to, PDF_NOTE, sheet_note(s));
}

/* ---- the program ------------------------------------------------------------------------------------------ */

static int find_program(char path[PATH_MAX], struct vd_error *e)
{
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	self[n > 0 ? n : 0] = '\0';
	if (strrchr(self, '/'))
		strrchr(self, '/')[1] = '\0';
	snprintf(path, PATH_MAX, "%.4000svdisk-pdf", self);
	if (n > 0 && access(path, X_OK) == 0)
		return 0;
	fail(e, VD_EUNSUPPORTED, "%s: the program that draws PDF is not there", path);
	return fail_hint(e, VD_EUNSUPPORTED, "it is installed with vdisk where pango is; --html needs none");
}

/* Its exit status, or -errno. */
static int run(const char *path, int in, int out)
{
	char *const argv[] = { (char *)path, NULL };
	posix_spawn_file_actions_t acts;
	int err, status = 0;
	pid_t pid;

	posix_spawn_file_actions_init(&acts);
	posix_spawn_file_actions_adddup2(&acts, in, 0);
	posix_spawn_file_actions_adddup2(&acts, out, 1);
	err = posix_spawn(&pid, path, &acts, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&acts);
	if (err)
		return -err;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -EIO;
}

static int take(int fd, struct bytes *out, struct vd_error *e)
{
	uint8_t piece[65536];
	ssize_t n;

	if (lseek(fd, 0, SEEK_SET) < 0)
		return fail_errno(e, errno, "the page that was drawn");
	while ((n = read(fd, piece, sizeof(piece))) > 0)
		bytes_add(out, piece, (size_t)n);
	return n < 0 ? fail_errno(e, errno, "the page that was drawn") : 0;
}

static int draw(const char *path, const struct bytes *what, int in, int out, struct bytes *pdf, struct vd_error *e)
{
	int status;

	if (in < 0 || out < 0 || write(in, what->at, what->n) != (ssize_t)what->n || lseek(in, 0, SEEK_SET) < 0)
		return fail_errno(e, errno, "no room for what is to be drawn");
	status = run(path, in, out);
	if (status == PDF_NO_FONT) {
		fail(e, VD_EUNSUPPORTED, "no font of this machine has all the letters that are in it");
		return fail_hint(e, VD_EUNSUPPORTED, "install one that has them, such as fonts-noto-cjk for Chinese; --html needs none here");
	}
	if (status)
		return fail(e, VD_EFAILED, "%s failed: %s", path, status < 0 ? strerror(-status) : "it says why above");
	return take(out, pdf, e);
}

int sheet_to_pdf(const struct sheet *s, struct bytes *pdf, struct vd_error *e)
{
	struct bytes what = { 0 };
	char path[PATH_MAX];
	int in, out, r = find_program(path, e);

	if (r < 0)
		return r;
	describe(s, &what);
	in = memfd_create("sheet", MFD_CLOEXEC);
	out = memfd_create("pdf", MFD_CLOEXEC);
	r = draw(path, &what, in, out, pdf, e);
	if (in >= 0)
		close(in);
	if (out >= 0)
		close(out);
	bytes_free(&what);
	return r;
}
