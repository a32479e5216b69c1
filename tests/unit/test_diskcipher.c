/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The disk cipher against published vectors, and the properties that images depend on.
 *
 * Vectors: IEEE Std 1619-2007, Annex B, vectors 4 (XTS-AES-128) and 10 (XTS-AES-256), the ones with data units of 512
 * bytes. AES-128-CBC: NIST SP 800-38A, F.1.1 (ECB-AES128.Encrypt, block #1), which CBC gives for an IV of zeros.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/bytes.h"
#include "libvdisk/crypto/diskcipher.h"
#include "libvdisk/crypto/random.h"

struct xts_vector {
	const char *key, *ciphertext;   /* plaintext: 00 01 .. ff, twice */
	uint64_t unit;
};

static const struct xts_vector xts_vectors[] = {
	/* IEEE 1619-2007, vector 4 */
	{ .key = "27182818284590452353602874713526"
		 "31415926535897932384626433832795",
	  .unit = 0,
	  .ciphertext = "27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c"
			"c78cf7f5e543445f8333d8fa7f56000005279fa5d8b5e4ad40e736ddb4d35412"
			"328063fd2aab53e5ea1e0a9f332500a5df9487d07a5c92cc512c8866c7e860ce"
			"93fdf166a24912b422976146ae20ce846bb7dc9ba94a767aaef20c0d61ad0265"
			"5ea92dc4c4e41a8952c651d33174be51a10c421110e6d81588ede82103a252d8"
			"a750e8768defffed9122810aaeb99f9172af82b604dc4b8e51bcb08235a6f434"
			"1332e4ca60482a4ba1a03b3e65008fc5da76b70bf1690db4eae29c5f1badd03c"
			"5ccf2a55d705ddcd86d449511ceb7ec30bf12b1fa35b913f9f747a8afd1b130e"
			"94bff94effd01a91735ca1726acd0b197c4e5b03393697e126826fb6bbde8ecc"
			"1e08298516e2c9ed03ff3c1b7860f6de76d4cecd94c8119855ef5297ca67e9f3"
			"e7ff72b1e99785ca0a7e7720c5b36dc6d72cac9574c8cbbc2f801e23e56fd344"
			"b07f22154beba0f08ce8891e643ed995c94d9a69c9f1b5f499027a78572aeebd"
			"74d20cc39881c213ee770b1010e4bea718846977ae119f7a023ab58cca0ad752"
			"afe656bb3c17256a9f6e9bf19fdd5a38fc82bbe872c5539edb609ef4f79c203e"
			"bb140f2e583cb2ad15b4aa5b655016a8449277dbd477ef2c8d6c017db738b18d"
			"eb4a427d1923ce3ff262735779a418f20a282df920147beabe421ee5319d0568" },
	/* IEEE 1619-2007, vector 10 */
	{ .key = "2718281828459045235360287471352662497757247093699959574966967627"
		 "3141592653589793238462643383279502884197169399375105820974944592",
	  .unit = 0xff,
	  .ciphertext = "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b"
			"5d31e276f8fe4a8d66b317f9ac683f44680a86ac35adfc3345befecb4bb188fd"
			"5776926c49a3095eb108fd1098baec70aaa66999a72a82f27d848b21d4a741b0"
			"c5cd4d5fff9dac89aeba122961d03a757123e9870f8acf1000020887891429ca"
			"2a3e7a7d7df7b10355165c8b9a6d0a7de8b062c4500dc4cd120c0f7418dae3d0"
			"b5781c34803fa75421c790dfe1de1834f280d7667b327f6c8cd7557e12ac3a0f"
			"93ec05c52e0493ef31a12d3d9260f79a289d6a379bc70c50841473d1a8cc81ec"
			"583e9645e07b8d9670655ba5bbcfecc6dc3966380ad8fecb17b6ba02469a020a"
			"84e18e8f84252070c13e9f1f289be54fbc481457778f616015e1327a02b140f1"
			"505eb309326d68378f8374595c849d84f4c333ec4423885143cb47bd71c5edae"
			"9be69a2ffeceb1bec9de244fbe15992b11b77c040f12bd8f6a975a44a0f90c29"
			"a9abc3d4d893927284c58754cce294529f8614dcd2aba991925fedc4ae74ffac"
			"6e333b93eb4aff0479da9a410e4450e0dd7ae4c6e2910900575da401fc07059f"
			"645e8b7e9bfdef33943054ff84011493c27b3429eaedb4ed5376441a77ed4385"
			"1ad77f16f541dfd269d50d6a5f14fb0aab1cbb4c1550be97f7ab4066193c4caa"
			"773dad38014bd2092fa755c824bb5e54c4f36ffda9fcea70b9c6e693e148c151" },
};

static size_t from_hex(const char *hex, uint8_t *out)
{
	size_t n = strlen(hex) / 2;

	for (size_t i = 0; i < n; i++) {
		unsigned byte;

		assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
		out[i] = (uint8_t)byte;
	}
	return n;
}

static struct vd_diskcipher *cipher_of(enum vd_diskcipher_kind kind, const char *hex)
{
	struct vd_diskcipher *c = NULL;
	struct vd_error e = { 0 };
	uint8_t key[64];
	size_t len = from_hex(hex, key);

	if (vd_diskcipher_new(kind, key, len, &c, &e) < 0)
		fail_msg("%s", e.message);
	return c;
}

static struct vd_diskcipher *xts_256(void)
{
	return cipher_of(VD_DISKCIPHER_AES_XTS, xts_vectors[1].key);
}

static void encrypt(struct vd_diskcipher *c, void *buf, size_t len, uint64_t unit, size_t sector)
{
	struct vd_error e = { 0 };

	if (vd_diskcipher_encrypt(c, buf, len, unit, sector, &e) < 0)
		fail_msg("%s", e.message);
}

static void decrypt(struct vd_diskcipher *c, void *buf, size_t len, uint64_t unit, size_t sector)
{
	struct vd_error e = { 0 };

	if (vd_diskcipher_decrypt(c, buf, len, unit, sector, &e) < 0)
		fail_msg("%s", e.message);
}

static void count_up(uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)i;
}

