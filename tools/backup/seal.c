/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The one file of tools/backup/ that includes libgcrypt. What is sealed, and which key is whose, others know. */
#include "backup/seal.h"

#include <gcrypt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "fail.h"
#include "ledger/crypto.h"
#include "ui.h"

#define IV_SIZE 16
#define TAG_SIZE 16
/* What is derived stays below a GiB and a minute whatever a key file asks for. */
#define SCRYPT_N_MAX (1u << 20)
#define SCRYPT_P_MAX 64

struct sealer {
	gcry_cipher_hd_t cipher;
	gcry_mac_hd_t mac;
	bool is_used;                   /* the MAC is: libgcrypt resets none that is fresh */
};

static int refused(gcry_error_t err, const char *what, struct vd_error *e)
{
	return fail(e, VD_EFAILED, "%s: libgcrypt: %s", what, gcry_strerror(err));
}

void sealer_free(struct sealer *s)
{
	if (!s)
		return;
	gcry_cipher_close(s->cipher);
	gcry_mac_close(s->mac);
	free(s);
}

int sealer_new(const struct seal_key *key, struct sealer **out, struct vd_error *e)
{
	struct sealer *s = calloc(1, sizeof(*s));
	gcry_error_t err;

	if (!s)
		ui_out_of_memory();
	crypto_setup();
	err = gcry_cipher_open(&s->cipher, GCRY_CIPHER_AES256, GCRY_CIPHER_MODE_CTR, GCRY_CIPHER_SECURE);
	if (!err)
		err = gcry_cipher_setkey(s->cipher, key->encrypt, sizeof(key->encrypt));
	if (!err)
		err = gcry_mac_open(&s->mac, GCRY_MAC_POLY1305_AES, GCRY_MAC_FLAG_SECURE, NULL);
	/* k, then r: as they lie side by side in the key. */
	if (!err)
		err = gcry_mac_setkey(s->mac, key->mac_k, sizeof(key->mac_k) + sizeof(key->mac_r));
	if (err) {
		sealer_free(s);
		return refused(err, "the repository's ciphers", e);
	}
	*out = s;
	return 0;
}

static gcry_error_t tag_of(struct sealer *s, const uint8_t iv[IV_SIZE], const uint8_t *cipher, size_t n, uint8_t tag[TAG_SIZE])
{
	size_t len = TAG_SIZE;
	gcry_error_t err = s->is_used ? gcry_mac_reset(s->mac) : 0;

	s->is_used = true;
	if (!err)
		err = gcry_mac_setiv(s->mac, iv, IV_SIZE);
	if (!err && n)
		err = gcry_mac_write(s->mac, cipher, n);
	return err ? err : gcry_mac_read(s->mac, tag, &len);
}

static gcry_error_t crypt(struct sealer *s, const uint8_t iv[IV_SIZE], const void *in, size_t n, uint8_t *out)
{
	gcry_error_t err = gcry_cipher_setctr(s->cipher, iv, IV_SIZE);

	if (err || !n)
		return err;
	/* Encrypting and decrypting are the same. */
	return in == out ? gcry_cipher_encrypt(s->cipher, out, n, NULL, 0) : gcry_cipher_encrypt(s->cipher, out, n, in, n);
}

int seal(struct sealer *s, const void *plain, size_t n, uint8_t *out, struct vd_error *e)
{
	gcry_error_t err;

	gcry_create_nonce(out, IV_SIZE);
	err = crypt(s, out, plain, n, out + IV_SIZE);
	if (!err)
		err = tag_of(s, out, out + IV_SIZE, n, out + IV_SIZE + n);
	return err ? refused(err, "encrypting", e) : 0;
}

static bool is_same_tag(const uint8_t *a, const uint8_t *b)
{
	uint8_t differs = 0;

	for (size_t i = 0; i < TAG_SIZE; i++)
		differs |= a[i] ^ b[i];
	return !differs;
}

