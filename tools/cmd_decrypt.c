/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdisk decrypt: copies an encrypted disk into a new image in clear. */
#include "fail.h"
#include "inplace.h"
#include "transfer.h"
#include "verbs.h"

#define WHERE(member) offsetof(struct settings, member)

static const struct opt target[] = {
	{ .name = "target-format", .letter = 'O', .kind = OPT_TEXT, .where = WHERE(target_format), .arg = "FMT",
	  .help = "format of OUT: raw (default) or qcow2" },
	{ 0 },
};
static const struct opt_group target_group = { "Output", target };

static const struct opt_group *const groups[] = {
	&opts_format, &opts_backing, &opts_snapshot, &opts_header, &opts_sharing, &opts_keys, &target_group, &opts_compress,
	&opts_output, &opts_room, &opts_inplace, &opts_job, &opts_output_form, &opts_speech, NULL,
};

static const char *const examples[] = {
	"vdisk decrypt disk.qcow2 disk.raw",
	"vdisk decrypt --key-file key -O qcow2 -c disk.luks disk.qcow2",
	"vdisk decrypt --key-file key disk.qcow2 - | sha256sum",
	NULL,
};

static int judge(const struct transfer *t, struct vd_error *e)
{
	if (t->encrypt) {
		fail(e, VD_EARG, "decrypt writes the disk in clear, and the options ask for encryption");
		return fail_hint(e, VD_EARG, "to change key or format of an encrypted image: vdisk convert");
	}
	if (t->from_is_encrypted)
		return 0;
	fail(e, VD_EFAILED, "%s: is not encrypted", t->in_name);
	return fail_hint(e, VD_EFAILED, "to copy it into another format: vdisk convert");
}

static int copy(struct settings *s, struct vd_error *e)
{
	struct transfer t = {
		.s = s, .label = "decrypt", .format = s->target_format ? s->target_format : "raw",
		.credential = CREDENTIAL_NEW_KEY,
	};
	int r = transfer_open(&t, e);

	if (r == 0)
		r = judge(&t, e);
	if (r == 0)
		r = transfer_run(&t, e);
	transfer_end(&t);
	return r;
}

static int run(struct settings *s, struct vd_error *e)
{
	if (s->in_place && s->n_operands == 1)
		return inplace_start(s, "decrypt", VD_INPLACE_DECRYPT, e);
	if (s->in_place)
		return fail(e, VD_EARG, "--in-place converts one image, and makes no other");
	if (s->n_operands == 2)
		return copy(s, e);
	fail(e, VD_EARG, "decrypt needs the name of the image to be made");
	return fail_hint(e, VD_EARG, "to convert the image itself: --in-place; see: vdisk help decrypt");
}

const struct verb verb_decrypt = {
	.name = "decrypt",
	.operands = "IMAGE OUT | --in-place IMAGE",
	.min_operands = 1,
	.max_operands = 2,
	.summary = "copy an encrypted disk into a new image in clear",
	.about = "Copies the encrypted disk in IMAGE, with what its backing files add, into the new image OUT, which is "
		 "not encrypted. IMAGE stays as it is. - is standard output, for raw, and vmdk with -c.",
	.groups = groups,
	.examples = examples,
	.run = run,
};
