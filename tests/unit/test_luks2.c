/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The judgement of LUKS2 metadata, on the JSON text alone: each rule broken once, and what is unusual but sound. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "keys/luks.h"

#define MIB ((uint64_t)1 << 20)

#define SALT "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="  /* 32 bytes */

static const char metadata[] =
	"{\"keyslots\":{\"0\":{\"type\":\"luks2\",\"key_size\":64,\"af\":{\"type\":\"luks1\",\"stripes\":4000,\"hash\":\"sha512\"},"
	"\"area\":{\"type\":\"raw\",\"offset\":\"32768\",\"size\":\"258048\",\"encryption\":\"aes-xts-plain64\",\"key_size\":32},"
	"\"kdf\":{\"type\":\"argon2id\",\"time\":4,\"memory\":32768,\"cpus\":1,\"salt\":\"" SALT "\"}},"
	"\"7\":{\"type\":\"luks2\",\"key_size\":64,\"af\":{\"type\":\"luks1\",\"stripes\":4000,\"hash\":\"sha256\"},"
	"\"area\":{\"type\":\"raw\",\"offset\":\"290816\",\"size\":\"258048\",\"encryption\":\"aes-xts-plain64\",\"key_size\":64},"
	"\"kdf\":{\"type\":\"pbkdf2\",\"hash\":\"sha256\",\"iterations\":1000,\"salt\":\"" SALT "\"}}},"
	"\"tokens\":{\"0\":{\"type\":\"systemd-tpm2\",\"keyslots\":[\"0\"]}},"
	"\"segments\":{\"0\":{\"type\":\"crypt\",\"offset\":\"16777216\",\"size\":\"dynamic\",\"iv_tweak\":\"0\","
	"\"encryption\":\"aes-xts-plain64\",\"sector_size\":512}},"
	"\"digests\":{\"0\":{\"type\":\"pbkdf2\",\"keyslots\":[\"0\",\"7\"],\"segments\":[\"0\"],\"hash\":\"sha256\","
	"\"iterations\":1000,\"salt\":\"" SALT "\",\"digest\":\"" SALT "\"}},"
	"\"config\":{\"json_size\":\"12288\",\"keyslots_size\":\"16744448\",\"flags\":[\"allow-discards\"]}}";

struct edit {
	const char *from, *to;
	int code;
	const char *message;
};

