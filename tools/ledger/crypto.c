/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The one file of tools/ledger/ that includes libgcrypt. Knows neither files nor formats. */
#include "ledger/crypto.h"

#include <errno.h>
#include <gcrypt.h>
#include <string.h>

#include "fail.h"

void crypto_setup(void)
{
	struct vd_error ignored;

	/* The library's way, whoever is first: its keys lie in libgcrypt's pool. A libgcrypt that is too old fails whatever is done with it. */
	(void)!vd_libgcrypt_setup(&ignored);
}

void crypto_sha256(const void *bytes, size_t n, uint8_t digest[SHA256_SIZE])
{
	crypto_setup();
	gcry_md_hash_buffer(GCRY_MD_SHA256, digest, bytes, n);
}

void crypto_sha512(const void *bytes, size_t n, uint8_t digest[SHA512_SIZE])
{
	crypto_setup();
	gcry_md_hash_buffer(GCRY_MD_SHA512, digest, bytes, n);
}

static int refused(gcry_error_t err, const char *what, struct vd_error *e)
{
	return fail(e, VD_EFAILED, "%s: libgcrypt: %s", what, gcry_strerror(err));
}

/* The value of a list such as (q ...), which has exactly n bytes; the point of a key may have its prefix before them. */
static bool take_value(gcry_sexp_t from, const char *name, uint8_t *out, size_t n)
{
	gcry_sexp_t list = gcry_sexp_find_token(from, name, 0);
	size_t len = 0;
	const char *at = list ? gcry_sexp_nth_data(list, 1, &len) : NULL;
	bool has_prefix = at && len == n + 1 && at[0] == 0x40;

	if (at && (len == n || has_prefix))
		memcpy(out, at + has_prefix, n);
	gcry_sexp_release(list);
	return at && (len == n || has_prefix);
}

int crypto_new_key(uint8_t seed[ED25519_SIZE], uint8_t public_key[ED25519_SIZE], struct vd_error *e)
{
	gcry_sexp_t how = NULL, pair = NULL;
	gcry_error_t err;
	bool found;

	crypto_setup();
	err = gcry_sexp_build(&how, NULL, "(genkey (ecc (curve Ed25519)(flags eddsa)))");
	if (!err)
		err = gcry_pk_genkey(&pair, how);
	gcry_sexp_release(how);
	if (err)
		return refused(err, "a new key", e);
	found = take_value(pair, "d", seed, ED25519_SIZE) && take_value(pair, "q", public_key, ED25519_SIZE);
	gcry_sexp_release(pair);
	return found ? 0 : fail(e, VD_EFAILED, "a new key: libgcrypt gave none of 32 bytes");
}

static gcry_error_t data_of(const void *bytes, size_t n, gcry_sexp_t *out)
{
	return gcry_sexp_build(out, NULL, "(data (flags eddsa)(hash-algo sha512)(value %b))", (int)n, bytes);
}

/* An expression is in secure memory where a value that goes into it is. */
static gcry_error_t secret_of(const uint8_t seed[ED25519_SIZE], gcry_sexp_t *out)
{
	uint8_t *copy = gcry_malloc_secure(ED25519_SIZE);
	gcry_error_t err;

	if (!copy)
		return gcry_error_from_errno(ENOMEM);
	memcpy(copy, seed, ED25519_SIZE);
	err = gcry_sexp_build(out, NULL, "(private-key (ecc (curve Ed25519)(flags eddsa)(d %b)))", ED25519_SIZE, copy);
	gcry_free(copy);
	return err;
}

int crypto_sign(const uint8_t seed[ED25519_SIZE], const uint8_t public_key[ED25519_SIZE], const void *bytes, size_t n,
		uint8_t sig[ED25519_SIG_SIZE], struct vd_error *e)
{
	gcry_sexp_t key = NULL, data = NULL, made = NULL;
	gcry_error_t err;
	bool found;

	crypto_setup();
	err = secret_of(seed, &key);
	if (!err)
		err = data_of(bytes, n, &data);
	if (!err)
		err = gcry_pk_sign(&made, data, key);
	found = !err && take_value(made, "r", sig, 32) && take_value(made, "s", sig + 32, 32);
	gcry_sexp_release(key);
	gcry_sexp_release(data);
	gcry_sexp_release(made);
	if (err)
		return refused(err, "signing", e);
	/* The public half was derived anew for this: a file whose halves do not belong together gives nothing away. */
	if (!found || !crypto_holds(public_key, bytes, n, sig))
		return fail(e, VD_EKEY, "the private key and its public key are no pair");
	return 0;
}

bool crypto_holds(const uint8_t public_key[ED25519_SIZE], const void *bytes, size_t n, const uint8_t sig[ED25519_SIG_SIZE])
{
	gcry_sexp_t key = NULL, data = NULL, made = NULL;
	gcry_error_t err;

	crypto_setup();
	err = gcry_sexp_build(&key, NULL, "(public-key (ecc (curve Ed25519)(flags eddsa)(q %b)))", ED25519_SIZE, public_key);
	if (!err)
		err = data_of(bytes, n, &data);
	if (!err)
		err = gcry_sexp_build(&made, NULL, "(sig-val (eddsa (r %b)(s %b)))", 32, sig, 32, sig + 32);
	if (!err)
		err = gcry_pk_verify(made, data, key);
	gcry_sexp_release(key);
	gcry_sexp_release(data);
	gcry_sexp_release(made);
	return !err;
}

/* ---- SM2 -------------------------------------------------------------------------------------------------- */

