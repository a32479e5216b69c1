/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdisk bitmap: lists and changes the bitmaps inside an image that record what is written. Needs no key: they are not encrypted. */
#include <string.h>

#include "fail.h"
#include "json.h"
#include "sizes.h"
#include "source.h"
#include "ui.h"
#include "verbs.h"

#define WHERE(member) offsetof(struct settings, member)

static const struct opt making[] = {
	{ .name = "granularity", .letter = 'g', .kind = OPT_SIZE, .where = WHERE(granularity), .arg = "SIZE",
	  .help = "create: what one bit stands for, 512 to 2G (default: the cluster size, 4K to 64K)" },
	{ .name = "disabled", .kind = OPT_FLAG, .where = WHERE(disabled),
	  .help = "create: does not record until it is enabled" },
	{ .name = "from", .letter = 'b', .kind = OPT_TEXT, .where = WHERE(from_image), .arg = "FILE",
	  .help = "merge: the image whose bitmaps the sources are (default: IMAGE itself)" },
	{ .name = "from-format", .letter = 'F', .kind = OPT_TEXT, .where = WHERE(second_format), .arg = "FMT",
	  .help = "its format" },
	{ 0 },
};
static const struct opt_group making_group = { "Bitmap", making };

static const struct opt_group *const groups[] = {
	&making_group, &opts_format, &opts_sharing, &opts_output_form, &opts_speech, NULL,
};

static const char *const examples[] = {
	"vdisk bitmap create disk.qcow2 monday",
	"vdisk bitmap list disk.qcow2",
	"vdisk map --since monday disk.qcow2",
	"vdisk bitmap merge disk.qcow2 week monday tuesday",
	NULL,
};

struct request {
	const struct settings *s;
	const struct act *act;
	const char *image, *name;
	const char *const *sources;
	size_t n_sources;
};

struct act {
	const char *word, *done;
	size_t n_min, n_max;            /* operands behind the word */
	const char *wants;
	int (*run)(struct vd_image *img, const struct request *q, struct vd_error *e);  /* NULL: list */
};

/* ---- the acts --------------------------------------------------------------------------------------------- */

static int create(struct vd_image *img, const struct request *q, struct vd_error *e)
{
	return vd_bitmap_create(img, q->name, q->s->granularity, q->s->disabled ? VD_BITMAP_DISABLED : 0, e);
}

static int bitmap_remove(struct vd_image *img, const struct request *q, struct vd_error *e)
{
	return vd_bitmap_remove(img, q->name, e);
}

static int clear(struct vd_image *img, const struct request *q, struct vd_error *e)
{
	return vd_bitmap_clear(img, q->name, e);
}

static int enable(struct vd_image *img, const struct request *q, struct vd_error *e)
{
	return vd_bitmap_enable(img, q->name, e);
}

static int disable(struct vd_image *img, const struct request *q, struct vd_error *e)
{
	return vd_bitmap_disable(img, q->name, e);
}

static int merge(struct vd_image *img, const struct request *q, struct vd_error *e)
{
	struct vd_image *from = NULL;
	int r = 0;

	if (q->s->from_image)
		r = source_open_metadata(q->s, q->s->from_image, q->s->second_format, &from, e);
	if (r == 0)
		r = vd_bitmap_merge(img, q->name, from, q->sources, q->n_sources, e);
	vd_image_abort(from);
	return r;
}

static const struct act acts[] = {
	{ "list", NULL, 1, 1, "IMAGE", NULL },
	{ "create", "created", 2, 2, "IMAGE NAME", create },
	{ "remove", "removed", 2, 2, "IMAGE NAME", bitmap_remove },
	{ "clear", "cleared", 2, 2, "IMAGE NAME", clear },
	{ "enable", "enabled", 2, 2, "IMAGE NAME", enable },
	{ "disable", "disabled", 2, 2, "IMAGE NAME", disable },
	{ "merge", "merged into", 3, OPERANDS_MAX - 1, "IMAGE NAME SOURCE...", merge },
};
#define N_ACTS (sizeof(acts) / sizeof(acts[0]))

/* ---- what is asked for ------------------------------------------------------------------------------------ */

static const char *act_word(const void *ctx, size_t i)
{
	(void)ctx;
	return i < N_ACTS ? acts[i].word : NULL;
}

static int refuse_act(const char *word, struct vd_error *e)
{
	const char *near = opts_nearest(word, act_word, NULL);

	fail(e, VD_EARG, "bitmap: '%s' is not list, create, remove, clear, enable, disable or merge", word);
	return near ? fail_hint(e, VD_EARG, "did you mean %s?", near) :
		      fail_hint(e, VD_EARG, "what to do comes first: vdisk bitmap list IMAGE");
}

/* An option that the act does not know would be left out in silence. */
static int judge_options(const struct request *q, struct vd_error *e)
{
	const struct settings *s = q->s;

	if ((s->granularity || s->disabled) && q->act->run != create)
		return fail(e, VD_EARG, "--granularity and --disabled go with create");
	if ((s->from_image || s->second_format) && q->act->run != merge)
		return fail(e, VD_EARG, "--from and --from-format go with merge");
	return 0;
}

