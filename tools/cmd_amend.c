/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdisk amend: changes what an image was created with, in place. */
#include "fail.h"
#include "json.h"
#include "newimage.h"
#include "source.h"
#include "ui.h"
#include "verbs.h"

#define WHERE(member) offsetof(struct settings, member)

static const struct opt amending[] = {
	{ .name = "options", .letter = 'o', .kind = OPT_TEXTS, .where = WHERE(create_options), .arg = "K=V,...",
	  .help = "what to change: compat, refcount_bits, lazy_refcounts, data_file_raw, backing_fmt, size" },
	{ .name = "shrink", .kind = OPT_FLAG, .where = WHERE(shrink), .help = "allow a smaller size: what lies past it is lost" },
	{ 0 },
};
static const struct opt_group amending_group = { "Change", amending };

static const struct opt_group *const groups[] = {
	&amending_group, &opts_scrub, &opts_format, &opts_backing, &opts_sharing, &opts_keys, &opts_output_form, &opts_speech,
	NULL,
};

static const char *const examples[] = {
	"vdisk amend -o lazy_refcounts=on disk.qcow2",
	"vdisk amend -o compat=1.1 old.qcow2",
	"vdisk amend -o compat=0.10,refcount_bits=16 disk.qcow2",
	NULL,
};

static const struct opt_choice compats[] = { { "0.10", 2 }, { "v2", 2 }, { "1.1", 3 }, { "v3", 3 }, { NULL, 0 } };
static const struct opt_choice switches[] = { { "on", VD_ON }, { "off", VD_OFF }, { NULL, 0 } };

#define UNAMENDABLE(i, option) { .name = option, .kind = OPT_TEXT, .where = WHERE(unamendable[i]) }

static const struct opt options[] = {
	{ .name = "size", .kind = OPT_SIZE, .where = WHERE(made.size) },
	{ .name = "compat", .kind = OPT_CHOICE, .where = WHERE(made.compat), .choices = compats },
	{ .name = "refcount_bits", .kind = OPT_NUMBER, .where = WHERE(made.refcount_bits), .min = 1, .max = 64 },
	{ .name = "lazy_refcounts", .kind = OPT_CHOICE, .where = WHERE(lazy_refcounts), .choices = switches },
	{ .name = "data_file_raw", .kind = OPT_CHOICE, .where = WHERE(data_file_raw), .choices = switches },
	{ .name = "backing_fmt", .kind = OPT_TEXT, .where = WHERE(made.backing_format) },
	UNAMENDABLE(0, "cluster_size"),
	UNAMENDABLE(1, "extended_l2"),
	UNAMENDABLE(2, "compression_type"),
	UNAMENDABLE(3, "data_file"),
	UNAMENDABLE(4, "preallocation"),
	UNAMENDABLE(5, "encryption"),
	UNAMENDABLE(6, "encrypt.format"),
	UNAMENDABLE(7, "encrypt.key-secret"),
	UNAMENDABLE(8, "backing_file"),
	{ 0 },
};

/* In the order of the numbers above. */
static const struct {
	const char *option, *way;
} fixed[] = {
	{ "cluster_size", "vdisk convert -O qcow2 -o cluster_size=... makes a copy that has it" },
	{ "extended_l2", "vdisk convert -O qcow2 -o extended_l2=... makes a copy that has it" },
	{ "compression_type", "vdisk convert -O qcow2 -o compression_type=... makes a copy that has it" },
	{ "data_file", "vdisk convert -O qcow2 -o data_file=... makes a copy that has it" },
	{ "preallocation", "vdisk convert makes a copy" },
	{ "encryption", "vdisk encrypt or decrypt makes a copy" },
	{ "encrypt.format", "vdisk encrypt or decrypt makes a copy" },
	{ "encrypt.key-secret", "vdisk key adds, changes and removes passphrases" },
	{ "backing_file", "vdisk rebase gives the image another one" },
};

static int refuse_fixed(const struct settings *s, struct vd_error *e)
{
	for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++) {
		if (!s->unamendable[i])
			continue;
		fail(e, VD_EUNSUPPORTED, "%s cannot be changed in place", fixed[i].option);
		return fail_hint(e, VD_EUNSUPPORTED, "%s", fixed[i].way);
	}
	return 0;
}

static int judge(struct settings *s, struct vd_error *e)
{
	int r = newimage_parse_by(options, "amend", s, e);

	if (r == 0)
		r = refuse_fixed(s, e);
	if (r == 0 && !s->create_options.n) {
		fail(e, VD_EARG, "what is to be changed?");
		return fail_hint(e, VD_EARG, "name it with -o: vdisk amend -o lazy_refcounts=on %s", s->operands[0]);
	}
	return r;
}

static int amend(const struct settings *s, struct vd_image *img, struct vd_error *e)
{
	struct vd_amend_opts o = {
		.struct_size = sizeof(o), .flags = s->shrink ? VD_RESIZE_SHRINK : 0, .size = s->made.size,
		.compat = (uint32_t)s->made.compat, .refcount_bits = (uint32_t)s->made.refcount_bits,
		.lazy_refcounts = (enum vd_switch)s->lazy_refcounts, .data_file_raw = (enum vd_switch)s->data_file_raw,
		.backing_format = s->made.backing_format,
	};

	return vd_image_amend(img, &o, e);
}

/* A size may have bytes of the disk written and other files looked at; the rest is tables. */
static int open_image(const struct settings *s, struct vd_image **img, struct vd_error *e)
{
	struct keys keys = { 0 };
	int r;

	if (!s->made.size)
		return source_open_control(s, s->operands[0], s->format, img, e);
	r = source_open_writable(s, s->operands[0], s->format, &keys, img, e);
	secrets_free(&keys);
	return r;
}

static void print_done(const struct settings *s, const struct vd_info *i)
{
	struct json_object *j;

	if (!ui_is_json()) {
		ui_summary("%s: amended", s->operands[0]);
		return;
	}
	j = json_new();
	json_put_text(j, "type", "summary");
	json_put_text(j, "verb", "amend");
	json_put_text(j, "image", s->operands[0]);
	json_put_u64(j, "virtual-size", i->virtual_size);
	json_put_text(j, "compat", i->qcow2_version == 2 ? "0.10" : "1.1");
	json_put_u64(j, "refcount-bits", i->refcount_bits);
	json_put_bool(j, "lazy-refcounts", i->lazy_refcounts);
	json_put_bool(j, "data-file-raw", i->data_file_raw);
	json_print(j);
}

static int run(struct settings *s, struct vd_error *e)
{
	struct vd_image *img = NULL;
	struct vd_info info = { 0 };
	int r = judge(s, e), c;

	if (r == 0)
		r = open_image(s, &img, e);
	if (r < 0)
		return r;
	r = amend(s, img, e);
	if (r == 0)
		r = source_info(img, &info, e);
	c = vd_image_close(img, r < 0 ? NULL : e);
	if (r == 0)
		r = c;
	/* Its strings went with the handle. */
	if (r == 0)
		print_done(s, &info);
	return r;
}

const struct verb verb_amend = {
	.name = "amend",
	.operands = "IMAGE",
	.min_operands = 1,
	.max_operands = 1,
	.summary = "change what a qcow2 image was created with",
	.about = "Changes options of an image in place, by the names that create has for them. Each change takes effect whole "
		 "or not at all. What cannot be changed in place is refused with the way that there is.",
	.groups = groups,
	.examples = examples,
	.run = run,
};
