/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Encrypts a secret to public keys in the file format of age (C2SP, "age-encryption.org/v1"), so that age itself, or any
 * program of its kind, gets it back. Only X25519 recipients; nothing is read here.
 *
 *   file    = "age-encryption.org/v1\n" stanza+ "--- " base64(mac) "\n" nonce:16 payload
 *   stanza  = "-> X25519 " base64(share) "\n" base64(wrapped file key) "\n"
 *   payload = chunks of 64 KiB by ChaCha20-Poly1305; a secret is one, the last: nonce counter 0, last byte 1
 */
#include "keys/base64.h"
#include "keys/bech32.h"
#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/base/secret.h"
#include "libvdisk/core/keysrc.h"
#include "libvdisk/crypto/random.h"
#include "libvdisk/crypto/seal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_KEY 16
#define STANZA_MAX 128          /* bytes of one stanza: 10 + 43 + 1 + 43 + 1 */
#define INTRO "age-encryption.org/v1\n"

/* The file key under what only the recipient can derive. */
static int wrap(const uint8_t recipient[VD_SEAL_KEY], const uint8_t file_key[FILE_KEY], char *out, size_t *len, struct vd_error *e)
{
	static const uint8_t nonce[12];
	uint8_t own[VD_SEAL_KEY], salt[2 * VD_SEAL_KEY], shared[VD_SEAL_KEY], key[VD_SEAL_KEY], body[FILE_KEY + VD_SEAL_TAG];
	char share_text[48], body_text[48];
	int r = vd_random(own, sizeof(own), e);

	if (r == 0)
		r = vd_x25519(own, NULL, salt, e);
	if (r == 0)
		r = vd_x25519(own, recipient, shared, e);
	memcpy(salt + VD_SEAL_KEY, recipient, VD_SEAL_KEY);
	if (r == 0)
		r = vd_hkdf_sha256((struct vd_bytes){ shared, sizeof(shared) }, (struct vd_bytes){ salt, sizeof(salt) },
				   "age-encryption.org/v1/X25519", key, e);
	if (r == 0)
		r = vd_chacha20poly1305(key, nonce, file_key, FILE_KEY, body, e);
	vd_wipe(own, sizeof(own));
	vd_wipe(shared, sizeof(shared));
	vd_wipe(key, sizeof(key));
	if (r < 0)
		return r;
	vd_base64_encode((struct vd_bytes){ salt, VD_SEAL_KEY }, share_text);
	vd_base64_encode((struct vd_bytes){ body, sizeof(body) }, body_text);
	*len += (size_t)sprintf(out + *len, "-> X25519 %s\n%s\n", share_text, body_text);
	return 0;
}

static int add_recipient(const char *text, const uint8_t file_key[FILE_KEY], char *out, size_t *len, struct vd_error *e)
{
	uint8_t point[VD_SEAL_KEY];

	if (vd_bech32_decode(text, "age", point, sizeof(point)))
		return wrap(point, file_key, out, len, e);
	vd_fail(e, VD_EARG, "'%.80s' is no recipient of age", text);
	return vd_hint(e, VD_EARG, "it begins with age1 and has 62 letters: age-keygen -y prints it");
}

static int finish_header(const uint8_t file_key[FILE_KEY], char *out, size_t *len, struct vd_error *e)
{
	uint8_t key[VD_SEAL_KEY], mac[VD_SEAL_KEY];
	char text[48];
	int r = vd_hkdf_sha256((struct vd_bytes){ file_key, FILE_KEY }, (struct vd_bytes){ 0 }, "header", key, e);

	*len += (size_t)sprintf(out + *len, "---");
	if (r == 0)
		r = vd_hmac_sha256((struct vd_bytes){ key, sizeof(key) }, (struct vd_bytes){ (uint8_t *)out, *len }, mac, e);
	vd_wipe(key, sizeof(key));
	if (r < 0)
		return r;
	vd_base64_encode((struct vd_bytes){ mac, sizeof(mac) }, text);
	*len += (size_t)sprintf(out + *len, " %s\n", text);
	return 0;
}

static int add_payload(const uint8_t file_key[FILE_KEY], struct vd_bytes secret, uint8_t *out, size_t *len, struct vd_error *e)
{
	static const uint8_t last[12] = { [11] = 1 };
	uint8_t nonce[16], key[VD_SEAL_KEY];
	int r = vd_random(nonce, sizeof(nonce), e);

	if (r == 0)
		r = vd_hkdf_sha256((struct vd_bytes){ file_key, FILE_KEY }, (struct vd_bytes){ nonce, sizeof(nonce) }, "payload", key, e);
	if (r < 0)
		return r;
	memcpy(out + *len, nonce, sizeof(nonce));
	*len += sizeof(nonce);
	r = vd_chacha20poly1305(key, last, secret.p, secret.len, out + *len, e);
	*len += secret.len + VD_SEAL_TAG;
	vd_wipe(key, sizeof(key));
	return r;
}

int vd_age_seal(const struct vd_key *key, const char *const *recipients, size_t n, uint8_t **out, size_t *out_len, struct vd_error *e)
{
	struct vd_bytes secret = vd_key_bytes(key);
	vd_auto_free char *text = NULL;
	uint8_t file_key[FILE_KEY];
	size_t len = sizeof(INTRO) - 1;
	int r = vd_key_judge_secret(key, "an escrow file", e);

	if (r == 0)
		r = vd_alloc(1, len + n * STANZA_MAX + 128 + secret.len, &text, e);

	if (r == 0)
		r = vd_random(file_key, sizeof(file_key), e);
	if (r < 0)
		return r;
	memcpy(text, INTRO, len);
	for (size_t i = 0; i < n && r == 0; i++)
		r = add_recipient(recipients[i], file_key, text, &len, e);
	if (r == 0)
		r = finish_header(file_key, text, &len, e);
	if (r == 0)
		r = add_payload(file_key, secret, (uint8_t *)text, &len, e);
	vd_wipe(file_key, sizeof(file_key));
	if (r < 0)
		return r;
	*out = (uint8_t *)vd_steal(&text);
	*out_len = len;
	return 0;
}
