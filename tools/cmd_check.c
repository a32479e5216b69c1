/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdisk check: holds an image's tables against each other and, when asked, mends them. Needs neither key nor backing file. */
#include <string.h>

#include "exit.h"
#include "fail.h"
#include "json.h"
#include "plaintext.h"
#include "progress.h"
#include "sizes.h"
#include "source.h"
#include "ui.h"
#include "verbs.h"

#define WHERE(member) offsetof(struct settings, member)
#define LINES_MAX 20            /* of each kind of finding, for people; JSON has them all */
#define KINDS_MAX 32

static const struct opt_choice repairs[] = {
	{ "leaks", VD_REPAIR_LEAKS }, { "all", VD_REPAIR_ALL }, { NULL, 0 },
};
static const struct opt mending[] = {
	{ .name = "repair", .letter = 'r', .kind = OPT_CHOICE, .where = WHERE(repair), .arg = "WHAT", .choices = repairs,
	  .help = "leaks: give back clusters that nothing names; all: make refcounts and flags right, too" },
	{ 0 },
};
static const struct opt_group mending_group = { "Repair", mending };

static const struct opt reading[] = {
	{ .name = "plaintext", .kind = OPT_FLAG, .where = WHERE(plaintext),
	  .help = "look for what is readable without the key, in all bytes of an encrypted IMAGE" },
	{ .name = "scrub", .kind = OPT_FLAG, .where = WHERE(scrub),
	  .help = "with --plaintext: overwrite what is nobody's and is not zeros" },
	{ 0 },
};
static const struct opt_group reading_group = { "Encryption", reading };

static const struct opt_group *const groups[] = {
	&mending_group, &reading_group, &opts_format, &opts_header, &opts_sharing, &opts_job, &opts_output_form, &opts_speech, NULL,
};

static const char *const examples[] = {
	"vdisk check disk.qcow2",
	"vdisk check --repair=all disk.qcow2",
	"vdisk check --plaintext disk.qcow2",
	"vdisk check --output=json disk.qcow2 | jq -r '.message // empty'",
	NULL,
};

/* ---- findings ------------------------------------------------------------------------------------------- */

/* How many were told of each kind: before the repair, and after it. */
struct lines {
	uint64_t n[2][KINDS_MAX];
};

static const char *severity_name(enum vd_severity s)
{
	static const char *const names[] = {
		[VD_SEVERITY_LEAK] = "leak", [VD_SEVERITY_CORRUPTION] = "corruption", [VD_SEVERITY_UNKNOWN] = "unknown",
	};

	return names[s];
}

static void print_json(const struct vd_finding *f)
{
	struct json_object *j = json_new();

	json_put_text(j, "type", "finding");
	json_put_text(j, "kind", vd_finding_name(f->kind));
	json_put_text(j, "severity", severity_name(f->severity));
	json_put_bool(j, "can-be-mended", f->can_mend);
	json_put_bool(j, "after-repair", f->remains);
	json_put_u64(j, "count", f->n);
	json_put_text(j, "file", f->file);
	if (f->has_entry)
		json_put_u64(j, "entry-offset", f->entry_off);
	if (f->has_host)
		json_put_u64(j, "host-offset", f->host_off);
	if (f->has_guest)
		json_put_u64(j, "guest-offset", f->guest_off);
	if (f->view)
		json_put_text(j, "snapshot", f->view);
	json_put_text(j, "message", f->text);
	json_print(j);
}

static void print_line(const struct vd_finding *f)
{
	enum ui_colour colour = f->severity == VD_SEVERITY_LEAK ? UI_YELLOW : UI_RED;

	ui_line("%s%s%s%s: %s%s", f->remains ? "left: " : "", ui_colour(colour), severity_name(f->severity), ui_colour(UI_PLAIN),
		f->text, f->can_mend || f->severity != VD_SEVERITY_CORRUPTION ? "" : " (cannot be mended)");
}

