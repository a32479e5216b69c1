/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The parts of a repository of backups, each by itself; whether restic reads what they make: tests/interop/restic.sh. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "backup/disk.h"
#include "backup/index.h"
#include "backup/jread.h"
#include "backup/polynomial.h"
#include "backup/recover.h"
#include "backup/retention.h"
#include "backup/snapshot.h"
#include "backup/writer.h"
#include "tests/support/tempdir.h"

#define DAY 86400

static uint8_t nibble(char c)
{
	return (uint8_t)(c <= '9' ? c - '0' : c - 'a' + 10);
}

static void from_hex(const char *hex, uint8_t *out)
{
	for (; *hex; hex += 2)
		*out++ = (uint8_t)(nibble(hex[0]) << 4 | nibble(hex[1]));
}

/* ---- seal ----------------------------------------------------------------------------------------------- */

/* The message, key and nonce of "The Poly1305-AES message-authentication code", appendix B: what decrypts has to have that tag. */
static void the_tag_is_that_of_the_paper(void **state)
{
	uint8_t sealed[16 + 2 + 16], plain[2];
	struct seal_key key = { { 0 }, { 0 }, { 0 } };
	struct sealer *s;
	struct vd_error e;

	(void)state;
	from_hex("ec074c835580741701425b623235add6", key.mac_k);
	from_hex("851fc40c3467ac0be05cc20404f3f700", key.mac_r);
	from_hex("fb447350c4e868c52ac3275cf9d4327ef3f6f4c633c3044fc145f84f335cb81953de", sealed);
	assert_int_equal(sealer_new(&key, &s, &e), 0);
	assert_int_equal(unseal(s, sealed, sizeof(sealed), plain, &e), 0);
	sealed[16] ^= 1;
	assert_int_equal(unseal(s, sealed, sizeof(sealed), plain, &e), VD_EAUTH);
	sealer_free(s);
}

static void what_is_sealed_opens_and_nothing_else_does(void **state)
{
	uint8_t plain[1000], sealed[1000 + SEAL_OVERHEAD], back[1000];
	struct seal_key key, other;
	struct sealer *s, *t;
	struct vd_error e;

	(void)state;
	seal_random(plain, sizeof(plain));
	seal_new_key(&key);
	seal_new_key(&other);
	assert_int_equal(sealer_new(&key, &s, &e), 0);
	assert_int_equal(sealer_new(&other, &t, &e), 0);
	assert_int_equal(seal(s, plain, sizeof(plain), sealed, &e), 0);
	assert_memory_not_equal(sealed + 16, plain, sizeof(plain));
	assert_int_equal(unseal(s, sealed, sizeof(sealed), back, &e), 0);
	assert_memory_equal(back, plain, sizeof(plain));
	assert_int_equal(unseal(t, sealed, sizeof(sealed), back, &e), VD_EAUTH);
	for (size_t i = 0; i < sizeof(sealed); i += 61) {
		sealed[i] ^= 0x10;
		assert_int_equal(unseal(s, sealed, sizeof(sealed), back, &e), VD_EAUTH);
		sealed[i] ^= 0x10;
	}
	for (size_t n = 0; n < sizeof(sealed); n += 97)
		assert_int_equal(unseal(s, sealed, n, back, &e), VD_EAUTH);
	sealer_free(s);
	sealer_free(t);
}

static void a_key_file_may_not_ask_for_any_cost(void **state)
{
	static const struct scrypt_cost costs[] = { { 0, 8, 1 }, { 3, 8, 1 }, { 1u << 21, 8, 1 }, { 32768, 9, 1 }, { 32768, 8, 0 }, { 32768, 8, 1000 } };
	const uint8_t salt[8] = { 1 };
	struct vd_key *secret;
	struct seal_key out;
	struct vd_error e;

	(void)state;
	assert_int_equal(vd_key_from_bytes("x", 1, &secret, &e), 0);
	for (size_t i = 0; i < sizeof(costs) / sizeof(costs[0]); i++)
		assert_int_equal(seal_derive(secret, salt, sizeof(salt), &costs[i], &out, &e), VD_ECORRUPT);
	vd_key_free(secret);
}

