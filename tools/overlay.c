/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From an image on the command line to an overlay of it: name, format, encryption. How a format remembers its parent (CIDs, locators,
 * identifiers, timestamps) is the library's.
 */
#include "overlay.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fail.h"
#include "newimage.h"
#include "output.h"
#include "source.h"
#include "ui.h"

#define NUMBER_MAX 999999u      /* of VMware's names for delta links */

/* ---- names ---------------------------------------------------------------------------------------------- */

/* Length of "-000001" at the end of the n bytes, and its number. */
static size_t number_at_end(const char *stem, size_t n, unsigned *number)
{
	if (n < 8 || stem[n - 7] != '-' || strspn(stem + n - 6, "0123456789") < 6)
		return 0;
	*number = (unsigned)strtoul(stem + n - 6, NULL, 10);
	return 7;
}

/* web.vmdk, web-000001.vmdk, web-000002.vmdk: as VMware counts them. */
static int choose_name(struct overlay *o, const char *format, bool is_other, struct vd_error *e)
{
	const char *slash = strrchr(o->image, '/'), *base = slash ? slash + 1 : o->image, *dot = strrchr(base, '.');
	size_t stem = dot && dot != base ? (size_t)(dot - o->image) : strlen(o->image);
	char tail[32] = "";
	unsigned number = 0;

	stem -= number_at_end(o->image, stem, &number);
	/* The ending says the format: another format has its own. */
	if (!is_other && dot && dot != base)
		snprintf(tail, sizeof(tail), "%.31s", dot);
	else
		snprintf(tail, sizeof(tail), ".%.30s", format);
	while (++number <= NUMBER_MAX) {
		if ((size_t)snprintf(o->room, sizeof(o->room), "%.*s-%06u%s", (int)stem, o->image, number, tail) >= sizeof(o->room))
			return fail(e, VD_EARG, "%s: the name is too long", o->image);
		if (access(o->room, F_OK) < 0 && errno == ENOENT) {
			o->name = o->room;
			return 0;
		}
	}
	return fail(e, VD_EEXIST, "%s: all numbers up to %u are taken", o->image, NUMBER_MAX);
}

/* The folder of a file that need not be there; malloc'ed, NULL: there is no such folder. */
static char *folder_of(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *folder, *real;

	if (!slash)
		return realpath(".", NULL);
	folder = strndup(path, slash == path ? 1 : (size_t)(slash - path));
	real = folder ? realpath(folder, NULL) : NULL;
	free(folder);
	return real;
}

/* What the overlay calls the image: the name alone in the same folder, so that both can be moved together. */
static int name_for_overlay(const struct overlay *o, char name[PATH_MAX], struct vd_error *e)
{
	char *there = folder_of(o->name), *here = folder_of(o->image);
	const char *slash = strrchr(o->image, '/'), *base = slash ? slash + 1 : o->image;
	int n = -1;

	if (there && here)
		n = !strcmp(there, here) ? snprintf(name, PATH_MAX, "%s", base) : snprintf(name, PATH_MAX, "%s/%s", here, base);
	free(there);
	free(here);
	if (n < 0)
		return fail(e, VD_ENOENT, "%s: there is no such folder", o->name);
	return n < PATH_MAX ? 0 : fail(e, VD_EARG, "%s: the name is too long", o->image);
}

/* ---- encryption ----------------------------------------------------------------------------------------- */

/* What is written to the overlay is as secret as what lies below it. */
static int judge_layers(struct vd_image *img, struct overlay *o, struct vd_info *top, struct vd_error *e)
{
	for (struct vd_image *layer = img; layer; layer = vd_image_parent(layer)) {
		struct vd_info i;
		int r = source_info(layer, &i, e);

		if (r < 0)
			return r;
		if (layer == img)
			*top = i;
		if (i.is_container) {
			fail(e, VD_EUNSUPPORTED, "%s is a LUKS container: an overlay of it would be none, and in clear", i.path);
			return fail_hint(e, VD_EUNSUPPORTED, "vdisk convert makes an encrypted qcow2 of it, which has overlays and snapshots");
		}
		o->is_encrypted |= i.encryption != VD_PLAIN;
	}
	return 0;
}