static int on_finding(void *ctx, const struct vd_finding *f)
{
	struct lines *l = ctx;
	uint64_t *n = &l->n[f->remains][f->kind % KINDS_MAX];

	if (ui_is_json())
		print_json(f);
	else if (*n < LINES_MAX)
		print_line(f);
	++*n;
	return 0;
}

static void print_unsaid(const struct lines *l)
{
	for (int after = 0; after < 2; after++)
		for (int kind = 0; kind < KINDS_MAX; kind++)
			if (l->n[after][kind] > LINES_MAX && !ui_is_json())
				ui_line("%s%llu more of the kind \"%s\": --output=json tells them all", after ? "left: " : "",
					(unsigned long long)(l->n[after][kind] - LINES_MAX), vd_finding_name(kind));
}

/* ---- the sum -------------------------------------------------------------------------------------------- */

/* With the keys of qemu-img check. */
static void print_json_summary(const struct settings *s, const struct vd_info *info, const struct vd_check_report *rep)
{
	struct json_object *j = json_new();

	json_put_text(j, "type", "summary");
	json_put_text(j, "verb", "check");
	json_put_text(j, "image", s->operands[0]);
	json_put_text(j, "filename", s->operands[0]);
	json_put_text(j, "format", info->format);
	json_put_u64(j, "check-errors", rep->check_errors);
	json_put_u64(j, "corruptions", rep->corruptions);
	json_put_u64(j, "leaks", rep->leaks);
	json_put_u64(j, "corruptions-fixed", rep->corruptions_fixed);
	json_put_u64(j, "leaks-fixed", rep->leaks_fixed);
	json_put_u64(j, "corruptions-not-mendable", rep->not_mendable);
	json_put_bool(j, "changed", rep->changed);
	json_put_bool(j, "consistent", !s->force_share);
	json_put_u64(j, "image-end-offset", rep->image_end_offset);
	if (rep->has_clusters) {
		json_put_u64(j, "total-clusters", rep->total_clusters);
		json_put_u64(j, "allocated-clusters", rep->allocated_clusters);
		json_put_u64(j, "fragmented-clusters", rep->fragmented_clusters);
		json_put_u64(j, "compressed-clusters", rep->compressed_clusters);
	}
	json_print(j);
}

static const char *plural(uint64_t n)
{
	return n == 1 ? "" : "s";
}

static void print_counts(const struct settings *s, const struct vd_check_report *rep)
{
	const char *image = s->operands[0];

	if (rep->corruptions_fixed)
		ui_summary("%s: mended %llu fault%s", image, (unsigned long long)rep->corruptions_fixed,
			   plural(rep->corruptions_fixed));
	if (rep->leaks_fixed)
		ui_summary("%s: gave back %llu leaked cluster%s", image, (unsigned long long)rep->leaks_fixed,
			   plural(rep->leaks_fixed));
	if (rep->check_errors)
		ui_summary("%s: the check is not complete: %llu table%s could not be read", image,
			   (unsigned long long)rep->check_errors, plural(rep->check_errors));
	if (rep->corruptions || rep->leaks)
		ui_summary("%s: %llu fault%s, %llu leaked cluster%s", image, (unsigned long long)rep->corruptions,
			   plural(rep->corruptions), (unsigned long long)rep->leaks, plural(rep->leaks));
	else if (!rep->check_errors)
		ui_summary("%s: no faults", image);
}

static double percent(uint64_t part, uint64_t of)
{
	return of ? 100.0 * (double)part / (double)of : 0;
}

static void print_use(const struct vd_info *info, const struct vd_check_report *rep)
{
	if (!rep->has_clusters)
		return;
	ui_summary("%llu of %llu clusters of %s hold data (%.1f %%), of these %.1f %% compressed, %.1f %% out of line",
		   (unsigned long long)rep->allocated_clusters, (unsigned long long)rep->total_clusters,
		   size_show(info->cluster_size).s, percent(rep->allocated_clusters, rep->total_clusters),
		   percent(rep->compressed_clusters, rep->allocated_clusters),
		   percent(rep->fragmented_clusters, rep->allocated_clusters));
}

