/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Fetches keys from where the user says. Opening images with them is source.c. */
#include "secrets.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fail.h"
#include "locked.h"
#include "opts.h"
#include "ui.h"

#define TYPED_SIZE (512 + 1)    /* longest passphrase that can be typed, and a NUL: qemu opens no longer one either */

/* ---- one source ----------------------------------------------------------------------------------------- */

static int from_stdin(bool verbatim, struct vd_key **out, struct vd_error *e)
{
	static bool taken;

	if (taken)
		return fail(e, VD_EARG, "two keys cannot both be read from standard input");
	taken = true;
	return vd_key_from_fd(STDIN_FILENO, verbatim, out, e);
}

static int from_fd(const char *value, struct vd_key **out, struct vd_error *e)
{
	char *end;
	long fd = strtol(value, &end, 10);

	if (!value[0] || *end || fd < 0 || fd > 65535)
		return fail(e, VD_EARG, "--passphrase-fd: '%s' is not a file descriptor", value);
	if (fcntl((int)fd, F_GETFD) < 0)
		return fail(e, VD_EARG, "--passphrase-fd: file descriptor %ld is not open", fd);
	if (fd == STDIN_FILENO)
		return from_stdin(false, out, e);
	return vd_key_from_fd((int)fd, false, out, e);
}

/* What a qemu secret object says. */
struct object {
	const char *id, *file;
};

static int judge_object_field(struct object *o, char *field, struct vd_error *e)
{
	char *value = strchr(field, '=');

	if (!value)
		return fail(e, VD_EARG, "--object: '%s' lacks a value", field);
	*value++ = '\0';
	if (!strcmp(field, "id"))
		o->id = value;
	else if (!strcmp(field, "file"))
		o->file = value;
	else if (!strcmp(field, "data")) {
		/* The value is a secret: it is not repeated, here or anywhere. */
		fail(e, VD_EARG, "--object: data= shows the secret to every user of this machine");
		return fail_hint(e, VD_EARG, "put it into a file that only you can read, and use file=");
	} else if (strcmp(field, "format") != 0 || strcmp(value, "raw") != 0) {
		return fail(e, VD_EARG, "--object: only id=, file= and format=raw are known, not %s=", field);
	}
	return 0;
}

/* Takes the copy in `text` apart; *o points into it. */
static int parse_object(char *text, struct object *o, struct vd_error *e)
{
	char *save = NULL, *field = strtok_r(text, ",", &save);
	int r = 0;

	*o = (struct object){ 0 };
	if (!field || strcmp(field, "secret") != 0)
		return fail(e, VD_EARG, "--object: only objects of type secret are known");
	while (r == 0 && (field = strtok_r(NULL, ",", &save)))
		r = judge_object_field(o, field, e);
	if (r == 0 && (!o->id || !o->file))
		return fail(e, VD_EARG, "--object: a secret needs id= and file=");
	return r;
}

/* *out stays NULL when `wanted_id` names another object. */
static int from_object(const char *value, const char *wanted_id, struct vd_key **out, struct vd_error *e)
{
	char *copy = strdup(value);
	struct object o;
	int r;

	if (!copy)
		ui_out_of_memory();
	r = parse_object(copy, &o, e);
	if (r == 0 && (!wanted_id || !strcmp(o.id, wanted_id)))
		r = vd_key_from_file(o.file, out, e);
	explicit_bzero(copy, strlen(value));
	free(copy);
	return r;
}

/* The program runs when the key is used. */
static int from_key_command(const struct settings *s, const struct secret_sources *sources, const char *command,
			    struct vd_key **out, struct vd_error *e)
{
	const struct vd_key_command_opts o = {
		.struct_size = sizeof(o), .timeout_s = (unsigned)s->key_timeout,
		.token_file = sources == &s->new_keys ? s->new_token_file : s->token_file,
	};

	return vd_key_from_key_command(command, &o, out, e);
}

