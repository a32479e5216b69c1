/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vdisk snapshot: lists, makes, applies and deletes snapshots, inside an image or by overlays, and shows chains of these. Only an overlay
 * of an encrypted image needs a key: all else is tables.
 */
#include <string.h>
#include <time.h>

#include "fail.h"
#include "json.h"
#include "lineage.h"
#include "overlay.h"
#include "sizes.h"
#include "source.h"
#include "ui.h"
#include "verbs.h"

#define WHERE(member) offsetof(struct settings, member)

static const struct opt acts_as_options[] = {
	{ .name = "list", .letter = 'l', .kind = OPT_FLAG, .where = WHERE(snap_list), .help = "list them (default)" },
	{ .name = "create", .letter = 'c', .kind = OPT_TEXT, .where = WHERE(snap_create), .arg = "NAME",
	  .help = "make one of the disk as it is" },
	{ .name = "apply", .letter = 'a', .kind = OPT_TEXT, .where = WHERE(snap_apply), .arg = "NAME",
	  .help = "make the disk what it was then; what it is now is lost" },
	{ .name = "delete", .letter = 'd', .kind = OPT_TEXT, .where = WHERE(snap_delete), .arg = "NAME",
	  .help = "delete it" },
	{ 0 },
};
static const struct opt_group acts_group = { "What to do, as qemu-img has it", acts_as_options };

static const struct opt overlays[] = {
	{ .name = "overlay", .kind = OPT_TEXT, .where = WHERE(overlay), .arg = "NEW",
	  .help = "create: keep the disk by an overlay NEW, to be used from here on; in every format" },
	{ .name = "numbered", .kind = OPT_FLAG, .where = WHERE(numbered),
	  .help = "create: the same, named as VMware names it: web-000001.vmdk beside web.vmdk" },
	{ .name = "overlay-format", .kind = OPT_TEXT, .where = WHERE(overlay_format), .arg = "FMT",
	  .help = "format of the overlay (default: that of the image, qcow2 for raw)" },
	{ 0 },
};
static const struct opt_group overlays_group = { "Overlays", overlays };

static const struct opt_group *const groups[] = {
	&acts_group, &overlays_group, &opts_scrub, &opts_keys, &opts_format, &opts_sharing, &opts_output_form, &opts_speech, NULL,
};

static const char *const examples[] = {
	"vdisk snapshot create disk.qcow2 before-upgrade",
	"vdisk snapshot list disk.qcow2",
	"vdisk snapshot apply disk.qcow2 before-upgrade",
	"vdisk snapshot delete --scrub disk.qcow2 before-upgrade",
	"vdisk snapshot create web.vmdk --numbered",
	"vdisk snapshot commit web-000001.vmdk",
	NULL,
};

struct act {
	const char *word, *done;
	int (*run)(struct vd_image *img, const char *name, struct vd_error *e);        /* NULL: list */
	bool frees;                     /* space inside the image */
};

static const struct act acts[] = {
	{ "list", NULL, NULL, false },
	{ "create", "created", vd_snapshot_create, false },
	{ "apply", "applied", vd_snapshot_apply, true },
	{ "delete", "deleted", vd_snapshot_delete, true },
};
#define N_ACTS (sizeof(acts) / sizeof(acts[0]))

struct request {
	const struct act *act;
	const char *image, *name;
};

/* ---- what is asked for ---------------------------------------------------------------------------------- */

/* -l, -c NAME, -a NAME, -d NAME: then the image is the only operand. */
static int take_option(const struct settings *s, struct request *q, struct vd_error *e)
{
	const char *const names[N_ACTS] = { s->snap_list ? "" : NULL, s->snap_create, s->snap_apply, s->snap_delete };

	for (size_t i = 0; i < N_ACTS; i++) {
		if (!names[i])
			continue;
		if (q->act)
			return fail(e, VD_EARG, "--%s and --%s are two things: one at a time", q->act->word, acts[i].word);
		q->act = &acts[i];
		q->name = names[i];
	}
	if (q->act && s->n_operands != 1)
		return fail(e, VD_EARG, "--%s: wants IMAGE, got %zu operands", q->act->word, s->n_operands);
	q->image = s->operands[0];
	return 0;
}

static bool makes_overlay(const struct settings *s)
{
	return s->overlay || s->numbered;
}