static int take_words(const struct settings *s, struct request *q, struct vd_error *e)
{
	const char *word = s->operands[0];
	size_t n = s->n_operands - 1;

	for (size_t i = 0; i < N_ACTS; i++)
		if (!strcmp(acts[i].word, word))
			q->act = &acts[i];
	q->s = s;
	/* "vdisk bitmap IMAGE" lists. */
	if (!q->act && !n) {
		q->act = &acts[0];
		q->image = word;
		return judge_options(q, e);
	}
	if (!q->act)
		return refuse_act(word, e);
	if (n < q->act->n_min || n > q->act->n_max)
		return fail(e, VD_EARG, "bitmap %s: wants %s, got %zu operand%s", word, q->act->wants, n, n == 1 ? "" : "s");
	q->image = s->operands[1];
	q->name = s->operands[2];
	q->sources = s->operands + 3;
	q->n_sources = n > 2 ? n - 2 : 0;
	return judge_options(q, e);
}

/* ---- list ------------------------------------------------------------------------------------------------- */

static void print_json(const struct request *q, const struct vd_bitmap *list, size_t n)
{
	struct json_object *j = json_new(), *array;

	json_put_text(j, "image", q->image);
	array = json_put_array(j, "bitmaps");
	for (size_t i = 0; i < n; i++) {
		struct json_object *x = json_new();

		json_put_text(x, "name", list[i].name);
		json_put_u64(x, "granularity", list[i].granularity);
		json_put_bool(x, "enabled", list[i].enabled);
		json_put_bool(x, "usable", !list[i].unusable);
		if (list[i].unusable)
			json_put_text(x, "reason", list[i].unusable);
		else if (list[i].dirty_bytes != VD_BITMAP_NOT_COUNTED)
			json_put_u64(x, "dirty-bytes", list[i].dirty_bytes);
		json_add(array, x);
	}
	json_print(j);
}

static void print_line(const struct vd_bitmap *x)
{
	struct size_text dirty = size_show((double)x->dirty_bytes);

	ui_line("%-32s %12s %10s  %s", x->name, size_show((double)x->granularity).s,
		x->unusable ? "all" : x->dirty_bytes == VD_BITMAP_NOT_COUNTED ? "?" : dirty.s,
		x->unusable ? "unusable" : x->enabled ? "records" : "disabled");
	if (x->unusable)
		ui_note("bitmap '%s' does not tell what changed: %s", x->name, x->unusable);
}

static int list(struct vd_image *img, const struct request *q, struct vd_error *e)
{
	struct vd_bitmap *found;
	size_t n;
	int r = vd_bitmap_list(img, &found, &n, e);

	if (r < 0)
		return r;
	if (ui_is_json()) {
		print_json(q, found, n);
	} else if (!n) {
		ui_summary("%s has no bitmaps", q->image);
	} else {
		ui_line("%-32s %12s %10s  %s", "name", "granularity", "dirty", "state");
		for (size_t i = 0; i < n; i++)
			print_line(&found[i]);
	}
	vd_bitmap_list_free(found);
	return 0;
}

/* ---- the whole -------------------------------------------------------------------------------------------- */

static void print_done(const struct request *q)
{
	struct json_object *j;

	if (!ui_is_json()) {
		if (q->n_sources)
			ui_summary("%s: %zu bitmap%s merged into '%s'", q->image, q->n_sources, q->n_sources == 1 ? "" : "s", q->name);
		else
			ui_summary("%s: bitmap '%s' %s", q->image, q->name, q->act->done);
		return;
	}
	j = json_new();
	json_put_text(j, "type", "summary");
	json_put_text(j, "verb", "bitmap");
	json_put_text(j, "act", q->act->word);
	json_put_text(j, "image", q->image);
	json_put_text(j, "bitmap", q->name);
	json_print(j);
}

static int change(const struct request *q, struct vd_error *e)
{
	struct vd_image *img = NULL;
	int r = source_open_control(q->s, q->image, q->s->format, &img, e), c;

	if (r < 0)
		return r;
	r = q->act->run(img, q, e);
	c = vd_image_close(img, r < 0 ? NULL : e);
	if (r == 0)
		r = c;
	if (r == 0)
		print_done(q);
	return r;
}

static int run(struct settings *s, struct vd_error *e)
{
	struct request q = { 0 };
	struct vd_image *img = NULL;
	int r = take_words(s, &q, e);

	if (r < 0)
		return r;
	if (q.act->run)
		return change(&q, e);
	r = source_open_metadata(s, q.image, s->format, &img, e);
	if (r == 0)
		r = list(img, &q, e);
	vd_image_abort(img);
	return r;
}

const struct verb verb_bitmap = {
	.name = "bitmap",
	.operands = "list|create|remove|clear|enable|disable|merge IMAGE [NAME [SOURCE...]]",
	.min_operands = 1,
	.max_operands = OPERANDS_MAX,
	.summary = "record what is written to a disk, for incremental backups",
	.about = "A bitmap inside a qcow2 image says which parts of the disk were written since it was made or cleared. One "
		 "that is enabled records what any program that knows bitmaps writes. vdisk map --since shows what it says. "
		 "After a crash, or a write by another program, it is unusable: then all may have changed.",
	.groups = groups,
	.examples = examples,
	.run = run,
};