static void xts_gives_the_published_vectors(void **state)
{
	uint8_t buf[512], want[512], plain[512];

	(void)state;
	count_up(plain, sizeof(plain));
	for (size_t i = 0; i < sizeof(xts_vectors) / sizeof(xts_vectors[0]); i++) {
		const struct xts_vector *v = &xts_vectors[i];
		struct vd_diskcipher *c = cipher_of(VD_DISKCIPHER_AES_XTS, v->key);

		memcpy(buf, plain, sizeof(buf));
		from_hex(v->ciphertext, want);
		encrypt(c, buf, sizeof(buf), v->unit, 512);
		assert_memory_equal(buf, want, sizeof(buf));
		decrypt(c, buf, sizeof(buf), v->unit, 512);
		assert_memory_equal(buf, plain, sizeof(buf));
		vd_diskcipher_free(c);
	}
}

/* libgcrypt documents its counting only in its source, so this claim guards every image that we write. */
static void a_run_equals_its_sectors_one_by_one(void **state)
{
	static const uint64_t starts[] = { 0, 1, 0xfe, 0xffffffff, 0xfffffffff0, UINT64_MAX - 40 };
	struct vd_diskcipher *c = xts_256();
	static uint8_t run[40 * 512], single[40 * 512];

	(void)state;
	for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
		count_up(run, sizeof(run));
		count_up(single, sizeof(single));
		encrypt(c, run, sizeof(run), starts[i], 512);
		for (size_t s = 0; s < 40; s++)
			encrypt(c, single + s * 512, 512, starts[i] + s, 512);
		assert_memory_equal(run, single, sizeof(run));
		decrypt(c, run, sizeof(run), starts[i], 512);
		count_up(single, sizeof(single));
		assert_memory_equal(run, single, sizeof(run));
	}
	vd_diskcipher_free(c);
}

