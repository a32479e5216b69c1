/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Opens keyslots by the tokens that were kept with them: which there are, in which order, and what is told when none of them
 * leads anywhere. Tokens come from the image and are only passed on; running the key command is key_command.c's.
 */
#include "keys/keycommand.h"
#include "keys/luks.h"

#include "libvdisk/base/cleanup.h"

VD_DEFINE_CLEANUP(struct vd_key, cleanup_key, vd_key_free)
#define auto_key __attribute__((cleanup(cleanup_key)))

struct walk {
	const struct vd_luks_tokens *tokens;
	struct vd_key_command *command;
	vd_luks_try_fn try;
	void *ctx;
	unsigned n_asked;
	struct vd_error first;          /* of all errors but "no match"; it is what is told in the end */
};

static void note_error(struct walk *w, const struct vd_error *e)
{
	if (!w->first.code)
		w->first = *e;
}

/* The number of the keyslot that the token opens; VD_EKEY: on with the next one. Any other code ends it. */
static int try_token(struct walk *w, int slot, const char *token, struct vd_error *e)
{
	const struct vd_key_image image = { w->tokens->view->image, w->tokens->info->uuid };
	auto_key struct vd_key *secret = NULL;
	struct vd_key_reply reply;
	struct vd_error said = { 0 };
	int r = vd_key_command_open(w->command, token, &image, &secret, &reply, e);

	w->n_asked++;
	if (r < 0)
		return r;
	if (reply.verdict == VD_KEY_GIVEN) {
		r = w->try(w->ctx, slot, secret, &said);
		if (r >= 0)
			return r;
		if (r != VD_EKEY) {
			if (e)
				*e = said;
			return r;
		}
		vd_fail(&said, VD_EKEY, "the secret from the key command does not open the keyslot of its token");
	} else if (reply.verdict != VD_KEY_NO_MATCH) {
		vd_key_command_refuses(&reply, &said);
	}
	if (said.code)
		note_error(w, &said);
	return VD_EKEY;
}

static bool token_of(const struct vd_luks_tokens *t, uint32_t slot, char token[VD_KEY_TOKEN_MAX + 1])
{
	struct vd_json note = t->metadata.len ? vd_luks2_token_of(t->metadata, slot) : vd_luks_note_of(t->view, slot);

	return vd_key_token_take(vd_json_get(note, "token"), token);
}

static int nothing_opens(const struct walk *w, struct vd_error *e)
{
	if (w->first.code) {
		if (e)
			*e = w->first;
		return w->first.code;
	}
	if (w->n_asked)
		return vd_fail(e, VD_EKEY, "the key command knows none of the %u tokens", w->n_asked);
	vd_fail(e, VD_EKEY, "no keyslot has a token for the key command");
	return vd_hint(e, VD_EKEY, "vdisk key add --new-key-command makes one; if yours is in a file, name it with --token-file");
}

int vd_luks_open_by_token(const struct vd_luks_tokens *tokens, const struct vd_key *key, vd_luks_try_fn try, void *ctx,
			  struct vd_error *e)
{
	struct walk w = { .tokens = tokens, .command = vd_key_command_of(key), .try = try, .ctx = ctx };
	char token[VD_KEY_TOKEN_MAX + 1];
	int r = vd_key_command_file_token(w.command, token, e);

	if (r == 0)
		r = token[0] ? try_token(&w, -1, token, e) : VD_EKEY;
	for (uint32_t i = 0; i < tokens->info->n_slots && r == VD_EKEY; i++)
		if (token_of(tokens, tokens->info->slots[i].index, token))
			r = try_token(&w, (int)tokens->info->slots[i].index, token, e);
	return r == VD_EKEY ? nothing_opens(&w, e) : r;
}
