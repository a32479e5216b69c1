/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What key commands reply, judged: each rule kept and broken, and every change of one byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "keys/base64.h"
#include "keys/keycommand.h"

/* The text in a block of its exact size, so that a read past the end is seen by the sanitizers. */
static int judge_n(const char *text, size_t len, enum vd_key_act act, struct vd_key_reply *reply, struct vd_error *e)
{
	uint8_t *exact = malloc(len ? len : 1);
	int r;

	memcpy(exact, text, len);
	r = vd_key_reply_read((struct vd_bytes){ exact, len }, act, reply, e);
	free(exact);
	return r;
}

static int judge(const char *text, enum vd_key_act act, struct vd_key_reply *reply, struct vd_error *e)
{
	return judge_n(text, strlen(text), act, reply, e);
}

static void a_secret_is_taken_out_of_its_base64(void **state)
{
	static const struct {
		const char *text, *secret;
	} rows[] = {
		{ "{\"secret\":\"YQ==\"}", "a" }, { "{\"secret\":\"YWI=\"}", "ab" }, { "{\"secret\":\"YWJj\"}", "abc" },
		{ " {\"x\":{\"secret\":1},\n\"secret\" : \"YWI\\u003d\"}\n", "ab" }, { "{\"secret\":\"Pz8\\/\"}", "???" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct vd_key_reply reply;

		assert_int_equal(judge(rows[i].text, VD_KEY_OPEN, &reply, NULL), 0);
		assert_int_equal(reply.verdict, VD_KEY_GIVEN);
		assert_int_equal(reply.secret.len, strlen(rows[i].secret));
		assert_memory_equal(reply.secret.p, rows[i].secret, reply.secret.len);
		vd_key_reply_free(&reply);
	}
}

static void what_is_no_secret_is_refused(void **state)
{
	static const char *const bad[] = {
		"", "{}", "[]", "1", "\"YQ==\"", "{\"secret\":\"\"}", "{\"secret\":\"YQ=\"}", "{\"secret\":\"YQ\"}", "{\"secret\":\"Y\"}",
		"{\"secret\":\"YR==\"}", "{\"secret\":\"YWK=\"}", "{\"secret\":\"Y===\"}", "{\"secret\":\"====\"}", "{\"secret\":\"Y Q=\"}",
		"{\"secret\":\"Y-_=\"}", "{\"secret\":null}", "{\"secret\":[\"YQ==\"]}", "{\"Secret\":\"YQ==\"}", "{\"secret\":\"YQ==\"",
		"{\"secret\":\"YQ==\"}x", "{\"secret\":'YQ=='}", "{\"token\":{}}", "{\"secret\":\"YQ\\x3d\\x3d\"}",
	};
	struct vd_key_reply reply;
	struct vd_error e;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (judge(bad[i], VD_KEY_OPEN, &reply, &e) != VD_EFAILED)
			fail_msg("taken: %s", bad[i]);
		assert_null(reply.secret.p);
		assert_null(strstr(e.message, "YQ"));
	}
}

static void the_longest_secret_is_a_key_s(void **state)
{
	static char text[VD_BASE64_LEN(VD_KEY_MAX + 3) + 32];
	struct vd_key_reply reply;
	size_t letters = VD_BASE64_LEN(VD_KEY_MAX);

	(void)state;
	snprintf(text, sizeof(text), "{\"secret\":\"%0*d=\"}", (int)letters - 1, 0);
	assert_int_equal(judge(text, VD_KEY_OPEN, &reply, NULL), 0);
	assert_int_equal(reply.secret.len, VD_KEY_MAX);
	vd_key_reply_free(&reply);
	snprintf(text, sizeof(text), "{\"secret\":\"%0*d\"}", (int)letters, 0);
	assert_int_equal(judge(text, VD_KEY_OPEN, &reply, NULL), VD_EFAILED);
	snprintf(text, sizeof(text), "{\"secret\":\"%0*d\"}", (int)letters + 4, 0);
	assert_int_equal(judge(text, VD_KEY_OPEN, &reply, NULL), VD_EFAILED);
}

static void a_token_is_kept_without_blanks(void **state)
{
	struct vd_key_reply reply;

	(void)state;
	assert_int_equal(judge("{ \"token\" : { \"a b\" :\t[ 1 , \"x \\\" y\" ,{ } ]\n} }", VD_KEY_SEAL, &reply, NULL), 0);
	assert_string_equal(reply.token, "{\"a b\":[1,\"x \\\" y\",{}]}");
}

