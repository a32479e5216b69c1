/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The view of files: what holds of any of its implementations, held against a plain directory. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fsview/fsview.h"
#include "tests/support/tempdir.h"

struct tree {
	void *dir;
	struct fsview *v;
	struct vd_error e;
};

static void put(const char *name, const char *text)
{
	FILE *f = fopen(name, "w");

	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

static int setup(void **state)
{
	struct tree *t = calloc(1, sizeof(*t));

	assert_int_equal(vd_tempdir_enter(&t->dir), 0);
	assert_int_equal(mkdir("root", 0755) | mkdir("root/etc", 0755) | mkdir("root/usr", 0755) | mkdir("root/usr/bin", 0755), 0);
	put("root/etc/passwd", "root:x:0:0::/root:/bin/sh\n");
	put("root/usr/bin/tool", "tool");
	put("outside", "not to be seen");
	assert_int_equal(symlink("usr/bin", "root/bin") | symlink("/etc/passwd", "root/etc/absolute"), 0);
	assert_int_equal(symlink("../../../../outside", "root/etc/out") | symlink("round", "root/etc/round"), 0);
	assert_int_equal(symlink("../etc/./passwd", "root/usr/dots"), 0);
	assert_int_equal(fsview_open_directory("root", &t->v, &t->e), 0);
	*state = t;
	return 0;
}

static int teardown(void **state)
{
	struct tree *t = *state;

	fsview_close(t->v);
	vd_tempdir_leave(&t->dir);
	free(t);
	return 0;
}

static void assert_reads(struct tree *t, const char *path, const char *wanted)
{
	size_t len;
	char *text;

	assert_int_equal(fsview_load(t->v, path, 1024, &text, &len, &t->e), 0);
	assert_string_equal(text, wanted);
	free(text);
}

static void files_are_read_through_links_of_folders(void **state)
{
	assert_reads(*state, "/bin/tool", "tool");
	assert_reads(*state, "/usr/dots", "root:x:0:0::/root:/bin/sh\n");
	assert_reads(*state, "//usr/../bin/./../bin/tool", "tool");
}

static void absolute_links_stay_in_the_tree(void **state)
{
	assert_reads(*state, "/etc/absolute", "root:x:0:0::/root:/bin/sh\n");
}

static void links_do_not_lead_out_of_the_tree(void **state)
{
	struct tree *t = *state;
	struct fsview_stat st;

	assert_int_equal(fsview_stat(t->v, "/etc/out", &st, &t->e), VD_ENOENT);
	assert_int_equal(fsview_stat(t->v, "/../outside", &st, &t->e), VD_ENOENT);
	assert_int_equal(fsview_lstat(t->v, "/etc/out", &st, &t->e), 0);
	assert_true(S_ISLNK(st.mode));
}

static void links_that_go_round_end(void **state)
{
	struct tree *t = *state;
	struct fsview_stat st;

	assert_int_equal(fsview_stat(t->v, "/etc/round", &st, &t->e), VD_ENOENT);
}

static void resolved_paths_tell_where_they_lead(void **state)
{
	struct tree *t = *state;
	char path[256];

	assert_int_equal(fsview_resolve(t->v, "/bin/tool", path, sizeof(path), &t->e), 0);
	assert_string_equal(path, "/usr/bin/tool");
	assert_int_equal(fsview_resolve(t->v, "/bin/none", path, sizeof(path), &t->e), 0);
	assert_string_equal(path, "/usr/bin/none");
	assert_int_equal(fsview_resolve(t->v, "/none/none", path, sizeof(path), &t->e), VD_ENOENT);
}

static int join(void *ctx, const char *path)
{
	char *all = ctx;

	strcat(strcat(all, path), " ");
	return 0;
}

static int join_walk(void *ctx, const char *path, const struct fsview_stat *st)
{
	(void)st;
	return join(ctx, path);
}

static int count(void *ctx, const char *path, const struct fsview_stat *st)
{
	size_t *n = ctx;

	(void)path;
	(void)st;
	++*n;
	return 0;
}

static void a_walk_meets_all_and_follows_nothing(void **state)
{
	struct tree *t = *state;
	char all[1024] = "";
	size_t n;
	uint64_t total;

	assert_int_equal(fsview_walk(t->v, "/", join_walk, all, &t->e), 0);
	assert_non_null(strstr(all, "/usr/bin/tool "));
	assert_non_null(strstr(all, "/bin "));
	assert_null(strstr(all, " /bin/tool"));
	fsview_shortfalls(t->v, &n, &total);
	assert_int_equal(n, 0);
}

static void a_walk_goes_through_folders_larger_than_a_batch(void **state)
{
	struct tree *t = *state;
	size_t n = 0;

	for (int i = 0; i < 3000; i++) {
		char name[64];

		snprintf(name, sizeof(name), "root/usr/bin/a-file-with-some-name-%d", i);
		put(name, "");
	}
	assert_int_equal(fsview_walk(t->v, "/usr/bin", count, &n, &t->e), 0);
	assert_int_equal(n, 3001);
}

static void patterns_match_parts_and_any_depth(void **state)
{
	struct tree *t = *state;
	char all[1024] = "";

	assert_int_equal(fsview_glob(t->v, "/etc/[ap]*", 10, join, all, &t->e), 0);
	assert_string_equal(all, "/etc/absolute /etc/passwd ");
	all[0] = '\0';
	assert_int_equal(fsview_glob(t->v, "/**/tool", 10, join, all, &t->e), 0);
	assert_string_equal(all, "/usr/bin/tool ");
	all[0] = '\0';
	assert_int_equal(fsview_glob(t->v, "/none/*/x", 10, join, all, &t->e), 0);
	assert_string_equal(all, "");
}

static void a_pattern_with_too_many_matches_is_a_shortfall(void **state)
{
	struct tree *t = *state;
	char all[1024] = "";
	uint64_t total;
	size_t n;

	assert_int_equal(fsview_glob(t->v, "/etc/*", 2, join, all, &t->e), 0);
	assert_int_equal(fsview_shortfalls(t->v, &n, &total)[0].lack, FSVIEW_LIMIT);
	assert_int_equal(total, 1);
}

static void depth_is_limited_and_told(void **state)
{
	struct tree *t = *state;
	size_t n = 0, short_n;
	uint64_t total;

	assert_int_equal(chdir("root/usr"), 0);
	for (int i = 0; i < FSVIEW_DEPTH_MAX + 5; i++)
		assert_int_equal(mkdir("d", 0755) | chdir("d"), 0);
	assert_int_equal(fsview_walk(t->v, "/usr", count, &n, &t->e), 0);
	assert_int_equal(fsview_shortfalls(t->v, &short_n, &total)[0].lack, FSVIEW_LIMIT);
}

static void a_larger_file_is_not_loaded(void **state)
{
	struct tree *t = *state;
	size_t len;
	char *text;

	assert_int_equal(fsview_load(t->v, "/etc/passwd", 3, &text, &len, &t->e), VD_ERANGE);
	assert_int_equal(fsview_load(t->v, "/etc", 3, &text, &len, &t->e), VD_EARG);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(files_are_read_through_links_of_folders), T(absolute_links_stay_in_the_tree), T(links_do_not_lead_out_of_the_tree),
		T(links_that_go_round_end), T(resolved_paths_tell_where_they_lead), T(a_walk_meets_all_and_follows_nothing),
		T(a_walk_goes_through_folders_larger_than_a_batch), T(patterns_match_parts_and_any_depth),
		T(a_pattern_with_too_many_matches_is_a_shortfall), T(depth_is_limited_and_told), T(a_larger_file_is_not_loaded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