/* Data unit 4096, numbered as dm-crypt does: the first 512 bytes are those of a 512-byte unit of the same number. */
static void large_sectors_count_512_byte_units(void **state)
{
	struct vd_diskcipher *c = xts_256();
	uint8_t large[2 * 4096], small[512];

	(void)state;
	memset(large, 0x5a, sizeof(large));
	encrypt(c, large, sizeof(large), 4096, 4096);
	for (uint64_t s = 0; s < 2; s++) {
		memset(small, 0x5a, sizeof(small));
		encrypt(c, small, sizeof(small), 4096 + 8 * s, 512);
		assert_memory_equal(large + 4096 * s, small, sizeof(small));
	}
	memset(small, 0x5a, sizeof(small));
	encrypt(c, small, sizeof(small), 4097, 512);
	assert_memory_not_equal(large + 512, small, sizeof(small));
	vd_diskcipher_free(c);
}

static void every_sector_size_comes_back(void **state)
{
	struct vd_diskcipher *c = xts_256();
	static uint8_t buf[16384], plain[16384];

	(void)state;
	count_up(plain, sizeof(plain));
	for (size_t sector = 512; sector <= 4096; sector *= 2) {
		memcpy(buf, plain, sizeof(buf));
		encrypt(c, buf, sizeof(buf), 8, sector);
		assert_memory_not_equal(buf, plain, sizeof(buf));
		decrypt(c, buf, sizeof(buf), 8, sector);
		assert_memory_equal(buf, plain, sizeof(buf));
	}
	vd_diskcipher_free(c);
}

static void equal_sectors_get_different_ciphertext(void **state)
{
	struct vd_diskcipher *c = xts_256();
	uint8_t buf[1024] = { 0 };

	(void)state;
	encrypt(c, buf, sizeof(buf), 7, 512);
	assert_memory_not_equal(buf, buf + 512, 512);
	vd_diskcipher_free(c);
}

static void nothing_outside_the_run_is_touched(void **state)
{
	struct vd_diskcipher *c = xts_256();
	uint8_t buf[512 + 1024 + 512];

	(void)state;
	memset(buf, 0xee, sizeof(buf));
	encrypt(c, buf + 511, 1024, 3, 512);
	for (size_t i = 0; i < 511; i++)
		assert_int_equal(buf[i], 0xee);
	for (size_t i = 511 + 1024; i < sizeof(buf); i++)
		assert_int_equal(buf[i], 0xee);
	encrypt(c, buf, 0, 3, 512);
	assert_int_equal(buf[0], 0xee);
	vd_diskcipher_free(c);
}

static void runs_that_are_no_whole_sectors_are_refused(void **state)
{
	static const struct {
		size_t len;
		uint64_t unit;
		size_t sector;
	} bad[] = {
		{ 511, 0, 512 }, { 513, 0, 512 }, { 2048, 0, 4096 }, { 4096, 1, 4096 }, { 4096, 0, 0 },
		{ 4096, 0, 256 }, { 4096, 0, 1536 }, { 8192, 0, 8192 }, { 1024, UINT64_MAX - 1, 512 },
	};
	struct vd_diskcipher *c = xts_256();
	static uint8_t buf[8192];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct vd_error e = { 0 };

		assert_int_equal(vd_diskcipher_encrypt(c, buf, bad[i].len, bad[i].unit, bad[i].sector, &e), VD_EARG);
		assert_int_equal(vd_diskcipher_decrypt(c, buf, bad[i].len, bad[i].unit, bad[i].sector, &e), VD_EARG);
		assert_true(vd_is_zero(buf, sizeof(buf)));
	}
	vd_diskcipher_free(c);
}

