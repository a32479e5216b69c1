/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdisk wipe: retires disks and machines, and says what may be said of it. The work is done in wipe/. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "exit.h"
#include "fail.h"
#include "json.h"
#include "progress.h"
#include "signals.h"
#include "sizes.h"
#include "ui.h"
#include "verbs.h"
#include "wipe/children.h"
#include "wipe/discover.h"
#include "wipe/inuse.h"
#include "wipe/paper.h"
#include "wipe/partial.h"
#include "wipe/run.h"
#include "wipe/state.h"

#define WHERE(member) offsetof(struct settings, member)
#define DEPTH_DEFAULT 4

static const struct opt what[] = {
	{ .name = "dry-run", .kind = OPT_FLAG, .where = WHERE(wipe.dry_run),
	  .help = "show what belongs to it, and the ID for --confirm; write nothing" },
	{ .name = "confirm", .kind = OPT_TEXT, .where = WHERE(wipe.confirm), .arg = "ID",
	  .help = "wipe without asking, if it is still what --dry-run gave this ID to" },
	{ .name = "keep-backing", .kind = OPT_FLAG, .where = WHERE(wipe.keep_backing), .help = "leave backing files as they are" },
	{ .name = "free", .kind = OPT_FLAG, .where = WHERE(wipe.free),
	  .help = "only what is nobody's in the image: freed, leaked, slack; the disk and its snapshots stay" },
	{ .name = "guest-free", .kind = OPT_FLAG, .where = WHERE(wipe.guest_free),
	  .help = "the same, and what its guest's file systems call free" },
	{ .name = "snapshot", .kind = OPT_TEXT, .where = WHERE(wipe.snapshot), .arg = "NAME",
	  .help = "delete this snapshot inside the image, and do the same" },
	{ .name = "also-scan", .kind = OPT_TEXTS, .where = WHERE(wipe.also_scan), .arg = "DIR",
	  .help = "look in and below DIR too for images that depend on it (may be repeated)" },
	{ .name = "force", .kind = OPT_FLAG, .where = WHERE(force),
	  .help = "even if images depend on it, or it has other names" },
	{ .name = "allow", .kind = OPT_TEXTS, .where = WHERE(allow), .arg = "DIR",
	  .help = "follow references to files below DIR too (may be repeated)" },
	{ 0 },
};
static const struct opt_group what_group = { "What", what };

static const struct opt_choice accepted[] = {
	{ "overwritten", WIPE_OVERWRITTEN }, { "not-assured", WIPE_NOT_ASSURED }, { NULL, 0 },
};
static const struct opt how[] = {
	{ .name = "profile", .kind = OPT_TEXT, .where = WHERE(wipe.profile), .arg = "NAME",
	  .help = "clear (default: once, random), zero, gb46864, dod3, bmb21, or custom=00,ff,random" },
	{ .name = "verify", .kind = OPT_TEXT, .where = WHERE(wipe.verify), .arg = "HOW",
	  .help = "full (default), sample, sample=CONFIDENCE,FRACTION in per cent, or none" },
	{ .name = "accept", .kind = OPT_CHOICE, .where = WHERE(wipe.accept), .arg = "GRADE", .choices = accepted,
	  .help = "overwritten or not-assured is good enough: go on, and exit with 0" },
	{ .name = "crypto-erase", .kind = OPT_FLAG, .where = WHERE(wipe.crypto_erase),
	  .help = "overwrite the keys of encrypted disks only; needs --all-data-was-encrypted" },
	{ .name = "all-data-was-encrypted", .kind = OPT_FLAG, .where = WHERE(wipe.was_encrypted),
	  .help = "you say that no data ever lay there in clear, and that no copy of a header is kept" },
	{ .name = "publish-key", .kind = OPT_FLAG, .where = WHERE(wipe.publish_key),
	  .help = "put the pattern's key into the result, so that anybody can verify" },
	{ .name = "unlink", .kind = OPT_FLAG, .where = WHERE(wipe.unlink), .help = "remove the files when they are wiped" },
	{ 0 },
};
static const struct opt_group how_group = { "How", how };

