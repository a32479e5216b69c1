/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdisk verify: does a repository still hold what was put into it? The levels are in backup/verify*.c; here are options, words and the receipt. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backup/crew.h"
#include "backup/repair.h"
#include "backup/snapshot.h"
#include "backup/verify.h"
#include "backup/verify_state.h"
#include "fail.h"
#include "json.h"
#include "ledger/acts.h"
#include "progress.h"
#include "repository.h"
#include "sizes.h"
#include "source.h"
#include "ui.h"
#include "verbs.h"

#define WHERE(member) offsetof(struct settings, member)
#define FAULTS_KEPT 1000                /* in the receipt, which is one line */
#define PROVEN_KEPT 5000

static const struct opt_choice levels[] = {
	{ "head", VERIFY_HEAD + 1 }, { "presence", VERIFY_PRESENCE + 1 }, { "packs", VERIFY_PACKS + 1 }, { "data", VERIFY_DATA + 1 },
	{ NULL, 0 },
};
static const struct opt how_options[] = {
	{ .name = "level", .letter = 'l', .kind = OPT_CHOICE, .where = WHERE(verify.level), .arg = "LEVEL", .choices = levels,
	  .help = "how much is read: head, presence, packs, data (default; without a key: packs)" },
	{ .name = "keyless", .kind = OPT_FLAG, .where = WHERE(verify.keyless), .help = "ask for no key: only what can be seen without" },
	{ .name = "repair", .kind = OPT_FLAG, .where = WHERE(verify.repair),
	  .help = "mend what is found, at level data: what bad packs still hold, and SOURCE, goes into new ones" },
	{ .name = "source", .kind = OPT_TEXT, .where = WHERE(verify.source), .arg = "IMAGE",
	  .help = "repair: an image that may still hold the blocks that are lost" },
	{ .name = "quarantine", .kind = OPT_TEXT, .where = WHERE(verify.quarantine), .arg = "FOLDER",
	  .help = "repair: bad packs are put there" },
	{ .name = "budget", .kind = OPT_TEXT, .where = WHERE(verify.budget), .arg = "TIME",
	  .help = "read packs for so long, 90s, 10m, 2h: those first that were verified longest ago" },
	{ 0 },
};
static const struct opt_group how_group = { "Verify", how_options };

static const struct opt trust_options[] = {
	{ .name = "allowed-signers", .kind = OPT_TEXT, .where = WHERE(cert.allowed_signers), .arg = "FILE",
	  .help = "whose keys may have signed the receipts; without it unsigned ones are believed" },
	{ .name = "sign-key", .kind = OPT_TEXT, .where = WHERE(cert.sign_key), .arg = "KEY",
	  .help = "sign the receipt with this Ed25519 key of OpenSSH, or the agent's for a public one" },
	{ 0 },
};
static const struct opt_group trust_group = { "Receipts", trust_options };

static const struct opt_group *const groups[] = {
	&opts_repo, &opts_keys, &how_group, &trust_group, &opts_job, &opts_output_form, &opts_speech, NULL,
};

static const char *const examples[] = {
	"vdisk verify --repo /backup/vms --passphrase-file pw",
	"vdisk verify --repo /backup/vms --passphrase-file pw --budget 10m",
	"vdisk verify --repo /backup/vms --passphrase-file pw --repair --source mail.qcow2 --quarantine /backup/bad",
	"vdisk verify --repo rest:https://backup.example.org/vms --rest-credentials cred --keyless --level packs",
	NULL,
};

struct run {
	const struct settings *s;
	struct repository r;
	struct verify v;
	enum verify_level level;
	char state_path[4096];
	struct signer signer;
	time_t began;
	double seconds;
	struct json_object *faults;     /* for the receipt */
	struct repair repair;
};

/* ---- words ---------------------------------------------------------------------------------------------- */

static struct json_object *fault_of(const struct verify_fault *f)
{
	struct json_object *j = json_new();

	json_put_text(j, "kind", verify_fault_name(f->kind));
	json_put_bool(j, "harmless", f->is_harmless);
	if (f->object[0])
		json_put_text(j, "object", f->object);
	json_put_text(j, "text", f->text);
	return j;
}

static void on_fault(void *ctx, const struct verify_fault *f)
{
	struct run *q = ctx;
	struct json_object *j;

	if (json_object_array_length(q->faults) < FAULTS_KEPT)
		json_add(q->faults, fault_of(f));
	if (!ui_is_json()) {
		ui_line("%s%s%s: %s", ui_colour(f->is_harmless ? UI_YELLOW : UI_RED), verify_fault_name(f->kind), ui_colour(UI_PLAIN), f->text);
		return;
	}
	j = fault_of(f);
	json_put_text(j, "type", "fault");
	json_print(j);
}

static struct json_object *result_of(const struct run *q)
{
	struct json_object *j = json_new();

