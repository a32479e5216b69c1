/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The option tables and their parser, sizes, near misses, and the table of exit statuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "exit.h"
#include "newimage.h"
#include "sizes.h"
#include "verbs.h"

#define N(a) (sizeof(a) / sizeof((a)[0]))

static const struct verb *const verbs[] = {
	&verb_info, &verb_map, &verb_create, &verb_convert, &verb_encrypt, &verb_decrypt, &verb_compare,
	&verb_snapshot, &verb_resize, &verb_rebase, &verb_flatten, &verb_commit, &verb_measure,
};

/* Splits a command line at its spaces and parses it. */
static int parse(const struct verb *verb, const char *line, struct settings *s, struct vd_error *e)
{
	static char copy[512];
	char *argv[32] = { NULL }, *save = NULL;
	int argc = 0;

	strcpy(copy, line);
	for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save))
		argv[argc++] = word;
	memset(s, 0, sizeof(*s));
	memset(e, 0, sizeof(*e));
	return opts_parse(verb, argc, argv, s, e);
}

static void options_may_follow_operands(void **state)
{
	struct settings s;
	struct vd_error e;

	(void)state;
	assert_int_equal(parse(&verb_convert, "convert a -O qcow2 b -c --threads=3", &s, &e), 0);
	assert_string_equal(s.operands[0], "a");
	assert_string_equal(s.operands[1], "b");
	assert_string_equal(s.target_format, "qcow2");
	assert_true(s.compress);
	assert_int_equal(s.threads, 3);
	assert_int_equal(parse(&verb_info, "info -- -q", &s, &e), 0);
	assert_string_equal(s.operands[0], "-q");
	assert_false(s.quiet);
}

static void only_a_verb_that_ends_with_a_number_takes_minus_one(void **state)
{
	struct settings s;
	struct vd_error e;

	(void)state;
	assert_int_equal(parse(&verb_resize, "resize -1G --shrink disk", &s, &e), 0);
	assert_string_equal(s.operands[0], "disk");
	assert_string_equal(s.operands[1], "-1G");
	assert_int_equal(parse(&verb_resize, "resize -q -- -1.raw -1G", &s, &e), 0);
	assert_string_equal(s.operands[0], "-1.raw");
	/* Input and output must not change places. */
	assert_int_equal(parse(&verb_convert, "convert -- -1.raw out", &s, &e), 0);
	assert_string_equal(s.operands[0], "-1.raw");
	assert_int_equal(parse(&verb_convert, "convert -1.raw out", &s, &e), VD_EARG);
}

static void progress_has_an_optional_mode(void **state)
{
	struct settings s;
	struct vd_error e;

	(void)state;
	assert_int_equal(parse(&verb_convert, "convert -pq a b", &s, &e), 0);
	assert_int_equal(s.progress, PROGRESS_AUTO);
	assert_true(s.quiet);
	assert_int_equal(parse(&verb_convert, "convert --progress a b", &s, &e), 0);
	assert_int_equal(s.progress, PROGRESS_AUTO);
	assert_int_equal(parse(&verb_convert, "convert --progress=json a b", &s, &e), 0);
	assert_int_equal(s.progress, PROGRESS_JSON);
}

static void wrong_usage_is_told_apart(void **state)
{
	static const struct {
		const struct verb *verb;
		const char *line, *message, *hint;
	} cases[] = {
		{ &verb_convert, "convert a", "wants IMAGE OUT, got 1", "vdisk help convert" },
		{ &verb_info, "info a b", "got 2 operands", "vdisk help info" },
		{ &verb_encrypt, "encrypt -Z a b", "unknown option '-Z'", "vdisk help encrypt" },
		{ &verb_encrypt, "encrypt --kee-file=x a b", "unknown option '--kee-file'", "--key-file" },
		{ &verb_encrypt, "encrypt --force=x a b", "--force takes no argument", "vdisk help" },
		{ &verb_encrypt, "encrypt a b --key-file", "--key-file needs an argument", "vdisk help" },
		{ &verb_encrypt, "encrypt a b -O", "--target-format needs an argument", "vdisk help" },
		{ &verb_convert, "convert -O raw -O qcow2 a b", "--target-format is given twice", "vdisk help" },
		{ &verb_convert, "convert --force --force a b", "--force is given twice", "vdisk help" },
		{ &verb_encrypt, "encrypt --cipher des a b", "'des' is not one of: aes-256-xts, aes-128-xts", "" },
		{ &verb_convert, "convert -m 0 a b", "'0' is not a number from 1 to 1024", "" },
		{ &verb_convert, "convert -m -1 a b", "'-1' is not a number", "" },
		{ &verb_encrypt, "encrypt --sector-size 4q a b", "'4q' is not a size", "" },
	};

	(void)state;
	for (size_t i = 0; i < N(cases); i++) {
		struct settings s;
		struct vd_error e;

		assert_int_equal(parse(cases[i].verb, cases[i].line, &s, &e), VD_EARG);
		assert_non_null(strstr(e.message, cases[i].message));
		assert_non_null(strstr(e.hint, cases[i].hint));
	}
}