static const struct opt work[] = {
	{ .name = "resume", .kind = OPT_FLAG, .where = WHERE(wipe.resume), .help = "go on with a wipe that was stopped or killed" },
	{ .name = "state", .kind = OPT_TEXT, .where = WHERE(wipe.state), .arg = "FILE",
	  .help = "where it is kept how far the wipe is (default: TARGET.vdisk-wipe; none for devices)" },
	{ .name = "bwlimit", .kind = OPT_SIZE, .where = WHERE(bwlimit), .arg = "BYTES", .help = "no more bytes than this a second" },
	{ .name = "depth", .kind = OPT_NUMBER, .where = WHERE(wipe.depth), .arg = "N", .min = 1, .max = 64,
	  .help = "requests at a time on one device (default 4)" },
	{ 0 },
};
static const struct opt_group work_group = { "Work", work };

static const struct opt paper[] = {
	{ .name = "certificate", .kind = OPT_TEXT, .where = WHERE(wipe.certificate), .arg = "FILE",
	  .help = "write a signed certificate, and FILE.sig; of a wipe that fails an incident record" },
	{ .name = "sign-key", .kind = OPT_TEXT, .where = WHERE(cert.sign_key), .arg = "KEY",
	  .help = "what signs it: a private key file, or a public one whose key ssh-agent has" },
	{ .name = "operator", .kind = OPT_TEXT, .where = WHERE(wipe.person), .arg = "NAME", .help = "who is responsible, for the certificate" },
	{ 0 },
};
static const struct opt_group paper_group = { "Certificate", paper };

static const struct opt_group *const groups[] = {
	&what_group, &opts_format, &opts_header, &opts_keys, &how_group, &work_group, &paper_group, &opts_progress, &opts_output_form, &opts_speech,
	NULL,
};

static const char *const examples[] = {
	"vdisk wipe --dry-run /vm/web/web.vmx",
	"vdisk wipe --unlink disk.qcow2",
	"vdisk wipe --confirm=3f6c0d1e8a92b745 --output=json disk.qcow2",
	"vdisk wipe --resume disk.qcow2",
	NULL,
};

/* ---- before ----------------------------------------------------------------------------------------------- */

static void state_path(const struct settings *s, char path[PATH_MAX])
{
	size_t n = strlen(s->operands[0]);
	struct stat st;

	path[0] = '\0';
	if (s->wipe.state) {
		snprintf(path, PATH_MAX, "%s", s->wipe.state);
		return;
	}
	if (stat(s->operands[0], &st) == 0 && S_ISBLK(st.st_mode)) {
		if (s->wipe.certificate)
			snprintf(path, PATH_MAX, "%s.vdisk-wipe", s->wipe.certificate);
		return;
	}
	while (n > 1 && s->operands[0][n - 1] == '/')
		n--;
	snprintf(path, PATH_MAX, "%.*s.vdisk-wipe", (int)n, s->operands[0]);
}

static int judge_erase(const struct settings *s, const struct wipe_set *set, struct vd_error *e)
{
	if (s->wipe.crypto_erase != s->wipe.was_encrypted)
		return fail(e, VD_EARG, "--crypto-erase and --all-data-was-encrypted go together");
	for (size_t i = 0; s->wipe.crypto_erase && i < set->n; i++) {
		if (!set->at[i].is_image || set->at[i].is_encrypted)
			continue;
		fail(e, EXIT_EREFUSED, "%s is not encrypted: its keys cannot be erased", set->at[i].path);
		return fail_hint(e, EXIT_EREFUSED, "without --crypto-erase it is overwritten");
	}
	return 0;
}

static int find_whole(const struct settings *s, struct wipe_record *rec, struct vd_error *e)
{
	int r = 0;

	for (size_t i = 0; i < s->n_operands && r == 0; i++)
		r = wipe_discover(s, s->operands[i], &rec->set, e);
	if (r == 0)
		r = judge_erase(s, &rec->set, e);
	return r < 0 ? r : wipe_judge_children(s, &rec->set, e);
}

static int find_part(const struct settings *s, struct wipe_run *run, struct vd_error *e)
{
	struct wipe_record *rec = &run->rec;

	if (s->n_operands > 1 || s->wipe.profile || s->wipe.crypto_erase || s->wipe.unlink)
		return fail(e, VD_EARG, "--free, --guest-free and --snapshot work on one image, with zeros, and leave it");
	if (rec->plan.verify == WIPE_VERIFY_SAMPLE)
		return fail(e, VD_EARG, "--free, --guest-free and --snapshot read back all or nothing");
	rec->plan.is_partial = true;
	rec->plan.passes[0] = (struct wipe_pass){ .is_random = false };
	snprintf(rec->plan.profile, sizeof(rec->plan.profile), "zero");
	snprintf(rec->snapshot, sizeof(rec->snapshot), "%s", s->wipe.snapshot ? s->wipe.snapshot : "");
	rec->guest_free = s->wipe.guest_free;
	return wipe_partial_find(s, s->operands[0], run, e);
}