	json_put_text(j, "level", levels[q->level].name);
	json_put_bool(j, "with-key", q->v.repo != NULL);
	json_put_u64(j, "snapshots", q->v.snapshots);
	json_put_u64(j, "packs", q->v.packs);
	json_put_u64(j, "packs-read", q->v.packs_read);
	json_put_u64(j, "bytes-read", q->v.bytes_read);
	json_put_u64(j, "faults", q->v.faults);
	json_put_u64(j, "harmless", q->v.harmless);
	if (q->s->verify.repair) {
		json_put_u64(j, "packs-put-aside", q->repair.put_aside);
		json_put_u64(j, "blobs-kept", q->repair.kept);
		json_put_u64(j, "blobs-from-source", q->repair.remade);
		json_put_u64(j, "blobs-lost", q->repair.lost);
	}
	return j;
}

static void tell(const struct run *q)
{
	struct json_object *j;

	if (ui_is_json()) {
		j = result_of(q);
		json_put_text(j, "type", "summary");
		json_put_text(j, "verb", "verify");
		json_put_text(j, "repository", q->s->backup.repo);
		json_put(j, "seconds", json_object_new_double(q->seconds));
		json_print(j);
		return;
	}
	ui_summary("%s: level %s, %llu snapshots, %llu of %llu packs read, %s in %.2f s; %s", q->s->backup.repo, levels[q->level].name,
		   (unsigned long long)q->v.snapshots, (unsigned long long)q->v.packs_read, (unsigned long long)q->v.packs,
		   size_show((double)q->v.bytes_read).s, q->seconds, q->v.faults ? "not sound" : "what was looked at is sound");
}

/* ---- receipt -------------------------------------------------------------------------------------------- */

/* The snapshots of which every byte was read and nothing was lost, newest first: forget keeps the last of them. */
static void put_proven(const struct run *q, struct json_object *body)
{
	struct json_object *list = json_put_array(body, "proven");
	struct snapshots all = { 0 };
	struct vd_error ignored;

	if (!q->v.repo || q->level < VERIFY_DATA || q->v.faults || q->v.packs_read < q->v.packs ||
	    snapshots_load(q->v.repo, NULL, NULL, &all, &ignored) < 0)
		return;
	for (size_t i = 0; i < all.n && i < PROVEN_KEPT; i++)
		json_add(list, json_text(all.at[i].name));
	snapshots_free(&all);
}

static int give_receipt(struct run *q, struct vd_error *e)
{
	struct json_object *body;
	struct book *book = NULL;
	char began[40];
	bool off = false;
	int r = ledger_open(&book, e);

	if (r == 0)
		r = ledger_is_off(book, &off, e);
	if (r < 0 || off) {
		book_close(book);
		return r;
	}
	time_show(q->began, 0, began);
	body = result_of(q);
	if (q->v.repo)
		json_put_text(body, "repository", repo_id(q->v.repo));
	json_put_text(body, "where", q->s->backup.repo);
	json_put_text(body, "began", began);
	json_put(body, "found", json_object_get(q->faults));
	json_put_bool(body, "passed", !q->v.faults);
	put_proven(q, body);
	r = book_append(book, "verify", body, q->s->cert.sign_key ? &q->signer : NULL, NULL, e);
	book_close(book);
	json_object_put(body);
	return r;
}

/* ---- levels --------------------------------------------------------------------------------------------- */

static int run_head(struct run *q, struct vd_error *e)
{
	struct verify_trust trust = { .allowed = q->s->cert.allowed_signers, .where = q->s->backup.repo };
	int r = ledger_open(&trust.book, e);

	if (r == 0)
		r = verify_head(&q->v, &trust, e);
	book_close(trust.book);
	if (r != VD_ENOENT || q->level == VERIFY_HEAD)
		return r;
	ui_note("%s: whether snapshots are missing, or it was set back, nobody can tell", e->message);
	return 0;
}

static int run_levels(struct run *q, struct vd_error *e)
{
	int r = run_head(q, e);

	if (r == 0 && q->level >= VERIFY_PRESENCE)
		r = verify_presence(&q->v, e);
	if (r == 0 && q->level >= VERIFY_PACKS)
		r = verify_packs(&q->v, q->level == VERIFY_PACKS ? VERIFY_PACKS : VERIFY_DATA, e);
	if (r == 0 && q->v.repo && q->v.n_bad_packs)
		r = verify_hits(&q->v, e);
	if (r == 0 && !q->v.repo && q->v.n_bad_packs)
		ui_note("which snapshots that hits can be told with the key alone");
	return r;
}

static int mend(struct run *q, struct vd_error *e)
{
	struct keys keys = { 0 };
	int r = 0;

	q->repair.v = &q->v;
	q->repair.quarantine = q->s->verify.quarantine;
	if (q->s->verify.source)
		r = source_open(q->s, q->s->verify.source, q->s->format, &keys, &q->repair.source, e);
	if (r == 0)
		r = repair_run(&q->repair, e);
	if (q->repair.source && vd_image_close(q->repair.source, r < 0 ? NULL : e) < 0 && r == 0)
		r = e->code;
	secrets_free(&keys);
	if (r == 0 && !ui_is_json())
		ui_summary("%llu bad packs put aside: %llu blobs were still whole, %llu are from the source, %llu are lost",
			   (unsigned long long)q->repair.put_aside, (unsigned long long)q->repair.kept, (unsigned long long)q->repair.remade,
			   (unsigned long long)q->repair.lost);
	return r;
}

