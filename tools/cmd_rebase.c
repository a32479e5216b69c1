/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdisk rebase: gives an overlay another backing file. */
#include "fail.h"
#include "rechain.h"
#include "verbs.h"

#define WHERE(member) offsetof(struct settings, member)

static const struct opt chain[] = {
	{ .name = "backing", .letter = 'b', .kind = OPT_TEXT, .where = WHERE(made.backing_file), .arg = "FILE",
	  .help = "the new backing file; a relative name is looked for in the folder of the image; '' is none" },
	{ .name = "backing-format", .letter = 'F', .kind = OPT_TEXT, .where = WHERE(made.backing_format), .arg = "FMT",
	  .help = "format of the new backing file (needed with it)" },
	{ .name = "unsafe", .letter = 'u', .kind = OPT_FLAG, .where = WHERE(unsafe),
	  .help = "change the name only, and look at neither file" },
	{ 0 },
};
static const struct opt_group chain_group = { "Backing file", chain };

static const struct opt_group *const groups[] = {
	&chain_group, &opts_in_clear, &opts_format, &opts_sharing, &opts_keys, &opts_job, &opts_output_form, &opts_speech, NULL,
};

static const char *const examples[] = {
	"vdisk rebase -b golden-2.qcow2 -F qcow2 web.qcow2",
	"vdisk rebase -u -b images/golden.qcow2 -F qcow2 web.qcow2",
	NULL,
};

static int run(struct settings *s, struct vd_error *e)
{
	const char *name = s->made.backing_file, *format = s->made.backing_format;

	if (!name) {
		fail(e, VD_EARG, "which backing file is the image to have?");
		return fail_hint(e, VD_EARG, "name it with -b and its format with -F; vdisk flatten leaves it none");
	}
	if (!name[0] && format)
		return fail(e, VD_EARG, "-F names the format of a backing file, and -b '' is none");
	return rechain(s, "rebase", name[0] ? name : NULL, format, e);
}

const struct verb verb_rebase = {
	.name = "rebase",
	.operands = "IMAGE",
	.min_operands = 1,
	.max_operands = 1,
	.summary = "give an overlay another backing file",
	.about = "IMAGE gets another backing file, and its disk stays what it is: where the new chain of files reads "
		 "otherwise than the old one, the content is copied into IMAGE first. The name changes by one write at the "
		 "end, so that a crash leaves the one chain or the other. With --unsafe only the name changes.",
	.groups = groups,
	.examples = examples,
	.run = run,
};
