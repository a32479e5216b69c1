/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdisk measure: tells how large the copy of a disk would be, before it is made. */
#include <string.h>

#include "fail.h"
#include "json.h"
#include "newimage.h"
#include "sizes.h"
#include "source.h"
#include "ui.h"
#include "verbs.h"

#define WHERE(member) offsetof(struct settings, member)

static const struct opt target[] = {
	{ .name = "target-format", .letter = 'O', .kind = OPT_TEXT, .where = WHERE(target_format), .arg = "FMT",
	  .help = "format of the copy: raw (default), qcow2, luks, vhd, vhdx or vmdk" },
	{ .name = "options", .letter = 'o', .kind = OPT_TEXTS, .where = WHERE(create_options), .arg = "K=V,...",
	  .help = "options of the copy, as qemu-img has them" },
	{ .name = "size", .kind = OPT_SIZE, .where = WHERE(made.size), .arg = "N",
	  .help = "of an empty disk of N bytes, instead of IMAGE's" },
	{ .name = "encrypt", .kind = OPT_FLAG, .where = WHERE(made.encrypt), .help = "of an encrypted copy; no key is needed" },
	{ 0 },
};
static const struct opt_group target_group = { "Copy", target };

static const struct opt_group *const groups[] = {
	&target_group, &opts_encryption, &opts_format, &opts_backing, &opts_snapshot, &opts_header, &opts_sharing, &opts_keys,
	&opts_output_form, &opts_speech, NULL,
};

static const char *const examples[] = {
	"vdisk measure -O qcow2 disk.raw",
	"vdisk measure -O qcow2 -o cluster_size=2M --encrypt --size 1T",
	NULL,
};

static int judge(struct settings *s, const char *format, struct vd_error *e)
{
	int r = newimage_judge_format(format, e);

	if (r == 0)
		r = newimage_parse(s, format, e);
	if (r < 0)
		return r;
	s->made.encrypt |= s->made.encrypt_format || s->made.key_secret;
	if (!s->n_operands == !s->made.size)
		return fail(e, VD_EARG, "what is to be measured: an image, or --size N?");
	return 0;
}

/* Without its key, if it stands alone; what an overlay has from below takes looking there. */
static int open_image(const struct settings *s, struct keys *keys, struct vd_image **img, struct vd_error *e)
{
	struct vd_info info;
	int r = source_open_metadata(s, s->operands[0], s->format, img, e);

	if (r == 0)
		r = source_info(*img, &info, e);
	if (r < 0 || !info.backing_file)
		return r;
	vd_image_abort(*img);
	*img = NULL;
	return source_open(s, s->operands[0], s->format, keys, img, e);
}

static void print_report(const struct vd_measure_report *m)
{
	struct json_object *j;

	if (!ui_is_json()) {
		ui_line("required size: %llu (%s)", (unsigned long long)m->required, size_show((double)m->required).s);
		ui_line("fully allocated size: %llu (%s)", (unsigned long long)m->fully_allocated,
			size_show((double)m->fully_allocated).s);
		if (m->bitmaps)
			ui_line("bitmaps size: %llu (%s)", (unsigned long long)m->bitmaps, size_show((double)m->bitmaps).s);
		return;
	}
	j = json_new();
	json_put_u64(j, "required", m->required);
	json_put_u64(j, "fully-allocated", m->fully_allocated);
	json_put_u64(j, "bitmaps", m->bitmaps);
	json_print(j);
}

static int run(struct settings *s, struct vd_error *e)
{
	const char *format = s->target_format ? s->target_format : "raw";
	struct vd_measure_report m = { .struct_size = sizeof(m) };
	struct vd_image *img = NULL;
	struct vd_create_opts o;
	struct keys keys = { 0 };
	int r = judge(s, format, e);

	if (r == 0)
		r = newimage_opts(s, format, &o, e);
	if (r == 0 && s->n_operands)
		r = open_image(s, &keys, &img, e);
	if (r == 0) {
		o.size = s->made.size;
		r = vd_image_measure_output(img, &o, s->made.encrypt, &m, e);
	}
	vd_image_abort(img);
	secrets_free(&keys);
	if (r == 0)
		print_report(&m);
	return r;
}

const struct verb verb_measure = {
	.name = "measure",
	.operands = "[IMAGE]",
	.min_operands = 0,
	.max_operands = 1,
	.summary = "tell how large the copy of a disk would be",
	.about = "Tells how many bytes the files of a copy of IMAGE would have: with the data that is there (and tables for a "
		 "full disk), and when all of the disk is in use. vdisk convert takes no more than the first number, and less "
		 "where data turns out to be zeros.",
	.groups = groups,
	.examples = examples,
	.run = run,
};
