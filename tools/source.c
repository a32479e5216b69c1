/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Brings options, keys and the library's open together. Fetching a key is secrets.c, judging a reference the library. */
#include "source.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fail.h"
#include "signals.h"
#include "ui.h"

#define TRIES_MAX 3             /* at the terminal, as login has it */

static struct vd_gate_dirs allowed_dirs(const struct settings *s)
{
	return (struct vd_gate_dirs){ s->allow.at, s->allow.n };
}

struct vd_open_opts source_opts(const struct settings *s, const char *format, const struct keys *keys, struct vd_gate_dirs *dirs)
{
	*dirs = allowed_dirs(s);
	return (struct vd_open_opts){
		.struct_size = sizeof(struct vd_open_opts), .format = format, .backing_format = s->backing_format,
		.flags = s->force_share ? VD_OPEN_FORCE_SHARE : 0,
		.gate = dirs->n ? vd_gate_below_dirs : NULL, .gate_ctx = dirs,
		.keys = keys ? keys->at : NULL, .n_keys = keys ? keys->n : 0,
		.snapshot = s->snapshot, .disk = s->disk, .header = s->header,
	};
}

static int open_with(const struct settings *s, const char *path, const char *format, unsigned flags,
		     const struct keys *keys, struct vd_image **out, struct vd_error *e)
{
	bool changes = flags & (VD_OPEN_WRITE | VD_OPEN_CONTROL | VD_OPEN_REPAIR);
	struct vd_gate_dirs dirs;
	struct vd_open_opts o = source_opts(s, format, keys, &dirs);
	int r;

	o.flags |= flags | (changes && s->scrub ? VD_OPEN_SCRUB_FREED : 0);

	if (s->force_share && changes)
		return fail(e, VD_EARG, "--force-share is for reading: this changes the image");
	secrets_status(o.keys, o.n_keys);
	r = vd_image_open(path, &o, out, e);
	ui_status_end();
	return r;
}

int source_open_metadata(const struct settings *s, const char *path, const char *format, struct vd_image **out,
			 struct vd_error *e)
{
	return open_with(s, path, format, VD_OPEN_METADATA, NULL, out, e);
}

int source_open_tables(const struct settings *s, const char *path, const char *format, struct vd_image **out,
		       struct vd_error *e)
{
	int r = open_with(s, path, format, VD_OPEN_METADATA | VD_OPEN_FILES, NULL, out, e);

	/* Without them some formats can tell something still. */
	return r == VD_EREFERENCE || r == VD_ENOENT ? source_open_metadata(s, path, format, out, e) : r;
}

int source_open_control(const struct settings *s, const char *path, const char *format, struct vd_image **out,
			struct vd_error *e)
{
	return open_with(s, path, format, VD_OPEN_CONTROL, NULL, out, e);
}

int source_open_whole(const struct settings *s, const char *path, const char *format, bool scrubs, struct vd_image **out,
		      struct vd_error *e)
{
	return open_with(s, path, format, (scrubs ? VD_OPEN_CONTROL : VD_OPEN_METADATA) | VD_OPEN_FILES, NULL, out, e);
}

int source_open_repair(const struct settings *s, const char *path, const char *format, struct vd_image **out,
		       struct vd_error *e)
{
	return open_with(s, path, format, VD_OPEN_REPAIR, NULL, out, e);
}

/* Until the key fits, as long as there is somebody who types. */
static int try_asking(const char *path, struct keys *keys, source_attempt attempt, void *ctx, struct vd_error *e)
{
	int r = VD_EKEY;

	for (int i = 0; i < TRIES_MAX && r == VD_EKEY; i++) {
		if (i)
			ui_warn("that key does not fit");
		r = secrets_ask(path, keys, e);
		if (r == 0)
			r = attempt(ctx, keys, e);
	}
	return r;
}

int source_unlock(const struct settings *s, const char *path, struct keys *keys, source_attempt attempt, void *ctx,
		  struct vd_error *e)
{
	int r = keys->n ? 0 : secrets_of_options(s, keys, e);

	if (r == 0)
		r = attempt(ctx, keys, e);
	if (r != VD_ENOKEY || s->keys.n)
		return r;
	r = secrets_unasked(CREDENTIAL_KEY, keys, e);
	if (r < 0)
		return r;
	return keys->n ? attempt(ctx, keys, e) : try_asking(path, keys, attempt, ctx, e);
}

