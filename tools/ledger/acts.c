/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Writes the two lines of an act. It judges nothing about the act itself, and what a line looks like is book.c's. */
#include "ledger/acts.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "exit.h"
#include "fail.h"
#include "json.h"
#include "ledger/files.h"
#include "ledger/recorded.h"
#include "ui.h"

#define OFF_FILE "off"

static int make_folders(char *path, struct vd_error *e)
{
	for (char *at = strchr(path + 1, '/'); at; at = strchr(at + 1, '/')) {
		*at = 0;
		if (mkdir(path, 0755) < 0 && errno != EEXIST) {
			fail_errno(e, errno, "%s", path);
			*at = '/';
			return fail_hint(e, e->code, "VDISK_LEDGER=FOLDER says where the ledger is to be");
		}
		*at = '/';
	}
	return 0;
}

int ledger_folder(char *path, size_t size, struct vd_error *e)
{
	const char *named = getenv("VDISK_LEDGER"), *state = getenv("XDG_STATE_HOME");
	struct passwd *user = getpwuid(getuid());
	int n;

	if (named && *named)
		n = snprintf(path, size, "%s", named);
	else if (getuid() == 0)
		n = snprintf(path, size, "/var/lib/vdisk/ledger");
	else if (state && *state)
		n = snprintf(path, size, "%s/vdisk/ledger", state);
	else
		n = snprintf(path, size, "%s/.local/state/vdisk/ledger", user ? user->pw_dir : "");
	if (n < 0 || (size_t)n >= size)
		return fail(e, VD_EARG, "the ledger's folder: the name is too long");
	return make_folders(path, e);
}

int ledger_open(struct book **out, struct vd_error *e)
{
	char path[PATH_MAX];
	int r = ledger_folder(path, sizeof(path), e);

	*out = NULL;
	if (r == 0)
		r = book_open(path, out, e);
	return r < 0 ? fail_hint(e, r, "VDISK_LEDGER=FOLDER says where the ledger is to be; vdisk ledger off ends keeping one") : 0;
}

/* ---- off and on ------------------------------------------------------------------------------------------- */

static void off_path(struct book *b, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, "%s/" OFF_FILE, book_folder(b));
}

int ledger_is_off(struct book *b, bool *off, struct vd_error *e)
{
	char path[PATH_MAX];
	struct stat st;

	off_path(b, path);
	*off = lstat(path, &st) == 0;
	return *off || errno == ENOENT ? 0 : fail_errno(e, errno, "%s", path);
}

int ledger_turn(struct book *b, bool on, struct vd_error *e)
{
	struct json_object *body = json_new();
	char path[PATH_MAX], hash[BOOK_HASH_SIZE];
	struct bytes text = { 0 };
	int r;

	off_path(b, path);
	json_put_bool(body, "keeps", on);
	r = book_append(b, on ? "ledger-on" : "ledger-off", body, NULL, hash, e);
	json_object_put(body);
	if (r < 0)
		return r;
	if (on)
		return file_remove(path, e);
	bytes_format(&text, "%s\n", hash);
	r = file_write(path, &text, 0600, true, e);
	bytes_free(&text);
	return r;
}

/* ---- begin and end ---------------------------------------------------------------------------------------- */

/* Commands that give secrets are the user's own text, and may hold more than he should have typed. */
static bool is_secret_command(const char *arg)
{
	return !strncmp(arg, "--", 2) && strstr(arg, "-command");
}

static void put_arguments(struct json_object *body, int argc, char *const *argv)
{
	struct json_object *list = json_put_array(body, "arguments");
	char name[64];

	for (int i = 1; i < argc; i++) {
		if (!is_secret_command(argv[i])) {
			json_add(list, json_text(argv[i]));
			continue;
		}
		snprintf(name, sizeof(name), "%.*s", (int)strcspn(argv[i], "="), argv[i]);
		json_add(list, json_text(name));
		json_add(list, json_text("(not kept)"));
		if (!strchr(argv[i], '='))
			i++;
	}
}

static bool put_object(struct json_object *list, const char *operand)
{
	char path[PATH_MAX];

	if (!realpath(operand, path))
		return false;
	json_add(list, json_text(path));
	return true;
}

int act_begin(struct act *a, const struct settings *s, int argc, char *const *argv, struct vd_error *e)
{
	struct json_object *body, *objects;
	bool off;
	int r;

	*a = (struct act){ .s = s };
	if (!is_recorded(argv[0], s))
		return 0;
	r = ledger_open(&a->book, e);
	if (r == 0)
		r = ledger_is_off(a->book, &off, e);
	if (r < 0 || off) {
		book_close(a->book);
		a->book = NULL;
		return r;
	}
	body = json_new();
	json_put_text(body, "act", argv[0]);
	put_arguments(body, argc, argv);
	objects = json_put_array(body, "objects");
	for (size_t i = 0; i < s->n_operands; i++)
		a->was_there[i] = put_object(objects, s->operands[i]);
	r = book_append(a->book, "begin", body, NULL, a->begun, e);
	json_object_put(body);
	if (r < 0) {
		book_close(a->book);
		a->book = NULL;
	}
	return r;
}

static struct json_object *end_body(const struct act *a, int r, const struct vd_error *e)
{
	struct json_object *body = json_new(), *made;

	json_put_text(body, "of", a->begun);
	json_put_u64(body, "exit", (uint64_t)(r < 0 ? exit_status_of(r) : r));
	if (r < 0) {
		json_put_text(body, "error", exit_name_of(r));
		json_put_text(body, "message", e->message);
	}
	made = json_put_array(body, "made");
	for (size_t i = 0; i < a->s->n_operands; i++)
		if (!a->was_there[i])
			put_object(made, a->s->operands[i]);
	return body;
}

int act_end(struct act *a, int r, struct vd_error *e)
{
	struct json_object *body;
	struct vd_error own;
	int end;

	if (!a->book)
		return r;
	body = end_body(a, r, e);
	end = book_append(a->book, "end", body, NULL, NULL, &own);
	json_object_put(body);
	book_close(a->book);
	a->book = NULL;
	if (end == 0 || r < 0)
		return r;
	*e = own;
	return fail_hint(e, end, "what was asked for is done, but the ledger does not say so");
}
