/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The messages of KMIP: their encoding by the examples of the specification, and each rule of replies broken once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "tools/keyhelpers/kmip_message.h"

#define LEN(a) (sizeof(a) / sizeof((a)[0]))

/* KMIP 1.4, 9.1.2 */
static const uint8_t integer_8[] = { 0x42, 0, 0x20, 2, 0, 0, 0, 4, 0, 0, 0, 8, 0, 0, 0, 0 };
static const uint8_t hello_world[] = { 0x42, 0, 0x20, 7, 0, 0, 0, 11, 'H', 'e', 'l', 'l', 'o', ' ', 'W', 'o', 'r', 'l', 'd',
				       0, 0, 0, 0, 0 };
static const uint8_t structure[] = { 0x42, 0, 0x20, 1, 0, 0, 0, 0x20,
				     0x42, 0, 0x04, 5, 0, 0, 0, 4, 0, 0, 0, 254, 0, 0, 0, 0,
				     0x42, 0, 0x05, 2, 0, 0, 0, 4, 0, 0, 0, 255, 0, 0, 0, 0 };

static void encoding_is_that_of_the_examples(void **state)
{
	uint8_t out[64];
	struct ttlv_writer w = { .p = out, .cap = sizeof(out) };

	(void)state;
	ttlv_put_integer(&w, 0x420020, 8);
	assert_int_equal(ttlv_finish(&w), sizeof(integer_8));
	assert_memory_equal(out, integer_8, sizeof(integer_8));
	w = (struct ttlv_writer){ .p = out, .cap = sizeof(out) };
	ttlv_put_text(&w, 0x420020, "Hello World");
	assert_int_equal(ttlv_finish(&w), sizeof(hello_world));
	assert_memory_equal(out, hello_world, sizeof(hello_world));
	w = (struct ttlv_writer){ .p = out, .cap = sizeof(out) };
	ttlv_begin(&w, 0x420020);
	ttlv_put_enum(&w, 0x420004, 254);
	ttlv_put_integer(&w, 0x420005, 255);
	assert_int_equal(ttlv_finish(&w), 0);
	ttlv_end(&w);
	assert_int_equal(ttlv_finish(&w), sizeof(structure));
	assert_memory_equal(out, structure, sizeof(structure));
}

static void what_does_not_fit_is_not_written(void **state)
{
	uint8_t out[sizeof(structure) + 1];

	(void)state;
	for (size_t cap = 0; cap < sizeof(structure); cap++) {
		struct ttlv_writer w = { .p = out, .cap = cap };

		memset(out, 0xaa, sizeof(out));
		ttlv_begin(&w, 0x420020);
		ttlv_put_enum(&w, 0x420004, 254);
		ttlv_put_integer(&w, 0x420005, 255);
		ttlv_end(&w);
		assert_int_equal(ttlv_finish(&w), 0);
		assert_int_equal(out[cap], 0xaa);
	}
}

static void examples_are_read(void **state)
{
	struct ttlv_item item = ttlv_parse(structure, sizeof(structure)), text = ttlv_parse(hello_world, sizeof(hello_world));
	uint32_t value;
	char out[12];

	(void)state;
	assert_true(ttlv_u32(ttlv_get(item, 0x420004, TTLV_ENUM), &value) && value == 254);
	assert_true(ttlv_u32(ttlv_get(item, 0x420005, TTLV_INTEGER), &value) && value == 255);
	assert_false(ttlv_u32(ttlv_get(item, 0x420005, TTLV_ENUM), &value));
	assert_true(ttlv_copy_text(text, out, sizeof(out)));
	assert_string_equal(out, "Hello World");
	assert_false(ttlv_copy_text(text, out, sizeof(out) - 1));
}

/* Each in a block of its exact size, so that a read past the end is seen by the sanitizers. */
static void every_cut_of(const uint8_t *message, size_t len)
{
	for (size_t n = 1; n < len; n++) {
		uint8_t *cut = malloc(n);

		memcpy(cut, message, n);
		assert_int_equal(ttlv_parse(cut, n).type, TTLV_NONE);
		free(cut);
	}
}

static void every_cut_is_refused(void **state)
{
	(void)state;
	assert_int_equal(ttlv_parse(structure, 0).type, TTLV_NONE);
	every_cut_of(structure, sizeof(structure));
	every_cut_of(hello_world, sizeof(hello_world));
}

static void every_wrong_length_is_refused(void **state)
{
	static const size_t lengths_at[] = { 4, 12, 28 };
	static const uint32_t wrong[] = { 0, 3, 5, 8, 0x18, 0x21, 0x28, 0x7fffffff, 0xfffffff8, 0xffffffff };
	uint8_t copy[sizeof(structure)];

	(void)state;
	for (size_t i = 0; i < LEN(lengths_at) * LEN(wrong); i++) {
		uint32_t len = wrong[i % LEN(wrong)];

		memcpy(copy, structure, sizeof(copy));
		for (size_t k = 0; k < 4; k++)
			copy[lengths_at[i / LEN(wrong)] + k] = (uint8_t)(len >> (24 - 8 * k));
		assert_int_equal(ttlv_parse(copy, sizeof(copy)).type, TTLV_NONE);
	}
}

/* ---- replies -------------------------------------------------------------------------------------------- */

/* A reply to Get in all its parts; each test changes what it is about. */
struct get_reply {
	uint32_t operation, status, object_tag, format, algorithm;
	const char *id;
	uint32_t material_tag;
	bool is_wrapped;
};

