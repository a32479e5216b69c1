/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdisk key: the keyslots of an encrypted image, and backups of the header that holds them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fail.h"
#include "json.h"
#include "keyslots.h"
#include "recovery.h"
#include "source.h"
#include "ui.h"
#include "verbs.h"

#define WHERE(member) offsetof(struct settings, member)
#define TRIES_MAX 3             /* at the terminal, as login has it */

static const struct opt slot_options[] = {
	{ .name = "label", .kind = OPT_TEXT, .where = WHERE(label), .arg = "TEXT",
	  .help = "what key list calls the new keyslot" },
	{ .name = "header-backup", .kind = OPT_TEXT, .where = WHERE(header_backup), .arg = "FILE",
	  .help = "back the header up to FILE before anything is changed" },
	{ .name = "last", .kind = OPT_FLAG, .where = WHERE(last_slot),
	  .help = "remove: even the last keyslot, after which nothing opens the disk" },
	{ .name = "yes", .letter = 'y', .kind = OPT_FLAG, .where = WHERE(yes), .help = "remove --last: do not ask" },
	{ .name = "split", .kind = OPT_TEXT, .where = WHERE(split), .arg = "K/N",
	  .help = "recovery: N shares instead of the key, of which any K give it" },
	{ .name = "recipient", .kind = OPT_TEXTS, .where = WHERE(recipients), .arg = "AGE1...",
	  .help = "escrow: a public key of age that may open FILE; may be repeated" },
	{ .name = "qr", .kind = OPT_FLAG, .where = WHERE(qr), .help = "recovery: show the key as a QR code, too" },
	{ 0 },
};
static const struct opt_group slot_group = { "Keyslots", slot_options };

static const struct opt_group *const groups[] = {
	&slot_group, &opts_format, &opts_sharing, &opts_keys, &opts_second_key, &opts_output_form, &opts_speech, NULL,
};

static const char *const examples[] = {
	"vdisk key list disk.qcow2",
	"vdisk key change --header-backup before.hdr disk.qcow2",
	"vdisk key add --key-file old.key --new-key-file new.key disk.qcow2",
	"vdisk key recovery --qr disk.qcow2",
	"vdisk key recovery --split 2/3 disk.qcow2",
	"vdisk key escrow --recipient age1... disk.qcow2 disk.key.age",
	"vdisk key remove disk.qcow2 1",
	NULL,
};

struct request {
	const struct settings *s;
	const char *image, *what;               /* what: a slot or a file */
	struct vd_image *img;
	struct keys keys;
	struct vd_key *key;                     /* the one that opens; borrowed of keys */
	uint32_t slot;
};

/* ---- the key that opens ----------------------------------------------------------------------------------- */

static int try_keys(struct request *q, size_t from, struct vd_error *e)
{
	int r = VD_EKEY;

	ui_status("deriving key");
	for (size_t i = from; i < q->keys.n && r == VD_EKEY; i++) {
		r = vd_keyslot_find(q->img, q->keys.at[i], &q->slot, e);
		if (r == 0)
			q->key = q->keys.at[i];
	}
	ui_status_end();
	return r;
}

static int ask_for_key(struct request *q, struct vd_error *e)
{
	int r = VD_EKEY;

	for (int i = 0; i < TRIES_MAX && r == VD_EKEY; i++) {
		if (i)
			ui_warn("that key does not fit");
		r = secrets_ask(q->image, &q->keys, e);
		if (r == 0)
			r = try_keys(q, q->keys.n - 1, e);
	}
	return r;
}

static int find_key(struct request *q, struct vd_error *e)
{
	int r = secrets_of_options(q->s, &q->keys, e);

	if (r == 0 && !q->keys.n)
		r = secrets_unasked(CREDENTIAL_KEY, &q->keys, e);
	if (r < 0)
		return r;
	return q->keys.n ? try_keys(q, 0, e) : ask_for_key(q, e);
}

