/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The canonical form of JSON, and certificates of which one byte was changed. What OpenSSH thinks of them: tests/interop/sshsig.sh. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "ledger/canon.h"
#include "ledger/certificate.h"
#include "ledger/files.h"
#include "ledger/schema.h"
#include "tests/support/tempdir.h"

static int judge(const char *text, size_t n)
{
	struct bytes b = { .at = (uint8_t *)text, .n = n, .is_fixed = true };
	struct json_object *j = NULL;
	struct vd_error e;
	int r = canon_read("it", &b, &j, &e);

	json_object_put(j);
	return r;
}

static void what_is_canonical_is_read(void **state)
{
	static const char *const texts[] = {
		"{}", "{\"\":[]}", "{\"a\":1,\"b\":[true,false,null,-1,0,18446744073709551615,-9223372036854775808]}",
		"{\"a\":\"\\b\\t\\n\\f\\r\\\"\\\\/\\u0000\\u001f\x7f\xc2\x80\xe2\x82\xac\xf0\x9f\x98\x80\"}",
		/* By the units of UTF-16: the letter beyond U+FFFF comes before U+FB33 (RFC 8785, 3.2.3). */
		"{\"\\r\":0,\"1\":0,\"\xc2\x80\":0,\"\xc3\xb6\":0,\"\xe2\x82\xac\":0,\"\xf0\x9f\x98\x80\":0,\"\xef\xac\xb3\":0}",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		assert_int_equal(judge(texts[i], strlen(texts[i])), 0);
}

static void what_is_not_canonical_is_refused(void **state)
{
	static const char *const texts[] = {
		"", " {}", "{} ", "{}\n", "{ }", "[]", "1", "{", "{}{}", "{\"b\":1,\"a\":1}", "{\"a\":1,\"a\":1}", "{\"a\":01}", "{\"a\":-0}",
		"{\"a\":1.0}", "{\"a\":1e3}", "{\"a\":1.5}", "{\"a\":18446744073709551616}", "{\"a\":-9223372036854775809}", "{\"a\":NaN}",
		"{\"a\":\"\\/\"}", "{\"a\":\"\\u0041\"}", "{\"a\":\"\\u000A\"}", "{\"a\":\"\\u001F\"}", "{\"a\":\"\\u20ac\"}",
		"{\"a\":\"\\ud800\"}", "{\"a\":\"\xff\"}", "{\"a\":\"\xc0\x80\"}", "{\"a\":\"\xed\xa0\x80\"}", "{'a':1}", "{a:1}", "{\"a\":1,}",
		"{\"a\":tRue}", "{\"a\":/**/1}", "{\"\xef\xac\xb3\":0,\"\xf0\x9f\x98\x80\":0}",
		"{\"a\":[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]}",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		if (judge(texts[i], strlen(texts[i])) != VD_ECORRUPT)
			fail_msg("%s was taken", texts[i]);
	assert_int_equal(judge("{}\0", 3), VD_ECORRUPT);
}

/* The least that a wipe says of itself. */
static const char record[] =
	"{\"consent\":\"id\",\"ended\":\"2026-11-24T12:00:01Z\",\"findings\":[],\"forced\":false,\"grade\":\"cleared\",\"host\":{\"name\":\"h\"},"
	"\"limits\":[],\"method\":\"overwrite\",\"passes\":[\"00\"],\"pattern-key-sha256\":\"00\",\"profile\":\"zero\",\"run\":\"1\",\"schema\":1,"
	"\"seconds\":1,\"set\":[{\"after\":{\"bytes\":1,\"extents\":1},\"allocated\":1,\"before\":{\"bytes\":1,\"extents\":1},\"done\":true,"
	"\"grade\":\"cleared\",\"moved\":0,\"path\":\"/d\",\"role\":\"image\",\"size\":1,\"verified\":1,\"written\":1}],"
	"\"started\":\"2026-11-24T12:00:00Z\",\"statement\":\"cleared\",\"tool\":{\"name\":\"vdisk\",\"version\":\"1\"},"
	"\"verification\":{\"mode\":\"full\"}}";

static void write_certificate(const char *path, bool is_incident)
{
	struct json_object *wipe = json_tokener_parse(record);
	struct signer s = { .path = "key" };
	bool was_incident;
	struct vd_error e;

	if (is_incident)
		json_object_object_add(wipe, "grade", json_object_new_string("incomplete"));
	assert_int_equal(sshkey_make("key", "", &s.key, &e), 0);
	assert_int_equal(certificate_write(path, wipe, NULL, &s, &was_incident, &e), 0);
	assert_int_equal(was_incident, is_incident);
	signer_close(&s);
	json_object_put(wipe);
}

/* Writes it with each byte changed, in each of two ways, and reads it. */
static void flip_all(const char *changed, const char *path, const char *sig_path)
{
	static const uint8_t masks[] = { 0x01, 0x20 };
	struct bytes whole = { 0 };
	struct certificate c;
	struct vd_error e;

	assert_int_equal(file_read(changed, 65536, &whole, &e), 0);
	for (size_t i = 0; i < whole.n * sizeof(masks); i++) {
		FILE *f = fopen(changed, "r+");

		fseek(f, (long)(i / sizeof(masks)), SEEK_SET);
		fputc(whole.at[i / sizeof(masks)] ^ masks[i % sizeof(masks)], f);
		assert_int_equal(fclose(f), 0);
		if (certificate_open(path, sig_path, &c, &e) != VD_EAUTH)
			fail_msg("byte %zu of %s by %#x was not noticed", i / sizeof(masks), changed, masks[i % sizeof(masks)]);
		f = fopen(changed, "w");
		assert_int_equal(fwrite(whole.at, 1, whole.n, f), whole.n);
		assert_int_equal(fclose(f), 0);
	}
	assert_int_equal(certificate_open(path, sig_path, &c, &e), 0);
	certificate_close(&c);
	bytes_free(&whole);
}

static void one_byte_changed_fails_it_whichever_it_is(void **state)
{
	(void)state;
	write_certificate("c.json", false);
	flip_all("c.json", "c.json", "c.json.sig");
	flip_all("c.json.sig", "c.json", "c.json.sig");
}

/* Bits of the last letter that stand for nothing are no room for a second text of the same signature. */
static void the_last_letter_has_one_form(void **state)
{
	struct bytes text = { 0 };
	struct sshsig sig;
	struct vd_error e;
	uint8_t *last, letter;
	int taken = 0;

	(void)state;
	write_certificate("c.json", false);
	assert_int_equal(file_read("c.json.sig", SSHSIG_FILE_MAX, &text, &e), 0);
	last = memchr(text.at, '=', text.n);
	assert_non_null(last);
	letter = *--last;
	for (int c = 0; c < 256; c++) {
		*last = (uint8_t)c;
		if (sshsig_read("it", &text, &sig, &e) == 0)
			taken++;
	}
	*last = letter;
	assert_int_equal(sshsig_read("it", &text, &sig, &e), 0);
	/* One byte stands in two letters, of which the second has two bits of it. */
	assert_int_equal(taken, 4);
	bytes_free(&text);
}

static void a_wipe_that_did_not_complete_has_no_certificate(void **state)
{
	struct certificate c;
	struct vd_error e;

	(void)state;
	write_certificate("c.json", true);
	assert_int_equal(certificate_open("c.json", "c.json.sig", &c, &e), 0);
	assert_true(c.is_incident);
	assert_string_equal(c.sig.ns, "vdisk-incident");
	assert_string_equal(schema_text(c.doc, "type"), "incident");
	certificate_close(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_canonical_is_read),
		cmocka_unit_test(what_is_not_canonical_is_refused),
		cmocka_unit_test_setup_teardown(one_byte_changed_fails_it_whichever_it_is, vd_tempdir_enter, vd_tempdir_leave),
		cmocka_unit_test_setup_teardown(the_last_letter_has_one_form, vd_tempdir_enter, vd_tempdir_leave),
		cmocka_unit_test_setup_teardown(a_wipe_that_did_not_complete_has_no_certificate, vd_tempdir_enter, vd_tempdir_leave),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