static void a_mistyped_option_does_not_repeat_its_argument(void **state)
{
	struct settings s;
	struct vd_error e;

	(void)state;
	assert_int_equal(parse(&verb_encrypt, "encrypt --passphrase=hunter2 a b", &s, &e), VD_EARG);
	assert_null(strstr(e.message, "hunter2"));
	assert_null(strstr(e.hint, "hunter2"));
}

static void keys_are_kept_in_order_and_may_repeat(void **state)
{
	struct settings s;
	struct vd_error e;

	(void)state;
	assert_int_equal(parse(&verb_convert, "convert --key-file x --passphrase-fd 5 --key-file y --new-key-file z a b", &s, &e), 0);
	assert_int_equal(s.keys.n, 3);
	assert_int_equal(s.keys.at[1].kind, SECRET_PASSPHRASE_FD);
	assert_string_equal(s.keys.at[2].value, "y");
	assert_int_equal(s.new_keys.n, 1);
	assert_int_equal(s.new_keys.at[0].kind, SECRET_KEY_FILE);
	/* Where no image is opened with a key, the plain names are the new image's. */
	assert_int_equal(parse(&verb_encrypt, "encrypt --key-file x a b", &s, &e), 0);
	assert_int_equal(s.keys.n, 0);
	assert_int_equal(s.new_keys.n, 1);
}

static void create_options_are_qemus(void **state)
{
	struct settings s;
	struct vd_error e;
	struct vd_create_opts o;

	(void)state;
	assert_int_equal(parse(&verb_convert, "convert -o cluster_size=4k,compat=0.10 -o compression_type=zstd a b", &s, &e), 0);
	assert_int_equal(newimage_parse(&s, "qcow2", &e), 0);
	assert_int_equal(newimage_opts(&s, "qcow2", &o, &e), 0);
	assert_int_equal(o.cluster_size, 4096);
	assert_int_equal(o.flags, VD_CREATE_COMPAT_V2);
	assert_int_equal(o.compression, VD_COMPRESSION_ZSTD);
	assert_int_equal(parse(&verb_convert, "convert -o lazy_refcounts=on,extended_l2=off,data_file=a,,b a b", &s, &e), 0);
	assert_int_equal(newimage_parse(&s, "qcow2", &e), 0);
	assert_int_equal(newimage_opts(&s, "qcow2", &o, &e), 0);
	assert_int_equal(o.flags, VD_CREATE_LAZY_REFCOUNTS);
	assert_string_equal(o.data_file, "a,b");
}

static void wrong_create_options_are_named(void **state)
{
	static const struct {
		const char *format, *line, *message, *hint;
	} cases[] = {
		{ "qcow2", "convert -o fou=1 a b", "qcow2 has no option 'fou'", "cluster_size" },
		{ "raw", "convert -o cluster_size=4k a b", "raw has no option 'cluster_size'", "size" },
		{ "qcow2", "convert -o compat a b", "compat needs a value", "" },
		{ "qcow2", "convert -o compat=v2 -o compat=v3 a b", "compat is given twice", "" },
		{ "qcow2", "convert -o lazy_refcounts=yes a b", "lazy_refcounts: 'yes' is not on or off", "" },
		{ "qcow2", "convert -o encrypt.format=aes a b", "encrypt.format: 'aes' is not one of: luks", "" },
		{ "qcow2", "convert -o refcount_bits=65 a b", "not a number from 1 to 64", "" },
		{ "qcow2", "convert -o , a b", "qcow2 has no option ''", "" },
	};

	(void)state;
	for (size_t i = 0; i < N(cases); i++) {
		struct settings s;
		struct vd_error e;

		assert_int_equal(parse(&verb_convert, cases[i].line, &s, &e), 0);
		assert_int_equal(newimage_parse(&s, cases[i].format, &e), VD_EARG);
		assert_non_null(strstr(e.message, cases[i].message));
		assert_non_null(strstr(e.hint, cases[i].hint));
	}
}