static void restics_own_polynomial_is_irreducible_and_few_others_are(void **state)
{
	unsigned found = 0;

	(void)state;
	assert_true(polynomial_is_irreducible(0x3DA3358B4DC173));
	assert_true(polynomial_is_irreducible(0x25b468838dcb75));
	assert_false(polynomial_is_irreducible(0x25b468838dcb74));
	assert_false(polynomial_is_irreducible(0x25b468838dcb77));
	/* (x + 1) times something, and a square. */
	assert_false(polynomial_is_irreducible((UINT64_C(1) << 53) | 1));
	for (uint64_t f = UINT64_C(1) << 53; f < (UINT64_C(1) << 53) + 40000; f++)
		found += polynomial_is_irreducible(f);
	/* One of 53. */
	assert_in_range(found, 600, 900);
	assert_true(polynomial_is_irreducible(polynomial_random()));
}

/* ---- JSON ----------------------------------------------------------------------------------------------- */

static struct jread read_of(const char *text)
{
	return jread_of(text, strlen(text));
}

static void json_is_read_as_it_comes(void **state)
{
	struct jread j = read_of(" {\"a\":[1,22,{\"x\":[]}],\"skip\":{\"deep\":[[[\"}\",null,true,-1.5e3]]]},\"t\":\"\\u00e4\\n\\ud83d\\ude00\",\"n\":null}\n");
	char key[16], text[32];

	(void)state;
	assert_true(jread_object(&j) && jread_key(&j, key, sizeof(key)) && jread_array(&j) && jread_item(&j));
	assert_int_equal(jread_u64(&j), 1);
	assert_true(jread_item(&j));
	assert_int_equal(jread_u64(&j), 22);
	assert_true(jread_item(&j));
	jread_skip(&j);
	assert_false(jread_item(&j));
	assert_true(jread_key(&j, key, sizeof(key)));
	jread_skip(&j);
	assert_true(jread_key(&j, key, sizeof(key)));
	jread_text(&j, text, sizeof(text));
	assert_string_equal(text, "\xc3\xa4\n\xf0\x9f\x98\x80");
	assert_true(jread_key(&j, key, sizeof(key)));
	assert_int_equal(jread_u64(&j), 0);
	assert_false(jread_key(&j, key, sizeof(key)));
	assert_true(jread_is_done(&j));
}

static void broken_json_is_never_done(void **state)
{
	static const char *const broken[] = { "", "{", "{\"a\"", "{\"a\":", "{\"a\":1", "{\"a\":1,}", "{a:1}", "{\"a\":1}}", "{\"a\":\"\\q\"}", "{\"a\":\"\\u12\"}",
					      "{\"a\":\"\n\"}", "[1 2]", "[1,]", "[99999999999999999999]", "{\"a\":tru}x" };

	(void)state;
	for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
		struct jread j = read_of(broken[i]);
		char key[8];

		if (broken[i][0] == '[') {
			for (jread_array(&j); jread_item(&j);)
				jread_u64(&j);
		} else {
			for (jread_object(&j); jread_key(&j, key, sizeof(key));)
				jread_skip(&j);
		}
		if (jread_is_done(&j))
			fail_msg("taken for whole: %s", broken[i]);
	}
}

static void depth_has_an_end(void **state)
{
	char deep[4096];
	struct jread j;

	(void)state;
	memset(deep, '[', sizeof(deep));
	j = jread_of(deep, sizeof(deep));
	jread_skip(&j);
	assert_true(j.is_bad);
}

/* ---- trees, snapshots, indexes -------------------------------------------------------------------------- */

static void a_tree_reads_as_it_was_written_whatever_its_names(void **state)
{
	static const char *const names[] = { "a b", "\"quoted\"", "back\\slash", "\x01 control", "\xc3\xa4", "\xff\xfe no utf-8" };
	struct tree t = { 0 }, back;
	struct bytes text = { 0 };
	struct vd_error e;

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct node *n = tree_add(&t, names[i], i % 2 ? NODE_FILE : NODE_FOLDER);

		n->size = i;
		n->mtime = 1700000000 + (int64_t)i;
		seal_random(n->subtree, sizeof(n->subtree));
	}
	tree_write(&t, &text);
	assert_int_equal(tree_read(text.at, text.n, &back, &e), 0);
	assert_int_equal(back.n, t.n);
	for (size_t i = 0; i < t.n; i++) {
		struct node *n = tree_find(&back, t.at[i].name);

		assert_non_null(n);
		assert_int_equal(n->type, t.at[i].type);
		assert_int_equal(n->mtime, t.at[i].mtime);
	}
	tree_free(&t);
	tree_free(&back);
	bytes_free(&text);
}

