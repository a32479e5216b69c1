/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Runs a change of parent from names on the command line to the line that says it is done. */
#include "rechain.h"

#include <limits.h>
#include <string.h>

#include "fail.h"
#include "json.h"
#include "progress.h"
#include "signals.h"
#include "sizes.h"
#include "source.h"
#include "ui.h"

struct change {
	struct settings *s;
	const char *label, *name, *format;
	struct keys keys;
	struct vd_outcome outcome;
	double seconds;
};

int rechain_explain_stop(int code, const char *what_holds, struct vd_error *e)
{
	int r = code == VD_ECANCELLED ? signals_check(e) : 0;

	return r ? fail(e, r, "%s; %s", strdupa(e->message), what_holds) : code;
}

static int open_image(struct change *c, struct vd_image **img, struct vd_error *e)
{
	const struct settings *s = c->s;

	if (s->unsafe)
		return source_open_control(s, s->operands[0], s->format, img, e);
	return source_open_writable(s, s->operands[0], s->format, &c->keys, img, e);
}

static int rebase_with(struct change *c, const struct vd_gate_dirs *dirs, struct vd_image *img, struct vd_error *e)
{
	struct vd_rebase_opts o = {
		.struct_size = sizeof(o), .backing_file = c->name, .backing_format = c->format,
		.flags = (c->s->unsafe ? VD_REBASE_UNSAFE : 0) | (c->s->in_clear ? VD_REBASE_IN_CLEAR : 0),
		.gate = vd_gate_below_dirs, .gate_ctx = (void *)dirs, .keys = c->keys.at, .n_keys = c->keys.n,
	};
	struct vd_job job = progress_start(c->s, c->label);
	int r = signals_check(e);

	if (r == 0)
		r = vd_backing_rebase(img, &o, &job, &c->outcome, e);
	c->seconds = progress_end();
	return r;
}

static int rebase(struct change *c, struct vd_image *img, struct vd_error *e)
{
	struct settings *s = c->s;
	char folder[PATH_MAX];
	struct vd_gate_dirs dirs;
	int r;

	source_allow_folder_of(s, s->operands[0], c->name, folder);
	dirs = (struct vd_gate_dirs){ s->allow.at, s->allow.n };
	r = rebase_with(c, &dirs, img, e);
	/* The new parent's own key, which nobody was asked for while only the old chain was open. */
	if (r == VD_ENOKEY && !s->keys.n && !s->unsafe) {
		r = secrets_ask(c->name, &c->keys, e);
		if (r == 0)
			r = rebase_with(c, &dirs, img, e);
	}
	return r;
}

static void print_done(const struct change *c)
{
	const char *image = c->s->operands[0];
	struct json_object *j;

	if (!ui_is_json()) {
		const char *how = c->s->unsafe ? ", unseen" : "";

		if (c->name)
			ui_summary("%s: its backing file is %s now%s, %s taken over", image, c->name, how,
				   size_show((double)c->outcome.written).s);
		else
			ui_summary("%s: has no backing file any more%s, %s taken over", image, how,
				   size_show((double)c->outcome.written).s);
		return;
	}
	j = json_new();
	json_put_text(j, "type", "summary");
	json_put_text(j, "verb", c->label);
	json_put_text(j, "image", image);
	if (c->name) {
		json_put_text(j, "backing-filename", c->name);
		json_put_text(j, "backing-filename-format", c->format);
	}
	json_put_bool(j, "unsafe", c->s->unsafe);
	json_put_u64(j, "written", c->outcome.written);
	json_put(j, "seconds", json_object_new_double(c->seconds));
	json_print(j);
}

int rechain(struct settings *s, const char *label, const char *name, const char *format, struct vd_error *e)
{
	struct change c = {
		.s = s, .label = label, .name = name, .format = format, .outcome.struct_size = sizeof(c.outcome),
	};
	struct vd_image *img = NULL;
	int r = open_image(&c, &img, e), closed;

	if (r == 0)
		r = rebase(&c, img, e);
	secrets_free(&c.keys);
	if (img) {
		closed = vd_image_close(img, r < 0 ? NULL : e);
		r = r < 0 ? r : closed;
	}
	if (r == 0)
		print_done(&c);
	return rechain_explain_stop(r, "the image stands on what it stood on, and what was taken over is kept", e);
}
