/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdisk ledger: verifies, shows and exports the book of what was done, signs its state, turns it off and on. The book itself is in ledger/. */
#include <stdio.h>
#include <string.h>

#include "exit.h"
#include "fail.h"
#include "json.h"
#include "ledger/allowed.h"
#include "ledger/deeds.h"
#include "ledger/files.h"
#include "ui.h"
#include "verbs.h"

#define WHERE(member) offsetof(struct settings, member)

static const struct opt choice[] = {
	{ .name = "since", .kind = OPT_TEXT, .where = WHERE(ledger.from), .arg = "TIME", .help = "from then on: 2026-11-24, 2026-11-24T12:00:00Z, 90d, 12h" },
	{ .name = "until", .kind = OPT_TEXT, .where = WHERE(ledger.to), .arg = "TIME", .help = "before then" },
	{ .name = "image", .kind = OPT_TEXT, .where = WHERE(ledger.image), .arg = "IMAGE", .help = "by its path, or by its file's name alone" },
	{ .name = "who", .kind = OPT_TEXT, .where = WHERE(ledger.who), .arg = "USER", .help = "by whom" },
	{ .name = "act", .kind = OPT_TEXT, .where = WHERE(ledger.act), .arg = "VERB", .help = "wipe, encrypt ..." },
	{ 0 },
};
static const struct opt_group choice_group = { "Choice", choice };

static const struct opt_choice forms[] = { { "ecs", EXPORT_ECS }, { "cef", EXPORT_CEF }, { "csv", EXPORT_CSV }, { NULL, 0 } };
static const struct opt sending[] = {
	{ .name = "format", .kind = OPT_CHOICE, .where = WHERE(ledger.form), .arg = "FORM", .choices = forms,
	  .help = "export: ecs (Elastic Common Schema), cef (ArcSight) or csv" },
	{ .name = "file", .kind = OPT_TEXT, .where = WHERE(ledger.file), .arg = "OUT", .help = "export: a file that is not there yet (default: standard output)" },
	{ .name = "sign-key", .kind = OPT_TEXT, .where = WHERE(cert.sign_key), .arg = "KEY",
	  .help = "checkpoint: a private key file, or a public one whose key ssh-agent has" },
	{ .name = "allowed-signers", .kind = OPT_TEXT, .where = WHERE(cert.allowed_signers), .arg = "FILE",
	  .help = "verify: whose keys may have signed checkpoints and receipts, as ssh-keygen has it" },
	{ 0 },
};
static const struct opt_group sending_group = { "Ledger", sending };

static const struct opt_group *const groups[] = { &choice_group, &sending_group, &opts_output_form, &opts_speech, NULL };

static const char *const examples[] = {
	"vdisk ledger show --since 90d --image web.qcow2",
	"vdisk ledger verify --allowed-signers allowed",
	"vdisk ledger export --format=ecs --since 1d --file today.ndjson",
	"vdisk ledger checkpoint --sign-key /etc/vdisk/sign",
	NULL,
};

static struct json_object *summary(const struct book *b, const char *act)
{
	struct json_object *j = json_new();

	json_put_text(j, "type", "summary");
	json_put_text(j, "verb", "ledger");
	json_put_text(j, "act", act);
	json_put_text(j, "ledger", book_folder(b));
	return j;
}

/* ---- verify ----------------------------------------------------------------------------------------------- */

struct verifying {
	const struct settings *s;
	uint64_t lines, signatures, checkpoints, checkpointed;
	char first[64], last_hash[BOOK_HASH_SIZE], off[BOOK_HASH_SIZE];
	struct book *b;
	struct vd_error *e;
};

/* A checkpoint says which line it stands on: the same words behind another one are no checkpoint of that. */
static int judge_checkpoint(struct verifying *v, const struct book_line *line)
{
	if (strcmp(line_text(line->whole, "what.hash"), v->last_hash))
		return fail(v->e, VD_ECORRUPT, "line %llu: a checkpoint of another place", (unsigned long long)line->n);
	v->checkpoints++;
	v->checkpointed = line->n - 1;
	return 0;
}

