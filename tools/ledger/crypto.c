/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The one file of tools/ledger/ that includes libgcrypt. Knows neither files nor formats. */
#include "ledger/crypto.h"

#include <errno.h>
#include <gcrypt.h>
#include <string.h>

#include "fail.h"

void crypto_setup(void)
{
	if (gcry_control(GCRYCTL_INITIALIZATION_FINISHED_P))
		return;
	gcry_check_version(NULL);
	gcry_control(GCRYCTL_DISABLE_SECMEM_WARN);
	gcry_control(GCRYCTL_INIT_SECMEM, 32768, 0);
	gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0);
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