int unseal(struct sealer *s, const uint8_t *sealed, size_t n, uint8_t *out, struct vd_error *e)
{
	uint8_t tag[TAG_SIZE];
	gcry_error_t err;

	if (n < SEAL_OVERHEAD)
		return fail(e, VD_EAUTH, "%zu bytes are too few for anything that is sealed", n);
	n -= SEAL_OVERHEAD;
	err = tag_of(s, sealed, sealed + IV_SIZE, n, tag);
	if (!err && !is_same_tag(tag, sealed + IV_SIZE + n))
		return fail(e, VD_EAUTH, "the seal does not hold");
	if (!err)
		err = crypt(s, sealed, sealed + IV_SIZE, n, out);
	return err ? refused(err, "decrypting", e) : 0;
}

static bool is_reasonable(const struct scrypt_cost *c)
{
	return c->n >= 2 && c->n <= SCRYPT_N_MAX && !(c->n & (c->n - 1)) && c->r == 8 && c->p >= 1 && c->p <= SCRYPT_P_MAX;
}

int seal_derive(const struct vd_key *secret, const uint8_t *salt, size_t salt_len, const struct scrypt_cost *cost,
		struct seal_key *out, struct vd_error *e)
{
	const void *bytes;
	size_t len;
	gcry_error_t err;
	int r;

	if (!is_reasonable(cost) || !salt_len)
		return fail(e, VD_ECORRUPT, "scrypt with N=%llu, r=%llu, p=%llu is not what a key file asks for",
			    (unsigned long long)cost->n, (unsigned long long)cost->r, (unsigned long long)cost->p);
	r = vd_key_view(secret, &bytes, &len, e);
	if (r < 0)
		return r;
	crypto_setup();
	/* libgcrypt knows r = 8 alone; N goes by the name of the sub-algorithm, p by that of iterations. */
	err = gcry_kdf_derive(bytes, len, GCRY_KDF_SCRYPT, (int)cost->n, salt, salt_len, cost->p, sizeof(*out), out);
	return err ? refused(err, "scrypt", e) : 0;
}

/* Bits that Poly1305 wants to be zero ("The Poly1305-AES message-authentication code", 2). */
static void mask_r(uint8_t r[16])
{
	for (int i = 3; i < 16; i += 4)
		r[i] &= 0x0f;
	for (int i = 4; i < 16; i += 4)
		r[i] &= 0xfc;
}

void seal_new_key(struct seal_key *out)
{
	crypto_setup();
	gcry_randomize(out, sizeof(*out), GCRY_STRONG_RANDOM);
	mask_r(out->mac_r);
}

void seal_random(void *out, size_t n)
{
	crypto_setup();
	gcry_create_nonce(out, n);
}

void id_of(const void *bytes, size_t n, uint8_t id[ID_SIZE])
{
	crypto_sha256(bytes, n, id);
}

void id_of_pieces(const struct iovec *pieces, int n, uint8_t id[ID_SIZE])
{
	gcry_md_hd_t md;

	crypto_setup();
	if (gcry_md_open(&md, GCRY_MD_SHA256, 0))
		ui_out_of_memory();
	for (int i = 0; i < n; i++)
		gcry_md_write(md, pieces[i].iov_base, pieces[i].iov_len);
	memcpy(id, gcry_md_read(md, GCRY_MD_SHA256), ID_SIZE);
	gcry_md_close(md);
}

void id_show(const uint8_t id[ID_SIZE], char hex[ID_HEX_SIZE])
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < ID_SIZE; i++) {
		hex[2 * i] = digits[id[i] >> 4];
		hex[2 * i + 1] = digits[id[i] & 15];
	}
	hex[2 * ID_SIZE] = '\0';
}

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool id_read(const char *hex, uint8_t id[ID_SIZE])
{
	for (size_t i = 0; i < ID_SIZE; i++) {
		int high = digit(hex[2 * i]), low = high < 0 ? -1 : digit(hex[2 * i + 1]);

		if (low < 0)
			return false;
		id[i] = (uint8_t)(high << 4 | low);
	}
	return hex[2 * ID_SIZE] == '\0';
}