static int judge_signature(struct verifying *v, const struct book_line *line)
{
	char name[ALLOWED_NAME_MAX];
	struct sshsig sig;
	int r;

	if (!line->signature)
		return 0;
	r = book_judge_signature(line, &sig, v->e);
	if (r == 0 && v->s->cert.allowed_signers)
		r = allowed_by_file(v->s->cert.allowed_signers, &sig, NULL, name, v->e);
	if (r < 0)
		return fail_hint(v->e, r, "it is the signature of line %llu", (unsigned long long)line->n);
	v->signatures++;
	return 0;
}

static bool is_of_kind(const struct book_text *text, const char *kind)
{
	return text->kind_len == strlen(kind) && !memcmp(text->kind, kind, text->kind_len);
}

/* What is not signed, nor of a kind that matters here, has said enough by its hash. */
static bool is_read(const struct verifying *v, const struct book_text *text)
{
	return !v->lines || is_of_kind(text, "checkpoint") || memmem(text->text, text->len, "\"signature\":", 12);
}

static int judge_line(void *ctx, const struct book_text *text)
{
	struct verifying *v = ctx;
	struct book_line line;
	int r = 0;

	if (is_read(v, text)) {
		r = book_line_read(v->b, text, &line, v->e);
		if (r < 0)
			return r;
		r = judge_signature(v, &line);
		if (r == 0 && is_of_kind(text, "checkpoint"))
			r = judge_checkpoint(v, &line);
		if (!v->lines)
			snprintf(v->first, sizeof(v->first), "%s", line.time);
		book_line_free(&line);
	}
	if (is_of_kind(text, "ledger-off"))
		memcpy(v->off, text->hash, BOOK_HASH_SIZE);
	if (is_of_kind(text, "ledger-on"))
		v->off[0] = 0;
	v->lines++;
	memcpy(v->last_hash, text->hash, BOOK_HASH_SIZE);
	return r;
}

static int verify(const struct settings *s, struct book *b, struct vd_error *e)
{
	struct verifying v = { .s = s, .b = b, .e = e };
	struct json_object *j;
	bool off;
	int r = book_scan(b, judge_line, &v, e);

	if (r == 0)
		r = ledger_is_off(b, &off, e);
	if (r == 0 && off && !v.off[0])
		r = fail(e, VD_ECORRUPT, "%s: it is off, and no line says who turned it off", book_folder(b));
	if (r < 0)
		return r;
	if (ui_is_json()) {
		j = summary(b, "verify");
		json_put_u64(j, "lines", v.lines);
		json_put_u64(j, "signatures", v.signatures);
		json_put_u64(j, "checkpoints", v.checkpoints);
		json_put_u64(j, "checkpointed", v.checkpointed);
		json_put_text(j, "head", v.last_hash);
		json_put_bool(j, "keeps", !off);
		json_print(j);
		return 0;
	}
	if (!v.lines) {
		ui_line("%s: nothing is in it yet", book_folder(b));
		return 0;
	}
	ui_line("%s: %llu lines hold, the first of %s", book_folder(b), (unsigned long long)v.lines, v.first);
	if (v.checkpoints)
		ui_line("signed up to line %llu: %llu checkpoints, %llu signatures in all", (unsigned long long)v.checkpointed,
			(unsigned long long)v.checkpoints, (unsigned long long)v.signatures);
	else
		ui_line("no checkpoint: that the whole of it was not made anew is not shown");
	if (off)
		ui_line("it is off: what is done now is not written down");
	return 0;
}

/* ---- show, export ----------------------------------------------------------------------------------------- */

static void show_json(const struct deeds *d)
{
	for (size_t i = 0; i < d->n; i++) {
		struct json_object *j = json_new();

		json_put_u64(j, "n", d->at[i].n);
		json_put_text(j, "hash", d->at[i].hash);
		json_put_text(j, "act", deed_act(&d->at[i]));
		json_put_text(j, "outcome", deed_outcome(&d->at[i]));
		json_put(j, "line", json_object_get(d->at[i].line));
		if (d->at[i].end)
			json_put(j, "end", json_object_get(d->at[i].end));
		json_print_item(j, i == 0);
	}
	json_print_items_end(d->n == 0);
}