static bool is_partial(const struct settings *s)
{
	return s->wipe.free || s->wipe.guest_free || s->wipe.snapshot;
}

static int find_set(const struct settings *s, struct wipe_run *run, struct vd_error *e)
{
	struct wipe_record *rec = &run->rec;
	int r = is_partial(s) ? find_part(s, run, e) : find_whole(s, rec, e);

	if (r == 0)
		r = wipe_judge_use(s, &rec->set, e);
	for (size_t i = 0; i < rec->set.n && r == 0; i++)
		r = wipe_member_probe(&rec->set.at[i], e);
	if (r == 0) {
		wipe_set_id(&rec->set, rec->confirm);
		rec->grade = wipe_grade_set(&rec->set, &rec->plan, false, &rec->findings);
	}
	return r;
}

static void print_findings(const struct wipe_record *rec)
{
	for (size_t i = 0; i < rec->findings.n; i++) {
		const struct wipe_finding *f = &rec->findings.at[i];
		const char *path = f->member == SIZE_MAX ? NULL : rec->set.at[f->member].path;

		ui_line("%s: %s%s%s", f->grade == WIPE_CLEARED ? "limit" : "because", path ? path : "", path ? ": " : "", f->text);
	}
}

static int print_dry_run(const struct wipe_record *rec)
{
	struct json_object *j;

	if (!ui_is_json()) {
		wipe_set_print(&rec->set);
		print_findings(rec);
		ui_line("best that can be reached: %s", wipe_grade_text(rec->grade));
		ui_line("nothing was written; to wipe it: --confirm=%s", rec->confirm);
		return 0;
	}
	j = json_new();
	json_put_text(j, "type", "summary");
	json_put_text(j, "verb", "wipe");
	json_put_bool(j, "dry-run", true);
	wipe_set_to_json(rec, j);
	json_print(j);
	return 0;
}

/* ---- consent ---------------------------------------------------------------------------------------------- */

static const char *name_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash && slash[1] ? slash + 1 : path;
}

static int ask(const struct settings *s, struct wipe_record *rec, struct vd_error *e)
{
	int r = 0;

	rec->consent = WIPE_BY_NAME;
	if (!ui_is_json())
		wipe_set_print(&rec->set);
	for (size_t i = 0; i < s->n_operands && r == 0; i++) {
		char question[PATH_MAX + 256];

		if (is_partial(s))
			snprintf(question, sizeof(question), "%s: what is nobody's in it%s will be overwritten%s%s", s->operands[i],
				 s->wipe.guest_free ? ", and what its guest calls free," : "",
				 s->wipe.snapshot ? ", and its snapshot is lost: " : "", s->wipe.snapshot ? s->wipe.snapshot : "");
		else
			snprintf(question, sizeof(question), "%s, all of %zu file%s as shown, will be overwritten and is lost then",
				 s->operands[i], rec->set.n, rec->set.n == 1 ? "" : "s");
		r = ui_confirm_name(question, name_of(s->operands[i]),
				    "without a terminal: --confirm=ID, with the ID that --dry-run prints", e);
	}
	return r;
}

static int get_consent(const struct settings *s, struct wipe_record *rec, struct vd_error *e)
{
	if (!s->wipe.confirm)
		return ask(s, rec, e);
	rec->consent = WIPE_BY_ID;
	if (!strcmp(s->wipe.confirm, rec->confirm))
		return 0;
	fail(e, EXIT_ECONFIRM, "--confirm=%s was not given for what is there now", s->wipe.confirm);
	return fail_hint(e, EXIT_ECONFIRM, "look at it again with --dry-run");
}

/* ---- after ------------------------------------------------------------------------------------------------ */

