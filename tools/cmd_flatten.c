/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdisk flatten: makes an overlay hold all of its disk itself. */
#include "rechain.h"
#include "verbs.h"

static const struct opt_group *const groups[] = {
	&opts_format, &opts_backing, &opts_in_clear, &opts_sharing, &opts_keys, &opts_job, &opts_output_form, &opts_speech, NULL,
};

static const char *const examples[] = {
	"vdisk flatten web.qcow2",
	"vdisk flatten --allow /golden --passphrase-file pw web.qcow2",
	NULL,
};

static int run(struct settings *s, struct vd_error *e)
{
	return rechain(s, "flatten", NULL, NULL, e);
}

const struct verb verb_flatten = {
	.name = "flatten",
	.operands = "IMAGE",
	.min_operands = 1,
	.max_operands = 1,
	.summary = "make an overlay hold all of its disk itself",
	.about = "Copies into IMAGE what it has from its backing files, then takes their name out of it: IMAGE needs them "
		 "no more. Zeros take no room. It is what vdisk rebase -b '' does.",
	.groups = groups,
	.examples = examples,
	.run = run,
};
