/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdisk key: the keyslots of an encrypted image. Recovery keys and escrow, and backups of the header, have files of their own. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fail.h"
#include "json.h"
#include "key_acts.h"
#include "keyslots.h"
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
	{ .name = "openpgp-key", .kind = OPT_TEXTS, .where = WHERE(openpgp_keys), .arg = "KEYFILE",
	  .help = "escrow: a file of OpenPGP public keys that may open FILE; may be repeated" },
	{ .name = "libvirt", .kind = OPT_FLAG, .where = WHERE(libvirt),
	  .help = "export: the secret's XML goes to FILE, and what else libvirt needs is shown" },
	{ .name = "qr", .kind = OPT_FLAG, .where = WHERE(qr), .help = "recovery: show the key as a QR code, too" },
	{ 0 },
};
static const struct opt_group slot_group = { "Keyslots", slot_options };

static const struct opt_group *const groups[] = {
	&slot_group, &opts_format, &opts_header, &opts_sharing, &opts_keys, &opts_second_key, &opts_sealed_key, &opts_output_form, &opts_speech, NULL,
};

static const char *const examples[] = {
	"vdisk key list disk.qcow2",
	"vdisk key change --header-backup before.hdr disk.qcow2",
	"vdisk key add --key-file old.key --new-key-file new.key disk.qcow2",
	"vdisk key recovery --qr disk.qcow2",
	"vdisk key recovery --split 2/3 disk.qcow2",
	"vdisk key escrow --recipient age1... disk.qcow2 disk.key.age",
	"vdisk key escrow --openpgp-key officer.asc disk.qcow2 disk.key.gpg",
	"vdisk key export --libvirt --key-file key disk.qcow2 secret.xml",
	"vdisk key remove disk.qcow2 1",
	NULL,
};

/* ---- the key that opens ----------------------------------------------------------------------------------- */

static int try_keys(struct key_request *q, size_t from, struct vd_error *e)
{
	int r = VD_EKEY;

	secrets_status(q->keys.at, q->keys.n);
	for (size_t i = from; i < q->keys.n && r == VD_EKEY; i++) {
		r = vd_keyslot_find(q->img, q->keys.at[i], &q->slot, e);
		if (r == 0)
			q->key = q->keys.at[i];
	}
	ui_status_end();
	return r;
}

static int ask_for_key(struct key_request *q, struct vd_error *e)
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

int key_find(struct key_request *q, struct vd_error *e)
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
	char date[32] = "-", kind[sizeof(s->kind) + sizeof(s->helper)];
	struct tm tm;

	if (s->created && localtime_r(&then, &tm))
		strftime(date, sizeof(date), "%Y-%m-%d %H:%M", &tm);
	snprintf(kind, sizeof(kind), "%s%s%s", s->kind[0] ? s->kind : "-", s->helper[0] ? " " : "", s->helper);
	ui_line("%-5u %-13s %-17s %-20s %s%s%s%s", s->index, kind, date, s->label[0] ? s->label : "-",
		keyslot_cost(s).s, s->is_weak ? ui_colour(UI_YELLOW) : "", s->is_weak ? "  WEAK" : "", ui_colour(UI_PLAIN));
}

static void warn_of_damage(const struct vd_luks_info *luks)
{
	if (luks->damaged_copy)
		ui_warn("the %s of the two copies of the header is damaged, and the other one is in use: key backup-header keeps what "
			"is left, and any change of keys writes both anew", luks->damaged_copy == 1 ? "first" : "second");
}

static int list(struct key_request *q, struct vd_error *e)
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
	ui_line("%-5s %-13s %-17s %-20s %s", "slot", "kind", "made", "label", "cost of a guess");
	for (uint32_t i = 0; i < info.luks.n_slots; i++)
		print_slot(&info.luks.slots[i]);
	warn_of_damage(&info.luks);
	return 0;
}

/* ---- what is done, in words ------------------------------------------------------------------------------- */

struct json_object *key_summary(const struct key_request *q, const char *act)
{
	struct json_object *j = json_new();

	json_put_text(j, "type", "summary");
	json_put_text(j, "verb", "key");
	json_put_text(j, "act", act);
	json_put_text(j, "image", q->image);
	return j;
}

void key_print_slot(const struct key_request *q, const char *act, const char *words)
{
	struct json_object *j;

	if (!ui_is_json()) {
		ui_summary("%s: keyslot %u %s", q->image, q->slot, words);
		return;
	}
	j = key_summary(q, act);
	json_put_u64(j, "keyslot", q->slot);
	json_print(j);
}