static void a_tree_with_names_that_lead_elsewhere_is_refused(void **state)
{
	static const char *const names[] = { "", ".", "..", "a/b", "../../etc/passwd", "/x", "x\\\\x2f..", "\\\\x00", "bad\\\\q", "\\\\U00110000" };
	struct vd_error e;
	struct tree t;
	char text[256];

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(text, sizeof(text), "{\"nodes\":[{\"name\":\"%s\",\"type\":\"file\",\"content\":[]}]}", names[i]);
		if (tree_read(text, strlen(text), &t, &e) == 0)
			fail_msg("taken: %s", names[i]);
	}
	assert_int_not_equal(tree_read("{\"nodes\":[{\"type\":\"file\"}]}", 27, &t, &e), 0);
	assert_int_not_equal(tree_read("{\"nodes\":[7]}", 13, &t, &e), 0);
}

static void times_of_all_zones_are_the_same_moment(void **state)
{
	int64_t a, b, c;
	uint32_t nsec;

	(void)state;
	assert_true(time_read("2026-11-24T18:17:53.123456789Z", &a, &nsec));
	assert_int_equal(nsec, 123456789);
	assert_true(time_read("2026-11-24T19:17:53+01:00", &b, &nsec) && time_read("2026-11-24T12:47:53.5-05:30", &c, &nsec));
	assert_int_equal(a, b);
	assert_int_equal(a, c);
	assert_false(time_read("2026-11-24", &a, &nsec) || time_read("2026-11-24T18:17:53", &a, &nsec) || time_read("", &a, &nsec));
}

static void an_index_finds_what_it_was_told_and_claims_once(void **state)
{
	struct blob blobs[1000] = { 0 }, b;
	uint8_t pack[ID_SIZE] = { 7 }, where[ID_SIZE];
	struct bytes text = { 0 };
	struct index *x, *y;
	struct vd_error e;

	(void)state;
	index_new(&x, &e);
	index_new(&y, &e);
	for (uint32_t i = 0; i < 1000; i++) {
		seal_random(blobs[i].id, ID_SIZE);
		blobs[i].type = i % 10 ? BLOB_DATA : BLOB_TREE;
		blobs[i].off = i * 100;
		blobs[i].len = 100;
		blobs[i].raw_len = i % 3 ? 200 : 0;
	}
	assert_true(index_claim(x, BLOB_DATA, blobs[1].id));
	assert_false(index_claim(x, BLOB_DATA, blobs[1].id) || index_find(x, BLOB_DATA, blobs[1].id, &b, where));
	index_write_pack(&text, pack, blobs, 1000);
	index_write_end(&text);
	assert_int_equal(index_read(x, "x", text.at, text.n, &e), 0);
	assert_int_equal(index_count(x), 1000);
	for (uint32_t i = 0; i < 1000; i++) {
		assert_true(index_find(x, blobs[i].type, blobs[i].id, &b, where));
		assert_memory_equal(&b, &blobs[i], sizeof(b));
		assert_false(index_find(x, blobs[i].type == BLOB_DATA ? BLOB_TREE : BLOB_DATA, blobs[i].id, &b, where));
	}
	/* Cut off anywhere it is refused, and does not crash. */
	for (size_t n = 0; n < text.n; n += 37)
		assert_int_equal(index_read(y, "y", text.at, n, &e), VD_ECORRUPT);
	index_free(x);
	index_free(y);
	bytes_free(&text);
}

/* ---- retention ------------------------------------------------------------------------------------------ */

static struct snapshots series(int64_t newest, int64_t step, size_t n)
{
	struct snapshots all = { calloc(n, sizeof(struct snapshot)), n };

