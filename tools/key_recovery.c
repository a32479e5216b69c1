/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdisk key recovery and escrow: keyslots for keys that are made here, shown once, split, or encrypted to others. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"
#include "key_acts.h"
#include "locked.h"
#include "recovery.h"
#include "ui.h"

static int show_recovery(const struct key_request *q, const char *text, struct vd_error *e)
{
	struct json_object *j;
	int r;

	if (ui_is_json()) {
		j = key_summary(q, "recovery");
		json_put_u64(j, "keyslot", q->slot);
		return locked_show_text_in(j, "recovery-key", text, e);
	}
	r = locked_show(text, RECOVERY_TEXT_SIZE, 1, e);
	if (r < 0)
		return r;
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

static int show_shares(const struct key_request *q, const struct split *s, struct vd_error *e)
{
	struct json_object *j;
	int r;

	if (ui_is_json()) {
		j = key_summary(q, "recovery");
		json_put_u64(j, "keyslot", q->slot);
		json_put_u64(j, "shares-needed", s->k);
		return locked_show_array_in(j, "shares", s->shares[0], VD_SHARE_SIZE, s->n, e);
	}
	r = locked_show(s->shares[0], VD_SHARE_SIZE, s->n, e);
	if (r == 0)
		ui_note("these are %u shares of the recovery key of %s (keyslot %u), shown this once: any %u of them open it, with "
			"--key-share FILE for each", s->n, q->image, q->slot, s->k);
	return r;
}

/* A key that is only kept as such, without its text. */
static int make_key(struct vd_key **made, struct vd_error *e)
{
	char *text = locked_new(RECOVERY_TEXT_SIZE);
	int r = recovery_make(text, made, e);

	locked_free(text, RECOVERY_TEXT_SIZE);
	return r;
}

static int recovery_split(struct key_request *q, struct vd_error *e)
{
	struct vd_key *made = NULL;
	struct split s = { 0 };
	int r = parse_split(q->s->split, &s, e);

	if (r == 0)
		r = key_find(q, e);
	if (r == 0)
		r = make_key(&made, e);
	if (r < 0)
		return r;
	s.shares = (char (*)[VD_SHARE_SIZE])locked_new(s.n * sizeof(*s.shares));
	r = vd_key_split(made, s.k, s.n, s.shares, e);
	if (r == 0)
		r = key_add_slot(q, vd_keyslot_add, made, "recovery", e);
	if (r == 0)
		r = show_shares(q, &s, e);
	locked_free(s.shares[0], s.n * sizeof(*s.shares));
	vd_key_free(made);
	return r;
}

int key_act_recovery(struct key_request *q, struct vd_error *e)
{
	struct vd_key *made = NULL;
	char *text = NULL;
	int r;

	if (q->s->split)
		return recovery_split(q, e);
	r = key_find(q, e);
	if (r < 0)
		return r;
	text = locked_new(RECOVERY_TEXT_SIZE);
	r = recovery_make(text, &made, e);
	if (r == 0)
		r = key_add_slot(q, vd_keyslot_add, made, "recovery", e);
	if (r == 0)
		r = show_recovery(q, text, e);
	vd_key_free(made);
	locked_free(text, RECOVERY_TEXT_SIZE);
	return r;
}

/* age and OpenPGP have a file each: what opens one says nothing of the other. */
static int judge_recipients(const struct settings *s, struct vd_error *e)
{
	if (s->recipients.n && s->openpgp_keys.n) {
		fail(e, VD_EARG, "key escrow: a file is for recipients of age or for OpenPGP keys, not for both");
		return fail_hint(e, VD_EARG, "do it twice: each gets a keyslot and a file of its own");
	}
	if (s->recipients.n || s->openpgp_keys.n)
		return 0;
	return fail(e, VD_EARG, "key escrow: for whom? --recipient names a public key of age, --openpgp-key a file of OpenPGP keys");
}

static int seal(const struct key_request *q, const struct vd_key *made, struct vd_error *e)
{
	const struct texts *age = &q->s->recipients, *openpgp = &q->s->openpgp_keys;

	return age->n ? vd_key_escrow(made, age->at, age->n, q->what, e) :
			vd_key_escrow_openpgp(made, openpgp->at, openpgp->n, q->what, e);
}

/* The file first: a keyslot whose key nobody has would be there for good. */
int key_act_escrow(struct key_request *q, struct vd_error *e)
{
	struct vd_key *made = NULL;
	int r = judge_recipients(q->s, e);

	if (r == 0)
		r = key_find(q, e);
	if (r == 0)
		r = make_key(&made, e);
	if (r == 0)
		r = seal(q, made, e);
	if (r == 0) {
		r = key_add_slot(q, vd_keyslot_add, made, "escrow", e);
		if (r < 0)
			remove(q->what);
	}
	vd_key_free(made);
	if (r < 0)
		return r;
	key_print_slot(q, "escrow", "opens with the key in the file");
	ui_note("%s %s prints that key: keep the file with the image's backups",
		q->s->recipients.n ? "age -d -i IDENTITY" : "gpg -d", q->what);
	return 0;
}