static enum ui_colour colour_of(const char *outcome)
{
	if (!strcmp(outcome, "done"))
		return UI_GREEN;
	return *outcome ? UI_RED : UI_PLAIN;
}

static void show_lines(const struct deeds *d)
{
	for (size_t i = 0; i < d->n; i++) {
		const struct deed *at = &d->at[i];
		const char *outcome = deed_outcome(at), *why = line_text(at->end, "what.message");
		struct bytes objects = { 0 };

		deed_put_objects(at, &objects);
		ui_line("%.19sZ  %-10s  %-12s  %s%-10s%s  %s", deed_time(at), deed_user(at), deed_act(at), ui_colour(colour_of(outcome)), outcome,
			ui_colour(UI_PLAIN), (char *)objects.at);
		bytes_free(&objects);
		if (*why)
			ui_line("%22s%s", "", why);
	}
	ui_summary("%zu of %llu lines", d->n, (unsigned long long)d->lines);
}

static int show(const struct settings *s, struct book *b, struct vd_error *e)
{
	struct deeds d;
	int r = deeds_read(b, &s->ledger, &d, e);

	if (r == 0 && ui_is_json())
		show_json(&d);
	else if (r == 0)
		show_lines(&d);
	deeds_free(&d);
	return r;
}

static int export(const struct settings *s, struct book *b, struct vd_error *e)
{
	struct bytes out = { 0 };
	struct deeds d;
	int r;

	if (!s->ledger.form)
		return fail(e, VD_EARG, "ledger export: --format says in which form: ecs, cef or csv");
	r = deeds_read(b, &s->ledger, &d, e);
	if (r == 0)
		deeds_export(&d, (enum export_form)s->ledger.form, &out);
	if (r == 0 && s->ledger.file)
		r = file_write(s->ledger.file, &out, 0600, false, e);
	else if (r == 0 && out.n && fwrite(out.at, 1, out.n, stdout) != out.n)
		r = fail(e, VD_EIO, "standard output: nothing more can be written");
	deeds_free(&d);
	bytes_free(&out);
	return r;
}

/* ---- checkpoint, off, on ---------------------------------------------------------------------------------- */

static int remember_last(void *ctx, const struct book_line *line)
{
	struct json_object *body = ctx;

	json_object_object_add(body, "n", json_object_new_uint64(line->n));
	json_object_object_add(body, "hash", json_object_new_string(line->hash));
	return 0;
}

/* Signs what the walk has just found to hold. Somebody who appends in between makes it a checkpoint of another place: then again. */
static int try_checkpoint(struct book *b, const struct signer *signer, struct json_object *body, bool *stands, struct vd_error *e)
{
	char hash[BOOK_HASH_SIZE];
	int r = book_walk(b, remember_last, body, e);

	if (r < 0)
		return r;
	if (!json_object_object_get(body, "hash"))
		return fail(e, VD_EARG, "%s: nothing is in it yet", book_folder(b));
	r = book_append_after(b, json_object_get_string(json_object_object_get(body, "hash")), "checkpoint", body, signer, hash, e);
	*stands = r != VD_EBUSY;
	return *stands ? r : 0;
}

static int checkpoint(const struct settings *s, struct book *b, struct vd_error *e)
{
	struct json_object *body = json_new(), *j;
	struct signer signer;
	bool stands = false;
	int r = s->cert.sign_key ? signer_open(s->cert.sign_key, &signer, e) :
				   fail(e, VD_EARG, "ledger checkpoint: --sign-key KEY says with which key");

	if (r < 0) {
		json_object_put(body);
		return r;
	}
	while (r == 0 && !stands)
		r = try_checkpoint(b, &signer, body, &stands, e);
	signer_close(&signer);
	if (r == 0 && ui_is_json()) {
		j = summary(b, "checkpoint");
		json_put(j, "checkpoint", json_object_get(body));
		json_print(j);
	} else if (r == 0) {
		ui_summary("%s: signed up to line %s", book_folder(b), json_object_get_string(json_object_object_get(body, "n")));
	}
	json_object_put(body);
	return r;
}