/* One of the sources. */
static int fetch(const struct settings *s, const struct secret_sources *sources, size_t i, const char *wanted_id,
		 struct vd_key **out, struct vd_error *e)
{
	const struct secret_source *src = &sources->at[i];
	bool is_stdin = !strcmp(src->value, "-");

	switch (src->kind) {
	case SECRET_KEY_FILE:
		return is_stdin ? from_stdin(true, out, e) : vd_key_from_file(src->value, out, e);
	case SECRET_PASSPHRASE_FILE:
	case SECRET_SHARE:
		return is_stdin ? from_stdin(false, out, e) : vd_key_from_passphrase_file(src->value, out, e);
	case SECRET_PASSPHRASE_FD:
		return from_fd(src->value, out, e);
	case SECRET_PASSPHRASE_COMMAND:
		return vd_key_from_command(src->value, out, e);
	case SECRET_KEYRING:
		return vd_key_from_keyring(src->value, out, e);
	case SECRET_KEY_COMMAND:
		return from_key_command(s, sources, src->value, out, e);
	case SECRET_OBJECT:
		return from_object(src->value, wanted_id, out, e);
	}
	return 0;
}

/* ---- all of a kind -------------------------------------------------------------------------------------- */

static int add(struct keys *keys, struct vd_key *key, struct vd_error *e)
{
	if (!key)
		return 0;
	if (keys->n == KEYS_MAX) {
		vd_key_free(key);
		return fail(e, VD_EARG, "more than %d keys are given", KEYS_MAX);
	}
	keys->at[keys->n++] = key;
	return 0;
}

/* All shares together are one key. */
static int join_shares(const struct settings *s, const struct secret_sources *sources, struct keys *out, struct vd_error *e)
{
	struct keys shares = { 0 };
	struct vd_key *key = NULL;
	int r = 0;

	for (size_t i = 0; i < sources->n && r == 0; i++) {
		struct vd_key *share = NULL;

		if (sources->at[i].kind != SECRET_SHARE)
			continue;
		r = fetch(s, sources, i, NULL, &share, e);
		if (r == 0)
			r = add(&shares, share, e);
	}
	if (r == 0 && shares.n)
		r = vd_key_from_shares(shares.at, shares.n, &key, e);
	if (r == 0)
		r = add(out, key, e);
	secrets_free(&shares);
	return r;
}

/* With `wanted_id` only the object of that name. */
static int fetch_all(const struct settings *s, const struct secret_sources *sources, const char *wanted_id, struct keys *out,
		     struct vd_error *e)
{
	int r = 0;

	for (size_t i = 0; i < sources->n && r == 0; i++) {
		struct vd_key *key = NULL;

		if (sources->at[i].kind == SECRET_SHARE || (wanted_id && sources->at[i].kind != SECRET_OBJECT))
			continue;
		r = fetch(s, sources, i, wanted_id, &key, e);
		if (r == 0)
			r = add(out, key, e);
	}
	return r < 0 || wanted_id ? r : join_shares(s, sources, out, e);
}

int secrets_of_options(const struct settings *s, struct keys *out, struct vd_error *e)
{
	return fetch_all(s, &s->keys, NULL, out, e);
}

int secrets_of(const struct settings *s, const struct secret_sources *sources, struct keys *out, struct vd_error *e)
{
	return fetch_all(s, sources, NULL, out, e);
}

/* A directory without the credential is as good as none: the unit may have been given others. */
static int from_credential(const char *name, struct vd_key **out, struct vd_error *e)
{
	const char *dir = getenv("CREDENTIALS_DIRECTORY");
	int r;

	if (!dir || !dir[0])
		return 0;
	r = vd_key_from_credential(dir, name, out, e);
	return r == VD_ENOENT ? 0 : r;
}

int secrets_unasked(const char *credential, struct keys *out, struct vd_error *e)
{
	const char *command = getenv("VDISK_PASSCOMMAND");
	struct vd_key *key = NULL;
	int r;

	/* The environment speaks of the key that is in use, never of a new one beside it. */
	if (command && command[0] && !strcmp(credential, CREDENTIAL_KEY))
		r = vd_key_from_command(command, &key, e);
	else
		r = from_credential(credential, &key, e);
	return r < 0 ? r : add(out, key, e);
}