static void advise(const struct settings *s, const struct vd_check_report *rep)
{
	uint64_t mendable = rep->corruptions - rep->not_mendable;

	if (ui_is_json() || rep->check_errors)
		return;
	if (!s->repair && mendable)
		ui_note("--repair=all mends %s; keep a copy of the image first", rep->not_mendable ? "what can be mended" : "all of it");
	else if (!s->repair && rep->leaks && !rep->corruptions)
		ui_note("leaks cost space and nothing else; --repair=leaks gives it back");
	else if (s->repair == VD_REPAIR_LEAKS && rep->corruptions)
		ui_note("nothing was given back: what is broken may want what looks unused; --repair=all mends the rest first");
	else if (s->repair && rep->leaks && !rep->corruptions)
		ui_note("what looks unused was kept, since an entry may have lost it; --repair=leaks gives it back");
	else if (rep->not_mendable)
		ui_note("what cannot be mended was left as it is: restore these parts of the disk from a backup");
}

static void print_all(const struct settings *s, const struct lines *lines, const struct vd_info *info,
		      const struct vd_check_report *rep)
{
	print_unsaid(lines);
	if (ui_is_json()) {
		print_json_summary(s, info, rep);
		return;
	}
	print_counts(s, rep);
	print_use(info, rep);
	advise(s, rep);
}

static int status_of(const struct vd_check_report *rep)
{
	if (rep->corruptions)
		return CHECK_FAULTS;
	if (rep->check_errors)
		return CHECK_INCOMPLETE;
	return rep->leaks ? CHECK_LEAKS : 0;
}

/* ---- the whole ------------------------------------------------------------------------------------------ */

static int open_image(const struct settings *s, struct vd_image **img, struct vd_error *e)
{
	return s->repair ? source_open_repair(s, s->operands[0], s->format, img, e) :
			   source_open_tables(s, s->operands[0], s->format, img, e);
}

static int check(const struct settings *s, struct vd_image *img, struct lines *lines, struct vd_check_report *rep,
		 struct vd_error *e)
{
	struct vd_job job = progress_start(s, "check");
	int r = vd_image_check(img, (enum vd_repair)s->repair, on_finding, lines, &job, rep, e);

	progress_end();
	return r;
}

static int check_tables(const struct settings *s, struct vd_error *e)
{
	struct vd_check_report rep = { .struct_size = sizeof(rep) };
	struct lines lines = { 0 };
	struct vd_image *img = NULL;
	struct vd_info info;
	int r = open_image(s, &img, e);

	if (r == 0)
		r = source_info(img, &info, e);
	if (r == 0)
		r = check(s, img, &lines, &rep, e);
	if (r == 0)
		print_all(s, &lines, &info, &rep);
	if (r == 0 && s->repair)
		r = vd_image_close(img, e);
	else
		vd_image_abort(img);
	return r < 0 ? r : status_of(&rep);
}

static int run(struct settings *s, struct vd_error *e)
{
	if (s->scrub && !s->plaintext)
		return fail(e, VD_EARG, "--scrub goes with --plaintext: a check of the tables overwrites nothing");
	if (s->repair && s->plaintext)
		return fail(e, VD_EARG, "--repair and --plaintext are two different checks: repair first");
	return s->plaintext ? plaintext_check(s, e) : check_tables(s, e);
}

const struct verb verb_check = {
	.name = "check",
	.operands = "IMAGE",
	.min_operands = 1,
	.max_operands = 1,
	.summary = "look for faults in an image's tables, and mend them",
	.about = "Reads all tables of IMAGE and tells where they contradict each other. Writes nothing unless --repair is "
		 "given. A repair never changes which bytes the guest reads; what cannot be mended is told and left alone. "
		 "What the disk itself holds is not looked at but by --plaintext, which reads every byte of an encrypted image's "
		 "files and tells what is no ciphertext: compressed clusters, what is left in freed space and padding.",
	.groups = groups,
	.examples = examples,
	.run = run,
};