/* ---- list ------------------------------------------------------------------------------------------------- */

static void print_slot(const struct vd_slot_info *s)
{
	time_t then = (time_t)s->created;
	char date[32] = "-";
	struct tm tm;

	if (s->created && localtime_r(&then, &tm))
		strftime(date, sizeof(date), "%Y-%m-%d %H:%M", &tm);
	ui_line("%-5u %-11s %-17s %-20s %s%s%s%s", s->index, s->kind[0] ? s->kind : "-", date, s->label[0] ? s->label : "-",
		keyslot_cost(s).s, s->is_weak ? ui_colour(UI_YELLOW) : "", s->is_weak ? "  WEAK" : "", ui_colour(UI_PLAIN));
}

static void warn_of_damage(const struct vd_luks_info *luks)
{
	if (luks->damaged_copy)
		ui_warn("the %s of the two copies of the header is damaged, and the other one is in use: key backup-header keeps what "
			"is left, and any change of keys writes both anew", luks->damaged_copy == 1 ? "first" : "second");
}

static int list(struct request *q, struct vd_error *e)
{
	struct vd_info info;
	struct json_object *j;
	int r = source_info(q->img, &info, e);

	if (r < 0)
		return r;
	if (!info.luks.version)
		return fail(e, VD_EUNSUPPORTED, "%s: it has no LUKS header, so it has no keyslots", q->image);
	if (ui_is_json()) {
		j = json_new();
		json_put_text(j, "image", q->image);
		json_put_text(j, "uuid", info.luks.uuid);
		json_put_u64(j, "luks-version", info.luks.version);
		if (info.luks.damaged_copy)
			json_put_u64(j, "damaged-copy", info.luks.damaged_copy);
		keyslots_put(j, &info.luks);
		json_print(j);
		return 0;
	}
	ui_line("%-5s %-11s %-17s %-20s %s", "slot", "kind", "made", "label", "cost of a guess");
	for (uint32_t i = 0; i < info.luks.n_slots; i++)
		print_slot(&info.luks.slots[i]);
	warn_of_damage(&info.luks);
	return 0;
}

/* ---- what is done, in words ------------------------------------------------------------------------------- */

static struct json_object *summary_of(const struct request *q, const char *act)
{
	struct json_object *j = json_new();

	json_put_text(j, "type", "summary");
	json_put_text(j, "verb", "key");
	json_put_text(j, "act", act);
	json_put_text(j, "image", q->image);
	return j;
}

static void print_slot_done(const struct request *q, const char *act, const char *words)
{
	struct json_object *j;

	if (!ui_is_json()) {
		ui_summary("%s: keyslot %u %s", q->image, q->slot, words);
		return;
	}
	j = summary_of(q, act);
	json_put_u64(j, "keyslot", q->slot);
	json_print(j);
}

static void print_file_done(const struct request *q, const char *act, const char *words, const char *after)
{
	struct json_object *j;

	if (!ui_is_json()) {
		ui_summary("%s: the header is %s %s%s", q->image, words, q->what, after);
		return;
	}
	j = summary_of(q, act);
	json_put_text(j, "file", q->what);
	json_print(j);
}

/* ---- changes ---------------------------------------------------------------------------------------------- */

static int back_up_first(struct request *q, struct vd_error *e)
{
	if (!q->s->header_backup) {
		ui_note("a header that is lost or damaged takes the disk with it: --header-backup FILE keeps a copy");
		return 0;
	}
	return vd_header_backup(q->img, q->s->header_backup, e);
}

static struct vd_keyslot_opts slot_opts(const struct request *q, const char *kind)
{
	const struct new_image *m = &q->s->made;

	return (struct vd_keyslot_opts){
		.struct_size = sizeof(struct vd_keyslot_opts), .label = q->s->label, .kind = kind,
		.kdf = { .iterations = (uint32_t)m->pbkdf_iterations, .memory_kib = (uint32_t)m->pbkdf_memory },
	};
}

