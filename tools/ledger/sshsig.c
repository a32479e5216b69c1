/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Makes and reads SSHSIG signatures. What is signed is bytes to it; who may sign is allowed.c's. */
#include "ledger/sshsig.h"

#include <string.h>

#include "fail.h"
#include "ledger/agent.h"
#include "ledger/armour.h"

#define MAGIC "SSHSIG"          /* six bytes: no NUL */
#define VERSION 1

int signer_open(const char *path, struct signer *s, struct vd_error *e)
{
	int r;

	*s = (struct signer){ .path = path };
	r = sshkey_read(path, &s->key, e);
	if (r == 0 && !s->key.seed)
		r = agent_judge(path, e);
	return r;
}

void signer_close(struct signer *s)
{
	sshkey_free(&s->key);
}

/* What is signed in place of the message. */
static void put_signed(const char *ns, bool is_sha256, const struct bytes *message, struct bytes *out)
{
	uint8_t digest[SHA512_SIZE];

	if (is_sha256)
		crypto_sha256(message->at, message->n, digest);
	else
		crypto_sha512(message->at, message->n, digest);
	bytes_add(out, MAGIC, 6);
	bytes_string_text(out, ns);
	bytes_string_text(out, "");
	bytes_string_text(out, is_sha256 ? "sha256" : "sha512");
	bytes_string(out, digest, is_sha256 ? SHA256_SIZE : SHA512_SIZE);
}

static void put_armoured(const struct signer *s, const char *ns, const uint8_t sig[ED25519_SIG_SIZE], struct bytes *out)
{
	uint8_t blob[SSHKEY_BLOB_SIZE];
	struct bytes b = { 0 }, inner = { 0 };
	char letters[1024];

	sshkey_blob(s->key.public_key, blob);
	bytes_add(&b, MAGIC, 6);
	bytes_u32(&b, VERSION);
	bytes_string(&b, blob, sizeof(blob));
	bytes_string_text(&b, ns);
	bytes_string_text(&b, "");
	bytes_string_text(&b, "sha512");
	bytes_string_text(&inner, SSHKEY_TYPE);
	bytes_string(&inner, sig, ED25519_SIG_SIZE);
	bytes_string(&b, inner.at, inner.n);
	armour_put(ARMOUR_SIGNATURE, b.at, b.n, letters, out);
	bytes_free(&inner);
	bytes_free(&b);
}

int sshsig_make(const struct signer *s, const char *ns, const struct bytes *message, struct bytes *out, struct vd_error *e)
{
	uint8_t sig[ED25519_SIG_SIZE];
	struct bytes text = { 0 };
	int r;

	put_signed(ns, false, message, &text);
	if (s->key.seed)
		r = crypto_sign(s->key.seed, s->key.public_key, text.at, text.n, sig, e);
	else
		r = agent_sign(s->path, s->key.public_key, &text, sig, e);
	bytes_free(&text);
	if (r == 0)
		put_armoured(s, ns, sig, out);
	return r;
}

static bool take(struct cursor c, struct sshsig *sig)
{
	const uint8_t *magic = cursor_take(&c, 6);
	uint32_t version = cursor_u32(&c);
	struct cursor key = cursor_string(&c), ns = cursor_string(&c), reserved = cursor_string(&c), hash = cursor_string(&c);
	struct cursor inner = cursor_string(&c), type = cursor_string(&inner), raw = cursor_string(&inner);

	if (!magic || memcmp(magic, MAGIC, 6) || version != VERSION || !cursor_is_done(&c) || !cursor_is_done(&inner))
		return false;
	sig->is_sha256 = cursor_is_text(&hash, "sha256");
	if (!sig->is_sha256 && !cursor_is_text(&hash, "sha512"))
		return false;
	if (!ns.left || ns.left >= sizeof(sig->ns) || memchr(ns.at, 0, ns.left) || reserved.left)
		return false;
	memcpy(sig->ns, ns.at, ns.left);
	if (!sshkey_of_blob(key, sig->public_key) || !cursor_is_text(&type, SSHKEY_TYPE) || raw.left != ED25519_SIG_SIZE)
		return false;
	memcpy(sig->sig, raw.at, ED25519_SIG_SIZE);
	return true;
}

int sshsig_read(const char *path, const struct bytes *text, struct sshsig *sig, struct vd_error *e)
{
	char letters[SSHSIG_FILE_MAX + 1];
	uint8_t room[SSHSIG_FILE_MAX];
	struct bytes b = bytes_over(room, sizeof(room));

	*sig = (struct sshsig){ 0 };
	if (text->n > SSHSIG_FILE_MAX || !armour_take(ARMOUR_SIGNATURE, (const char *)text->at, text->n, letters, &b) ||
	    !take(cursor_of(b.at, b.n), sig))
		return fail(e, VD_EAUTH, "%s: is no signature of an Ed25519 key as ssh-keygen makes them", path);
	return 0;
}

int sshsig_judge(const struct sshsig *sig, const char *ns, const struct bytes *message, struct vd_error *e)
{
	struct bytes text = { 0 };
	bool holds;

	put_signed(sig->ns, sig->is_sha256, message, &text);
	holds = crypto_holds(sig->public_key, text.at, text.n, sig->sig);
	bytes_free(&text);
	if (!holds)
		return fail(e, VD_EAUTH, "the signature does not hold: what was signed was changed, or is something else");
	if (strcmp(sig->ns, ns))
		return fail(e, VD_EAUTH, "the signature was given for another purpose: '%s', not '%s'", sig->ns, ns);
	return 0;
}
