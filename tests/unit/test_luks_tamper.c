/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * LUKS headers that were damaged or tampered with: what is told as such (VD_EAUTH), what cannot be told from a wrong key
 * (VD_EKEY), and what the second copy of LUKS2 brings back.
 */
#include <gcrypt.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "keys/luks.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/crypto/random.h"

#define MIB ((uint64_t)1 << 20)
#define COPY 16384              /* bytes of each LUKS2 copy here */

static struct made {
	enum vd_luks_type type;
	struct vd_secret vk;
	uint8_t *header;
	size_t len;
} headers[] = { { .type = VD_LUKS1 }, { .type = VD_LUKS2 } };
static struct made *const luks1 = &headers[0], *const luks2 = &headers[1];

static struct vd_key *key_of(const char *text)
{
	struct vd_key *key;

	assert_int_equal(vd_key_from_bytes(text, strlen(text), &key, NULL), 0);
	return key;
}

static int make_headers(void **state)
{
	struct vd_key *key = key_of("secret");

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct made *m = &headers[i];
		struct vd_luks_format_opts o = {
			.type = m->type, .sector_size = 512, .payload_off = vd_luks_payload_off(m->type),
			.kdf = { .iterations = m->type == VD_LUKS1 ? 1000 : 4, .memory_kib = m->type == VD_LUKS1 ? 0 : 32 << 10 },
		};

		assert_int_equal(vd_secret_alloc(&m->vk, 64, NULL), 0);
		assert_int_equal(vd_random(m->vk.p, 64, NULL), 0);
		assert_int_equal(vd_luks_format(&o, &m->vk, key, &m->header, &m->len, NULL), 0);
	}
	vd_key_free(key);
	return 0;
}

static int free_headers(void **state)
{
	(void)state;
	for (size_t i = 0; i < 2; i++) {
		vd_secret_free(&headers[i].vk);
		free(headers[i].header);
	}
	return 0;
}

static uint8_t *copy_of(const struct made *m)
{
	uint8_t *copy = malloc(m->len);

	assert_non_null(copy);
	return memcpy(copy, m->header, m->len);
}

static int inspect(const uint8_t *header, size_t len, struct vd_luks_info *info, struct vd_error *e)
{
	return vd_luks_inspect((struct vd_bytes){ header, len }, 0, info, e);
}

static int unlock(struct vd_bytes header, const char *text, struct vd_secret *vk, struct vd_error *e)
{
	struct vd_key *key = key_of(text);
	int r = vd_luks_unlock(&(struct vd_luks_view){ .header = header }, key, vk, e);

	vd_key_free(key);
	return r;
}

/* Opens with the right key, and what is in the keyslot is what it was. */
static void is_whole(const uint8_t *header, const struct made *m)
{
	struct vd_secret vk = { 0 };
	struct vd_error e = { 0 };

	if (unlock((struct vd_bytes){ header, m->len }, "secret", &vk, &e) < 0)
		fail_msg("%s", e.message);
	assert_int_equal(vk.len, m->vk.len);
	assert_memory_equal(vk.p, m->vk.p, vk.len);
	vd_secret_free(&vk);
}

/* ---- LUKS1: no checksum ---- */

/* Bytes of a LUKS1 header (spec 1.2.3, figures 1 and 2) and of the key material of keyslot 0. */
struct flip {
	size_t at;
	uint8_t mask;
	int code;
};

/* A LUKS1 header has a digest of the volume key and nothing else to check it by. */
static void what_is_tampered_with_in_luks1_is_told_as_far_as_it_can_be(void **state)
{
	static const struct flip flips[] = {
		{ 0, 1, VD_ECORRUPT },                  /* magic: there is no header then */
		{ 8, 1, VD_EUNSUPPORTED }, { 40, 1, VD_EUNSUPPORTED },  /* cipher, mode */
		{ 72 + 5, 1, VD_EUNSUPPORTED },         /* hash */
		{ 108 + 3, 0x70, VD_EUNSUPPORTED }, { 108 + 3, 0x60, VD_EKEY }, /* length of the key: 48, 32 */
		{ 164, 0xff, VD_EUNSUPPORTED },         /* iterations of the digest: absurd */
		{ 164 + 2, 3, VD_EAUTH },               /* ... none (1000 is 0x3e8) */
		{ 208, 1, VD_EAUTH },                   /* a keyslot neither in use nor free */
		{ 208 + 40 + 1, 1, VD_EAUTH }, { 208 + 44 + 3, 1, VD_EAUTH },   /* where its material is, its stripes */
		{ 112, 1, VD_EKEY }, { 132, 1, VD_EKEY }, { 164 + 3, 1, VD_EKEY },      /* digest, its salt and iterations */
		{ 208 + 7, 1, VD_EKEY }, { 208 + 8, 1, VD_EKEY },       /* iterations and salt of the keyslot */
		{ 4096, 1, VD_EKEY }, { 4096 + 255999, 0x80, VD_EKEY }, /* key material */
	};

	(void)state;
	for (size_t i = 0; i < sizeof(flips) / sizeof(flips[0]); i++) {
		uint8_t *h = copy_of(luks1);
		struct vd_secret vk = { 0 };
		struct vd_error e = { 0 };

		h[flips[i].at] ^= flips[i].mask;
		if (flips[i].at == 164 + 2)
			h[164 + 3] = 0;
		if (unlock((struct vd_bytes){ h, luks1->len }, "secret", &vk, &e) != flips[i].code)
			fail_msg("byte %zu: %d %s", flips[i].at, e.code, e.message);
		assert_null(vk.p);
		free(h);
	}
}