static int turn(struct book *b, bool on, struct vd_error *e)
{
	bool off;
	int r = ledger_is_off(b, &off, e);

	if (r == 0 && off == on)
		r = ledger_turn(b, on, e);
	if (r < 0)
		return r;
	if (ui_is_json())
		json_print(summary(b, on ? "on" : "off"));
	else
		ui_summary("%s: %s", book_folder(b), on ? "what is done is written down" : "what is done from now on is not written down");
	return 0;
}

static int turn_on(const struct settings *s, struct book *b, struct vd_error *e)
{
	(void)s;
	return turn(b, true, e);
}

static int turn_off(const struct settings *s, struct book *b, struct vd_error *e)
{
	(void)s;
	return turn(b, false, e);
}

/* ---- the verb --------------------------------------------------------------------------------------------- */

static const struct doing {
	const char *word;
	int (*run)(const struct settings *s, struct book *b, struct vd_error *e);
	bool chooses, exports, signs, trusts;   /* which options go with it */
} doings[] = {
	{ .word = "show", .run = show, .chooses = true },
	{ .word = "verify", .run = verify, .trusts = true },
	{ .word = "export", .run = export, .chooses = true, .exports = true },
	{ .word = "checkpoint", .run = checkpoint, .signs = true },
	{ .word = "on", .run = turn_on },
	{ .word = "off", .run = turn_off },
};
#define N_DOINGS (sizeof(doings) / sizeof(doings[0]))

static const char *doing_word(const void *ctx, size_t i)
{
	(void)ctx;
	return i < N_DOINGS ? doings[i].word : NULL;
}

/* An option that changes nothing would look as if it did. */
static int judge_options(const struct doing *d, const struct settings *s, struct vd_error *e)
{
	const struct ledger_settings *l = &s->ledger;
	const char *strange = NULL;

	if (!d->chooses && (l->from || l->to || l->image || l->who || l->act))
		strange = "--since, --until, --image, --who and --act choose what show and export give";
	else if (!d->exports && (l->form || l->file))
		strange = "--format and --file go with export";
	else if (!d->signs && s->cert.sign_key)
		strange = "--sign-key goes with checkpoint";
	else if (!d->trusts && s->cert.allowed_signers)
		strange = "--allowed-signers goes with verify";
	return strange ? fail(e, VD_EARG, "ledger %s: %s", d->word, strange) : 0;
}

static int run(struct settings *s, struct vd_error *e)
{
	const char *word = s->operands[0], *near;
	struct book *b;
	int r;

	for (size_t i = 0; i < N_DOINGS; i++) {
		if (strcmp(doings[i].word, word))
			continue;
		r = judge_options(&doings[i], s, e);
		if (r < 0)
			return r;
		r = ledger_open(&b, e);
		if (r == 0)
			r = doings[i].run(s, b, e);
		book_close(b);
		return r;
	}
	near = opts_nearest(word, doing_word, NULL);
	fail(e, VD_EARG, "ledger: '%s' is not show, verify, export, checkpoint, on or off", word);
	return near ? fail_hint(e, VD_EARG, "did you mean %s?", near) : VD_EARG;
}

const struct verb verb_ledger = {
	.name = "ledger",
	.operands = "show|verify|export|checkpoint|on|off",
	.min_operands = 1,
	.max_operands = 1,
	.summary = "who did what to which disk: verify, show and export the log",
	.about = "Every command that changes an image, a key, a repository or a certificate writes a line before it begins and one after it has "
		 "ended. Each line has the hash of the line before it, so that nothing can be changed, taken out or put in unseen; checkpoints are "
		 "signed. The ledger is in /var/lib/vdisk/ledger for root, in ~/.local/state/vdisk/ledger for others, or where VDISK_LEDGER says.",
	.groups = groups,
	.examples = examples,
	.run = run,
};