static const struct get_reply good = { KMIP_GET, 0, 0x42008f, 1, 3, "key-7", 0x420043, false };
static const char material[] = "0123456789abcdef0123456789abcdef";

static size_t build(const struct get_reply *r, uint8_t out[1024], enum ttlv_type material_type)
{
	struct ttlv_writer w = { .p = out, .cap = 1024 };

	ttlv_begin(&w, 0x42007b);
	ttlv_begin(&w, 0x42000f);
	ttlv_put_enum(&w, 0x42005c, r->operation);
	ttlv_put_enum(&w, 0x42007f, r->status);
	ttlv_begin(&w, 0x42007c);
	ttlv_put_text(&w, 0x420094, r->id);
	ttlv_begin(&w, r->object_tag);
	ttlv_begin(&w, 0x420040);
	ttlv_put_enum(&w, 0x420042, r->format);
	ttlv_begin(&w, 0x420045);
	ttlv_put_text(&w, r->material_tag, material);
	/* There is no need to write bytes but here. */
	out[w.len - 32 - TTLV_HEADER + 3] = (uint8_t)material_type;
	ttlv_end(&w);
	ttlv_put_enum(&w, 0x420028, r->algorithm);
	if (r->is_wrapped) {
		ttlv_begin(&w, 0x420046);
		ttlv_end(&w);
	}
	for (int i = 0; i < 5; i++)
		ttlv_end(&w);
	return ttlv_finish(&w);
}

/* What is wrong with the reply, or NULL. */
static const char *verdict(const struct get_reply *r, enum ttlv_type material_type)
{
	uint8_t bytes[1024], key[KMIP_KEY];
	struct kmip_reply reply;
	const char *wrong = kmip_read_reply(bytes, build(r, bytes, material_type), KMIP_GET, &reply);

	if (!wrong)
		wrong = kmip_reply_key(&reply, "key-7", key);
	if (!wrong)
		assert_memory_equal(key, material, sizeof(key));
	return wrong;
}

static void key_is_read(void **state)
{
	(void)state;
	assert_null(verdict(&good, TTLV_BYTES));
}

static void broken_replies_are_refused(void **state)
{
	struct get_reply r = good;

	(void)state;
	r.operation = KMIP_CREATE;
	assert_string_equal(verdict(&r, TTLV_BYTES), "it answers another question");
	r = good;
	r.object_tag = 0x420085;
	assert_string_equal(verdict(&r, TTLV_BYTES), "the object is no symmetric key");
	r = good;
	r.format = 2;
	assert_string_equal(verdict(&r, TTLV_BYTES), "the key is not in raw format");
	r = good;
	r.algorithm = 2;
	assert_string_equal(verdict(&r, TTLV_BYTES), "the key is not for AES");
	r = good;
	r.id = "key-8";
	assert_string_equal(verdict(&r, TTLV_BYTES), "it is about another key");
	r = good;
	r.material_tag = 0x420044;
	assert_string_equal(verdict(&r, TTLV_BYTES), "the key does not have 256 bits");
	r = good;
	r.is_wrapped = true;
	assert_string_equal(verdict(&r, TTLV_BYTES), "the key is wrapped by another one");
	assert_string_equal(verdict(&good, TTLV_TEXT), "the key does not have 256 bits");
}

static void identifiers_are_printable_and_short(void **state)
{
	static const char *const bad[] = { "", "a\nb", "\x1b[1m", "\xc3\xa4" };
	char longest[KMIP_ID_MAX + 1], id[KMIP_ID_MAX];
	struct get_reply r = good;
	struct kmip_reply reply;
	uint8_t bytes[1024];

	(void)state;
	for (size_t i = 0; i < LEN(bad); i++) {
		r.id = bad[i];
		assert_null(kmip_read_reply(bytes, build(&r, bytes, TTLV_BYTES), KMIP_GET, &reply));
		assert_non_null(kmip_reply_id(&reply, id));
	}
	memset(longest, 'x', sizeof(longest));
	longest[KMIP_ID_MAX] = '\0';
	r.id = longest;
	assert_null(kmip_read_reply(bytes, build(&r, bytes, TTLV_BYTES), KMIP_GET, &reply));
	assert_non_null(kmip_reply_id(&reply, id));
	longest[KMIP_ID_MAX - 1] = '\0';
	assert_null(kmip_read_reply(bytes, build(&r, bytes, TTLV_BYTES), KMIP_GET, &reply));
	assert_null(kmip_reply_id(&reply, id));
}

static void replies_of_64_kib_are_the_longest(void **state)
{
	uint8_t head[] = { 0x42, 0, 0x7b, 1, 0, 0, 0xff, 0xf8 };

	(void)state;
	assert_int_equal(kmip_reply_len(head), 65536);
	head[5] = 1;
	assert_int_equal(kmip_reply_len(head), 0);
	head[4] = 0xff;
	assert_int_equal(kmip_reply_len(head), 0);
	memset(head + 4, 0, 4);
	assert_int_equal(kmip_reply_len(head), TTLV_HEADER);
	head[2] = 0x78;
	assert_int_equal(kmip_reply_len(head), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(encoding_is_that_of_the_examples),
		cmocka_unit_test(what_does_not_fit_is_not_written),
		cmocka_unit_test(examples_are_read),
		cmocka_unit_test(every_cut_is_refused),
		cmocka_unit_test(every_wrong_length_is_refused),
		cmocka_unit_test(key_is_read),
		cmocka_unit_test(broken_replies_are_refused),
		cmocka_unit_test(identifiers_are_printable_and_short),
		cmocka_unit_test(replies_of_64_kib_are_the_longest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