static const struct edit edits[] = {
	{ "\"crypt\"", "\"linear\"", VD_EUNSUPPORTED, "of a kind" },
	{ "\"sector_size\":512}}", "\"sector_size\":512},\"1\":{}}", VD_EUNSUPPORTED, "exactly one segment" },
	{ "\"segments\":{\"0\":{\"type\"", "\"segments\":{},\"x\":{\"0\":{\"type\"", VD_EUNSUPPORTED, "exactly one segment" },
	{ "\"sector_size\":512", "\"sector_size\":512,\"flags\":[\"backup-final\"]", VD_EUNSUPPORTED, "of a kind" },
	{ "\"sector_size\":512", "\"sector_size\":512,\"integrity\":{\"type\":\"hmac(sha256)\"}", VD_EUNSUPPORTED, "integrity" },
	{ "\"dynamic\"", "\"1048576\"", VD_EUNSUPPORTED, "end of the disk" },
	{ "\"iv_tweak\":\"0\"", "\"iv_tweak\":\"8\"", VD_EUNSUPPORTED, "sectors from 0" },
	{ "\"sector_size\":512", "\"sector_size\":0", VD_EAUTH, "sector size" },
	{ "\"sector_size\":512", "\"sector_size\":256", VD_EAUTH, "sector size" },
	{ "\"sector_size\":512", "\"sector_size\":1536", VD_EAUTH, "sector size" },
	{ "\"sector_size\":512", "\"sector_size\":8192", VD_EAUTH, "sector size" },
	{ "\"16777216\"", "\"16777217\"", VD_EAUTH, "segment offset" },
	{ "\"16777216\"", "\"-1\"", VD_EAUTH, "segment offset" },
	{ "\"0\",\"encryption\":\"aes-xts-plain64\"", "\"0\",\"encryption\":\"cipher_null-ecb\"", VD_EUNSUPPORTED, "null cipher" },
	{ "\"0\",\"encryption\":\"aes-xts-plain64\"", "\"0\",\"encryption\":\"null\"", VD_EUNSUPPORTED, "\"null\"" },
	{ "\"0\",\"encryption\":\"aes-xts-plain64\"", "\"0\",\"encryption\":\"aes-cbc-plain64\"", VD_EUNSUPPORTED, "aes-cbc" },
	{ "\"0\",\"encryption\":\"aes-xts-plain64\"", "\"0\",\"encryption\":\"capi:xts(aes)-plain64\"", VD_EUNSUPPORTED, "capi" },
	{ "\"encryption\":\"aes-xts-plain64\",\"key_size\":32", "\"encryption\":\"cipher_null-ecb\",\"key_size\":32",
	  VD_EUNSUPPORTED, "null cipher" },
	{ "plain64\",\"key_size\":32", "plain64\",\"key_size\":16", VD_EUNSUPPORTED, "128 bits" },
	{ "\"key_size\":64,\"af\":{\"type\":\"luks1\",\"stripes\":4000,\"hash\":\"sha512\"",
	  "\"key_size\":32,\"af\":{\"type\":\"luks1\",\"stripes\":4000,\"hash\":\"sha512\"", VD_EAUTH, "differ in key size" },
	{ "\"0\":{\"type\":\"luks2\"", "\"0\":{\"type\":\"reencrypt\"", VD_EUNSUPPORTED, "unknown type" },
	{ "\"0\":{\"type\":\"luks2\"", "\"32\":{\"type\":\"luks2\"", VD_EAUTH, "keyslot number" },
	{ "\"0\":{\"type\":\"luks2\"", "\"x\":{\"type\":\"luks2\"", VD_EAUTH, "keyslot number" },
	{ "\"raw\"", "\"journal\"", VD_EUNSUPPORTED, "unknown way" },
	{ "\"luks1\"", "\"none\"", VD_EUNSUPPORTED, "unknown way" },
	{ "\"stripes\":4000", "\"stripes\":1", VD_EAUTH, "stripes" },
	{ "\"32768\"", "\"16777216\"", VD_EAUTH, "outside the header" },
	{ "\"258048\"", "\"18446744073709551615\"", VD_EAUTH, "outside the header" },
	{ "\"argon2id\"", "\"scrypt\"", VD_EUNSUPPORTED, "unknown way" },
	{ "\"time\":4", "\"time\":0", VD_EAUTH, "cost of zero" },
	{ "\"time\":4", "\"time\":-4", VD_EAUTH, "Argon2 parameters" },
	{ "\"memory\":32768", "\"memory\":4294967296", VD_EAUTH, "Argon2 parameters" },
	{ "\"memory\":32768", "\"memory\":4194305", VD_EUNSUPPORTED, "4194305 KiB" },
	{ "\"time\":4", "\"time\":2049", VD_EUNSUPPORTED, "2049 Argon2 passes" },
	{ "\"cpus\":1", "\"cpus\":17", VD_EUNSUPPORTED, "17 threads" },
	{ "\"hash\":\"sha256\",\"iterations\":1000,\"salt\":\"" SALT "\"}}}", "\"hash\":\"sha256\",\"iterations\":100000001,\"salt\":\"" SALT "\"}}}",
	  VD_EUNSUPPORTED, "keyslot 7 asks for 100000001" },
	{ "\"hash\":\"sha256\",\"iterations\":1000,\"salt\":\"" SALT "\"}}}", "\"hash\":\"crc32\",\"iterations\":1000,\"salt\":\"" SALT "\"}}}",
	  VD_EUNSUPPORTED, "unknown hash" },
	{ "\"iterations\":1000,\"salt\":\"" SALT "\",\"digest\"", "\"iterations\":4294967295,\"salt\":\"" SALT "\",\"digest\"", VD_EUNSUPPORTED, "digest asks" },
	{ "\"iterations\":1000,\"salt\":\"" SALT "\",\"digest\"", "\"salt\":\"\",\"digest\"", VD_EAUTH, "digest" },
	{ "\"digest\":\"", "\"digest\":\"\",\"x\":\"", VD_EAUTH, "digest of the volume key" },       /* any key would do */
	{ "\"digest\":\"", "\"digest\":\"AAAA\",\"x\":\"", VD_EAUTH, "digest of the volume key" },
	{ "\"digest\":\"" SALT, "\"digest\":\"*" SALT "AAA", VD_EAUTH, "digest of the volume key" },
	{ "\"digest\":\"", "\"digest\":\"A", VD_EAUTH, "digest of the volume key" },
	{ "\"salt\":\"" SALT "\",\"digest\"", "\"salt\":\"AAAA\",\"digest\"", VD_EAUTH, "digest of the volume key" },
	{ "\"cpus\":1,\"salt\":\"", "\"cpus\":1,\"salt\":\"AAAA", VD_EAUTH, "salt" },
	{ "\"0\":{\"type\":\"pbkdf2\"", "\"0\":{\"type\":\"none\"", VD_EUNSUPPORTED, "digest of the LUKS2" },
	{ "\"segments\":[\"0\"]", "\"segments\":[\"1\"]", VD_EAUTH, "digest" },
	{ "\"digests\":{", "\"digests\":{\"1\":{\"segments\":[\"0\"]},", VD_EAUTH, "has two" },
	{ "\"flags\":[\"allow-discards\"]", "\"requirements\":{\"mandatory\":[\"online-reencrypt-v2\"]}", VD_EUNSUPPORTED, "middle of a re-encryption" },
	{ "\"flags\":[\"allow-discards\"]", "\"requirements\":{\"mandatory\":[\"opal\"]}", VD_EUNSUPPORTED, "requires \"opal\"" },
	{ "\"flags\":[\"allow-discards\"]", "\"requirements\":{\"mandatory\":[7]}", VD_EUNSUPPORTED, "requires" },
	{ "\"flags\":[\"allow-discards\"]", "\"requirements\":{\"mandatory\":\"all\"}", VD_EUNSUPPORTED, "unknown kind" },
	{ "\"flags\":[\"allow-discards\"]", "\"requirements\":{\"optional\":[]}", VD_EUNSUPPORTED, "unknown kind" },
	{ "}}", "}", VD_EAUTH, "JSON text" },
	{ "{\"keyslots\"", "[\"keyslots\"", VD_EAUTH, "JSON text" },
};

