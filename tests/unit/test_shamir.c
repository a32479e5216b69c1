/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Keys split among several: any k shares give the key back, fewer do not, and a slip of the pen is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "libvdisk/core/keysrc.h"

static struct vd_key *key_of(const char *text)
{
	struct vd_key *key;

	assert_int_equal(vd_key_from_bytes(text, strlen(text), &key, NULL), 0);
	return key;
}

static const char letters[] = "cbdefghijklnrtuv";
static char shares[255][VD_SHARE_SIZE];

static void split(const char *secret, unsigned k, unsigned n)
{
	struct vd_key *key = key_of(secret);
	struct vd_error e;
	int r = vd_key_split(key, k, n, shares, &e);

	vd_key_free(key);
	if (r < 0)
		fail_msg("%s", e.message);
}

/* The text of the key that they give, in `out`. */
static int join(const char *const *texts, size_t n, char *out, struct vd_error *e)
{
	struct vd_key *keys[255], *got = NULL;
	int r;

	for (size_t i = 0; i < n; i++)
		keys[i] = key_of(texts[i]);
	r = vd_key_from_shares(keys, n, &got, e);
	if (r == 0)
		snprintf(out, 256, "%.*s", (int)vd_key_bytes(got).len, (const char *)vd_key_bytes(got).p);
	for (size_t i = 0; i < n; i++)
		vd_key_free(keys[i]);
	vd_key_free(got);
	return r;
}

static void any_k_give_the_key_back(void **state)
{
	const char *texts[3];
	char got[256];

	(void)state;
	split("correct horse battery staple", 3, 5);
	for (int a = 0; a < 5; a++)
		for (int b = 0; b < 5; b++)
			for (int c = 0; c < 5; c++) {
				if (a == b || b == c || a == c)
					continue;
				texts[0] = shares[a];
				texts[1] = shares[b];
				texts[2] = shares[c];
				assert_int_equal(join(texts, 3, got, NULL), 0);
				assert_string_equal(got, "correct horse battery staple");
			}
}

static void more_than_k_do_too(void **state)
{
	const char *texts[255];
	char got[256];

	(void)state;
	split("x", 2, 255);
	for (int i = 0; i < 255; i++)
		texts[i] = shares[254 - i];
	assert_int_equal(join(texts, 255, got, NULL), 0);
	assert_string_equal(got, "x");
}

static void fewer_are_told_how_many_are_needed(void **state)
{
	const char *texts[] = { shares[0], shares[1] };
	struct vd_error e;
	char got[256];

	(void)state;
	split("secret", 3, 3);
	assert_int_equal(join(texts, 2, got, &e), VD_EARG);
	assert_non_null(strstr(e.message, "3 shares are needed, and 2 are here"));
}

/* A share of one byte takes each value about as often, whatever the secret: 2 of 2 over and over. */
static void one_share_says_nothing(void **state)
{
	unsigned seen[16] = { 0 };

	(void)state;
	for (int i = 0; i < 4096; i++) {
		split("A", 2, 2);
		/* The first letter of the data: vdshare1-2-1-xxxxxxxx-D */
		seen[strchr(letters, shares[0][22]) - letters]++;
	}
	for (int i = 0; i < 16; i++)
		assert_in_range(seen[i], 160, 360);
}

static void a_slip_of_the_pen_is_told(void **state)
{
	size_t len;

	(void)state;
	split("a secret", 2, 3);
	len = strlen(shares[1]);
	for (size_t i = 0; i < len; i++) {
		char slip[VD_SHARE_SIZE];
		const char *texts[] = { shares[0], slip };
		struct vd_error e;
		char got[256];

		memcpy(slip, shares[1], sizeof(slip));
		slip[i] = slip[i] == 'c' ? 'b' : 'c';
		assert_int_equal(join(texts, 2, got, &e), VD_EARG);
	}
}

static void shares_of_two_keys_are_told(void **state)
{
	char other[VD_SHARE_SIZE], got[256];
	const char *texts[] = { other, shares[1] };
	struct vd_error e;

	(void)state;
	split("one", 2, 2);
	memcpy(other, shares[0], sizeof(other));
	split("two", 2, 2);
	assert_int_equal(join(texts, 2, got, &e), VD_EARG);
	assert_non_null(strstr(e.message, "different keys"));
	texts[0] = shares[1];
	assert_int_equal(join(texts, 2, got, &e), VD_EARG);
	assert_non_null(strstr(e.message, "twice"));
}

static void what_cannot_be_split_is_refused(void **state)
{
	static const unsigned bad[][2] = { { 0, 3 }, { 1, 3 }, { 4, 3 }, { 2, 256 } };
	struct vd_key *key = key_of("k");

	(void)state;
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(vd_key_split(key, bad[i][0], bad[i][1], shares, NULL), VD_EARG);
	vd_key_free(key);
}

static void what_is_no_share_is_refused(void **state)
{
	static const char *const bad[] = { "x", "vdshare1-", "vdshare1-2-1-", "vdshare1-2-1-cccccccc-", "vdshare1-2-0-cccccccc-cc-cccccccc",
					   "vdshare1-2-1-cccccccc-cccccccccc-cccccccc", "vdshare1-999-1-cccccccc-cccccccccc-cccccccc" };
	char got[256];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(join(&bad[i], 1, got, NULL), VD_EARG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(any_k_give_the_key_back),
		cmocka_unit_test(more_than_k_do_too),
		cmocka_unit_test(fewer_are_told_how_many_are_needed),
		cmocka_unit_test(one_share_says_nothing),
		cmocka_unit_test(a_slip_of_the_pen_is_told),
		cmocka_unit_test(shares_of_two_keys_are_told),
		cmocka_unit_test(what_cannot_be_split_is_refused),
		cmocka_unit_test(what_is_no_share_is_refused),
	};

	return cmocka_run_group_tests_name("shamir", tests, NULL, NULL);
}
