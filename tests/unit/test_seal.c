/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What escrow is made of, by the vectors of its specifications, and what it refuses. Whole files: tests/cli/key.sh, with age. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "keys/bech32.h"
#include "libvdisk/crypto/seal.h"

static size_t unhex(const char *text, uint8_t *out)
{
	size_t n = 0;

	for (; text[2 * n]; n++) {
		unsigned byte;

		assert_int_equal(sscanf(text + 2 * n, "%2x", &byte), 1);
		out[n] = (uint8_t)byte;
	}
	return n;
}

static void expect_hex(const uint8_t *got, const char *text)
{
	uint8_t want[256];

	assert_memory_equal(got, want, unhex(text, want));
}

/* RFC 7748, 5.2. */
static void x25519_is_that_of_its_rfc(void **state)
{
	uint8_t scalar[32], point[32], out[32];

	(void)state;
	unhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4", scalar);
	unhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c", point);
	assert_int_equal(vd_x25519(scalar, point, out, NULL), 0);
	expect_hex(out, "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552");
}

/* The same, 5.2: what one iteration makes of 9, which is the base point, too. */
static void base_point_is_that_of_its_rfc(void **state)
{
	uint8_t scalar[32] = { 9 }, out[32];

	(void)state;
	assert_int_equal(vd_x25519(scalar, NULL, out, NULL), 0);
	expect_hex(out, "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079");
}

static void points_of_small_order_are_refused(void **state)
{
	uint8_t scalar[32] = { 1 }, point[32] = { 0 }, out[32];
	struct vd_error e;

	(void)state;
	assert_int_equal(vd_x25519(scalar, point, out, &e), VD_EKEY);
	point[0] = 1;
	assert_int_equal(vd_x25519(scalar, point, out, &e), VD_EKEY);
}

/* RFC 5869, A.3, which has neither salt nor info: its first 32 bytes. */
static void hkdf_is_that_of_its_rfc(void **state)
{
	uint8_t secret[22], out[32];

	(void)state;
	memset(secret, 0x0b, sizeof(secret));
	assert_int_equal(vd_hkdf_sha256((struct vd_bytes){ secret, sizeof(secret) }, (struct vd_bytes){ 0 }, "", out, NULL), 0);
	expect_hex(out, "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d");
}

/* RFC 8439, 2.8.2: the first bytes of its ciphertext. The tag there is with additional data, which age has none of. */
static void chacha_is_that_of_its_rfc(void **state)
{
	static const char text[] = "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
				   "sunscreen would be it.";
	uint8_t key[32], nonce[12], out[sizeof(text) + 16];

	(void)state;
	unhex("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f", key);
	unhex("070000004041424344454647", nonce);
	assert_int_equal(vd_chacha20poly1305(key, nonce, text, sizeof(text) - 1, out, NULL), 0);
	expect_hex(out, "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6");
}

/* NIST CAVP, gcmEncryptExtIV256.rsp: no plaintext, 128 bits of additional data, count 0. */
static void gmac_is_that_of_nist(void **state)
{
	uint8_t key[32], nonce[12], text[16], tag[16], want[16];

	(void)state;
	unhex("78dc4e0aaf52d935c3c01eea57428f00ca1fd475f5da86a49c8dd73d68c8e223", key);
	unhex("d79cf22d504cc793c3fb6c8a", nonce);
	unhex("b96baa8c1c75a671bfb2d08d06be5f36", text);
	unhex("3e5d486aa2e30b22e040b85723a06e76", want);
	assert_int_equal(vd_gmac_aes256(key, nonce, (struct vd_bytes){ text, sizeof(text) }, tag, NULL), 0);
	assert_memory_equal(tag, want, sizeof(want));
}

static void bech32_takes_its_own_only(void **state)
{
	/* The example of age's own manual. */
	static const char good[] = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
	uint8_t out[32];
	char text[sizeof(good) + 1];

	(void)state;
	assert_true(vd_bech32_decode(good, "age", out, 32));
	assert_false(vd_bech32_decode(good, "agf", out, 32));
	assert_false(vd_bech32_decode(good, "age", out, 31));
	assert_false(vd_bech32_decode(good, "age", out, 33));
	for (size_t i = 0; i + 1 < sizeof(good); i++) {
		memcpy(text, good, sizeof(good));
		text[i] = text[i] == 'q' ? 'p' : 'q';
		assert_false(vd_bech32_decode(text, "age", out, 32));
		text[i] = '\0';
		assert_false(vd_bech32_decode(text, "age", out, 32));
	}
	assert_false(vd_bech32_decode("", "age", out, 32));
	assert_false(vd_bech32_decode("age1", "age", out, 32));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(x25519_is_that_of_its_rfc),
		cmocka_unit_test(base_point_is_that_of_its_rfc),
		cmocka_unit_test(points_of_small_order_are_refused),
		cmocka_unit_test(hkdf_is_that_of_its_rfc),
		cmocka_unit_test(chacha_is_that_of_its_rfc),
		cmocka_unit_test(gmac_is_that_of_nist),
		cmocka_unit_test(bech32_takes_its_own_only),
	};

	return cmocka_run_group_tests_name("seal", tests, NULL, NULL);
}