static int judge_overlay(const struct settings *s, const struct request *q, struct vd_error *e)
{
	if (!makes_overlay(s))
		return s->overlay_format ? fail(e, VD_EARG, "--overlay-format goes with --overlay or --numbered") : 0;
	if (q->act->run != vd_snapshot_create || q->name)
		return fail(e, VD_EARG, "--overlay and --numbered go with create IMAGE");
	if (s->overlay && s->numbered)
		return fail(e, VD_EARG, "--overlay names the file, and --numbered has it named: one of the two");
	return 0;
}

static const char *act_word(const void *ctx, size_t i)
{
	(void)ctx;
	return i < N_ACTS ? acts[i].word : NULL;
}

static int take_words(const struct settings *s, struct request *q, struct vd_error *e)
{
	const char *word = s->operands[0], *near;
	size_t wanted;

	for (size_t i = 0; i < N_ACTS; i++)
		if (!strcmp(acts[i].word, word))
			q->act = &acts[i];
	/* "vdisk snapshot IMAGE" lists. */
	if (!q->act && s->n_operands == 1) {
		q->act = &acts[0];
		q->image = word;
		return 0;
	}
	if (!q->act) {
		near = opts_nearest(word, act_word, NULL);
		fail(e, VD_EARG, "snapshot: '%s' is not list, create, apply or delete", word);
		return near ? fail_hint(e, VD_EARG, "did you mean %s?", near) :
			      fail_hint(e, VD_EARG, "what to do comes first: vdisk snapshot list IMAGE");
	}
	wanted = q->act->run && !makes_overlay(s) ? 3 : 2;
	if (s->n_operands != wanted)
		return fail(e, VD_EARG, "snapshot %s: wants %s, got %zu operand%s", word, wanted == 3 ? "IMAGE NAME" : "IMAGE",
			    s->n_operands - 1, s->n_operands == 2 ? "" : "s");
	q->image = s->operands[1];
	q->name = s->operands[2];
	return 0;
}

/* ---- list ----------------------------------------------------------------------------------------------- */

static struct json_object *list_object(const struct request *q, const struct vd_snapshot *list, size_t n)
{
	struct json_object *j = json_new(), *array;

	json_put_text(j, "image", q->image);
	array = json_put_array(j, "snapshots");
	for (size_t i = 0; i < n; i++) {
		struct json_object *x = json_new();

		json_put_text(x, "id", list[i].id);
		json_put_text(x, "name", list[i].name);
		json_put_u64(x, "date-sec", list[i].date_sec);
		json_put_u64(x, "date-nsec", list[i].date_nsec);
		json_put_u64(x, "vm-clock-sec", list[i].vm_clock_nsec / 1000000000);
		json_put_u64(x, "vm-clock-nsec", list[i].vm_clock_nsec % 1000000000);
		json_put_u64(x, "vm-state-size", list[i].vm_state_size);
		json_put_u64(x, "disk-size", list[i].disk_size);
		json_add(array, x);
	}
	return j;
}

static int print_json(const struct settings *s, const struct request *q, const struct vd_snapshot *list, size_t n, struct vd_error *e)
{
	struct json_object *j = list_object(q, list, n);
	int r = lineage_put(s, q->image, json_put_array(j, "chain"), e);

	if (r < 0)
		json_object_put(j);
	else
		json_print(j);
	return r;
}

static void print_line(const struct vd_snapshot *x)
{
	time_t then = (time_t)x->date_sec;
	char date[32] = "?";
	struct tm tm;

	if (localtime_r(&then, &tm))
		strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
	ui_line("%-6s %-28s %-19s %10s %10s", x->id, x->name, date, size_show((double)x->disk_size).s,
		x->vm_state_size ? size_show((double)x->vm_state_size).s : "-");
}

static void print_table(const struct vd_snapshot *list, size_t n)
{
	ui_line("%-6s %-28s %-19s %10s %10s", "id", "name", "made", "disk", "memory");
	for (size_t i = 0; i < n; i++)
		print_line(&list[i]);
}