static void equal_key_halves_are_refused(void **state)
{
	uint8_t key[64];
	struct vd_diskcipher *c = NULL;
	struct vd_error e = { 0 };

	(void)state;
	memset(key, 0x42, sizeof(key));
	assert_int_equal(vd_diskcipher_new(VD_DISKCIPHER_AES_XTS, key, 64, &c, &e), VD_EKEY);
	assert_non_null(strstr(e.message, "halves"));
	assert_int_equal(vd_diskcipher_new(VD_DISKCIPHER_AES_XTS, key, 32, &c, &e), VD_EKEY);
	key[63] ^= 1;
	assert_int_equal(vd_diskcipher_new(VD_DISKCIPHER_AES_XTS, key, 64, &c, &e), 0);
	vd_diskcipher_free(c);
}

static void other_key_sizes_are_refused(void **state)
{
	static const size_t xts_bad[] = { 0, 16, 31, 33, 48, 63 }, cbc_bad[] = { 0, 15, 32, 64 };
	uint8_t key[64];
	struct vd_diskcipher *c = NULL;
	struct vd_error e = { 0 };

	(void)state;
	count_up(key, sizeof(key));
	for (size_t i = 0; i < sizeof(xts_bad) / sizeof(xts_bad[0]); i++)
		assert_int_equal(vd_diskcipher_new(VD_DISKCIPHER_AES_XTS, key, xts_bad[i], &c, &e), VD_EKEY);
	for (size_t i = 0; i < sizeof(cbc_bad) / sizeof(cbc_bad[0]); i++)
		assert_int_equal(vd_diskcipher_new(VD_DISKCIPHER_AES_CBC_PLAIN64, key, cbc_bad[i], &c, &e), VD_EKEY);
	assert_null(c);
}

/* The first block is xored with the IV, so plain64 shows when the IV has been put into the plaintext beforehand. */
static void legacy_cbc_takes_the_sector_number_as_iv(void **state)
{
	static const uint64_t units[] = { 0, 1, 0x1122334455667788 };
	struct vd_diskcipher *c = cipher_of(VD_DISKCIPHER_AES_CBC_PLAIN64, "2b7e151628aed2a6abf7158809cf4f3c");
	uint8_t buf[1024], want[16], block[16];

	(void)state;
	from_hex("6bc1bee22e409f96e93d7e117393172a", block);
	from_hex("3ad77bb40d7a3660a89ecaf32466ef97", want);
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		memset(buf, 0, sizeof(buf));
		for (uint64_t s = 0; s < 2; s++) {
			vd_put_le64(buf + 512 * s, units[i] + s);
			for (size_t k = 0; k < 16; k++)
				buf[512 * s + k] ^= block[k];
		}
		encrypt(c, buf, sizeof(buf), units[i], 512);
		assert_memory_equal(buf, want, 16);
		assert_memory_equal(buf + 512, want, 16);
		assert_memory_equal(buf, buf + 512, 512); /* the rest chains from equal blocks */
	}
	vd_diskcipher_free(c);
}

static void legacy_cbc_comes_back_and_knows_512_byte_sectors_only(void **state)
{
	struct vd_diskcipher *c = cipher_of(VD_DISKCIPHER_AES_CBC_PLAIN64, "2b7e151628aed2a6abf7158809cf4f3c");
	uint8_t buf[4096], plain[4096];
	struct vd_error e = { 0 };

	(void)state;
	count_up(plain, sizeof(plain));
	memcpy(buf, plain, sizeof(buf));
	encrypt(c, buf, sizeof(buf), 99, 512);
	assert_memory_not_equal(buf, plain, 16);
	decrypt(c, buf, sizeof(buf), 99, 512);
	assert_memory_equal(buf, plain, sizeof(buf));
	assert_int_equal(vd_diskcipher_decrypt(c, buf, sizeof(buf), 0, 4096, &e), VD_EARG);
	vd_diskcipher_free(c);
}

enum { N_THREADS = 8, ROUNDS = 200, RUN = 16384 };
struct worker {
	pthread_t thread;
	struct vd_diskcipher *c;
	uint64_t unit;
	bool held;
};

