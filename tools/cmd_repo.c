/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdisk repo: makes a repository of backups, looks whether what it names is there, takes stale locks away. */
#include <string.h>

#include "backup/check.h"
#include "fail.h"
#include "json.h"
#include "progress.h"
#include "repository.h"
#include "sizes.h"
#include "ui.h"
#include "verbs.h"

#define WHERE(member) offsetof(struct settings, member)

static const struct opt unlock_options[] = {
	{ .name = "all", .kind = OPT_FLAG, .where = WHERE(backup.all_locks),
	  .help = "unlock: take all locks away, also those of processes that may be at work" },
	{ 0 },
};
static const struct opt_group unlock_group = { "Locks", unlock_options };

static const struct opt_group *const groups[] = {
	&opts_repo, &opts_keys, &unlock_group, &opts_progress, &opts_output_form, &opts_speech, NULL,
};

static const char *const examples[] = {
	"vdisk repo init --repo /backup/vms --passphrase-file pw",
	"vdisk repo check --repo /backup/vms --passphrase-file pw",
	"vdisk repo unlock --repo /backup/vms --passphrase-file pw",
	NULL,
};

/* ---- init ----------------------------------------------------------------------------------------------- */

static int init(struct settings *s, struct repository *r, struct vd_error *e)
{
	struct json_object *j;
	int c;

	/* It is the key of something new, by the same options. */
	s->new_keys = s->keys;
	c = repository_create(s, r, e);
	if (c < 0)
		return c;
	if (!ui_is_json()) {
		ui_summary("%s: a new repository, %.8s", s->backup.repo, repo_id(r->repo));
		ui_note("without its key nothing in it can be read again: keep it where the repository is not");
		return 0;
	}
	j = json_new();
	json_put_text(j, "type", "summary");
	json_put_text(j, "verb", "repo");
	json_put_text(j, "act", "init");
	json_put_text(j, "repository", s->backup.repo);
	json_put_text(j, "id", repo_id(r->repo));
	json_print(j);
	return 0;
}

/* ---- check ---------------------------------------------------------------------------------------------- */

static int on_fault(void *ctx, const struct check_fault *f)
{
	struct json_object *j;

	(void)ctx;
	if (!ui_is_json()) {
		ui_line("%s%s%s: %s", ui_colour(f->is_harmless ? UI_YELLOW : UI_RED), check_fault_name(f->kind), ui_colour(UI_PLAIN), f->text);
		return 0;
	}
	j = json_new();
	json_put_text(j, "type", "fault");
	json_put_text(j, "kind", check_fault_name(f->kind));
	json_put_bool(j, "harmless", f->is_harmless);
	json_put_text(j, "text", f->text);
	json_print(j);
	return 0;
}

static int check(struct settings *s, struct repository *r, struct vd_error *e)
{
	struct check_report found = { 0 };
	struct vd_job job;
	struct json_object *j;
	int c = repository_open(s, REPOSITORY_SHARED, r, e);

	if (c < 0)
		return c;
	job = progress_start(s, "check");
	c = check_run(r->repo, on_fault, NULL, &job, &found, e);
	progress_end();
	if (c < 0)
		return c;
	if (ui_is_json()) {
		j = json_new();
		json_put_text(j, "type", "summary");
		json_put_text(j, "verb", "repo");
		json_put_text(j, "act", "check");
		json_put_u64(j, "snapshots", found.snapshots);
		json_put_u64(j, "packs", found.packs);
		json_put_u64(j, "blobs", found.blobs);
		json_put_u64(j, "stored", found.stored);
		json_put_u64(j, "faults", found.faults);
		json_print(j);
	} else {
		ui_summary("%s: %llu snapshots, %llu packs, %llu blobs, %s; %s", s->backup.repo, (unsigned long long)found.snapshots,
			   (unsigned long long)found.packs, (unsigned long long)found.blobs, size_show((double)found.stored).s,
			   found.faults ? "not sound" : "all that is named is there");
	}
	if (!found.faults)
		return 0;
	fail(e, VD_EMISMATCH, "%s: %llu faults", s->backup.repo, (unsigned long long)found.faults);
	return fail_hint(e, VD_EMISMATCH, "which snapshots they hit, and what of them can be mended: vdisk verify");
}

/* ---- unlock --------------------------------------------------------------------------------------------- */

struct unlocking {
	struct repo *repo;
	bool all;
	uint64_t removed, left;
	struct vd_error *e;
};

static int unlock_one(void *ctx, const struct repo_lock_info *l)
{
	struct unlocking *u = ctx;
	int r;

	if (!l->is_stale && !u->all) {
		u->left++;
		return 0;
	}
	r = store_remove(repo_store(u->repo), STORE_LOCK, l->name, u->e);
	u->removed += r == 0;
	return r == VD_ENOENT ? 0 : r;
}

static int unlock(struct settings *s, struct repository *r, struct vd_error *e)
{
	struct unlocking u = { .all = s->backup.all_locks, .e = e };
	struct json_object *j;
	int c = repository_open(s, REPOSITORY_UNLOCKED, r, e);

	u.repo = r->repo;
	if (c == 0)
		c = repo_each_lock(r->repo, unlock_one, &u, e);
	if (c < 0)
		return c;
	if (!ui_is_json()) {
		ui_summary("%s: %llu locks taken away, %llu of processes at work left", s->backup.repo, (unsigned long long)u.removed,
			   (unsigned long long)u.left);
		return 0;
	}
	j = json_new();
	json_put_text(j, "type", "summary");
	json_put_text(j, "verb", "repo");
	json_put_text(j, "act", "unlock");
	json_put_u64(j, "removed", u.removed);
	json_put_u64(j, "left", u.left);
	json_print(j);
	return 0;
}

static const struct act {
	const char *word;
	int (*run)(struct settings *s, struct repository *r, struct vd_error *e);
} acts[] = { { "init", init }, { "check", check }, { "unlock", unlock } };

static int run(struct settings *s, struct vd_error *e)
{
	struct repository r = { 0 };

	for (size_t i = 0; i < sizeof(acts) / sizeof(acts[0]); i++)
		if (!strcmp(acts[i].word, s->operands[0])) {
			int c = acts[i].run(s, &r, e);

			repository_close(&r);
			return c;
		}
	return fail(e, VD_EARG, "repo: '%s' is not init, check or unlock", s->operands[0]);
}

const struct verb verb_repo = {
	.name = "repo",
	.operands = "init|check|unlock --repo REPO",
	.min_operands = 1,
	.max_operands = 1,
	.summary = "make, check and unlock a repository of backups",
	.about = "A repository is one of restic, version 2: restic reads, checks and prunes it, too. check looks at all indexes, packs, "
		 "snapshots and trees, and that everything they name is there; what lies in the packs, vdisk verify reads.",
	.groups = groups,
	.examples = examples,
	.run = run,
};