/* Snapshots inside, and where there are any the files that the image stands on. */
static int list(const struct settings *s, struct vd_image *img, const struct request *q, struct vd_error *e)
{
	struct vd_snapshot *found = NULL;
	struct vd_info info;
	size_t n = 0;
	int r = source_info(img, &info, e);

	if (r == 0)
		r = vd_snapshot_list(img, &found, &n, e);
	/* A format that has none inside has overlays. */
	if (r == VD_EUNSUPPORTED)
		r = 0;
	if (r < 0)
		return r;
	if (ui_is_json())
		r = print_json(s, q, found, n, e);
	else if (n)
		print_table(found, n);
	else if (!info.backing_file)
		ui_summary("%s has no snapshots", q->image);
	if (!ui_is_json() && info.backing_file)
		r = lineage_print(s, q->image, e);
	vd_snapshot_list_free(found);
	return r;
}

/* ---- the others ----------------------------------------------------------------------------------------- */

static void print_done(const struct request *q, bool scrubbed)
{
	struct json_object *j;

	if (!ui_is_json()) {
		ui_summary("%s: snapshot '%s' %s%s", q->image, q->name, q->act->done, scrubbed ? "; freed space overwritten" : "");
		return;
	}
	j = json_new();
	json_put_text(j, "type", "summary");
	json_put_text(j, "verb", "snapshot");
	json_put_text(j, "act", q->act->word);
	json_put_text(j, "image", q->image);
	json_put_text(j, "snapshot", q->name);
	json_put_bool(j, "scrubbed", scrubbed);
	json_print(j);
}

static void print_overlay(const struct request *q, const struct overlay *o)
{
	struct json_object *j;

	if (!ui_is_json()) {
		ui_summary("%s: %s%s over %s; use it from here on, and write to %s no more", o->name, o->format,
			   o->is_encrypted ? ", encrypted with the same key," : "", q->image, q->image);
		return;
	}
	j = json_new();
	json_put_text(j, "type", "summary");
	json_put_text(j, "verb", "snapshot");
	json_put_text(j, "act", q->act->word);
	json_put_text(j, "image", q->image);
	json_put_text(j, "overlay", o->name);
	json_put_text(j, "format", o->format);
	json_put_bool(j, "encrypted", o->is_encrypted);
	json_print(j);
}

static int put_overlay(struct settings *s, const struct request *q, struct vd_error *e)
{
	struct overlay o = { .image = q->image, .name = s->overlay, .format = s->overlay_format };
	int r = overlay_make(s, &o, e);

	if (r == 0)
		print_overlay(q, &o);
	return r;
}

static int change(const struct settings *s, const struct request *q, struct vd_error *e)
{
	struct vd_image *img = NULL;
	int r = source_open_control(s, q->image, s->format, &img, e), c;

	if (r < 0)
		return r;
	r = q->act->run(img, q->name, e);
	c = vd_image_close(img, r < 0 ? NULL : e);
	if (r == 0)
		r = c;
	if (r == 0)
		print_done(q, s->scrub);
	return r;
}

static int run(struct settings *s, struct vd_error *e)
{
	struct request q = { 0 };
	struct vd_image *img = NULL;
	int r = take_option(s, &q, e);

	if (r == 0 && !q.act)
		r = take_words(s, &q, e);
	if (r == 0 && s->scrub && !q.act->frees)
		return fail(e, VD_EARG, "--scrub goes with apply and delete: %s frees nothing", q.act->word);
	if (r == 0)
		r = judge_overlay(s, &q, e);
	if (r < 0)
		return r;
	if (makes_overlay(s))
		return put_overlay(s, &q, e);
	if (q.act->run)
		return change(s, &q, e);
	r = source_open_metadata(s, q.image, s->format, &img, e);
	if (r == 0)
		r = list(s, img, &q, e);
	vd_image_abort(img);
	return r;
}

static const struct verb *const chain_acts[] = { &verb_commit, &verb_rebase, &verb_flatten, NULL };

const struct verb verb_snapshot = {
	.name = "snapshot",
	.operands = "list|create|apply|delete IMAGE [NAME]",
	.min_operands = 1,
	.max_operands = 3,
	.summary = "list, make, apply and delete snapshots, inside an image or by overlays",
	.about = "A snapshot keeps the disk as it was, inside the same qcow2 file, or in any format by an overlay: IMAGE stays as "
		 "it is, and a new file takes what is written. Making, applying and deleting one takes effect whole or not at "
		 "all, whatever happens meanwhile. The other verbs read one inside with --snapshot. The verbs for overlays, commit, "
		 "rebase and flatten, may be said behind this one: vdisk snapshot commit IMAGE.",
	.groups = groups,
	.examples = examples,
	.acts = chain_acts,
	.run = run,
};