/* The words, too: a message that differs would say which of the two it is. */
static void a_wrong_key_and_a_wrong_slot_are_told_alike(void **state)
{
	(void)state;
	for (size_t i = 0; i < 2; i++) {
		uint8_t *h = copy_of(&headers[i]);
		struct vd_error wrong = { 0 }, damaged = { 0 };
		struct vd_secret vk = { 0 };

		assert_int_equal(unlock((struct vd_bytes){ h, headers[i].len }, "other!", &vk, &wrong), VD_EKEY);
		h[i ? 2 * COPY : 4096] ^= 1;    /* key material of keyslot 0 */
		assert_int_equal(unlock((struct vd_bytes){ h, headers[i].len }, "secret", &vk, &damaged), VD_EKEY);
		assert_string_equal(wrong.message, damaged.message);
		assert_string_equal(wrong.hint, damaged.hint);
		free(h);
	}
}

/* ---- LUKS2: two copies, each with a checksum ---- */

struct edit {
	const char *from, *to;
	int code;
	const char *message;
};

/* Replaces text in the JSON of one copy and makes its checksum right again (spec 2.1: SHA-256 with the field zeroed). */
static void edit_copy(uint8_t *copy, const char *from, const char *to)
{
	uint64_t size = vd_get_be64(copy + 8);
	char *json = (char *)copy + 4096, *at = strstr(json, from);

	assert_non_null(at);
	memmove(at + strlen(to), at + strlen(from), strlen(at + strlen(from)) + 1);
	memcpy(at, to, strlen(to));
	memset(copy + 448, 0, 64);
	gcry_md_hash_buffer(GCRY_MD_SHA256, copy + 448, copy, size);
}