static void print_done(const struct settings *s, const struct wipe_run *run)
{
	const struct wipe_record *rec = &run->rec;
	uint64_t written = 0, verified = 0;
	struct json_object *j;

	if (ui_is_json()) {
		j = json_new();
		json_put_text(j, "type", "summary");
		json_put_text(j, "verb", "wipe");
		wipe_record_to_json(rec, run->key, j);
		json_print(j);
		return;
	}
	for (size_t i = 0; i < rec->set.n; i++) {
		written += rec->set.at[i].written + rec->set.at[i].erased_bytes;
		verified += rec->set.at[i].verified;
	}
	print_findings(rec);
	for (size_t i = 0; i < rec->set.n_notes; i++)
		ui_line("limit: %s", rec->set.notes[i]);
	ui_line("%s%s: %s%s; %s written, %s read back", s->operands[0], s->n_operands > 1 ? " and more" : "",
		ui_colour(rec->grade <= WIPE_CLEARED_CE ? UI_GREEN : rec->grade == WIPE_OVERWRITTEN ? UI_YELLOW : UI_RED),
		wipe_grade_text(rec->grade), size_show((double)written).s, size_show((double)verified).s);
}

static int status_of(const struct settings *s, const struct wipe_record *rec)
{
	bool can_accept = rec->grade == WIPE_OVERWRITTEN || rec->grade == WIPE_NOT_ASSURED;

	return can_accept && rec->grade <= (enum wipe_grade)s->wipe.accept ? 0 : wipe_grade_status(rec->grade);
}

static int wipe(struct settings *s, struct wipe_run *run, struct vd_error *e)
{
	struct vd_job job = progress_start(s, "wipe");
	int r;

	run->job = &job;
	run->accept = (enum wipe_grade)s->wipe.accept;
	run->unlinks = s->wipe.unlink;
	run->depth = s->wipe.depth ? (unsigned)s->wipe.depth : DEPTH_DEFAULT;
	run->bytes_per_second = s->bwlimit;
	run->rec.publish_key |= s->wipe.publish_key;
	r = is_partial(s) ? wipe_partial_run(s, run, e) : wipe_run(run, e);
	progress_end();
	if (r < 0)
		return r;
	print_done(s, run);
	/* Before the paper: its signing may take a person's finger on a token. */
	fflush(ui_results());
	return 0;
}

static int ready_to_begin(const struct settings *s, struct wipe_run *run, struct vd_error *e)
{
	struct wipe_record *rec = &run->rec;
	uint8_t id[16];
	int r = wipe_plan_parse(s->wipe.profile, s->wipe.verify, &rec->plan, e);

	rec->plan.erases_only = s->wipe.crypto_erase;
	rec->force = s->force;
	if (r == 0)
		r = find_set(s, run, e);
	if (r == 0)
		r = wipe_paper_judge_place(s, rec, run->state, e);
	if (r < 0 || s->wipe.dry_run)
		return r < 0 ? r : print_dry_run(rec);
	r = get_consent(s, rec, e);
	if (r == 0)
		r = wipe_random(run->key, sizeof(run->key), e);
	if (r == 0)
		r = wipe_random(id, sizeof(id), e);
	if (r == 0)
		r = signals_check(e);
	if (r < 0)
		return r;
	wipe_hex(id, sizeof(id), rec->run);
	rec->started = time(NULL);
	return 0;
}

static int ready_to_resume(struct wipe_run *run, struct vd_error *e)
{
	struct wipe_record *rec = &run->rec;
	int r = wipe_run_recognize(run, e);

	for (size_t i = 0; i < rec->set.n && r == 0; i++)
		r = rec->set.at[i].is_unlinked ? 0 : wipe_member_find_keeps(&rec->set.at[i], e);
	rec->consent = WIPE_BY_RESUME;
	rec->resumed++;
	return r;
}

static int refuse_unfinished(const struct wipe_run *run, struct vd_error *e)
{
	struct wipe_record theirs = { 0 };
	uint8_t key[WIPE_KEY_SIZE];
	struct vd_error ignored;
	struct stat st;
	int r;

	if (!run->state || lstat(run->state, &st))
		return 0;
	r = wipe_state_load(run->state, &theirs, key, &ignored);
	wipe_record_free(&theirs);
	if (r < 0) {
		fail(e, VD_EEXIST, "%s is there, and no state of a wipe", run->state);
		return fail_hint(e, VD_EEXIST, "--state=FILE keeps elsewhere how far the wipe is");
	}
	fail(e, VD_EHALFWAY, "%s is there: a wipe of this has begun and not ended", run->state);
	return fail_hint(e, VD_EHALFWAY, "--resume goes on with it; to begin anew, remove that file");
}

