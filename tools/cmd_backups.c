/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdisk backups: what is in a repository, what differs between two snapshots, and which of them are forgotten. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/retention.h"
#include "backup/snapshot.h"
#include "fail.h"
#include "json.h"
#include "ledger/acts.h"
#include "pickitem.h"
#include "repository.h"
#include "signals.h"
#include "sizes.h"
#include "snapshotdiff.h"
#include "ui.h"
#include "verbs.h"

#define WHERE(member) offsetof(struct settings, member)

static const struct opt which_options[] = {
	{ .name = "host", .kind = OPT_TEXT, .where = WHERE(backup.host), .arg = "NAME", .help = "only snapshots of this machine" },
	{ .name = "tag", .kind = OPT_TEXTS, .where = WHERE(backup.tags), .arg = "TAG", .help = "only snapshots with this tag (repeated: with all)" },
	{ 0 },
};
static const struct opt_group which_group = { "Which", which_options };

#define KEEP(word, text)                                                                                             \
	{ .name = "keep-" #word, .kind = OPT_NUMBER, .where = WHERE(backup.keep_##word), .arg = "N", .min = 1, .max = 1000000, .help = text }
static const struct opt forget_options[] = {
	KEEP(last, "forget: keep the last N of each series"),
	KEEP(hourly, "and the newest of each of N hours that have one"),
	KEEP(daily, "of N days"),
	KEEP(weekly, "of N weeks"),
	KEEP(monthly, "of N months"),
	KEEP(yearly, "of N years"),
	{ .name = "dry-run", .letter = 'n', .kind = OPT_FLAG, .where = WHERE(backup.dry_run), .help = "only tell what would be forgotten" },
	{ .name = "sign-key", .kind = OPT_TEXT, .where = WHERE(cert.sign_key), .arg = "KEY",
	  .help = "sign what is written into the ledger with this Ed25519 key of OpenSSH, or the agent's for a public one" },
	{ 0 },
};
static const struct opt_group forget_group = { "Forget", forget_options };

static const struct opt_group *const groups[] = {
	&opts_repo, &opts_keys, &which_group, &forget_group, &opts_output_form, &opts_speech, NULL,
};

static const char *const examples[] = {
	"vdisk backups list --repo /backup/vms --passphrase-file pw",
	"vdisk backups show --repo /backup/vms --passphrase-file pw latest",
	"vdisk backups diff --repo /backup/vms --passphrase-file pw 4f2a91c0 latest",
	"vdisk backups forget --repo /backup/vms --passphrase-file pw --keep-daily 7 --keep-weekly 4 --dry-run",
	NULL,
};

struct request {
	struct settings *s;
	struct repository r;
	struct snapshots all;           /* those that --host and --tag let through */
	const char *const *names;       /* operands behind the act */
	size_t n_names;
	struct signer signer;           /* where --sign-key is given */
};

/* ---- which ---------------------------------------------------------------------------------------------- */

static bool has_tag(const struct snapshot *x, const char *tag)
{
	for (size_t i = 0; i < x->n_tags; i++)
		if (!strcmp(x->tags[i], tag))
			return true;
	return false;
}

static bool is_wanted(const struct settings *s, const struct snapshot *x)
{
	if (s->backup.host && strcmp(s->backup.host, x->host) != 0)
		return false;
	for (size_t i = 0; i < s->backup.tags.n; i++)
		if (!has_tag(x, s->backup.tags.at[i]))
			return false;
	return true;
}

static void bad_snapshot(void *ctx, const char *name, const struct vd_error *why)
{
	(void)ctx;
	(void)name;
	ui_warn("%s", why->message);
}

static int load(struct request *q, enum repository_lock lock, struct vd_error *e)
{
	size_t n = 0;
	int r = repository_open(q->s, lock, &q->r, e);

	if (r == 0)
		r = snapshots_load(q->r.repo, bad_snapshot, NULL, &q->all, e);
	if (r < 0)
		return r;
	for (size_t i = 0; i < q->all.n; i++) {
		if (is_wanted(q->s, &q->all.at[i]))
			q->all.at[n++] = q->all.at[i];
		else
			snapshot_free(&q->all.at[i]);
	}
	q->all.n = n;
	return 0;
}

/* ---- list ----------------------------------------------------------------------------------------------- */

static struct json_object *snapshot_json(const struct snapshot *x)
{
	struct json_object *j = json_new(), *list;
	char when[40], tree[ID_HEX_SIZE];

	time_show(x->sec, x->nsec, when);
	id_show(x->tree, tree);
	json_put_text(j, "id", x->name);
	json_put_text(j, "time", when);
	json_put_text(j, "tree", tree);
	if (x->has_parent)
		json_put_text(j, "parent", x->parent);
	json_put_text(j, "host", x->host);
	json_put_text(j, "user", x->user);
	list = json_put_array(j, "paths");
	for (size_t i = 0; i < x->n_paths; i++)
		json_add(list, json_text(x->paths[i]));
	list = json_put_array(j, "tags");
	for (size_t i = 0; i < x->n_tags; i++)
		json_add(list, json_text(x->tags[i]));
	return j;
}

static void print_snapshot(const struct snapshot *x)
{
	char when[40], tags[64] = "";

	time_show(x->sec, 0, when);
	for (size_t i = 0; i < x->n_tags; i++)
		snprintf(tags + strlen(tags), sizeof(tags) - strlen(tags), "%s%s", i ? "," : "", x->tags[i]);
	ui_line("%.8s  %-20s  %-14s  %-12s  %s", x->name, when, x->host, tags, x->n_paths ? x->paths[0] : "");
	for (size_t i = 1; i < x->n_paths; i++)
		ui_line("%8s  %-20s  %-14s  %-12s  %s", "", "", "", "", x->paths[i]);
}

static int list(struct request *q, struct vd_error *e)
{
	struct json_object *j, *array;
	int r = load(q, REPOSITORY_UNLOCKED, e);

	if (r < 0)
		return r;
	if (ui_is_json()) {
		j = json_new();
		json_put_text(j, "repository", q->s->backup.repo);
		array = json_put_array(j, "snapshots");
		for (size_t i = 0; i < q->all.n; i++)
			json_add(array, snapshot_json(&q->all.at[i]));
		json_print(j);
		return 0;
	}
	if (!q->all.n) {
		ui_summary("%s: no snapshots", q->s->backup.repo);
		return 0;
	}
	ui_line("%-8s  %-20s  %-14s  %-12s  %s", "id", "time (UTC)", "host", "tags", "paths");
	for (size_t i = 0; i < q->all.n; i++)
		print_snapshot(&q->all.at[i]);
	return 0;
}

/* ---- show ----------------------------------------------------------------------------------------------- */

static int show_item(void *ctx, const char *path, bool is_disk, uint64_t size)
{
	struct json_object *j;

	if (!ctx) {
		ui_line("%-6s  %10s  %s", is_disk ? "disk" : "file", size_show((double)size).s, path);
		return 0;
	}
	j = json_new();
	json_put_text(j, "path", path);
	json_put_text(j, "kind", is_disk ? "disk" : "file");
	json_put_u64(j, "size", size);
	json_add(ctx, j);
	return 0;
}

static int show(struct request *q, struct vd_error *e)
{
	struct json_object *j = NULL, *items = NULL;
	const struct snapshot *x;
	int r = load(q, REPOSITORY_SHARED, e);

	if (r == 0)
		r = snapshots_find(&q->all, q->n_names ? q->names[0] : "latest", &x, e);
	if (r == 0)
		r = repo_load_index(q->r.repo, e);
	if (r < 0)
		return r;
	if (ui_is_json()) {
		j = snapshot_json(x);
		items = json_put_array(j, "items");
	} else {
		print_snapshot(x);
	}
	r = pickitem_each(q->r.repo, x->tree, show_item, items, e);
	if (j && r == 0)
		json_print(j);
	else
		json_object_put(j);
	return r;
}

/* ---- diff ----------------------------------------------------------------------------------------------- */

static int print_difference(void *ctx, const struct snapshotdiff_item *d)
{
	static const char *const words[] = { "same", "differs", "added", "removed" };
	struct json_object *j;

	if (!ctx) {
		if (d->how == DIFF_DIFFERS)
			ui_line("%-8s %s: %s of %s", words[d->how], d->path, size_show((double)d->bytes).s, size_show((double)d->size).s);
		else if (d->how != DIFF_SAME)
			ui_line("%-8s %s: %s", words[d->how], d->path, size_show((double)d->size).s);
		return 0;
	}
	j = json_new();
	json_put_text(j, "path", d->path);
	json_put_text(j, "how", words[d->how]);
	json_put_u64(j, "size", d->size);
	json_put_u64(j, "bytes", d->bytes);
	json_add(ctx, j);
	return 0;
}

static int diff(struct request *q, struct vd_error *e)
{
	struct json_object *j = NULL, *items = NULL;
	const struct snapshot *a, *b;
	int r;

	if (q->n_names != 2)
		return fail(e, VD_EARG, "backups diff: wants two snapshots");
	r = load(q, REPOSITORY_SHARED, e);
	if (r == 0)
		r = snapshots_find(&q->all, q->names[0], &a, e);
	if (r == 0)
		r = snapshots_find(&q->all, q->names[1], &b, e);
	if (r == 0)
		r = repo_load_index(q->r.repo, e);
	if (r < 0)
		return r;
	if (ui_is_json()) {
		j = json_new();
		json_put_text(j, "from", a->name);
		json_put_text(j, "to", b->name);
		items = json_put_array(j, "items");
	}
	r = snapshotdiff(q->r.repo, a->tree, b->tree, print_difference, items, e);
	if (j && r == 0)
		json_print(j);
	else
		json_object_put(j);
	return r;
}

/* ---- forget --------------------------------------------------------------------------------------------- */

/* The newest snapshot of each series that a receipt says was found whole, or booted. */
struct proof {
	const struct request *q;
	bool *is_proven;
};

static const char *text_of(struct json_object *body, const char *key)
{
	struct json_object *x = NULL;

	return json_object_object_get_ex(body, key, &x) && json_object_is_type(x, json_type_string) ? json_object_get_string(x) : "";
}

static bool is_in(struct json_object *list, const char *name)
{
	for (size_t i = 0; list && json_object_is_type(list, json_type_array) && i < json_object_array_length(list); i++) {
		const char *text = json_object_get_string(json_object_array_get_idx(list, i));

		if (text && !strcmp(text, name))
			return true;
	}
	return false;
}

/* A drill proves one snapshot, verify all that it names. */
static int note_proof(void *ctx, const struct book_line *line)
{
	struct proof *p = ctx;
	struct json_object *passed = NULL, *proven = NULL;

	if ((strcmp(line->kind, "verify") != 0 && strcmp(line->kind, "drill") != 0) || !json_object_object_get_ex(line->body, "passed", &passed) ||
	    !json_object_get_boolean(passed) || strcmp(text_of(line->body, "repository"), repo_id(p->q->r.repo)) != 0)
		return 0;
	json_object_object_get_ex(line->body, "proven", &proven);
	for (size_t i = 0; i < p->q->all.n; i++)
		if (!strcmp(text_of(line->body, "snapshot"), p->q->all.at[i].name) || is_in(proven, p->q->all.at[i].name))
			p->is_proven[i] = true;
	return 0;
}

static int find_proven(const struct request *q, bool *is_proven, struct vd_error *e)
{
	struct proof p = { q, is_proven };
	struct book *book = NULL;
	int r = ledger_open(&book, e);

	if (r == 0)
		r = book_walk(book, note_proof, &p, e);
	book_close(book);
	return r;
}

/* Why one of them stays, whatever was asked for: NULL, it does not. */
static const char *stays(const struct request *q, const bool *is_proven, size_t i)
{
	bool is_newest = true, newer_is_proven = false;

	for (size_t k = 0; k < i; k++)
		if (retention_is_same_series(&q->all.at[k], &q->all.at[i])) {
			is_newest = false;
			newer_is_proven |= is_proven[k];
		}
	if (is_newest)
		return "the newest of its series";
	return is_proven[i] && !newer_is_proven ? "the last proven one of its series" : NULL;
}

static int forget_by_name(struct request *q, bool *goes, struct vd_error *e)
{
	for (size_t i = 0; i < q->n_names; i++) {
		const struct snapshot *x;
		int r = snapshots_find(&q->all, q->names[i], &x, e);

		if (r < 0)
			return r;
		goes[x - q->all.at] = true;
	}
	return 0;
}

static int forget_by_policy(const struct request *q, bool *goes, struct vd_error *e)
{
	const struct backup_settings *b = &q->s->backup;
	struct retention policy = { { b->keep_last, b->keep_hourly, b->keep_daily, b->keep_weekly, b->keep_monthly, b->keep_yearly } };
	uint8_t *reasons = calloc(q->all.n + 1, 1);
	uint64_t any = 0;

	if (!reasons)
		ui_out_of_memory();
	for (int k = 0; k < N_RETENTION_SPANS; k++)
		any += policy.keep[k];
	retention_apply(&policy, &q->all, reasons);
	for (size_t i = 0; i < q->all.n; i++)
		goes[i] = !reasons[i];
	free(reasons);
	if (any)
		return 0;
	fail(e, VD_EARG, "nothing says what is to be kept, or which is to be forgotten");
	return fail_hint(e, VD_EARG, "name snapshots, or say --keep-last, --keep-daily ...");
}

/* Written down before it is done, so that nobody who looks later takes it for a loss. */
static int give_receipt(const struct request *q, const bool *goes, struct vd_error *e)
{
	struct json_object *body = json_new(), *list;
	struct book *book = NULL;
	bool off = false;
	int r = ledger_open(&book, e);

	json_put_text(body, "repository", repo_id(q->r.repo));
	json_put_text(body, "where", q->s->backup.repo);
	list = json_put_array(body, "snapshots");
	for (size_t i = 0; i < q->all.n; i++)
		if (goes[i])
			json_add(list, json_text(q->all.at[i].name));
	if (r == 0)
		r = ledger_is_off(book, &off, e);
	if (r == 0 && !off && json_object_array_length(list))
		r = book_append(book, "forget", body, q->s->cert.sign_key ? &q->signer : NULL, NULL, e);
	book_close(book);
	json_object_put(body);
	return r;
}

static int remove_those(struct request *q, const bool *goes, struct vd_error *e)
{
	int r = repo_still_locked(q->r.repo, e);

	if (r == 0)
		r = give_receipt(q, goes, e);
	for (size_t i = 0; i < q->all.n && r == 0; i++) {
		if (goes[i])
			r = store_remove(repo_store(q->r.repo), STORE_SNAPSHOT, q->all.at[i].name, e);
		if (r == 0)
			r = signals_check(e);
	}
	return r;
}

static void tell_forgotten(const struct request *q, const bool *goes, const bool *is_proven)
{
	const char *word = q->s->backup.dry_run ? "would be forgotten" : "forgotten";
	struct json_object *j, *forgotten, *kept;
	size_t n = 0;

	if (ui_is_json()) {
		j = json_new();
		json_put_text(j, "type", "summary");
		json_put_text(j, "verb", "backups");
		json_put_text(j, "act", "forget");
		json_put_bool(j, "dry-run", q->s->backup.dry_run);
		forgotten = json_put_array(j, "forgotten");
		kept = json_put_array(j, "kept");
		for (size_t i = 0; i < q->all.n; i++)
			json_add(goes[i] ? forgotten : kept, json_text(q->all.at[i].name));
		json_print(j);
		return;
	}
	for (size_t i = 0; i < q->all.n; i++)
		if (goes[i]) {
			print_snapshot(&q->all.at[i]);
			n++;
		}
	(void)is_proven;
	ui_summary("%zu of %zu snapshots %s", n, q->all.n, word);
	if (n && !q->s->backup.dry_run)
		ui_note("their space is given back by: restic -r %s prune", q->s->backup.repo);
}

static int choose_and_forget(struct request *q, bool *goes, bool *is_proven, struct vd_error *e)
{
	int r = q->n_names ? forget_by_name(q, goes, e) : forget_by_policy(q, goes, e);

	if (r == 0)
		r = find_proven(q, is_proven, e);
	for (size_t i = 0; i < q->all.n && r == 0; i++) {
		const char *why = goes[i] ? stays(q, is_proven, i) : NULL;

		if (why) {
			goes[i] = false;
			ui_note("%.8s is kept: it is %s", q->all.at[i].name, why);
		}
	}
	if (r == 0 && !q->s->backup.dry_run)
		r = remove_those(q, goes, e);
	if (r == 0)
		tell_forgotten(q, goes, is_proven);
	return r;
}

static int forget(struct request *q, struct vd_error *e)
{
	bool *goes, *is_proven;
	int r = load(q, q->s->backup.dry_run ? REPOSITORY_SHARED : REPOSITORY_EXCLUSIVE, e);

	if (r < 0)
		return r;
	if (q->s->cert.sign_key)
		r = signer_open(q->s->cert.sign_key, &q->signer, e);
	goes = calloc(q->all.n + 1, sizeof(*goes));
	is_proven = calloc(q->all.n + 1, sizeof(*is_proven));
	if (!goes || !is_proven)
		ui_out_of_memory();
	if (r == 0)
		r = choose_and_forget(q, goes, is_proven, e);
	if (q->s->cert.sign_key)
		signer_close(&q->signer);
	free(goes);
	free(is_proven);
	return r;
}

static const struct backups_act {
	const char *word;
	int (*run)(struct request *q, struct vd_error *e);
} acts[] = { { "list", list }, { "show", show }, { "diff", diff }, { "forget", forget } };

static int run(struct settings *s, struct vd_error *e)
{
	struct request q = { .s = s, .names = s->operands + 1, .n_names = s->n_operands - 1 };

	for (size_t i = 0; i < sizeof(acts) / sizeof(acts[0]); i++)
		if (!strcmp(acts[i].word, s->operands[0])) {
			int r = acts[i].run(&q, e);

			snapshots_free(&q.all);
			repository_close(&q.r);
			return r;
		}
	return fail(e, VD_EARG, "backups: '%s' is not list, show, diff or forget", s->operands[0]);
}

const struct verb verb_backups = {
	.name = "backups",
	.operands = "list|show|diff|forget [SNAPSHOT...]",
	.min_operands = 1,
	.max_operands = OPERANDS_MAX,
	.summary = "list, show, compare and forget snapshots in a repository",
	.about = "forget takes snapshots out of the repository, by name or all that a policy does not keep; the newest of each series of host and "
		 "paths stays, and so does the last one that a receipt says was proven. Space is given back by restic prune.",
	.groups = groups,
	.examples = examples,
	.run = run,
};