void secrets_status(struct vd_key *const *keys, size_t n)
{
	bool may_ask = false;

	for (size_t i = 0; i < n; i++)
		may_ask |= vd_key_is_command(keys[i]);
	if (n && !may_ask)
		ui_status("deriving key");
}

/* ---- the terminal --------------------------------------------------------------------------------------- */

static int no_terminal(const char *image, int r, struct vd_error *e)
{
	if (r != VD_ENOKEY)
		return r;
	fail(e, r, "%s: a key is needed, and there is no terminal to ask for it", image);
	return fail_hint(e, r, "give it with --key-file, --passphrase-file or another key option");
}

int secrets_ask(const char *image, struct keys *out, struct vd_error *e)
{
	char *typed = locked_new(TYPED_SIZE), prompt[512];
	struct vd_key *key = NULL;
	int r;

	snprintf(prompt, sizeof(prompt), "passphrase of %s: ", image);
	r = ui_ask_secret(prompt, typed, TYPED_SIZE, e);
	if (r == 0)
		r = vd_key_from_bytes(typed, strlen(typed), &key, e);
	else
		r = no_terminal(image, r, e);
	locked_free(typed, TYPED_SIZE);
	return r < 0 ? r : add(out, key, e);
}

static int judge_typed(const char *typed, const char *again, struct vd_error *e)
{
	if (!typed[0])
		return fail(e, VD_EARG, "an empty passphrase protects nothing");
	if (strcmp(typed, again) != 0)
		return fail(e, VD_EARG, "the two passphrases differ");
	return 0;
}

static int ask_twice(const char *image, struct vd_key **out, struct vd_error *e)
{
	char *typed = locked_new(2 * TYPED_SIZE), *again = typed + TYPED_SIZE, prompt[512];
	int r;

	snprintf(prompt, sizeof(prompt), "new passphrase for %s: ", image);
	r = ui_ask_secret(prompt, typed, TYPED_SIZE, e);
	if (r == 0)
		r = ui_ask_secret("the same again: ", again, TYPED_SIZE, e);
	if (r < 0)
		r = no_terminal(image, r, e);
	else
		r = judge_typed(typed, again, e);
	if (r == 0)
		r = vd_key_from_bytes(typed, strlen(typed), out, e);
	locked_free(typed, 2 * TYPED_SIZE);
	return r;
}

/* ---- a new image ---------------------------------------------------------------------------------------- */

static int pick_one(const struct settings *s, struct keys *found, struct vd_error *e)
{
	const char *id = s->made.key_secret;
	int r = fetch_all(s, &s->new_keys, id, found, e);

	/* In verbs with a key for each side, -o encrypt.key-secret= names one of the objects. */
	if (r == 0 && !found->n && id)
		r = fetch_all(s, &s->keys, id, found, e);
	if (r < 0)
		return r;
	if (id && !found->n)
		return fail(e, VD_EARG, "encrypt.key-secret: no --object has the id '%s'", id);
	if (found->n > 1)
		return fail(e, VD_EARG, "an image is made with one key, not %zu", found->n);
	return 0;
}

int secrets_for_new(const struct settings *s, const char *image, const char *credential, struct vd_key **out,
		    struct vd_error *e)
{
	struct keys found = { 0 };
	int r = pick_one(s, &found, e);

	if (r == 0 && !found.n)
		r = secrets_unasked(credential, &found, e);
	if (r == 0 && found.n) {
		*out = found.at[0];
		return 0;
	}
	secrets_free(&found);
	return r < 0 ? r : ask_twice(image, out, e);
}

void secrets_free(struct keys *keys)
{
	for (size_t i = 0; i < keys->n; i++)
		vd_key_free(keys->at[i]);
	keys->n = 0;
}
