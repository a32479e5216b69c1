/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Tells what the library's leak scan finds, line by line, and the verdict last. */
#include "plaintext.h"

#include "exit.h"
#include "json.h"
#include "keeps.h"
#include "progress.h"
#include "sizes.h"
#include "source.h"
#include "ui.h"

#define LINES_MAX 20            /* of each kind of finding, for people; JSON has them all */
#define KINDS_MAX 8

struct told {
	uint64_t n[KINDS_MAX];
	bool is_used;                   /* something that is left belongs to somebody */
	bool is_free;                   /* something that is left could be overwritten */
};

/* ---- findings ------------------------------------------------------------------------------------------- */

static void print_json(const struct vd_plaintext *p)
{
	struct json_object *j = json_new();

	json_put_text(j, "type", "finding");
	json_put_text(j, "kind", vd_plaintext_name(p->kind));
	json_put_text(j, "owner", vd_owner_name(p->where.owner));
	if (p->where.why != VD_WHY_NONE)
		json_put_text(j, "owner-kind", vd_why_name(p->where.why));
	if (p->file) {
		json_put_text(j, "file", p->file);
		json_put_u64(j, "host-offset", p->where.off);
		json_put_u64(j, "length", p->where.len);
	}
	if (p->where.guest_off != VD_HOST_NOWHERE)
		json_put_u64(j, "guest-offset", p->where.guest_off);
	if (p->view)
		json_put_text(j, "snapshot", p->view);
	json_put_bool(j, "can-be-scrubbed", p->can_scrub);
	json_put_bool(j, "scrubbed", p->scrubbed);
	json_put_text(j, "message", p->text);
	json_print(j);
}

static void print_line(const struct vd_plaintext *p)
{
	enum ui_colour colour = p->kind == VD_PLAINTEXT_ZEROS || p->scrubbed ? UI_YELLOW : UI_RED;

	ui_line("%s%s%s: %s%s", ui_colour(colour), vd_plaintext_name(p->kind), ui_colour(UI_PLAIN), p->text,
		p->scrubbed ? " (overwritten)" : "");
}

static int found(void *ctx, const struct vd_plaintext *p)
{
	struct told *t = ctx;

	if (ui_is_json())
		print_json(p);
	else if (t->n[p->kind % KINDS_MAX] < LINES_MAX)
		print_line(p);
	t->n[p->kind % KINDS_MAX]++;
	if (!p->scrubbed && p->kind != VD_PLAINTEXT_ZEROS) {
		t->is_used |= !p->can_scrub;
		t->is_free |= p->can_scrub;
	}
	return 0;
}

/* ---- the sum -------------------------------------------------------------------------------------------- */

static void print_json_summary(const struct settings *s, const struct vd_info *info, const struct vd_plaintext_report *rep)
{
	struct json_object *j = json_new();

	json_put_text(j, "type", "summary");
	json_put_text(j, "verb", "check");
	json_put_text(j, "image", s->operands[0]);
	json_put_text(j, "format", info->format);
	json_put_bool(j, "plaintext-found", rep->left);
	json_put_u64(j, "findings", rep->findings);
	json_put_u64(j, "findings-left", rep->left);
	json_put_u64(j, "readable-bytes", rep->readable);
	json_put_u64(j, "zero-bytes", rep->zeros);
	json_put_u64(j, "scrubbed-bytes", rep->scrubbed);
	json_put_u64(j, "looked-at-bytes", rep->looked_at);
	json_put_u64(j, "table-bytes", rep->known);
	json_put_u64(j, "hole-bytes", rep->holes);
	json_put_u64(j, "damaged-entries", rep->damage);
	json_put_bool(j, "changed", rep->changed);
	json_put_bool(j, "consistent", !s->force_share);
	json_print(j);
}

static void print_unsaid(const struct told *t)
{
	for (int kind = 0; kind < KINDS_MAX; kind++)
		if (t->n[kind] > LINES_MAX)
			ui_line("%llu more of the kind \"%s\": --output=json tells them all",
				(unsigned long long)(t->n[kind] - LINES_MAX), vd_plaintext_name(kind));
}

static void advise(const struct settings *s, const struct told *t, const struct vd_info *info,
		   const struct vd_plaintext_report *rep)
{
	if (t->is_free)
		ui_note("--scrub overwrites what is nobody's");
	if (t->is_used)
		ui_note("what is in use cannot be overwritten: copy the disk into a new image (vdisk convert --key-file KEY "
			"--new-key-file KEY), and wipe this one");
	if (rep->zeros)
		ui_note("zeros where the disk has ciphertext: they betray where nothing was written, and nothing else");
	if (rep->damage)
		ui_note("the image is damaged, and what its broken entries should lead to passes for free: vdisk check tells more");
	if (info->backing_file)
		ui_note("the backing file is an image of its own, and was not looked at");
	if (s->force_share)
		ui_note("the image may be in use: what was written meanwhile may pass for something else");
}

static void print_verdict(const struct settings *s, const struct vd_plaintext_report *rep)
{
	const char *image = s->operands[0];

	if (rep->scrubbed)
		ui_summary("%s: overwrote %s that were nobody's", image, size_show((double)rep->scrubbed).s);
	if (rep->left)
		ui_line("%s: readable without the key: %llu finding%s, of %s looked at", image, (unsigned long long)rep->left,
			rep->left == 1 ? "" : "s", size_show((double)rep->looked_at).s);
	else
		ui_summary("%s: nothing is readable without the key, of %s looked at", image, size_show((double)rep->looked_at).s);
}

/* The verdict comes last. */
static void print_all(const struct settings *s, struct vd_image *img, const struct told *t, const struct vd_info *info,
		      const struct vd_plaintext_report *rep)
{
	if (ui_is_json()) {
		keeps_tell(img);
		print_json_summary(s, info, rep);
		return;
	}
	print_unsaid(t);
	advise(s, t, info, rep);
	keeps_tell(img);
	print_verdict(s, rep);
}

/* ---- the whole ------------------------------------------------------------------------------------------ */

static int scan(const struct settings *s, struct vd_image *img, struct told *t, struct vd_plaintext_report *rep,
		struct vd_error *e)
{
	struct vd_plaintext_opts opts = {
		.struct_size = sizeof(opts), .flags = s->scrub ? VD_PLAINTEXT_SCRUB : 0, .found = found, .ctx = t,
	};
	struct vd_job job = progress_start(s, "check");
	int r = vd_plaintext_scan(img, &opts, &job, rep, e);

	progress_end();
	return r;
}

int plaintext_check(const struct settings *s, struct vd_error *e)
{
	struct vd_plaintext_report rep = { .struct_size = sizeof(rep) };
	struct vd_image *img = NULL;
	struct told told = { 0 };
	struct vd_info info;
	int r = source_open_whole(s, s->operands[0], s->format, s->scrub, &img, e);

	if (r == 0)
		r = source_info(img, &info, e);
	if (r == 0)
		r = scan(s, img, &told, &rep, e);
	if (r == 0)
		print_all(s, img, &told, &info, &rep);
	if (r == 0 && s->scrub)
		r = vd_image_close(img, e);
	else
		vd_image_abort(img);
	return r < 0 ? r : rep.left ? CHECK_FAULTS : 0;
}
