/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The reader of LUKS2's JSON: what it takes, what it refuses, and that it never leaves the text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "keys/json.h"

/* The text in a block of its exact size, so that a read past the end is seen by the sanitizers. */
static char *exact;

static struct vd_json parse_n(const char *text, size_t len)
{
	free(exact);
	exact = malloc(len ? len : 1);
	memcpy(exact, text, len);
	return vd_json_of((struct vd_bytes){ (const uint8_t *)exact, len });
}

static struct vd_json parse(const char *text)
{
	return parse_n(text, strlen(text));
}

static const char *const sound[] = {
	"{}", "[]", "0", "\"\"", "true", "null", " { } ", "\n[ 1 ,\t2 ]\r\n", "{\"a\":{\"b\":[{},[],\"x\"]},\"c\":-1.5e+3}",
	"\"\\\"\"", "\"\\\\\"", "[\"\\u0041\"]",
};
static const char *const broken[] = {
	"", " ", "{", "}", "[", "]", "\"", "\"a", "\"\\", "\"\\\"", "{}{}", "[1", "[1,", "[1,]", "[,1]", "{\"a\"}", "{\"a\":}", "{a:1}",
	"{\"a\":1", "{\"a\":1,", "{\"a\":1,}", "{\"a\" 1}", "{1:2}", "[1 2]", "[}", "{]", "\"a\nb\"", "@", "nul\x01", "{\"a\":1}x", ":",
	"01", "1.", ".1", "1e", "-", "+1", "1.5.2", "tru", "True", "nulls", "\"\\q\"", "\"\\u12\"", "\"\\u12g4\"",
};

static void sound_texts_are_taken(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(sound) / sizeof(sound[0]); i++)
		assert_int_not_equal(parse(sound[i]).len, 0);
}

static void broken_texts_are_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++)
		if (parse(broken[i]).len)
			fail_msg("taken: %s", broken[i]);
	assert_int_equal(parse_n("\"a\0b\"", 5).len, 0);
	assert_int_equal(parse_n("[1]\0", 4).len, 0);
}

/* Cut anywhere, a text of more than one piece is broken; and no cut reads past its end. */
static void every_cut_of_a_text_is_refused(void **state)
{
	static const char text[] = "{\"a\":{\"b\":[\"x\\\"y\",12,{}],\"c\":true}}";

	(void)state;
	assert_int_not_equal(parse(text).len, 0);
	for (size_t len = 0; len < sizeof(text) - 1; len++)
		assert_int_equal(parse_n(text, len).len, 0);
}

static void deep_nesting_is_refused(void **state)
{
	char text[200001];

	(void)state;
	memset(text, '[', 100000);
	memset(text + 100000, ']', 100000);
	text[200000] = '\0';
	assert_int_equal(parse(text).len, 0);
	assert_int_not_equal(parse("[[[[[[[[]]]]]]]]").len, 0);
}

static void members_are_found_by_name(void **state)
{
	struct vd_json root = parse("{ \"one\" : \"1\", \"two\":{\"one\":2} , \"\\u0074wo\":3, \"l\":[\"x\", \"y\"]}"), key, value;
	size_t at = 0;

	(void)state;
	assert_true(vd_json_is(vd_json_get(root, "one"), "1"));
	assert_int_equal(vd_json_get(vd_json_get(root, "two"), "one").len, 1);
	assert_int_equal(vd_json_get(root, "three").len, 0);
	assert_int_equal(vd_json_get(vd_json_get(root, "one"), "one").len, 0);
	assert_int_equal(vd_json_get(vd_json_get(vd_json_get(root, "no"), "such"), "thing").len, 0);
	assert_int_equal(vd_json_count(root), 4);
	assert_int_equal(vd_json_count(vd_json_get(root, "l")), 2);
	assert_int_equal(vd_json_count(vd_json_get(root, "one")), 0);
	assert_true(vd_json_next(vd_json_get(root, "l"), &at, &key, &value));
	assert_true(vd_json_is(value, "x") && !key.len);
	assert_true(vd_json_next(vd_json_get(root, "l"), &at, &key, &value));
	assert_true(vd_json_is(value, "y"));
	assert_false(vd_json_next(vd_json_get(root, "l"), &at, &key, &value));
}

static void numbers_are_decimal_and_fit(void **state)
{
	static const struct {
		const char *text;
		bool taken;
		uint64_t n;
	} rows[] = {
		{ "0", true, 0 }, { "\"0\"", true, 0 }, { "4096", true, 4096 }, { "18446744073709551615", true, UINT64_MAX },
		{ "\"18446744073709551615\"", true, UINT64_MAX }, { "18446744073709551616", false, 0 },
		{ "99999999999999999999999", false, 0 }, { "-1", false, 0 }, { "1.0", false, 0 }, { "1e3", false, 0 },
		{ "\"\"", false, 0 }, { "\"1 \"", false, 0 }, { "\"0x1\"", false, 0 }, { "true", false, 0 }, { "[1]", false, 0 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint64_t n = 7;

		assert_int_equal(vd_json_u64(parse(rows[i].text), &n), rows[i].taken);
		assert_true(n == (rows[i].taken ? rows[i].n : 7));
	}
}

static int free_text(void **state)
{
	(void)state;
	free(exact);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sound_texts_are_taken),
		cmocka_unit_test(broken_texts_are_refused),
		cmocka_unit_test(every_cut_of_a_text_is_refused),
		cmocka_unit_test(deep_nesting_is_refused),
		cmocka_unit_test(members_are_found_by_name),
		cmocka_unit_test(numbers_are_decimal_and_fit),
	};

	return cmocka_run_group_tests(tests, NULL, free_text);
}
