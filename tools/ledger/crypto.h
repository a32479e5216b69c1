/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What proofs need of cryptography: SHA-2 and Ed25519 (RFC 8032). */
#ifndef TOOLS_LEDGER_CRYPTO_H
#define TOOLS_LEDGER_CRYPTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <vdisk.h>

#define SHA256_SIZE 32
#define SHA512_SIZE 64
#define ED25519_SIZE 32         /* of a seed, and of a public key */
#define ED25519_SIG_SIZE 64

/* Before libgcrypt is used, and before threads are started that use it. The library may have been first. */
void crypto_setup(void);

void crypto_sha256(const void *bytes, size_t n, uint8_t digest[SHA256_SIZE]);
void crypto_sha512(const void *bytes, size_t n, uint8_t digest[SHA512_SIZE]);

/* The seed is the secret: memory of the caller that locked_new() gave. */
int crypto_new_key(uint8_t seed[ED25519_SIZE], uint8_t public_key[ED25519_SIZE], struct vd_error *e);
/* VD_EKEY: the two are no pair. */
int crypto_sign(const uint8_t seed[ED25519_SIZE], const uint8_t public_key[ED25519_SIZE], const void *bytes, size_t n,
		uint8_t sig[ED25519_SIG_SIZE], struct vd_error *e);
bool crypto_holds(const uint8_t public_key[ED25519_SIZE], const void *bytes, size_t n, const uint8_t sig[ED25519_SIG_SIZE]);

/* SM2 with SM3 over its hash of key and identifier. `point` is x and y, 32 bytes each; `sig` is r and s. VD_EKEY: no pair. */
int crypto_sm2_sign(const uint8_t number[32], const uint8_t point[64], const void *bytes, size_t n, uint8_t sig[64], struct vd_error *e);
bool crypto_sm2_holds(const uint8_t point[64], const void *bytes, size_t n, const uint8_t sig[64]);

#endif