typedef int (*slot_call)(struct vd_image *img, const struct vd_key *key, const struct vd_key *new_key,
			 const struct vd_keyslot_opts *opts, uint32_t *slot, struct vd_error *e);

static int call(struct request *q, slot_call fn, const struct vd_key *new_key, const char *kind, struct vd_error *e)
{
	struct vd_keyslot_opts o = slot_opts(q, kind);
	int r = back_up_first(q, e);

	if (r < 0)
		return r;
	ui_status("deriving keys");
	r = fn(q->img, q->key, new_key, &o, &q->slot, e);
	ui_status_end();
	return r;
}

static int with_new_key(struct request *q, slot_call fn, struct vd_error *e)
{
	struct vd_key *new_key = NULL;
	int r = find_key(q, e);

	if (r == 0)
		r = secrets_for_new(q->s, q->image, CREDENTIAL_NEW_KEY, &new_key, e);
	if (r < 0)
		return r;
	if (!vd_key_is_usable_by_qemu(new_key))
		ui_warn("qemu cannot be given this key: it takes UTF-8 without NUL bytes, at most 512 bytes");
	r = call(q, fn, new_key, q->s->new_keys.n ? "key" : "passphrase", e);
	vd_key_free(new_key);
	return r;
}

static int add(struct request *q, struct vd_error *e)
{
	int r = with_new_key(q, vd_keyslot_add, e);

	if (r == 0)
		print_slot_done(q, "add", "holds the new key");
	return r;
}

static int change(struct request *q, struct vd_error *e)
{
	int r = with_new_key(q, vd_keyslot_change, e);

	if (r < 0)
		return r;
	print_slot_done(q, "change", "holds the new key, and the old one opens the disk no more");
	ui_note("whoever has a copy of the old header and the old key still opens the disk: vdisk convert gives it a new "
		"volume key");
	return 0;
}

static int remove_slot(struct request *q, struct vd_error *e)
{
	char *end;
	unsigned long n = strtoul(q->what, &end, 10);
	int r;

	if (q->what[0] < '0' || q->what[0] > '9' || *end || n >= VD_MAX_SLOTS)
		return fail(e, VD_EARG, "key remove: '%s' is not the number of a keyslot: key list shows them", q->what);
	if (q->s->last_slot) {
		r = ui_confirm(q->s->yes, "If this is the last keyslot, nothing will open the disk any more. Remove it?", e);
		if (r)
			return r;
	}
	r = back_up_first(q, e);
	if (r == 0)
		r = vd_keyslot_remove(q->img, (uint32_t)n, q->s->last_slot ? VD_KEYSLOT_LAST : 0, e);
	q->slot = (uint32_t)n;
	if (r == 0)
		print_slot_done(q, "remove", "removed");
	return r;
}

static int verify(struct request *q, struct vd_error *e)
{
	int r = find_key(q, e);

	if (r == 0)
		print_slot_done(q, "verify", "opens with this key");
	return r;
}

/* ---- recovery and escrow --------------------------------------------------------------------------------------------- */

static int show_recovery(const struct request *q, const char *text, struct vd_error *e)
{
	struct json_object *j;

	if (ui_is_json()) {
		j = summary_of(q, "recovery");
		json_put_u64(j, "keyslot", q->slot);
		json_put_text(j, "recovery-key", text);
		json_print(j);
		return 0;
	}
	ui_line("%s", text);
	ui_note("this is the recovery key of %s (keyslot %u), shown this once: write it down, keep it away from the disk",
		q->image, q->slot);
	return q->s->qr ? recovery_show_qr(text, e) : 0;
}

struct split {
	unsigned k, n;
	char (*shares)[VD_SHARE_SIZE];
};

