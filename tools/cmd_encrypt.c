/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdisk encrypt: copies a disk that is in clear into a new, encrypted image. */
#include "fail.h"
#include "output.h"
#include "inplace.h"
#include "source.h"
#include "transfer.h"
#include "verbs.h"

#define WHERE(member) offsetof(struct settings, member)

static const struct opt target[] = {
	{ .name = "target-format", .letter = 'O', .kind = OPT_TEXT, .where = WHERE(target_format), .arg = "FMT",
	  .help = "format of OUT: qcow2 (default), or raw for a LUKS container (default with --header)" },
	{ 0 },
};
static const struct opt_group target_group = { "Output", target };

static const struct opt_group *const groups[] = {
	&opts_format, &opts_backing, &opts_sharing, &target_group, &opts_compress, &opts_output, &opts_room,
	&opts_sole_key, &opts_encryption, &opts_inplace, &opts_job, &opts_output_form, &opts_speech, NULL,
};

static const char *const examples[] = {
	"vdisk encrypt disk.raw disk.qcow2",
	"vdisk encrypt --passphrase-file pw -O raw --type luks2 disk.qcow2 disk.luks",
	"vdisk encrypt --passphrase-command 'pass show vm/web' web.qcow2 web-enc.qcow2",
	"cat disk.vmdk | vdisk encrypt --key-file key - disk.qcow2",
	"vdisk encrypt --key-file key --header disk.hdr disk.qcow2 disk.raw",
	"vdisk encrypt --in-place -f raw --header web.hdr --journal web.j /dev/vg/web",
	NULL,
};

static int refuse_encrypted(struct settings *s, struct vd_error *e)
{
	struct vd_image *img = NULL;
	struct vd_info info;
	int r = source_open_metadata(s, s->operands[0], s->format, &img, e);

	if (r < 0)
		return r;
	r = source_info(img, &info, e);
	if (r == 0 && info.encryption != VD_PLAIN) {
		r = fail(e, VD_EFAILED, "%s: is encrypted already", s->operands[0]);
		fail_hint(e, r, "to give it another key: vdisk convert --key-file OLD --new-key-file NEW");
	}
	vd_image_abort(img);
	return r;
}

static int copy(struct settings *s, struct vd_error *e)
{
	struct transfer t = {
		.s = s, .label = "encrypt", .format = s->target_format ? s->target_format : s->new_header ? "raw" : "qcow2",
		.credential = CREDENTIAL_KEY, .encrypt = true,
	};
	int r = output_is_stream(s->operands[0]) ? 0 : refuse_encrypted(s, e);

	if (r == 0)
		r = transfer_open(&t, e);
	if (r == VD_ENOKEY || r == VD_EKEY)
		r = fail_hint(e, r, "a file below it is encrypted: vdisk convert takes its key, and --new-key-file");
	if (r == 0)
		r = transfer_run(&t, e);
	transfer_end(&t);
	return r;
}

static int run(struct settings *s, struct vd_error *e)
{
	if (s->in_place && s->n_operands == 1)
		return inplace_start(s, "encrypt", VD_INPLACE_ENCRYPT, e);
	if (s->in_place)
		return fail(e, VD_EARG, "--in-place converts one image, and makes no other");
	if (s->n_operands == 2)
		return copy(s, e);
	fail(e, VD_EARG, "encrypt needs the name of the image to be made");
	return fail_hint(e, VD_EARG, "to convert the image itself: --in-place; see: vdisk help encrypt");
}

const struct verb verb_encrypt = {
	.name = "encrypt",
	.operands = "IMAGE OUT | --in-place IMAGE",
	.min_operands = 1,
	.max_operands = 2,
	.summary = "copy a disk into a new, encrypted image",
	.about = "Copies the disk in IMAGE, with what its backing files add, into the new image OUT, encrypted with "
		 "AES-XTS. OUT is a qcow2 that qemu opens with the same key, or with -O raw a LUKS container. IMAGE stays "
		 "as it is: it holds the disk in clear until you remove it.",
	.groups = groups,
	.examples = examples,
	.run = run,
};
