/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdisk resume: goes on with a conversion in place that was stopped. */
#include "inplace.h"
#include "verbs.h"

static const struct opt_group *const groups[] = {
	&opts_inplace_pace, &opts_header, &opts_sharing, &opts_keys, &opts_job, &opts_output_form, &opts_speech, NULL,
};

static const char *const examples[] = {
	"vdisk resume --key-file key disk.qcow2",
	"vdisk resume --journal /var/spool/web.journal --key-file key web.vmdk",
	NULL,
};

static int run(struct settings *s, struct vd_error *e)
{
	return inplace_go_on(s, INPLACE_RESUME, e);
}

const struct verb verb_resume = {
	.name = "resume",
	.operands = "IMAGE",
	.min_operands = 1,
	.max_operands = 1,
	.summary = "go on with a conversion in place that was stopped",
	.about = "Brings to its end what vdisk encrypt --in-place, decrypt --in-place or rekey began on IMAGE and a signal, a "
		 "failure or a crash stopped. It takes the journal, and a key of the disk: of a rekey one of before and one "
		 "of after.",
	.groups = groups,
	.examples = examples,
	.run = run,
};