static int open_state(struct run *q, struct vd_error *e)
{
	const char *id = q->v.repo ? repo_id(q->v.repo) : "keyless";
	char folder[4000];
	int r;

	if (q->level < VERIFY_PACKS)
		return 0;
	r = ledger_folder(folder, sizeof(folder), e);
	if (r < 0)
		return r;
	snprintf(q->state_path, sizeof(q->state_path), "%s/verified-%.64s", folder, id);
	return verify_state_open(q->state_path, &q->v.state, e);
}

/* "90", "90s", "10m", "2h". */
static int read_budget(const char *text, double *seconds, struct vd_error *e)
{
	char *end;

	errno = 0;
	*seconds = strtod(text, &end);
	if (*end == 'm' || *end == 'h')
		*seconds *= *end == 'm' ? 60 : 3600;
	if (*end && strchr("smh", *end))
		end++;
	if (end != text && !*end && !errno && *seconds > 0 && *seconds < 1e9)
		return 0;
	return fail(e, VD_EARG, "--budget=%s: a time is wanted, as 90s, 10m or 2h", text);
}

static int judge(const struct settings *s, struct run *q, struct vd_error *e)
{
	q->level = s->verify.level ? (enum verify_level)(s->verify.level - 1) : s->verify.keyless ? VERIFY_PACKS : VERIFY_DATA;
	if (s->verify.repair && (q->level < VERIFY_DATA || s->verify.budget || !s->verify.quarantine)) {
		fail(e, VD_EARG, "--repair mends what level data finds in all packs, and puts bad ones aside");
		return fail_hint(e, VD_EARG, "--quarantine FOLDER says where to; --budget does not go with it");
	}
	if (s->verify.keyless && q->level > VERIFY_PACKS)
		return fail(e, VD_EARG, "--keyless: data cannot be opened without the key");
	return s->verify.budget ? read_budget(s->verify.budget, &q->v.budget, e) : 0;
}

static int open_all(struct run *q, struct vd_error *e)
{
	int r = q->s->verify.keyless ? repository_open_store(q->s, &q->r, e) : repository_open(q->s, q->s->verify.repair ? REPOSITORY_EXCLUSIVE : REPOSITORY_SHARED, &q->r, e);

	if (r == 0 && q->s->cert.sign_key)
		r = signer_open(q->s->cert.sign_key, &q->signer, e);
	if (r == 0 && q->r.repo)
		r = repo_load_index(q->r.repo, e);
	q->v.store = q->r.store;
	q->v.repo = q->r.repo;
	return r < 0 ? r : open_state(q, e);
}

static int run_all(struct run *q, struct vd_error *e)
{
	struct vd_error late;
	int r, c = 0;

	q->began = time(NULL);
	q->v.job = progress_start(q->s, "verify");
	r = run_levels(q, e);
	q->seconds = progress_end();
	/* What was done is done, even when the rest was stopped. */
	if (q->v.state)
		c = verify_state_save(q->v.state, q->state_path, r < 0 ? &late : e);
	if (r < 0)
		return r;
	if (q->s->verify.repair && q->v.n_bad_packs)
		r = mend(q, e);
	tell(q);
	c = c < 0 ? c : give_receipt(q, r < 0 ? &late : e);
	if (r < 0)
		return r;
	if (c < 0 || !q->v.faults)
		return c;
	fail(e, VD_EMISMATCH, "%s: %llu faults", q->s->backup.repo, (unsigned long long)q->v.faults);
	if (q->s->verify.repair)
		return fail_hint(e, VD_EMISMATCH, "verify again: what is still lost, the next backup of its source brings back");
	return fail_hint(e, VD_EMISMATCH, "keep the repository as it is, and back up what still can be, before anything is mended");
}

static int run(struct settings *s, struct vd_error *e)
{
	struct run q = { .s = s, .faults = json_object_new_array() };
	int r;

	q.v.threads = crew_size((unsigned)s->threads);
	q.v.found = on_fault;
	q.v.ctx = &q;
	r = judge(s, &q, e);
	if (r == 0) {
		verify_begin(&q.v);
		r = open_all(&q, e);
		if (r == 0)
			r = run_all(&q, e);
		verify_end(&q.v);
	}
	if (s->cert.sign_key)
		signer_close(&q.signer);
	verify_state_free(q.v.state);
	repository_close(&q.r);
	json_object_put(q.faults);
	return r;
}

const struct verb verb_verify = {
	.name = "verify",
	.operands = "",
	.summary = "find out whether a repository still holds its backups",
	.about = "Level by level: head holds the list of snapshots against the receipts in the ledger, presence looks whether all that is named is there, "
		 "packs hashes all that is stored, which needs no key, data opens all of it. Each level includes those before. All that is wrong is "
		 "told, and each snapshot that it hits.",
	.groups = groups,
	.examples = examples,
	.run = run,
};
