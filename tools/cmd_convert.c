/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdisk convert: copies a disk into a new image of any format, encrypted or not. */
#include "platforms.h"
#include "transfer.h"
#include "ui.h"
#include "verbs.h"

#define WHERE(member) offsetof(struct settings, member)

static const struct opt target[] = {
	{ .name = "target-format", .letter = 'O', .kind = OPT_TEXT, .where = WHERE(target_format), .arg = "FMT",
	  .help = "format of OUT: raw (default), qcow2, vmdk, vhd, vhdx, ova or luks" },
	{ .name = "for", .kind = OPT_CHOICE, .where = WHERE(platform), .arg = "PLATFORM", .choices = platform_names,
	  .help = "as it imports disks: esxi, workstation, hyperv, azure, proxmox, aws or gcp" },
	{ 0 },
};
static const struct opt_group target_group = { "Output", target };

static const struct opt_group *const groups[] = {
	&opts_format, &opts_backing, &opts_snapshot, &opts_header, &opts_sharing, &opts_keys, &target_group, &opts_compress,
	&opts_output, &opts_room, &opts_new_key, &opts_encryption, &opts_job, &opts_output_form, &opts_speech, NULL,
};

static const char *const examples[] = {
	"vdisk convert -O qcow2 -c disk.raw disk.qcow2",
	"vdisk convert -O qcow2 --key-file old --new-key-file new a.qcow2 b.qcow2",
	"vdisk convert --passphrase-file pw overlay.qcow2 whole.raw",
	"vdisk convert --for=azure disk.qcow2 disk.vhd",
	"vdisk convert -O ova disk.qcow2 machine.ova",
	"vdisk convert -c -O vmdk disk.qcow2 - | ssh host 'cat > disk.vmdk'",
	"curl -s https://example.org/disk.vmdk | vdisk convert -O qcow2 - disk.qcow2",
	NULL,
};

static int run(struct settings *s, struct vd_error *e)
{
	struct transfer t = { .s = s, .label = "convert", .credential = CREDENTIAL_NEW_KEY };
	int r = platforms_apply(s, e);

	if (r < 0)
		return r;
	t.format = s->target_format ? s->target_format : "raw";
	r = transfer_open(&t, e);
	if (r == 0)
		r = transfer_run(&t, e);
	if (r == 0 && platforms_next_step(s))
		ui_note("%s", platforms_next_step(s));
	if (r == 0 && t.from_is_encrypted && !t.encrypt)
		ui_note("%s was encrypted and %s is not: --encrypt would make it so", t.in_name, t.out_name);
	transfer_end(&t);
	return r;
}

const struct verb verb_convert = {
	.name = "convert",
	.operands = "IMAGE OUT",
	.min_operands = 2,
	.max_operands = 2,
	.summary = "copy a disk into a new image of another format",
	.about = "Copies the disk in IMAGE, with what its backing files add, into the new image OUT. Holes and zeros "
		 "take no room in OUT where its format allows. OUT is encrypted only if a new key or --encrypt says so. "
		 "For OUT, - is standard output (raw, luks, vmdk with -c); for IMAGE, standard input (vmdk streams, raw).",
	.groups = groups,
	.examples = examples,
	.run = run,
};
