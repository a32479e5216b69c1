/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What it takes to encrypt a few bytes to a public key: X25519 (RFC 7748), HKDF (RFC 5869), ChaCha20-Poly1305 (RFC 8439). */
#ifndef VD_CRYPTO_SEAL_H
#define VD_CRYPTO_SEAL_H

#include "libvdisk/base/bytes.h"
#include "libvdisk/base/error.h"

#define VD_SEAL_KEY 32          /* bytes of each key, point, and of SHA-256 */
#define VD_SEAL_TAG 16          /* bytes by which a sealed text is longer */

/* scalar times point; NULL: the base point. VD_EKEY for a point of small order, which would share nothing. */
int vd_x25519(const uint8_t scalar[VD_SEAL_KEY], const uint8_t *point, uint8_t out[VD_SEAL_KEY], struct vd_error *e) VD_MUST_CHECK;
int vd_hmac_sha256(struct vd_bytes key, struct vd_bytes text, uint8_t out[VD_SEAL_KEY], struct vd_error *e) VD_MUST_CHECK;
#define VD_GMAC_NONCE 12
/* GMAC (NIST SP 800-38D) with AES-256. No key may see a nonce twice. */
int vd_gmac_aes256(const uint8_t key[VD_SEAL_KEY], const uint8_t nonce[VD_GMAC_NONCE], struct vd_bytes text,
		   uint8_t out[VD_SEAL_TAG], struct vd_error *e) VD_MUST_CHECK;
/* One block of HKDF-SHA-256, which is all that a key takes. */
int vd_hkdf_sha256(struct vd_bytes secret, struct vd_bytes salt, const char *info, uint8_t out[VD_SEAL_KEY],
		   struct vd_error *e) VD_MUST_CHECK;
/* out has len + VD_SEAL_TAG bytes. No key may see a nonce twice. */
int vd_chacha20poly1305(const uint8_t key[VD_SEAL_KEY], const uint8_t nonce[12], const void *in, size_t len, uint8_t *out,
			struct vd_error *e) VD_MUST_CHECK;

#endif