static char *edited(const char *from, const char *to)
{
	const char *at = strstr(metadata, from);
	char *text = NULL;

	assert_non_null(at);
	assert_true(asprintf(&text, "%.*s%s%s", (int)(at - metadata), metadata, to, at + strlen(from)) > 0);
	return text;
}

static int judge(const char *text, struct vd_luks_info *info, struct vd_error *e)
{
	return vd_luks2_judge((struct vd_bytes){ (const uint8_t *)text, strlen(text) }, 16 * MIB, info, e);
}

static void sound_metadata_of_luks2_are_taken(void **state)
{
	static const struct edit fine[] = {
		{ "\"keyslots\":[\"0\",\"7\"]", "\"keyslots\":[\"7\"]", 1, NULL },       /* 0 is unbound */
		{ "\"keyslots\":[\"0\",\"7\"]", "\"keyslots\":[]", 0, NULL },
		{ "\"sector_size\":512", "\"sector_size\":2048", 2, NULL },
		{ "\"argon2id\"", "\"argon2i\"", 2, NULL },
		{ "\"time\":4", "\"time\":2048", 2, NULL },
		{ "\"digests\":{", "\"digests\":{\"1\":{\"segments\":[]},", 2, NULL },
		{ "\"flags\":[\"allow-discards\"]", "\"requirements\":{\"mandatory\":[]}", 2, NULL },
		{ "\"flags\":[\"allow-discards\"]", "\"requirements\":{}", 2, NULL },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(fine) / sizeof(fine[0]); i++) {
		char *text = edited(fine[i].from, fine[i].to);
		struct vd_luks_info info;
		struct vd_error e = { 0 };

		if (judge(text, &info, &e) < 0)
			fail_msg("edit %zu: %s", i, e.message);
		assert_int_equal(info.n_slots, fine[i].code); /* here: how many keyslots */
		free(text);
	}
}

static void each_broken_rule_of_luks2_is_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(edits) / sizeof(edits[0]); i++) {
		char *text = edited(edits[i].from, edits[i].to);
		struct vd_luks_info info;
		struct vd_error e = { 0 };

		if (judge(text, &info, &e) != edits[i].code || !strstr(e.message, edits[i].message))
			fail_msg("edit %zu (%s): %d %s", i, edits[i].to, e.code, e.message);
		free(text);
	}
}

/* Without any one of its members the text is refused, or says the same as before. */
static void luks2_metadata_miss_nothing_unnoticed(void **state)
{
	struct vd_luks_info whole, less;

	(void)state;
	assert_int_equal(judge(metadata, &whole, NULL), 0);
	for (const char *at = metadata; (at = strchr(at, '"')); at++) {
		char *text = strdup(metadata);

		text[at - metadata + 1] ^= 0x20; /* another name, or another value */
		if (judge(text, &less, NULL) == 0) {
			assert_string_equal(less.cipher, whole.cipher);
			assert_string_equal(less.mode, whole.mode);
			assert_true(less.payload_off == whole.payload_off && less.sector_size == whole.sector_size);
		}
		free(text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sound_metadata_of_luks2_are_taken),
		cmocka_unit_test(each_broken_rule_of_luks2_is_refused),
		cmocka_unit_test(luks2_metadata_miss_nothing_unnoticed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
