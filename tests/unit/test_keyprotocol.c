/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the programs for --key-command share: base64, and secrets taken out of JSON. Requests are in cli/key_programs.sh. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "tools/keyhelpers/base64.h"
#include "tools/keyhelpers/protocol.h"

#define LEN(a) (sizeof(a) / sizeof((a)[0]))

/* RFC 4648, 10 */
static const char *const vectors[][2] = {
	{ "", "" }, { "f", "Zg==" }, { "fo", "Zm8=" }, { "foo", "Zm9v" }, { "foob", "Zm9vYg==" }, { "fooba", "Zm9vYmE=" },
	{ "foobar", "Zm9vYmFy" }, { "\xfb\xff\xbf", "+/+/" },
};

static void base64_is_that_of_the_vectors(void **state)
{
	uint8_t bytes[8];
	char text[12];
	size_t len;

	(void)state;
	for (size_t i = 0; i < LEN(vectors); i++) {
		const char *plain = vectors[i][0], *coded = vectors[i][1];

		base64_encode((const uint8_t *)plain, strlen(plain), text);
		assert_string_equal(text, coded);
		assert_int_equal(strlen(text), BASE64_LEN(strlen(plain)));
		assert_true(base64_decode(coded, strlen(coded), bytes, strlen(plain), &len));
		assert_int_equal(len, strlen(plain));
		assert_memory_equal(bytes, plain, len);
		assert_true(!len || !base64_decode(coded, strlen(coded), bytes, len - 1, &len));
	}
}

static void what_is_no_base64_is_refused(void **state)
{
	static const char *const bad[] = { "Z", "Zg", "Zg=", "Zg=v", "=g==", "====", "Z===", "Zm9v\n", "Zm9-", "Zm 9", "Zm\0v" };
	uint8_t bytes[8];
	size_t len;

	(void)state;
	for (size_t i = 0; i < LEN(bad); i++)
		assert_false(base64_decode(bad[i], i + 1 == LEN(bad) ? 4 : strlen(bad[i]), bytes, sizeof(bytes), &len));
}

static void secret_is_taken_out(void **state)
{
	char text[] = " { \"name\" : \"\\\"secret\\\":\\\"QUJD\", \"x\":{\"secret\":\"QUJD\"},\n\"secret\" : \"c2VjcmV0\", \"y\":1}";
	uint8_t secret[8];
	size_t len;

	(void)state;
	assert_true(protocol_cut(text, "secret", 1, secret, sizeof(secret), &len));
	assert_int_equal(len, 6);
	assert_memory_equal(secret, "secret", 6);
	assert_null(strstr(text, "c2VjcmV0"));
	assert_non_null(strstr(text, "\"secret\" : \"........\""));
	assert_true(protocol_cut(text, "secret", 2, secret, sizeof(secret), &len));
	assert_memory_equal(secret, "ABC", 3);
}

static void there_is_no_secret(void **state)
{
	static const char *const without[] = {
		"", "{", "{}", "\"secret\":\"QUJD\"", "{\"secret\"}", "{\"secret\":}", "{\"secret\":1}", "{\"secret\":\"QUJD", "{\"secret",
		"{\"secret\":\"QUJ\"}", "{\"secret\":\"QUJDRA==\"}", "{\"secret\":\"QU\\u004a\"}", "{\"Secret\":\"QUJD\"}",
		"{\"secre\":\"QUJD\"}", "{\"\\\"", "}{\"a\":{", "{{\"secret\":\"QUJD\"}}",
	};
	uint8_t secret[3];
	char text[64];
	size_t len;

	(void)state;
	for (size_t i = 0; i < LEN(without); i++) {
		strcpy(text, without[i]);
		assert_false(protocol_cut(text, "secret", 1, secret, sizeof(secret), &len));
	}
}

static void json_is_one_value(void **state)
{
	static const char *const bad[] = { "", "{", "{}x", "{\"a\":1,}", "[1,]", "{} {}" };

	(void)state;
	for (size_t i = 0; i < LEN(bad); i++)
		assert_null(protocol_parse(bad[i]));
	json_object_put(protocol_parse(" {\"a\":1} "));
}

static void text_has_no_zero(void **state)
{
	struct json_object *json = protocol_parse("{\"a\":\"x\",\"b\":\"x\\u0000y\",\"c\":1,\"d\":null}");

	(void)state;
	assert_string_equal(protocol_text(json, "a"), "x");
	assert_null(protocol_text(json, "b"));
	assert_null(protocol_text(json, "c"));
	assert_null(protocol_text(json, "d"));
	assert_null(protocol_text(json, "e"));
	assert_null(protocol_text(NULL, "a"));
	json_object_put(json);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(base64_is_that_of_the_vectors),
		cmocka_unit_test(what_is_no_base64_is_refused),
		cmocka_unit_test(secret_is_taken_out),
		cmocka_unit_test(there_is_no_secret),
		cmocka_unit_test(json_is_one_value),
		cmocka_unit_test(text_has_no_zero),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