	for (size_t i = 0; i < n; i++) {
		all.at[i].sec = newest - (int64_t)i * step;
		all.at[i].host = strdup("h");
		all.at[i].user = strdup("u");
		all.at[i].paths[0] = strdup("/p");
		all.at[i].n_paths = 1;
	}
	return all;
}

static size_t kept(const struct retention *policy, const struct snapshots *all)
{
	uint8_t reasons[400];
	size_t n = 0;

	retention_apply(policy, all, reasons);
	for (size_t i = 0; i < all->n; i++)
		n += reasons[i] != 0;
	return n;
}

static void a_policy_keeps_the_newest_of_each_span(void **state)
{
	/* Noon of a Tuesday, and each six hours before it. */
	struct snapshots all = series(1795608000, DAY / 4, 400);
	uint8_t reasons[400];

	(void)state;
	assert_int_equal(kept(&(struct retention){ { [KEEP_LAST] = 3 } }, &all), 3);
	assert_int_equal(kept(&(struct retention){ { [KEEP_HOURLY] = 5 } }, &all), 5);
	assert_int_equal(kept(&(struct retention){ { [KEEP_DAILY] = 7 } }, &all), 7);
	assert_int_equal(kept(&(struct retention){ { [KEEP_MONTHLY] = 100 } }, &all), 4);
	assert_int_equal(kept(&(struct retention){ { [KEEP_YEARLY] = 5 } }, &all), 1);
	retention_apply(&(struct retention){ { [KEEP_DAILY] = 2 } }, &all, reasons);
	/* 12:00 today, then 18:00 of yesterday: 06:00 and 00:00 are of today, too. */
	assert_true(reasons[0] && !reasons[1] && !reasons[2] && reasons[3] && !reasons[4]);
	/* A series of its own has a policy of its own. */
	free(all.at[5].host);
	all.at[5].host = strdup("other");
	retention_apply(&(struct retention){ { [KEEP_LAST] = 1 } }, &all, reasons);
	assert_true(reasons[0] && !reasons[1] && reasons[5]);
	snapshots_free(&all);
}

/* ---- a repository --------------------------------------------------------------------------------------- */

struct place {
	struct store *store;
	struct repo *repo;
	struct vd_key *secret;
};

static void open_place(struct place *p)
{
	struct vd_error e;

	assert_int_equal(store_create("repo", NULL, &p->store, &e), 0);
	assert_int_equal(vd_key_from_bytes("secret", 6, &p->secret, &e), 0);
	assert_int_equal(repo_create(p->store, p->secret, &p->repo, &e), 0);
}

static void close_place(struct place *p)
{
	repo_close(p->repo);
	store_close(p->store);
	vd_key_free(p->secret);
}

static void a_repository_opens_with_its_secret_alone(void **state)
{
	struct vd_key *wrong;
	struct place p;
	struct repo *again;
	struct vd_error e;

	(void)state;
	open_place(&p);
	assert_int_equal(vd_key_from_bytes("Secret", 6, &wrong, &e), 0);
	assert_int_equal(repo_open(p.store, &wrong, 1, &again, &e), VD_EKEY);
	assert_int_equal(repo_open(p.store, (struct vd_key *[]){ wrong, p.secret }, 2, &again, &e), 0);
	assert_string_equal(repo_id(again), repo_id(p.repo));
	assert_memory_equal(repo_key(again), repo_key(p.repo), sizeof(struct seal_key));
	repo_close(again);
	assert_int_equal(repo_create(p.store, p.secret, &again, &e), VD_EEXIST);
	vd_key_free(wrong);
	close_place(&p);
}

static void what_is_in_the_place_of_another_object_is_refused(void **state)
{
	struct bytes one = { 0 }, two = { 0 }, got = { 0 };
	char a[STORE_NAME_SIZE], b[STORE_NAME_SIZE], from[128], to[128];
	struct place p;
	struct vd_error e;

	(void)state;
	open_place(&p);
	bytes_text(&one, "{\"one\":1}");
	bytes_text(&two, "{\"two\":2}");
	assert_int_equal(repo_save(p.repo, STORE_SNAPSHOT, &one, a, &e), 0);
	assert_int_equal(repo_save(p.repo, STORE_SNAPSHOT, &two, b, &e), 0);
	assert_int_equal(repo_load(p.repo, STORE_SNAPSHOT, a, &got, &e), 0);
	assert_int_equal(got.n, one.n);
	assert_memory_equal(got.at, one.at, one.n);
	snprintf(from, sizeof(from), "repo/snapshots/%s", a);
	snprintf(to, sizeof(to), "repo/snapshots/%s", b);
	assert_int_equal(rename(from, to), 0);
	assert_int_equal(repo_load(p.repo, STORE_SNAPSHOT, b, &got, &e), VD_EAUTH);
	close_place(&p);
	bytes_free(&one);
	bytes_free(&two);
	bytes_free(&got);
}

