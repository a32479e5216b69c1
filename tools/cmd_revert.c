/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdisk revert: undoes a conversion in place that was stopped. */
#include "inplace.h"
#include "verbs.h"

static const struct opt_group *const groups[] = {
	&opts_inplace_pace, &opts_header, &opts_sharing, &opts_keys, &opts_job, &opts_output_form, &opts_speech, NULL,
};

static const char *const examples[] = {
	"vdisk revert --key-file key disk.qcow2",
	"vdisk revert --journal /var/spool/web.journal --key-file key web.vmdk",
	NULL,
};

static int run(struct settings *s, struct vd_error *e)
{
	return inplace_go_on(s, INPLACE_REVERT, e);
}

const struct verb verb_revert = {
	.name = "revert",
	.operands = "IMAGE",
	.min_operands = 1,
	.max_operands = 1,
	.summary = "undo a conversion in place that was stopped",
	.about = "Makes IMAGE again what it was before vdisk encrypt --in-place, decrypt --in-place or rekey, which a signal, a "
		 "failure or a crash stopped, as long as there are data that were not converted yet. It takes the journal, "
		 "and a key of the disk: of a rekey one of before and one of after. What has grown stays as large as it is.",
	.groups = groups,
	.examples = examples,
	.run = run,
};