/* ---- changes ---------------------------------------------------------------------------------------------- */

static struct vd_keyslot_opts slot_opts(const struct key_request *q, const char *kind)
{
	const struct new_image *m = &q->s->made;

	return (struct vd_keyslot_opts){
		.struct_size = sizeof(struct vd_keyslot_opts), .label = q->s->label, .kind = kind,
		.kdf = { .iterations = (uint32_t)m->pbkdf_iterations, .memory_kib = (uint32_t)m->pbkdf_memory },
	};
}

int key_add_slot(struct key_request *q, key_slot_call fn, struct vd_key *new_key, const char *kind, struct vd_error *e)
{
	struct vd_key *const both[] = { q->key, new_key };
	struct vd_keyslot_opts o = slot_opts(q, kind);
	int r = key_offer_backup(q, e);

	if (r < 0)
		return r;
	secrets_status(both, 2);
	r = fn(q->img, q->key, new_key, &o, &q->slot, e);
	ui_status_end();
	return r;
}

void key_warn_of(const struct key_request *q, const struct vd_key *key)
{
	struct vd_info info;
	bool for_qemu = source_info(q->img, &info, NULL) == 0 && info.luks.version == 1;

	if (for_qemu && !vd_key_is_usable_by_qemu(key))
		ui_warn("qemu cannot be given this key: it takes UTF-8 without NUL bytes, at most 512 bytes");
	else if (vd_key_ends_with_newline(key))
		ui_warn("the key ends with a newline, which is part of it: typed, or as a passphrase file, it does not fit");
}

static int with_new_key(struct key_request *q, key_slot_call fn, struct vd_error *e)
{
	struct vd_key *new_key = NULL;
	int r = key_find(q, e);

	if (r == 0)
		r = secrets_for_new(q->s, q->image, CREDENTIAL_NEW_KEY, &new_key, e);
	if (r < 0)
		return r;
	key_warn_of(q, new_key);
	r = key_add_slot(q, fn, new_key, vd_key_is_command(new_key) ? "token" : q->s->new_keys.n ? "key" : "passphrase", e);
	vd_key_free(new_key);
	return r;
}

static int add(struct key_request *q, struct vd_error *e)
{
	int r = with_new_key(q, vd_keyslot_add, e);

	if (r == 0)
		key_print_slot(q, "add", "holds the new key");
	return r;
}

static int change(struct key_request *q, struct vd_error *e)
{
	int r = with_new_key(q, vd_keyslot_change, e);

	if (r < 0)
		return r;
	key_print_slot(q, "change", "holds the new key, and the old one opens the disk no more");
	ui_note("whoever has a copy of the old header and the old key still opens the disk: vdisk rekey --volume-key "
		"gives it a new volume key");
	return 0;
}

static int remove_slot(struct key_request *q, struct vd_error *e)
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
	r = key_offer_backup(q, e);
	if (r == 0)
		r = vd_keyslot_remove(q->img, (uint32_t)n, q->s->last_slot ? VD_KEYSLOT_LAST : 0, e);
	q->slot = (uint32_t)n;
	if (r == 0)
		key_print_slot(q, "remove", "removed");
	return r;
}

static int verify(struct key_request *q, struct vd_error *e)
{
	int r = key_find(q, e);

	if (r < 0)
		return r;
	key_print_slot(q, "verify", "opens with this key");
	key_warn_of(q, q->key);
	return 0;
}

/* ---- the verb --------------------------------------------------------------------------------------------- */

static const struct act {
	const char *word, *operands;
	size_t n_operands;
	bool changes;
	int (*run)(struct key_request *q, struct vd_error *e);
} acts[] = {
	{ "list", "IMAGE", 1, false, list },
	{ "add", "IMAGE", 1, true, add },
	{ "change", "IMAGE", 1, true, change },
	{ "remove", "IMAGE SLOT", 2, true, remove_slot },
	{ "verify", "IMAGE", 1, false, verify },
	{ "recovery", "IMAGE", 1, true, key_act_recovery },
	{ "escrow", "IMAGE FILE", 2, true, key_act_escrow },
	{ "backup-header", "IMAGE FILE", 2, false, key_act_backup_header },
	{ "restore-header", "IMAGE FILE", 2, true, key_act_restore_header },
	{ "export", "IMAGE FILE", 2, false, key_act_export },
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
	struct key_request q = { .s = s, .image = s->operands[1], .what = s->operands[2] };
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
	.operands = "list|add|change|remove|verify|recovery|escrow|backup-header|restore-header|export IMAGE [SLOT|FILE]",
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