static void what_is_no_token_is_refused(void **state)
{
	static const char *const bad[] = {
		"{}", "{\"token\":1}", "{\"token\":\"x\"}", "{\"token\":[]}", "{\"token\":{\"a\":\"\\u00e4\"}}", "{\"token\":{\"a\":\"\xc3\xa4\"}}",
		"{\"token\":{\"a\":\"\x7f\"}}", "{\"token\":{\"a\":[[[[[[[[1]]]]]]]]}}", "{\"token\":{\"a\":01}}", "{\"token\":{\"a\":tru}}",
		"{\"token\":{\"a\":\"\\q\"}}", "{\"token\":{\"a\":\"\\u00\"}}", "{\"token\":{a:1}}", "{\"secret\":\"YQ==\"}",
	};
	char text[VD_KEY_TOKEN_MAX + 64];
	struct vd_key_reply reply;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (judge(bad[i], VD_KEY_SEAL, &reply, NULL) != VD_EFAILED)
			fail_msg("taken: %s", bad[i]);
	assert_int_equal(judge("{\"token\":{\"a\":[[[[[[[1]]]]]]]}}", VD_KEY_SEAL, &reply, NULL), 0);
	snprintf(text, sizeof(text), "{\"token\":{\"a\":\"%0*d\"}}", VD_KEY_TOKEN_MAX - 8, 0);
	assert_int_equal(judge(text, VD_KEY_SEAL, &reply, NULL), 0);
	assert_int_equal(strlen(reply.token), VD_KEY_TOKEN_MAX);
	snprintf(text, sizeof(text), "{\"token\":{\"a\":\"%0*d\"}}", VD_KEY_TOKEN_MAX - 7, 0);
	assert_int_equal(judge(text, VD_KEY_SEAL, &reply, NULL), VD_EFAILED);
}

static void an_error_is_told_as_its_kind(void **state)
{
	static const struct {
		const char *kind;
		enum vd_key_verdict verdict;
		int code;
	} rows[] = {
		{ "no-match", VD_KEY_NO_MATCH, VD_EKEY }, { "denied", VD_KEY_DENIED, VD_EKEY },
		{ "unavailable", VD_KEY_UNAVAILABLE, VD_EFAILED }, { "failed", VD_KEY_FAILED, VD_EFAILED },
		{ "Denied", VD_KEY_FAILED, VD_EFAILED }, { "", VD_KEY_FAILED, VD_EFAILED },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct vd_key_reply reply;
		struct vd_error e;
		char text[256];

		snprintf(text, sizeof(text), "{\"secret\":\"YQ==\",\"error\":{\"kind\":\"%s\",\"message\":\"a\\nb \\ud83d\\ude00\\u00e4\"}}", rows[i].kind);
		assert_int_equal(judge(text, VD_KEY_OPEN, &reply, NULL), 0);
		assert_int_equal(reply.verdict, rows[i].verdict);
		assert_string_equal(reply.message, "a b \xf0\x9f\x98\x80\xc3\xa4");
		assert_null(reply.secret.p);
		assert_int_equal(vd_key_command_refuses(&reply, &e), rows[i].code);
		assert_non_null(strstr(e.message, "a b"));
	}
}

static void a_message_without_end_is_cut(void **state)
{
	char text[4096];
	struct vd_key_reply reply;

	(void)state;
	snprintf(text, sizeof(text), "{\"error\":{\"kind\":\"denied\",\"message\":\"%03000d\"}}", 0);
	assert_int_equal(judge(text, VD_KEY_OPEN, &reply, NULL), 0);
	assert_int_equal(strlen(reply.message), sizeof(reply.message) - 1);
	assert_int_equal(judge("{\"error\":7}", VD_KEY_OPEN, &reply, NULL), 0);
	assert_int_equal(reply.verdict, VD_KEY_FAILED);
}

/* Whatever a byte becomes, the reply is judged; and no cut of it is one. */
static void any_byte_may_be_any_other(void **state)
{
	static const struct {
		const char *text;
		enum vd_key_act act;
	} rows[] = {
		{ "{\"x\":[1.5e-3,\"\\u0041\"],\"secret\":\"YWJjZA==\"}", VD_KEY_OPEN },
		{ "{\"token\":{\"a\":[true,{\"b\":\"c\\\\d\"}],\"e\":-10}}", VD_KEY_SEAL },
		{ "{\"error\":{\"kind\":\"denied\",\"message\":\"\\ud83d\\ude00 no\"}}", VD_KEY_OPEN },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		size_t len = strlen(rows[i].text);
		struct vd_key_reply reply;
		char text[128];

		for (size_t k = 0; k < len; k++) {
			assert_int_equal(judge_n(rows[i].text, k, rows[i].act, &reply, NULL), VD_EFAILED);
			for (int c = 0; c < 256; c++) {
				memcpy(text, rows[i].text, len);
				text[k] = (char)c;
				if (judge_n(text, len, rows[i].act, &reply, NULL) == 0)
					vd_key_reply_free(&reply);
			}
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_secret_is_taken_out_of_its_base64),
		cmocka_unit_test(what_is_no_secret_is_refused),
		cmocka_unit_test(the_longest_secret_is_a_key_s),
		cmocka_unit_test(a_token_is_kept_without_blanks),
		cmocka_unit_test(what_is_no_token_is_refused),
		cmocka_unit_test(an_error_is_told_as_its_kind),
		cmocka_unit_test(a_message_without_end_is_cut),
		cmocka_unit_test(any_byte_may_be_any_other),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