static void a_hostile_luks2_header_with_right_checksums_is_refused(void **state)
{
	static const struct edit rows[] = {
		{ "\"time\":4", "\"time\":400000000", VD_EUNSUPPORTED, "400000000 Argon2 passes" },
		{ "\"iterations\":1000", "\"iterations\":4000000000", VD_EUNSUPPORTED, "digest asks" },
		{ "\"keyslots_size\":\"16744448\"", "\"keyslots_size\":\"16744448\",\"requirements\":{\"mandatory\":[\"new-thing\"]}",
		  VD_EUNSUPPORTED, "new-thing" },
		{ "\"encryption\":\"aes-xts-plain64\",\"sector_size\"", "\"encryption\":\"cipher_null-ecb\",\"sector_size\"",
		  VD_EUNSUPPORTED, "null cipher" },
		{ "\"encryption\":\"aes-xts-plain64\",\"key_size\"", "\"encryption\":\"cipher_null-ecb\",\"key_size\"",
		  VD_EUNSUPPORTED, "null cipher" },
		{ "\"offset\":\"32768\"", "\"offset\":\"32760\"", VD_EAUTH, "damaged" },
		{ "\"segments\":{", "\"sigments\":{", VD_EAUTH, "damaged" },
		/* libcryptsetup 2.6 takes any key for right then. */
		{ "\"digest\":\"", "\"digest\":\"\",\"was\":\"", VD_EAUTH, "digest" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint8_t *h = copy_of(luks2);
		struct vd_secret vk = { 0 };
		struct vd_luks_info info;
		struct vd_error e = { 0 };

		edit_copy(h, rows[i].from, rows[i].to);
		edit_copy(h + COPY, rows[i].from, rows[i].to);
		if (inspect(h, luks2->len, &info, &e) != rows[i].code || !strstr(e.message, rows[i].message))
			fail_msg("row %zu: %d %s", i, e.code, e.message);
		assert_int_equal(unlock((struct vd_bytes){ h, luks2->len }, "secret", &vk, NULL), rows[i].code);
		free(h);
	}
}

static void one_intact_copy_of_luks2_is_enough(void **state)
{
	uint8_t *h = copy_of(luks2);
	struct vd_secret vk = { 0 };
	struct vd_luks_info info;
	struct vd_error e = { 0 };

	(void)state;
	assert_int_equal(inspect(h, luks2->len, &info, NULL), 0);
	assert_int_equal(info.damaged_copy, 0);
	h[4096 + 100] ^= 1;
	is_whole(h, luks2);
	assert_int_equal(inspect(h, luks2->len, &info, NULL), 0);
	assert_int_equal(info.damaged_copy, 1);
	h[COPY + 4096 + 100] ^= 1;
	assert_int_equal(unlock((struct vd_bytes){ h, luks2->len }, "secret", &vk, &e), VD_EAUTH);
	assert_non_null(strstr(e.message, "neither of its two copies"));
	h[4096 + 100] ^= 1;
	assert_int_equal(inspect(h, luks2->len, &info, NULL), 0);
	assert_int_equal(info.damaged_copy, 2);
	free(h);
}

static int probe(const uint8_t *header)
{
	uint64_t len = 0;
	int type = vd_luks_probe((struct vd_bytes){ header, VD_LUKS_PROBE_LEN }, &len);

	assert_int_equal(len, type ? 16 * MIB : 0);
	return type;
}

static int search(const uint8_t *header)
{
	uint64_t len;

	return vd_luks_search((struct vd_bytes){ header, VD_LUKS_PROBE_LEN }, &len);
}

/* The whole first copy, its magic alone, and what else could say how long the header is. */
static void the_second_copy_is_found_when_the_first_is_gone(void **state)
{
	static const struct { size_t from, to; } gone[] = { { 0, COPY }, { 0, 4096 }, { 0, 6 }, { 8, 16 }, { 4096, COPY } };

	(void)state;
	for (size_t i = 0; i < sizeof(gone) / sizeof(gone[0]); i++) {
		uint8_t *h = copy_of(luks2);

		memset(h + gone[i].from, 0, gone[i].to - gone[i].from);
		assert_int_equal(probe(h), VD_LUKS2);
		is_whole(h, luks2);
		free(h);
	}
}

/* A file system that was made over an old container is no container: who says otherwise has to say so. */
static void what_took_the_place_of_the_first_copy_counts(void **state)
{
	uint8_t *h = copy_of(luks2);
	uint64_t len;

	(void)state;
	memset(h, 0, 4096);
	h[510] = 0x55;
	h[511] = 0xaa;
	assert_int_equal(probe(h), 0);
	assert_int_equal(search(h), VD_LUKS2);
	is_whole(h, luks2);
	h[COPY + 4096] ^= 1;
	assert_int_equal(search(h), 0);
	h[COPY + 4096] ^= 1;
	for (size_t n = 0; n < 2 * COPY; n += 1000)
		assert_int_equal(vd_luks_search((struct vd_bytes){ h, n }, &len), 0);
	free(h);
}

static void mending_makes_both_copies_whole(void **state)
{
	static const size_t damage[] = { 0, 5000, COPY, COPY + 5000 };

	(void)state;
	for (size_t i = 0; i < sizeof(damage) / sizeof(damage[0]); i++) {
		uint8_t *h = copy_of(luks2);
		struct vd_luks_info info;

		h[damage[i]] ^= 1;
		assert_int_equal(vd_luks_mend(h, luks2->len, NULL), 0);
		assert_int_equal(inspect(h, luks2->len, &info, NULL), 0);
		assert_int_equal(info.damaged_copy, 0);
		memset(h + (damage[i] < COPY ? COPY : 0), 0, COPY);     /* the mended one stands by itself */
		is_whole(h, luks2);
		free(h);
	}
}

/* Of the two the sound one says how long the header is. */
static void a_damaged_copy_says_nothing_of_the_length(void **state)
{
	uint8_t *h = copy_of(luks2);
	char *at = strstr((char *)h + 4096, "\"keyslots_size\":\"");

	(void)state;
	assert_non_null(at);
	at[strlen("\"keyslots_size\":\"")] = '9';
	assert_int_equal(probe(h), VD_LUKS2);
	is_whole(h, luks2);
	free(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_tampered_with_in_luks1_is_told_as_far_as_it_can_be),
		cmocka_unit_test(a_wrong_key_and_a_wrong_slot_are_told_alike),
		cmocka_unit_test(a_hostile_luks2_header_with_right_checksums_is_refused),
		cmocka_unit_test(one_intact_copy_of_luks2_is_enough),
		cmocka_unit_test(the_second_copy_is_found_when_the_first_is_gone),
		cmocka_unit_test(what_took_the_place_of_the_first_copy_counts),
		cmocka_unit_test(mending_makes_both_copies_whole),
		cmocka_unit_test(a_damaged_copy_says_nothing_of_the_length),
	};

	return cmocka_run_group_tests_name("tampered LUKS headers", tests, make_headers, free_headers);
}