static int parse_split(const char *text, struct split *s, struct vd_error *e)
{
	char rest;

	if (sscanf(text, "%3u/%3u%c", &s->k, &s->n, &rest) == 2 && s->k >= 2 && s->k <= s->n && s->n <= 255)
		return 0;
	return fail(e, VD_EARG, "--split: '%s' is not K/N such as 2/3: two or more of up to 255", text);
}

static void show_shares(const struct request *q, const struct split *s)
{
	struct json_object *j = NULL, *list = NULL;

	if (ui_is_json()) {
		j = summary_of(q, "recovery");
		json_put_u64(j, "keyslot", q->slot);
		json_put_u64(j, "shares-needed", s->k);
		list = json_put_array(j, "shares");
	}
	for (unsigned i = 0; i < s->n; i++) {
		if (list)
			json_add(list, json_text(s->shares[i]));
		else
			ui_line("%s", s->shares[i]);
	}
	if (j)
		json_print(j);
	else
		ui_note("these are %u shares of the recovery key of %s (keyslot %u), shown this once: any %u of them open it, with "
			"--key-share FILE for each", s->n, q->image, q->slot, s->k);
}

static int recovery_split(struct request *q, struct vd_error *e)
{
	char text[RECOVERY_TEXT_SIZE] = "";
	struct vd_key *made = NULL;
	struct split s = { 0 };
	int r = parse_split(q->s->split, &s, e);

	if (r == 0)
		r = find_key(q, e);
	if (r == 0)
		r = recovery_make(text, &made, e);
	explicit_bzero(text, sizeof(text));
	if (r < 0)
		return r;
	s.shares = calloc(s.n, sizeof(*s.shares));
	if (!s.shares)
		ui_out_of_memory();
	r = vd_key_split(made, s.k, s.n, s.shares, e);
	if (r == 0)
		r = call(q, vd_keyslot_add, made, "recovery", e);
	if (r == 0)
		show_shares(q, &s);
	explicit_bzero(s.shares, s.n * sizeof(*s.shares));
	free(s.shares);
	vd_key_free(made);
	return r;
}

static int recovery(struct request *q, struct vd_error *e)
{
	char text[RECOVERY_TEXT_SIZE] = "";
	struct vd_key *made = NULL;
	int r;

	if (q->s->split)
		return recovery_split(q, e);
	r = find_key(q, e);

	if (r == 0)
		r = recovery_make(text, &made, e);
	if (r == 0)
		r = call(q, vd_keyslot_add, made, "recovery", e);
	if (r == 0)
		r = show_recovery(q, text, e);
	vd_key_free(made);
	explicit_bzero(text, sizeof(text));
	return r;
}

/* The file first: a keyslot whose key nobody has would be there for good. */
static int escrow(struct request *q, struct vd_error *e)
{
	char text[RECOVERY_TEXT_SIZE] = "";
	struct vd_key *made = NULL;
	int r = 0;

	if (!q->s->recipients.n)
		return fail(e, VD_EARG, "key escrow: for whom? --recipient names a public key of age");
	r = find_key(q, e);
	if (r == 0)
		r = recovery_make(text, &made, e);
	explicit_bzero(text, sizeof(text));
	if (r == 0)
		r = vd_key_escrow(made, q->s->recipients.at, q->s->recipients.n, q->what, e);
	if (r == 0) {
		r = call(q, vd_keyslot_add, made, "escrow", e);
		if (r < 0)
			remove(q->what);
	}
	vd_key_free(made);
	if (r < 0)
		return r;
	print_slot_done(q, "escrow", "opens with the key in the file");
	ui_note("age -d -i IDENTITY %s prints that key: keep the file with the image's backups", q->what);
	return 0;
}

/* ---- header backups --------------------------------------------------------------------------------------- */

static int backup_header(struct request *q, struct vd_error *e)
{
	int r = vd_header_backup(q->img, q->what, e);

	if (r == 0)
		print_file_done(q, "backup-header", "backed up in", ": guard that file like the disk");
	return r;
}

