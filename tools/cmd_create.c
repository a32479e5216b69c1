/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdisk create: makes a new, empty image. */
#include <limits.h>
#include <string.h>

#include "fail.h"
#include "json.h"
#include "newimage.h"
#include "output.h"
#include "sizes.h"
#include "source.h"
#include "ui.h"
#include "verbs.h"

#define WHERE(member) offsetof(struct settings, member)

static const struct opt made[] = {
	{ .name = "format", .letter = 'f', .kind = OPT_TEXT, .where = WHERE(format), .arg = "FMT",
	  .help = "format: raw (default), qcow2, vmdk, vhd, vhdx or luks" },
	{ .name = "backing", .letter = 'b', .kind = OPT_TEXT, .where = WHERE(made.backing_file), .arg = "FILE",
	  .help = "make an overlay of FILE; a relative name is looked for in the folder of the image" },
	{ .name = "backing-format", .letter = 'F', .kind = OPT_TEXT, .where = WHERE(made.backing_format), .arg = "FMT",
	  .help = "format of the backing file (needed with it)" },
	{ .name = "allow", .kind = OPT_TEXTS, .where = WHERE(allow), .arg = "DIR",
	  .help = "let the backing file refer to files below DIR too (may be repeated)" },
	{ .name = "encrypt", .kind = OPT_FLAG, .where = WHERE(made.encrypt), .help = "encrypt the image" },
	{ 0 },
};
static const struct opt_group made_group = { "Output", made };

static const struct opt_group *const groups[] = {
	&made_group, &opts_output, &opts_sole_key, &opts_encryption, &opts_output_form, &opts_speech, NULL,
};

static const char *const examples[] = {
	"vdisk create -f qcow2 disk.qcow2 20G",
	"vdisk create -f qcow2 --encrypt --passphrase-file pw disk.qcow2 20G",
	"vdisk create -f qcow2 -b golden.qcow2 -F qcow2 web.qcow2",
	NULL,
};

static int take_size(struct settings *s, struct vd_error *e)
{
	if (s->n_operands == 2) {
		if (s->made.size)
			return fail(e, VD_EARG, "the size is given twice");
		if (!size_parse(s->operands[1], &s->made.size))
			return fail(e, VD_EARG, "'%s' is not a size such as 65536, 64K or 1.5G", s->operands[1]);
	} else if (!s->made.size && !s->made.backing_file) {
		fail(e, VD_EARG, "how large is the disk to be?");
		return fail_hint(e, VD_EARG, "give the size after the name: vdisk create %s 20G", s->operands[0]);
	}
	return 0;
}

static int judge(struct settings *s, const char *format, struct vd_error *e)
{
	int r = newimage_judge_format(format, e);

	if (r == 0)
		r = newimage_parse(s, format, e);
	if (r == 0)
		r = take_size(s, e);
	if (r < 0)
		return r;
	s->made.encrypt |= s->made.encrypt_format || s->made.key_secret || !strcmp(format, "luks");
	if ((s->new_keys.n || s->new_header) && !s->made.encrypt && !s->made.backing_file) {
		fail(e, VD_EARG, "a key or a header is given, but nothing says that the image is to be encrypted");
		return fail_hint(e, VD_EARG, "add --encrypt");
	}
	return output_judge(s, s->operands[0], e);
}

/* One key serves the new image and an encrypted backing file. */
static int find_key(struct settings *s, struct vd_key **key, struct vd_error *e)
{
	if (!s->made.encrypt && !s->new_keys.n)
		return 0;
	return secrets_for_new(s, s->operands[0], CREDENTIAL_KEY, key, e);
}

static int make(struct settings *s, const char *format, struct vd_key *key, struct vd_image **img, struct vd_error *e)
{
	char folder[PATH_MAX];
	struct vd_gate_dirs dirs;
	struct vd_create_opts o;
	int r = newimage_opts(s, format, &o, e);

	if (r < 0)
		return r;
	source_allow_folder_of(s, s->operands[0], s->made.backing_file, folder);
	dirs = (struct vd_gate_dirs){ s->allow.at, s->allow.n };
	o.size = s->made.size;
	o.key = s->made.encrypt ? key : NULL;
	o.backing_keys = &key;
	o.n_backing_keys = key ? 1 : 0;
	o.gate = vd_gate_below_dirs;
	o.gate_ctx = &dirs;
	if (key)
		ui_status("deriving key");
	r = vd_image_create(s->operands[0], &o, img, e);
	ui_status_end();
	if (r == 0)
		r = vd_image_commit(*img, e);
	return r;
}

static void print_summary(const struct settings *s, const char *format, uint64_t size)
{
	struct json_object *j;

	if (!ui_is_json()) {
		ui_summary("%s: %s, %s%s%s, disk of %s", s->operands[0], format, s->made.encrypt ? "encrypted" : "not encrypted",
			   s->new_header ? ", header in " : "", s->new_header ? s->new_header : "", size_show((double)size).s);
		return;
	}
	j = json_new();
	json_put_text(j, "type", "summary");
	json_put_text(j, "verb", "create");
	json_put_text(j, "output", s->operands[0]);
	json_put_text(j, "format", format);
	json_put_bool(j, "encrypted", s->made.encrypt);
	if (s->new_header)
		json_put_text(j, "header", s->new_header);
	json_put_u64(j, "virtual-size", size);
	json_print(j);
}

static int run(struct settings *s, struct vd_error *e)
{
	const char *format = s->format ? s->format : "raw";
	struct vd_image *img = NULL;
	struct vd_key *key = NULL;
	uint64_t size;
	int r = judge(s, format, e);

	if (r == 0)
		r = find_key(s, &key, e);
	if (r == 0)
		r = make(s, format, key, &img, e);
	vd_key_free(key);
	if (r < 0) {
		vd_image_abort(img);
		return r;
	}
	size = vd_image_size(img);
	r = vd_image_close(img, e);
	if (r == 0)
		print_summary(s, format, size);
	return r;
}

const struct verb verb_create = {
	.name = "create",
	.operands = "FILE [SIZE]",
	.min_operands = 1,
	.max_operands = 2,
	.summary = "make a new, empty image",
	.about = "Makes the image FILE with an empty disk of SIZE bytes (64K, 20G, 1.5T). With a backing file the disk "
		 "begins as a copy of that, and SIZE may be left out.",
	.groups = groups,
	.examples = examples,
	.run = run,
};
