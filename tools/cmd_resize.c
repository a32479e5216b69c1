/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdisk resize: makes the disk in an image larger or smaller. */
#include "fail.h"
#include "json.h"
#include "sizes.h"
#include "source.h"
#include "ui.h"
#include "verbs.h"

#define WHERE(member) offsetof(struct settings, member)

static const struct opt sizing[] = {
	{ .name = "shrink", .kind = OPT_FLAG, .where = WHERE(shrink), .help = "allow a smaller size: what lies past it is lost" },
	{ 0 },
};
static const struct opt_group sizing_group = { "Size", sizing };

static const struct opt_group *const groups[] = {
	&sizing_group, &opts_scrub, &opts_format, &opts_backing, &opts_header, &opts_sharing, &opts_keys, &opts_output_form, &opts_speech, NULL,
};

static const char *const examples[] = {
	"vdisk resize disk.qcow2 +10G",
	"vdisk resize --shrink disk.qcow2 20G",
	"vdisk resize --shrink --scrub disk.qcow2 20G",
	NULL,
};

static int target_size(const char *text, uint64_t now, uint64_t *size, struct vd_error *e)
{
	char sign = text[0];
	uint64_t n;

	if (!size_parse(text + (sign == '+' || sign == '-'), &n))
		return fail(e, VD_EARG, "'%s' is not a size such as 20G, +512M or -1G", text);
	*size = n;
	if (sign == '+')
		*size = now + n;
	if (sign == '-' && n > now)
		return fail(e, VD_EARG, "'%s': the disk has %llu bytes only", text, (unsigned long long)now);
	if (sign == '-')
		*size = now - n;
	return 0;
}

/* Whether bytes of the disk have to be written, or files that the image refers to changed or looked at. */
static bool needs_all(const struct vd_info *i, uint64_t size)
{
	bool has_tail = i->cluster_size && i->virtual_size % i->cluster_size;

	return i->data_file || (size > i->virtual_size && (has_tail || i->backing_file));
}

static int look(const struct settings *s, uint64_t *was, uint64_t *size, bool *all, struct vd_error *e)
{
	struct vd_image *img = NULL;
	struct vd_info info;
	int r = source_open_metadata(s, s->operands[0], s->format, &img, e);

	if (r == 0)
		r = source_info(img, &info, e);
	if (r == 0)
		r = target_size(s->operands[1], info.virtual_size, size, e);
	if (r == 0) {
		*was = info.virtual_size;
		*all = needs_all(&info, *size);
	}
	vd_image_abort(img);
	return r;
}

static int resize(const struct settings *s, uint64_t size, bool all, struct vd_error *e)
{
	struct vd_image *img = NULL;
	struct keys keys = { 0 };
	int r, c;

	if (all)
		r = source_open_writable(s, s->operands[0], s->format, &keys, &img, e);
	else
		r = source_open_control(s, s->operands[0], s->format, &img, e);
	secrets_free(&keys);
	if (r < 0)
		return r;
	r = vd_image_resize(img, size, s->shrink ? VD_RESIZE_SHRINK : 0, e);
	c = vd_image_close(img, r < 0 ? NULL : e);
	return r < 0 ? r : c;
}

static void print_done(const struct settings *s, uint64_t was, uint64_t size)
{
	struct json_object *j;

	if (!ui_is_json()) {
		ui_summary("%s: the disk has %s now, it had %s%s", s->operands[0], size_show((double)size).s,
			   size_show((double)was).s, s->scrub ? "; freed space overwritten" : "");
		return;
	}
	j = json_new();
	json_put_text(j, "type", "summary");
	json_put_text(j, "verb", "resize");
	json_put_text(j, "image", s->operands[0]);
	json_put_u64(j, "virtual-size", size);
	json_put_u64(j, "old-virtual-size", was);
	json_put_bool(j, "scrubbed", s->scrub);
	json_print(j);
}

static int judge_scrub(const struct settings *s, uint64_t was, uint64_t size, struct vd_error *e)
{
	if (s->scrub && size >= was)
		return fail(e, VD_EARG, "--scrub goes with --shrink: a disk that grows frees nothing");
	return 0;
}

static int run(struct settings *s, struct vd_error *e)
{
	uint64_t was = 0, size = 0;
	bool all = false;
	int r = look(s, &was, &size, &all, e);

	if (r == 0)
		r = judge_scrub(s, was, size, e);
	if (r == 0)
		r = resize(s, size, all, e);
	if (r == 0)
		print_done(s, was, size);
	return r;
}

const struct verb verb_resize = {
	.name = "resize",
	.operands = "IMAGE [+|-]SIZE",
	.min_operands = 2,
	.max_operands = 2,
	.ends_with_number = true,
	.summary = "make the disk in an image larger or smaller",
	.about = "SIZE is the new size, or with + or - how much larger or smaller. A disk that grows reads as zeros where "
		 "it is new; one that shrinks loses what lies past its new end, which takes --shrink. The partitions and "
		 "file systems inside are the guest's to change: before shrinking, after growing.",
	.groups = groups,
	.examples = examples,
	.run = run,
};