/* Nothing in the image says whether the key was right: what comes out may be noise. */
static void warn_of_legacy(struct vd_image *img)
{
	for (struct vd_image *layer = img; layer; layer = vd_image_parent(layer)) {
		struct vd_info info;
		struct vd_error ignored;

		if (source_info(layer, &info, &ignored) == 0 && info.encryption == VD_ENCRYPTED_LEGACY_AES)
			ui_warn("%s: legacy AES cannot tell a wrong key: see that what comes out is a disk and not noise", info.path);
	}
}

struct opening {
	const struct settings *s;
	const char *path, *format;
	unsigned flags;
	struct vd_image **out;
};

static int attempt_open(void *ctx, const struct keys *keys, struct vd_error *e)
{
	const struct opening *o = ctx;

	return open_with(o->s, o->path, o->format, o->flags, keys, o->out, e);
}

static int open_unlocked(const struct settings *s, const char *path, const char *format, unsigned flags,
			 struct keys *keys, struct vd_image **out, struct vd_error *e)
{
	struct opening o = { s, path, format, flags, out };
	int r = source_unlock(s, path, keys, attempt_open, &o, e);

	if (r == 0)
		warn_of_legacy(*out);
	return r;
}

int source_open(const struct settings *s, const char *path, const char *format, struct keys *keys,
		struct vd_image **out, struct vd_error *e)
{
	return open_unlocked(s, path, format, 0, keys, out, e);
}

int source_open_writable(const struct settings *s, const char *path, const char *format, struct keys *keys,
			 struct vd_image **out, struct vd_error *e)
{
	return open_unlocked(s, path, format, VD_OPEN_WRITE, keys, out, e);
}

static bool takes_stdin(const struct secret_sources *keys)
{
	for (size_t i = 0; i < keys->n; i++)
		if (!strcmp(keys->at[i].value, keys->at[i].kind == SECRET_PASSPHRASE_FD ? "0" : "-"))
			return true;
	return false;
}

static int judge_stream(const struct settings *s, struct vd_error *e)
{
	if (isatty(STDIN_FILENO)) {
		fail(e, VD_EARG, "a disk is not read from a terminal");
		return fail_hint(e, VD_EARG, "give standard input a pipe or a file; a file of that name is ./-");
	}
	if (takes_stdin(&s->keys) || takes_stdin(&s->new_keys))
		return fail(e, VD_EARG, "standard input is either the disk or the key");
	if (s->header)
		return fail(e, VD_EUNSUPPORTED, "an encrypted disk is not read from standard input");
	if (s->snapshot || s->disk)
		return fail(e, VD_EARG, "what comes by standard input has neither snapshots nor several disks");
	return 0;
}

int source_open_stream(const struct settings *s, const char *name, struct vd_incoming **out, struct vd_error *e)
{
	struct vd_incoming_opts o = { .struct_size = sizeof(o), .format = s->format, .size = s->made.size };
	int r = judge_stream(s, e);

	if (r == 0)
		r = vd_incoming_open(STDIN_FILENO, name, &o, out, e);
	return r == VD_ECANCELLED && signals_stop() ? signals_check(e) : r;
}

int source_info(struct vd_image *img, struct vd_info *info, struct vd_error *e)
{
	*info = (struct vd_info){ .struct_size = sizeof(*info) };
	return vd_image_info(img, info, e);
}

void source_allow_folder_of(struct settings *s, const char *image, const char *name, char folder[PATH_MAX])
{
	const char *slash = strrchr(image, '/'), *end;

	if (!name || s->allow.n == TEXTS_MAX)
		return;
	snprintf(folder, PATH_MAX, "%.*s%s", name[0] != '/' && slash ? (int)(slash - image + 1) : 0, image, name);
	end = strrchr(folder, '/');
	if (!end)
		return;
	folder[end - folder + (end == folder)] = '\0';
	s->allow.at[s->allow.n++] = folder;
}

int source_resolve(const struct settings *s, enum vd_reference_kind kind, const char *image, const char *name,
		   char *path, size_t size, struct vd_error *e)
{
	struct vd_gate_dirs dirs = allowed_dirs(s);
	int r = vd_gate_below_dirs(&dirs, kind, image, name, NULL, path, size, e);

	/* Without --allow the library's own gate opens, which takes relative names only. */
	if (r == 0 && !dirs.n && name[0] == '/')
		return fail(e, VD_EREFERENCE, "%s: names the file '%s' by its absolute name", image, name);
	return r;
}
