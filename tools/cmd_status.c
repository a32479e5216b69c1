/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdisk status: whether an image is half-way through a conversion in place. */
#include "inplace.h"
#include "json.h"
#include "sizes.h"
#include "ui.h"
#include "verbs.h"

#define WHERE(member) offsetof(struct settings, member)

static const struct opt where[] = {
	{ .name = "journal", .kind = OPT_TEXT, .where = WHERE(journal), .arg = "FILE",
	  .help = "where the journal is kept (default: IMAGE.vdisk-journal)" },
	{ 0 },
};
static const struct opt_group where_group = { "In place", where };

static const struct opt_group *const groups[] = { &where_group, &opts_output_form, &opts_speech, NULL };

static const char *const examples[] = { "vdisk status disk.qcow2", "vdisk status --output=json disk.qcow2", NULL };

static const char *name_of_act(enum vd_inplace_act act)
{
	static const char *const names[] = {
		[VD_INPLACE_ENCRYPT] = "encryption", [VD_INPLACE_DECRYPT] = "decryption", [VD_INPLACE_REKEY] = "change of the volume key",
	};

	return act >= VD_INPLACE_ENCRYPT && act <= VD_INPLACE_REKEY ? names[act] : "conversion";
}

static void print_human(const struct settings *s, const struct vd_inplace_status *st)
{
	const char *image = s->operands[0], *header = st->has_header_file ? " --header FILE" : "";

	if (!st->in_progress) {
		ui_line("%s: no conversion is in progress", image);
		return;
	}
	if (st->journal_is_missing) {
		ui_line("%s: a conversion is in progress, and its journal is not here", image);
		ui_line("  say where it is with --journal: without it the image is lost");
		return;
	}
	ui_line("%s: in progress: %s of %s%s, phase %s, %s of %s done", image, name_of_act(st->act), st->format,
		st->is_back ? ", being undone" : "", st->phase, size_show((double)st->done).s, size_show((double)st->total).s);
	ui_line("  vdisk resume%s %s goes on", header, image);
	if (!st->is_back)
		ui_line("  vdisk revert%s %s undoes it, as long as data are left to convert", header, image);
}

static void print_json(const struct settings *s, const struct vd_inplace_status *st)
{
	static const char *const acts[] = {
		[VD_INPLACE_ENCRYPT] = "encrypt", [VD_INPLACE_DECRYPT] = "decrypt", [VD_INPLACE_REKEY] = "rekey",
	};
	struct json_object *j = json_new();

	json_put_text(j, "image", s->operands[0]);
	json_put_text(j, "state", st->in_progress ? "in progress" : "none");
	if (st->in_progress)
		json_put_bool(j, "journal-found", !st->journal_is_missing);
	if (st->in_progress && !st->journal_is_missing) {
		json_put_text(j, "act", acts[st->act]);
		json_put_text(j, "direction", st->is_back ? "revert" : "forward");
		json_put_text(j, "format", st->format);
		json_put_text(j, "phase", st->phase);
		json_put_bool(j, "detached-header", st->has_header_file);
		json_put_u64(j, "done", st->done);
		json_put_u64(j, "total", st->total);
	}
	json_print(j);
}

static int run(struct settings *s, struct vd_error *e)
{
	struct vd_inplace_status st = { .struct_size = sizeof(st) };
	int r = vd_inplace_status(s->operands[0], s->journal, &st, e);

	if (r < 0)
		return r;
	if (ui_is_json())
		print_json(s, &st);
	else
		print_human(s, &st);
	return 0;
}

const struct verb verb_status = {
	.name = "status",
	.operands = "IMAGE",
	.min_operands = 1,
	.max_operands = 1,
	.summary = "tell whether an image is half-way through a conversion in place",
	.about = "Says of IMAGE whether vdisk encrypt --in-place, decrypt --in-place or rekey has begun on it and not ended, and "
		 "how far it is. Needs no key.",
	.groups = groups,
	.examples = examples,
	.run = run,
};
