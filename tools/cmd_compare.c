/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdisk compare: tells whether two images hold the same disk. Exit statuses are those of qemu-img compare. */
#include "exit.h"
#include "fail.h"
#include "json.h"
#include "progress.h"
#include "source.h"
#include "ui.h"
#include "verbs.h"

#define WHERE(member) offsetof(struct settings, member)

static const struct opt formats[] = {
	{ .name = "format", .letter = 'f', .kind = OPT_TEXT, .where = WHERE(format), .arg = "FMT",
	  .help = "format of A (default: told from its bytes)" },
	{ .name = "second-format", .letter = 'F', .kind = OPT_TEXT, .where = WHERE(second_format), .arg = "FMT",
	  .help = "format of B" },
	{ .name = "snapshot", .letter = 'l', .kind = OPT_TEXT, .where = WHERE(snapshot), .arg = "NAME",
	  .help = "compare this snapshot inside A, by name or id, instead of its disk as it is" },
	{ .name = "second-snapshot", .kind = OPT_TEXT, .where = WHERE(second_snapshot), .arg = "NAME",
	  .help = "the same of B" },
	{ .name = "header", .kind = OPT_TEXT, .where = WHERE(header), .arg = "FILE",
	  .help = "the LUKS header of A, where it is in a FILE of its own" },
	{ .name = "second-header", .kind = OPT_TEXT, .where = WHERE(second_header), .arg = "FILE", .help = "the same of B" },
	{ .name = "ignore-trailing-zeros", .kind = OPT_FLAG, .where = WHERE(ignore_trailing_zeros),
	  .help = "disks of different size are the same if the rest of the larger is zeros" },
	{ 0 },
};
static const struct opt_group formats_group = { "Input", formats };

static const struct opt_group *const groups[] = {
	&formats_group, &opts_sharing, &opts_keys, &opts_job, &opts_output_form, &opts_speech, NULL,
};

static const char *const examples[] = {
	"vdisk compare disk.raw disk.qcow2",
	"vdisk compare --passphrase-file pw -f raw disk.raw disk-enc.qcow2",
	NULL,
};

/* Both sides: what is said of A and B differs by the option and the operand only. */
static int open_both(const struct settings *s, struct keys *keys, struct vd_image *img[2], struct vd_error *e)
{
	struct settings of_b = *s;
	int r = source_open(s, s->operands[0], s->format, keys, &img[0], e);

	of_b.snapshot = s->second_snapshot;
	of_b.header = s->second_header;
	return r < 0 ? r : source_open(&of_b, s->operands[1], s->second_format, keys, &img[1], e);
}

/* A code of the library as a status of qemu-img compare; a stop by a signal keeps its own. */
static int status_of(int code, bool is_open)
{
	if (code == VD_ECANCELLED || code == VD_EARG)
		return exit_status_of(code);
	if (!is_open)
		return COMPARE_OPEN_FAILED;
	return code == VD_ECORRUPT ? COMPARE_TABLES_FAILED : COMPARE_READ_FAILED;
}

static void print_report(const struct settings *s, const struct vd_compare_report *rep)
{
	struct json_object *j;

	if (!ui_is_json()) {
		if (rep->same)
			ui_summary("the disks are the same");
		else if (rep->has_offset)
			ui_summary("the disks differ, first at byte %llu", (unsigned long long)rep->offset);
		else
			ui_summary("the disks differ in size");
		return;
	}
	j = json_new();
	json_put_text(j, "type", "summary");
	json_put_text(j, "verb", "compare");
	json_put_text(j, "image", s->operands[0]);
	json_put_text(j, "other", s->operands[1]);
	json_put_bool(j, "same", rep->same);
	json_put_bool(j, "size-differs", rep->size_differs);
	if (rep->has_offset)
		json_put_u64(j, "offset", rep->offset);
	json_put_bool(j, "consistent", !s->force_share);
	json_print(j);
}

static int compare(const struct settings *s, struct vd_image *img[2], struct vd_compare_report *rep, struct vd_error *e)
{
	unsigned flags = s->ignore_trailing_zeros ? VD_COMPARE_IGNORE_TRAILING_ZEROS : 0;
	struct vd_job job = progress_start(s, "compare");
	int r = vd_image_compare(img[0], img[1], flags, &job, rep, e);

	progress_end();
	return r;
}

static int run(struct settings *s, struct vd_error *e)
{
	struct vd_compare_report rep = { .struct_size = sizeof(rep) };
	struct vd_image *img[2] = { NULL, NULL };
	struct keys keys = { 0 };
	int r = open_both(s, &keys, img, e);
	bool is_open = r == 0;

	if (r == 0)
		r = compare(s, img, &rep, e);
	if (r == 0)
		print_report(s, &rep);
	else
		ui_error(e, status_of(r, is_open), s->operands[is_open ? rep.b_failed : img[0] != NULL]);
	for (int i = 0; i < 2; i++)
		vd_image_abort(img[i]);
	secrets_free(&keys);
	if (r < 0)
		return status_of(r, is_open);
	return rep.same ? COMPARE_SAME : COMPARE_DIFFER;
}

const struct verb verb_compare = {
	.name = "compare",
	.operands = "A B",
	.min_operands = 2,
	.max_operands = 2,
	.summary = "tell whether two images hold the same disk",
	.about = "Compares what a guest would read, whatever the formats, and tells the first byte that differs. Unlike "
		 "qemu-img, disks of different size are different unless --ignore-trailing-zeros is given. The exit "
		 "status is that of qemu-img compare: 0 same, 1 different, 2 to 4 failures.",
	.groups = groups,
	.examples = examples,
	.run = run,
};