/* The key has to open the header in the file: that of the image may be gone. */
static int restore_header(struct request *q, struct vd_error *e)
{
	int r = secrets_of_options(q->s, &q->keys, e);

	if (r == 0 && !q->keys.n)
		r = secrets_unasked(CREDENTIAL_KEY, &q->keys, e);
	if (r == 0 && !q->keys.n)
		r = secrets_ask(q->what, &q->keys, e);
	if (r < 0)
		return r;
	r = VD_EKEY;
	ui_status("deriving key");
	for (size_t i = 0; i < q->keys.n && r == VD_EKEY; i++)
		r = vd_header_restore(q->img, q->what, q->keys.at[i], e);
	ui_status_end();
	if (r == 0)
		print_file_done(q, "restore-header", "that of", " again");
	return r;
}

/* ---- the verb --------------------------------------------------------------------------------------------- */

static const struct act {
	const char *word, *operands;
	size_t n_operands;
	bool changes;
	int (*run)(struct request *q, struct vd_error *e);
} acts[] = {
	{ "list", "IMAGE", 1, false, list },
	{ "add", "IMAGE", 1, true, add },
	{ "change", "IMAGE", 1, true, change },
	{ "remove", "IMAGE SLOT", 2, true, remove_slot },
	{ "verify", "IMAGE", 1, false, verify },
	{ "recovery", "IMAGE", 1, true, recovery },
	{ "escrow", "IMAGE FILE", 2, true, escrow },
	{ "backup-header", "IMAGE FILE", 2, false, backup_header },
	{ "restore-header", "IMAGE FILE", 2, true, restore_header },
};
#define N_ACTS (sizeof(acts) / sizeof(acts[0]))

static const char *act_word(const void *ctx, size_t i)
{
	(void)ctx;
	return i < N_ACTS ? acts[i].word : NULL;
}

static int find_act(const struct settings *s, const struct act **act, struct vd_error *e)
{
	const char *word = s->operands[0], *near;

	for (size_t i = 0; i < N_ACTS; i++) {
		if (strcmp(acts[i].word, word))
			continue;
		*act = &acts[i];
		if (s->n_operands == acts[i].n_operands + 1)
			return 0;
		return fail(e, VD_EARG, "key %s: wants %s, got %zu operand%s", word, acts[i].operands, s->n_operands - 1,
			    s->n_operands == 2 ? "" : "s");
	}
	near = opts_nearest(word, act_word, NULL);
	fail(e, VD_EARG, "key: '%s' is nothing that can be done with keys", word);
	return near ? fail_hint(e, VD_EARG, "did you mean %s?", near) :
		      fail_hint(e, VD_EARG, "what to do comes first: vdisk key list IMAGE");
}

static int run(struct settings *s, struct vd_error *e)
{
	struct request q = { .s = s, .image = s->operands[1], .what = s->operands[2] };
	const struct act *act = NULL;
	int r = find_act(s, &act, e), c = 0;

	if (r < 0)
		return r;
	if (act->changes)
		r = source_open_control(s, q.image, s->format, &q.img, e);
	else
		r = source_open_metadata(s, q.image, s->format, &q.img, e);
	if (r < 0)
		return r;
	r = act->run(&q, e);
	secrets_free(&q.keys);
	c = vd_image_close(q.img, r ? NULL : e);
	return r ? r : c;
}

const struct verb verb_key = {
	.name = "key",
	.operands = "list|add|change|remove|verify|recovery|escrow|backup-header|restore-header IMAGE [SLOT|FILE]",
	.min_operands = 2,
	.max_operands = 3,
	.summary = "list, add, change and remove keys of an encrypted image",
	.about = "Each keyslot of an encrypted image holds the same volume key under another passphrase or key file. A new "
		 "keyslot has been opened once before it counts, and before an old one goes; a crash leaves a key that opens "
		 "the disk. A new passphrase does not lock out who has a copy of the old header: that takes a new volume key.",
	.groups = groups,
	.examples = examples,
	.run = run,
};