static int judge_format(struct overlay *o, const struct vd_info *top, struct vd_error *e)
{
	const char *format = o->format ? o->format : !strcmp(top->format, "raw") ? "qcow2" : top->format;
	int r = newimage_judge_format(format, e);

	if (r == 0 && !strcmp(format, "raw")) {
		fail(e, VD_EUNSUPPORTED, "raw has no overlays");
		return fail_hint(e, VD_EUNSUPPORTED, "an overlay of any image may be qcow2: --overlay-format qcow2");
	}
	if (r == 0 && o->is_encrypted && strcmp(format, "qcow2")) {
		fail(e, VD_EUNSUPPORTED, "%s is encrypted, and an overlay of format %s cannot be", o->image, format);
		return fail_hint(e, VD_EUNSUPPORTED, "an overlay of any image may be qcow2: --overlay-format qcow2");
	}
	if (r == 0 && !o->name)
		r = choose_name(o, format, strcmp(format, top->format) != 0, e);
	o->format = format;
	return r;
}

/* ---- making it ------------------------------------------------------------------------------------------ */

static int create(struct settings *s, const struct overlay *o, const struct vd_info *top, const struct keys *keys, struct vd_error *e)
{
	struct vd_gate_dirs dirs;
	struct vd_image *made = NULL;
	struct vd_create_opts c;
	char name[PATH_MAX], folder[PATH_MAX];
	int r = name_for_overlay(o, name, e);

	if (r == 0)
		r = newimage_opts(s, o->format, &c, e);
	if (r < 0)
		return r;
	source_allow_folder_of(s, o->name, name, folder);
	dirs = (struct vd_gate_dirs){ s->allow.at, s->allow.n };
	c.backing_file = name;
	c.backing_format = top->format;
	c.key = o->is_encrypted ? keys->at[0] : NULL;
	c.backing_keys = keys->at;
	c.n_backing_keys = keys->n;
	c.gate = vd_gate_below_dirs;
	c.gate_ctx = &dirs;
	if (c.key)
		ui_status("deriving key");
	r = vd_image_create(o->name, &c, &made, e);
	ui_status_end();
	if (r == 0)
		r = vd_image_commit(made, e);
	if (r < 0) {
		vd_image_abort(made);
		return r;
	}
	return vd_image_close(made, e);
}

static int make(struct settings *s, struct overlay *o, struct vd_image *img, const struct keys *keys, struct vd_error *e)
{
	struct vd_info top = { 0 };
	int r = judge_layers(img, o, &top, e);

	if (r == 0)
		r = judge_format(o, &top, e);
	if (r == 0)
		r = output_judge(s, o->name, e);
	if (r == VD_EEXIST)
		return fail_hint(e, r, "choose another name, or have it counted on with --numbered");
	if (r == 0 && o->is_encrypted && vd_key_is_command(keys->at[0]))
		return fail(e, VD_EARG, "a key command opens %s, but makes no key for an overlay: use another key of it", o->image);
	return r < 0 ? r : create(s, o, &top, keys, e);
}

/* The image stays open, and so unwritten, until its overlay is there. */
int overlay_make(struct settings *s, struct overlay *o, struct vd_error *e)
{
	struct keys keys = { 0 };
	struct vd_image *img = NULL;
	int r;

	if (s->force_share)
		return fail(e, VD_EARG, "--force-share is for looking: an overlay of what is being written to is worth nothing");
	r = source_open(s, o->image, s->format, &keys, &img, e);
	if (r == 0)
		r = make(s, o, img, &keys, e);
	vd_image_abort(img);
	secrets_free(&keys);
	return r;
}