static void *encrypt_and_back(void *arg)
{
	struct worker *w = arg;
	static __thread uint8_t buf[RUN], plain[RUN];

	count_up(plain, sizeof(plain));
	w->held = true;
	for (int i = 0; i < ROUNDS && w->held; i++) {
		memcpy(buf, plain, sizeof(buf));
		w->held = !vd_diskcipher_encrypt(w->c, buf, sizeof(buf), w->unit, 512, NULL) &&
			  memcmp(buf, plain, 512) &&
			  !vd_diskcipher_decrypt(w->c, buf, sizeof(buf), w->unit, 512, NULL) &&
			  !memcmp(buf, plain, sizeof(buf));
	}
	return NULL;
}

static void threads_share_one_context(void **state)
{
	struct worker workers[N_THREADS];
	struct vd_diskcipher *c = xts_256();

	(void)state;
	for (uint64_t i = 0; i < N_THREADS; i++) {
		workers[i] = (struct worker){ .c = c, .unit = i * 1000 };
		assert_int_equal(pthread_create(&workers[i].thread, NULL, encrypt_and_back, &workers[i]), 0);
	}
	for (int i = 0; i < N_THREADS; i++) {
		pthread_join(workers[i].thread, NULL);
		assert_true(workers[i].held);
	}
	vd_diskcipher_free(c);
}

/* 400 handles fill libgcrypt's locked pool twice over. */
static void a_full_pool_of_locked_memory_is_survived(void **state)
{
	struct vd_diskcipher *c[400];
	uint8_t buf[512], want[512];

	(void)state;
	from_hex(xts_vectors[1].ciphertext, want);
	for (size_t i = 0; i < 400; i++)
		c[i] = xts_256();
	for (size_t i = 0; i < 400; i++) {
		count_up(buf, sizeof(buf));
		encrypt(c[i], buf, sizeof(buf), xts_vectors[1].unit, 512);
		assert_memory_equal(buf, want, sizeof(buf));
		vd_diskcipher_free(c[i]);
	}
}

static void want_of_memory_is_reported(void **state)
{
	uint8_t key[32];
	struct vd_diskcipher *c = NULL;
	struct vd_error e = { 0 };

	(void)state;
	count_up(key, sizeof(key));
	vd_alloc_fail_after(0);
	assert_int_equal(vd_diskcipher_new(VD_DISKCIPHER_AES_XTS, key, sizeof(key), &c, &e), VD_ENOMEM);
	vd_alloc_fail_after(-1);
	assert_null(c);
	vd_diskcipher_free(NULL);
}

static void random_bytes_differ_each_time(void **state)
{
	uint8_t a[64] = { 0 }, b[64] = { 0 };

	(void)state;
	assert_int_equal(vd_random(a, sizeof(a), NULL), 0);
	assert_int_equal(vd_random(b, sizeof(b), NULL), 0);
	assert_memory_not_equal(a, b, sizeof(a));
	assert_false(vd_is_zero(a, 16) || vd_is_zero(a + 48, 16));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(xts_gives_the_published_vectors),
		cmocka_unit_test(a_run_equals_its_sectors_one_by_one),
		cmocka_unit_test(large_sectors_count_512_byte_units),
		cmocka_unit_test(every_sector_size_comes_back),
		cmocka_unit_test(equal_sectors_get_different_ciphertext),
		cmocka_unit_test(nothing_outside_the_run_is_touched),
		cmocka_unit_test(runs_that_are_no_whole_sectors_are_refused),
		cmocka_unit_test(equal_key_halves_are_refused),
		cmocka_unit_test(other_key_sizes_are_refused),
		cmocka_unit_test(legacy_cbc_takes_the_sector_number_as_iv),
		cmocka_unit_test(legacy_cbc_comes_back_and_knows_512_byte_sectors_only),
		cmocka_unit_test(threads_share_one_context),
		cmocka_unit_test(a_full_pool_of_locked_memory_is_survived),
		cmocka_unit_test(want_of_memory_is_reported),
		cmocka_unit_test(random_bytes_differ_each_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
