/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* All of them by libgcrypt. */
#include "libvdisk/crypto/seal.h"

#include <gcrypt.h>
#include <string.h>

#include "libvdisk/base/secret.h"
#include "libvdisk/crypto/random.h"

static int refused(gcry_error_t err, const char *what, struct vd_error *e)
{
	return vd_fail(e, VD_EFAILED, "%s: libgcrypt refuses: %s", what, gcry_strerror(err));
}

int vd_x25519(const uint8_t scalar[VD_SEAL_KEY], const uint8_t *point, uint8_t out[VD_SEAL_KEY], struct vd_error *e)
{
	static const uint8_t zeros[VD_SEAL_KEY];
	int r = vd_crypto_init(e);
	gcry_error_t err;

	if (r < 0)
		return r;
	err = gcry_ecc_mul_point(GCRY_ECC_CURVE25519, out, scalar, point);
	if (err)
		return refused(err, "X25519", e);
	if (vd_secret_equal(out, zeros, sizeof(zeros)))
		return vd_fail(e, VD_EKEY, "the public key is one with which anybody could read what is encrypted to it");
	return 0;
}

int vd_hmac_sha256(struct vd_bytes key, struct vd_bytes text, uint8_t out[VD_SEAL_KEY], struct vd_error *e)
{
	gcry_md_hd_t h = NULL;
	int r = vd_crypto_init(e);
	gcry_error_t err;

	if (r < 0)
		return r;
	err = gcry_md_open(&h, GCRY_MD_SHA256, GCRY_MD_FLAG_HMAC | GCRY_MD_FLAG_SECURE);
	if (!err)
		err = gcry_md_setkey(h, key.p, key.len);
	if (!err) {
		gcry_md_write(h, text.p, text.len);
		memcpy(out, gcry_md_read(h, GCRY_MD_SHA256), VD_SEAL_KEY);
	}
	gcry_md_close(h);
	return err ? refused(err, "HMAC-SHA-256", e) : 0;
}

int vd_gmac_aes256(const uint8_t key[VD_SEAL_KEY], const uint8_t nonce[VD_GMAC_NONCE], struct vd_bytes text,
		   uint8_t out[VD_SEAL_TAG], struct vd_error *e)
{
	size_t len = VD_SEAL_TAG;
	gcry_mac_hd_t h = NULL;
	int r = vd_crypto_init(e);
	gcry_error_t err;

	if (r < 0)
		return r;
	err = gcry_mac_open(&h, GCRY_MAC_GMAC_AES, GCRY_MAC_FLAG_SECURE, NULL);
	if (!err)
		err = gcry_mac_setkey(h, key, VD_SEAL_KEY);
	if (!err)
		err = gcry_mac_setiv(h, nonce, VD_GMAC_NONCE);
	if (!err)
		err = gcry_mac_write(h, text.p, text.len);
	if (!err)
		err = gcry_mac_read(h, out, &len);
	gcry_mac_close(h);
	return err ? refused(err, "GMAC", e) : 0;
}

/* Extract, then the first block of expand: HMAC(PRK, info || 1) (RFC 5869, 2.3). */
int vd_hkdf_sha256(struct vd_bytes secret, struct vd_bytes salt, const char *info, uint8_t out[VD_SEAL_KEY], struct vd_error *e)
{
	static const uint8_t no_salt[VD_SEAL_KEY];
	uint8_t prk[VD_SEAL_KEY], text[128];
	size_t len = strlen(info);
	int r;

	if (len >= sizeof(text))
		return vd_fail(e, VD_EARG, "HKDF: the purpose is too long");
	if (!salt.len)
		salt = (struct vd_bytes){ no_salt, sizeof(no_salt) };
	r = vd_hmac_sha256(salt, secret, prk, e);
	memcpy(text, info, len);
	text[len] = 1;
	if (r == 0)
		r = vd_hmac_sha256((struct vd_bytes){ prk, sizeof(prk) }, (struct vd_bytes){ text, len + 1 }, out, e);
	vd_wipe(prk, sizeof(prk));
	return r;
}

int vd_chacha20poly1305(const uint8_t key[VD_SEAL_KEY], const uint8_t nonce[12], const void *in, size_t len, uint8_t *out,
			struct vd_error *e)
{
	gcry_cipher_hd_t h = NULL;
	int r = vd_crypto_init(e);
	gcry_error_t err;

	if (r < 0)
		return r;
	err = gcry_cipher_open(&h, GCRY_CIPHER_CHACHA20, GCRY_CIPHER_MODE_POLY1305, GCRY_CIPHER_SECURE);
	if (!err)
		err = gcry_cipher_setkey(h, key, VD_SEAL_KEY);
	if (!err)
		err = gcry_cipher_setiv(h, nonce, 12);
	if (!err)
		err = gcry_cipher_final(h);
	if (!err)
		err = gcry_cipher_encrypt(h, out, len, in, len);
	if (!err)
		err = gcry_cipher_gettag(h, out + len, VD_SEAL_TAG);
	gcry_cipher_close(h);
	return err ? refused(err, "ChaCha20-Poly1305", e) : 0;
}