/* GB/T 32918.2, 5.5 and 6.1: SM3(SM3(length of the identifier in bits, identifier, a, b, G, point), message). */
static void sm2_digest(const uint8_t point[64], const void *bytes, size_t n, uint8_t digest[32])
{
	static const char identifier[] = "1234567812345678";
	static const uint8_t length[2] = { 0, 128 };
	/* GB/T 32918.5: a, b, and the coordinates of G. */
	static const uint8_t curve[] = {
		0xff, 0xff, 0xff, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
		0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfc,
		0x28, 0xe9, 0xfa, 0x9e, 0x9d, 0x9f, 0x5e, 0x34, 0x4d, 0x5a, 0x9e, 0x4b, 0xcf, 0x65, 0x09, 0xa7,
		0xf3, 0x97, 0x89, 0xf5, 0x15, 0xab, 0x8f, 0x92, 0xdd, 0xbc, 0xbd, 0x41, 0x4d, 0x94, 0x0e, 0x93,
		0x32, 0xc4, 0xae, 0x2c, 0x1f, 0x19, 0x81, 0x19, 0x5f, 0x99, 0x04, 0x46, 0x6a, 0x39, 0xc9, 0x94,
		0x8f, 0xe3, 0x0b, 0xbf, 0xf2, 0x66, 0x0b, 0xe1, 0x71, 0x5a, 0x45, 0x89, 0x33, 0x4c, 0x74, 0xc7,
		0xbc, 0x37, 0x36, 0xa2, 0xf4, 0xf6, 0x77, 0x9c, 0x59, 0xbd, 0xce, 0xe3, 0x6b, 0x69, 0x21, 0x53,
		0xd0, 0xa9, 0x87, 0x7c, 0xc6, 0x2a, 0x47, 0x40, 0x02, 0xdf, 0x32, 0xe5, 0x21, 0x39, 0xf0, 0xa0,
	};
	gcry_buffer_t who[] = { { .len = sizeof(length), .data = (void *)length }, { .len = sizeof(identifier) - 1, .data = (void *)identifier },
				{ .len = sizeof(curve), .data = (void *)curve }, { .len = 64, .data = (void *)point } };
	uint8_t za[32];
	gcry_buffer_t all[] = { { .len = sizeof(za), .data = za }, { .len = n, .data = (void *)bytes } };

	gcry_md_hash_buffers(GCRY_MD_SM3, 0, za, who, 4);
	gcry_md_hash_buffers(GCRY_MD_SM3, 0, digest, all, 2);
}

/* The value of a list, with zeros in front where it is shorter. */
static bool take_number(gcry_sexp_t from, const char *name, uint8_t out[32])
{
	gcry_sexp_t list = gcry_sexp_find_token(from, name, 0);
	size_t len = 0;
	const char *at = list ? gcry_sexp_nth_data(list, 1, &len) : NULL;

	while (at && len > 32 && !*at) {
		at++;
		len--;
	}
	if (at && len <= 32) {
		memset(out, 0, 32);
		memcpy(out + 32 - len, at, len);
	}
	gcry_sexp_release(list);
	return at && len <= 32;
}

int crypto_sm2_sign(const uint8_t number[32], const uint8_t point[64], const void *bytes, size_t n, uint8_t sig[64], struct vd_error *e)
{
	gcry_sexp_t key = NULL, data = NULL, made = NULL;
	uint8_t digest[32], *copy, whole[65] = { 4 };
	gcry_error_t err;
	bool found;

	crypto_setup();
	copy = gcry_malloc_secure(32);
	if (!copy)
		return fail(e, VD_ENOMEM, "not enough locked memory for a key");
	memcpy(copy, number, 32);
	memcpy(whole + 1, point, 64);
	sm2_digest(point, bytes, n, digest);
	err = gcry_sexp_build(&key, NULL, "(private-key (ecc (curve sm2p256v1)(q %b)(d %b)))", 65, whole, 32, copy);
	gcry_free(copy);
	if (!err)
		err = gcry_sexp_build(&data, NULL, "(data (flags sm2)(hash sm3 %b))", 32, digest);
	if (!err)
		err = gcry_pk_sign(&made, data, key);
	found = !err && take_number(made, "r", sig) && take_number(made, "s", sig + 32);
	gcry_sexp_release(key);
	gcry_sexp_release(data);
	gcry_sexp_release(made);
	if (err)
		return refused(err, "signing", e);
	if (!found || !crypto_sm2_holds(point, bytes, n, sig))
		return fail(e, VD_EKEY, "the private key and its public key are no pair");
	return 0;
}

bool crypto_sm2_holds(const uint8_t point[64], const void *bytes, size_t n, const uint8_t sig[64])
{
	gcry_sexp_t key = NULL, data = NULL, made = NULL;
	uint8_t digest[32], whole[65] = { 4 };
	gcry_error_t err;

	crypto_setup();
	memcpy(whole + 1, point, 64);
	sm2_digest(point, bytes, n, digest);
	err = gcry_sexp_build(&key, NULL, "(public-key (ecc (curve sm2p256v1)(q %b)))", 65, whole);
	if (!err)
		err = gcry_sexp_build(&data, NULL, "(data (flags sm2)(hash sm3 %b))", 32, digest);
	if (!err)
		err = gcry_sexp_build(&made, NULL, "(sig-val (sm2 (r %b)(s %b)))", 32, sig, 32, sig + 32);
	if (!err)
		err = gcry_pk_verify(made, data, key);
	gcry_sexp_release(key);
	gcry_sexp_release(data);
	gcry_sexp_release(made);
	return !err;
}