/* After a wipe that failed, too. Its state goes when the paper is there: a kill in between loses neither. */
static int end(const struct settings *s, struct wipe_run *run, const struct signer *signer, int r, struct vd_error *e)
{
	struct vd_error ignored, *mine = r < 0 ? &ignored : e;
	int done = 0;

	if (run->rec.paper.file[0])
		done = wipe_paper_write(&run->rec, run->key, signer, mine);
	if (done < 0 && r < 0)
		ui_note("and the record of that is missing: %s", mine->message);
	else if (done < 0 && run->state)
		fail_hint(e, done, "the wipe has ended, and only this paper is missing: --resume writes it, with --certificate=FILE elsewhere");
	else if (done < 0)
		fail_hint(e, done, "the wipe has ended, and only this paper is missing: what was printed is its record");
	if (done == 0 && r == 0)
		done = wipe_run_end(run, e);
	if (r < 0 || done < 0)
		return r < 0 ? r : done;
	if (run->rec.grade == WIPE_INCOMPLETE && run->state && !run->rec.set.is_stopped)
		ui_note("it goes on with: vdisk wipe --resume");
	return status_of(s, &run->rec);
}

/* A kill came between the certificate and the end: it says all. */
static int end_written(const struct settings *s, struct wipe_run *run, struct vd_error *e)
{
	struct wipe_record *rec = &run->rec;
	int r;

	rec->grade = wipe_grade_set(&rec->set, &rec->plan, true, &rec->findings);
	print_done(s, run);
	if (!ui_is_json())
		ui_summary("%s: the certificate was written already", rec->paper.file);
	r = wipe_run_end(run, e);
	return r < 0 ? r : status_of(s, rec);
}

static int judge_resume(const struct settings *s, const struct wipe_run *run, struct vd_error *e)
{
	if (s->wipe.dry_run || s->wipe.confirm || s->wipe.profile || s->wipe.verify || s->wipe.crypto_erase || is_partial(s))
		return fail(e, VD_EARG, "--resume goes on as the wipe was begun: other ways cannot be asked for");
	return run->state ? 0 : fail(e, VD_EARG, "--resume of a device takes the --state, or the --certificate, of the wipe");
}

static int prepare(const struct settings *s, struct wipe_run *run, struct signer *signer, bool *is_written, struct vd_error *e)
{
	struct wipe_record *rec = &run->rec;
	int r = s->wipe.resume ? judge_resume(s, run, e) : refuse_unfinished(run, e);

	if (r == 0 && s->wipe.resume)
		r = wipe_state_load(run->state, rec, run->key, e);
	if (r == VD_ENOENT && s->wipe.resume)
		return fail_hint(e, r, "no wipe of it was begun, or it has ended");
	if (r == 0)
		r = wipe_paper_order(s, &rec->paper, signer, e);
	return r < 0 ? r : wipe_paper_judge_new(rec, s->wipe.resume, is_written, e);
}

static int run(struct settings *s, struct vd_error *e)
{
	struct wipe_run *w = calloc(1, sizeof(*w));
	struct signer signer = { 0 };
	struct keys keys = { 0 };
	bool is_written = false;
	char state[PATH_MAX];
	int r;

	if (!w)
		ui_out_of_memory();
	w->keys = &keys;
	state_path(s, state);
	w->state = state[0] && !is_partial(s) ? state : NULL;
	r = prepare(s, w, &signer, &is_written, e);
	if (r == 0 && is_written)
		r = end_written(s, w, e);
	else if (r == 0)
		r = s->wipe.resume ? ready_to_resume(w, e) : ready_to_begin(s, w, e);
	if (r == 0 && !is_written && !s->wipe.dry_run) {
		r = wipe(s, w, e);
		r = end(s, w, &signer, r, e);
	}
	signer_close(&signer);
	secrets_free(&keys);
	wipe_record_free(&w->rec);
	free(w);
	return r;
}

const struct verb verb_wipe = {
	.name = "wipe",
	.operands = "TARGET...",
	.min_operands = 1,
	.max_operands = OPERANDS_MAX,
	.summary = "overwrite disks and machines, and tell what is left",
	.about = "TARGET is an image, with all files and backing files of it; a machine's .vmx or libvirt .xml, or its folder; or a "
		 "block device. All that is allocated is overwritten where it lies, keys first, and read back. What cannot be "
		 "reached by overwriting is named, and the grade says what may be relied on. Asks for TARGET's name first.",
	.groups = groups,
	.examples = examples,
	.run = run,
};