static void sizes_are_read_exactly(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {
		{ "0", 0 }, { "512", 512 }, { "512b", 512 }, { "64K", 65536 }, { "64k", 65536 }, { "1.5G", 1610612736 },
		{ "2TiB", 2199023255552 }, { "3mb", 3145728 }, { "0.5K", 512 }, { "9223372036854775807", INT64_MAX },
	};
	static const char *const bad[] = {
		"", "K", "-1", "+1", " 1", "1 K", "1KK", "1Q", "0.3K", "1.", ".5K", "1.2.3", "0x10", "8E", "9223372036854775808",
		"99999999999999999999999999999999999999999999", "1e3", "0.0000000000001G",
	};
	uint64_t n;

	(void)state;
	for (size_t i = 0; i < N(good); i++) {
		assert_true(size_parse(good[i].text, &n));
		assert_int_equal(n, good[i].bytes);
	}
	for (size_t i = 0; i < N(bad); i++)
		assert_false(size_parse(bad[i], &n));
}

static void sizes_are_shown_with_three_digits(void **state)
{
	static const struct {
		double bytes;
		const char *text;
	} cases[] = {
		{ 0, "0 bytes" }, { 1023, "1023 bytes" }, { 1024, "1 KiB" }, { 1536, "1.5 KiB" }, { 1048575, "1.0 MiB" },
		{ 65536, "64 KiB" }, { 12.34 * 1048576, "12.3 MiB" }, { 123.4 * 1048576, "123 MiB" }, { 1099511627776.0, "1 TiB" },
	};

	(void)state;
	for (size_t i = 0; i < N(cases); i++)
		assert_string_equal(size_show(cases[i].bytes).s, cases[i].text);
}

static const char *name_at(const void *ctx, size_t i)
{
	(void)ctx;
	return i < N(verbs) ? verbs[i]->name : NULL;
}

static void near_misses_are_found_and_far_ones_are_not(void **state)
{
	(void)state;
	assert_string_equal(opts_nearest("encyrpt", name_at, NULL), "encrypt");
	assert_string_equal(opts_nearest("inf", name_at, NULL), "info");
	assert_string_equal(opts_nearest("decrpyt", name_at, NULL), "decrypt");
	assert_null(opts_nearest("defragment", name_at, NULL));
	assert_null(opts_nearest("", name_at, NULL));
	assert_null(opts_nearest("a-name-that-is-far-longer-than-any-verb-could-be", name_at, NULL));
}

static void assert_table_is_sound(const struct verb *verb)
{
	const struct opt *all[64];
	size_t n = 0;

	for (const struct opt_group *const *g = verb->groups; *g; g++)
		for (const struct opt *o = (*g)->opts; o->name; o++) {
			assert_true(n < N(all));
			assert_true(strlen(o->help) > 0);
			assert_true(o->kind == OPT_FLAG ? !o->arg : o->arg != NULL);
			assert_true((o->kind == OPT_CHOICE) == (o->choices != NULL));
			assert_true(o->kind != OPT_NUMBER || o->min < o->max);
			for (size_t i = 0; i < n; i++) {
				assert_string_not_equal(all[i]->name, o->name);
				assert_true(!o->letter || all[i]->letter != o->letter);
			}
			all[n++] = o;
		}
}

static void every_table_is_sound(void **state)
{
	(void)state;
	for (size_t i = 0; i < N(verbs); i++)
		assert_table_is_sound(verbs[i]);
}

static bool is_in_table(int status)
{
	const struct exit_row *row;

	for (unsigned i = 0; (row = exit_row(i)); i++)
		if (row->status == status)
			return true;
	return false;
}

static void every_code_has_its_exit_status_in_the_table(void **state)
{
	(void)state;
#define CODE(sym, value, status, name, text) assert_true(is_in_table(exit_status_of(sym)));
	VD_CODE_TABLE(CODE)
#undef CODE
#define CODE(sym, value, status, name)                    \
	assert_int_equal(exit_status_of(sym), status);    \
	assert_string_equal(exit_name_of(sym), name);     \
	assert_true(is_in_table(status));
	EXIT_CODE_TABLE(CODE)
#undef CODE
	for (int status = COMPARE_SAME; status <= COMPARE_READ_FAILED; status++)
		assert_true(is_in_table(status));
	assert_string_equal(exit_name_of(VD_EKEY), "wrong-key");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(options_may_follow_operands),
		cmocka_unit_test(only_a_verb_that_ends_with_a_number_takes_minus_one),
		cmocka_unit_test(progress_has_an_optional_mode),
		cmocka_unit_test(wrong_usage_is_told_apart),
		cmocka_unit_test(a_mistyped_option_does_not_repeat_its_argument),
		cmocka_unit_test(keys_are_kept_in_order_and_may_repeat),
		cmocka_unit_test(create_options_are_qemus),
		cmocka_unit_test(wrong_create_options_are_named),
		cmocka_unit_test(sizes_are_read_exactly),
		cmocka_unit_test(sizes_are_shown_with_three_digits),
		cmocka_unit_test(near_misses_are_found_and_far_ones_are_not),
		cmocka_unit_test(every_table_is_sound),
		cmocka_unit_test(every_code_has_its_exit_status_in_the_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
