/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdisk rekey: gives an encrypted image another volume key, in place. */
#include "fail.h"
#include "inplace.h"
#include "verbs.h"

#define WHERE(member) offsetof(struct settings, member)

static const struct opt what[] = {
	{ .name = "volume-key", .kind = OPT_FLAG, .where = WHERE(volume_key), .help = "the key of the data itself" },
	{ .name = "drop-unknown-slots", .kind = OPT_FLAG, .where = WHERE(drop_slots),
	  .help = "even if keyslots are lost whose keys are not given" },
	{ 0 },
};
static const struct opt_group what_group = { "Keys", what };

static const struct opt_group *const groups[] = {
	&what_group, &opts_inplace, &opts_format, &opts_header, &opts_sharing, &opts_room, &opts_keys, &opts_second_key, &opts_job,
	&opts_output_form, &opts_speech, NULL,
};

static const char *const examples[] = {
	"vdisk rekey --volume-key --key-file key disk.qcow2",
	"vdisk rekey --volume-key --key-file key --new-key-file new-key --drop-unknown-slots disk.qcow2",
	NULL,
};

static int run(struct settings *s, struct vd_error *e)
{
	if (s->volume_key)
		return inplace_start(s, "rekey", VD_INPLACE_REKEY, e);
	fail(e, VD_EARG, "rekey changes the key of the data, and reads and writes all of them: that has to be said");
	return fail_hint(e, VD_EARG, "say --volume-key; to change a passphrase only: vdisk key change");
}

const struct verb verb_rekey = {
	.name = "rekey",
	.operands = "IMAGE",
	.min_operands = 1,
	.max_operands = 1,
	.summary = "give an encrypted image another volume key, in place",
	.about = "Encrypts all that IMAGE holds anew, under a volume key that nobody has seen yet. Who has a copy of the old "
		 "header, and a passphrase that opened it, can read the new data no more. Every key that is given keeps a "
		 "keyslot; the others are lost.",
	.groups = groups,
	.examples = examples,
	.run = run,
};