static void a_blob_is_stored_once_and_comes_back(void **state)
{
	static uint8_t content[300000];
	struct bytes got = { 0 };
	uint8_t id[ID_SIZE], same[ID_SIZE];
	struct writer *w;
	struct place p;
	struct vd_error e;

	(void)state;
	open_place(&p);
	seal_random(content, sizeof(content) / 2);
	assert_int_equal(writer_new(p.repo, 2, &w, &e), 0);
	assert_int_equal(writer_add(w, 0, BLOB_DATA, content, sizeof(content), id, &e), 0);
	assert_int_equal(writer_add(w, 1, BLOB_DATA, content, sizeof(content), same, &e), 0);
	assert_memory_equal(id, same, ID_SIZE);
	assert_int_equal(writer_finish(w, &e), 0);
	assert_int_equal(writer_counts(w).blobs_new, 1);
	assert_int_equal(repo_load_blob(p.repo, BLOB_DATA, id, &got, &e), 0);
	assert_int_equal(got.n, sizeof(content));
	assert_memory_equal(got.at, content, sizeof(content));
	assert_int_equal(repo_load_blob(p.repo, BLOB_TREE, id, &got, &e), VD_ENOENT);
	writer_free(w);
	close_place(&p);
	bytes_free(&got);
}

static void locks_are_honoured(void **state)
{
	struct place p;
	struct repo *other;
	struct vd_error e;

	(void)state;
	open_place(&p);
	assert_int_equal(repo_open(p.store, &p.secret, 1, &other, &e), 0);
	assert_int_equal(repo_lock(p.repo, false, &e), 0);
	assert_int_equal(repo_lock(other, true, &e), VD_EBUSY);
	assert_int_equal(repo_lock(other, false, &e), 0);
	repo_unlock(other);
	repo_unlock(p.repo);
	assert_int_equal(repo_lock(other, true, &e), 0);
	assert_int_equal(repo_lock(p.repo, false, &e), VD_EBUSY);
	assert_int_equal(repo_still_locked(other, &e), 0);
	repo_close(other);
	assert_int_equal(repo_lock(p.repo, false, &e), 0);
	close_place(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_tag_is_that_of_the_paper),
		cmocka_unit_test(what_is_sealed_opens_and_nothing_else_does),
		cmocka_unit_test(a_key_file_may_not_ask_for_any_cost),
		cmocka_unit_test(restics_own_polynomial_is_irreducible_and_few_others_are),
		cmocka_unit_test(json_is_read_as_it_comes),
		cmocka_unit_test(broken_json_is_never_done),
		cmocka_unit_test(depth_has_an_end),
		cmocka_unit_test(a_tree_reads_as_it_was_written_whatever_its_names),
		cmocka_unit_test(a_tree_with_names_that_lead_elsewhere_is_refused),
		cmocka_unit_test(times_of_all_zones_are_the_same_moment),
		cmocka_unit_test(an_index_finds_what_it_was_told_and_claims_once),
		cmocka_unit_test(a_policy_keeps_the_newest_of_each_span),
		cmocka_unit_test_setup_teardown(a_repository_opens_with_its_secret_alone, vd_tempdir_enter, vd_tempdir_leave),
		cmocka_unit_test_setup_teardown(what_is_in_the_place_of_another_object_is_refused, vd_tempdir_enter, vd_tempdir_leave),
		cmocka_unit_test_setup_teardown(a_blob_is_stored_once_and_comes_back, vd_tempdir_enter, vd_tempdir_leave),
		cmocka_unit_test_setup_teardown(locks_are_honoured, vd_tempdir_enter, vd_tempdir_leave),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
