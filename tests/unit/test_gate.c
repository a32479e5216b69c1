/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Names in images open nothing but what the user has allowed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libvdisk/io/set.h"
#include "tests/support/tempdir.h"

#define IMAGE "vm/top.qcow2"

static void touch(const char *name)
{
	int fd = open(name, O_WRONLY | O_CREAT, 0600);

	assert_true(fd >= 0);
	close(fd);
}

/* vm/ is the image's folder, ok/ may be allowed, no/ never is. */
static int make_tree(void **state)
{
	static const char *const dirs[] = { "vm", "vm/sub", "ok", "no", "okay" };
	static const char *const files[] = { IMAGE, "vm/base", "vm/sub/base", "ok/base", "no/base", "okay/base",
					     "vm/back\\slash", "vm/a:b", "vm/..base" };

	if (vd_tempdir_enter(state) < 0)
		return -1;
	for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++)
		mkdir(dirs[i], 0700);
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		touch(files[i]);
	if (symlink("base", "vm/inside") || symlink("../no/base", "vm/escape") || symlink("../no", "vm/door") ||
	    symlink("../ok/base", "vm/to-ok") || symlink("round", "vm/round") || mkfifo("vm/fifo", 0600) ||
	    symlink("/dev/zero", "vm/device") || symlink("/proc/self/fd/0", "vm/magic") ||
	    symlink("no", "ok/not-here") || symlink("../no/base", "ok/escape"))
		return -1;
	return 0;
}

static int ask_own_folder(const char *name, char *path, struct vd_error *e)
{
	memset(e, 0, sizeof(*e));
	return vd_gate_own_folder(NULL, VD_REF_BACKING, IMAGE, name, NULL, path, PATH_MAX, e);
}

static void names_in_the_own_folder_pass(void **state)
{
	static const struct { const char *name, *path; } cases[] = {
		{ "base", "vm/base" },
		{ "./base", "vm/./base" },
		{ "sub/base", "vm/sub/base" },
		{ "inside", "vm/inside" },
		{ "./a:b", "vm/./a:b" },
		{ "..base", "vm/..base" },
	};
	struct vd_error e;
	char path[PATH_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		if (ask_own_folder(cases[i].name, path, &e) < 0)
			fail_msg("%s", e.message);
		assert_string_equal(path, cases[i].path);
	}
}

static void hostile_names_are_refused(void **state)
{
	static const char *const names[] = {
		"", "/etc/passwd", "//server/share", "../no/base", "sub/../../no/base", "sub/../base", "..", "sub/..",
		"back\\slash", "\\\\?\\C:\\disk", "\\\\server\\share\\disk", "C:\\disk", "C:disk", "c:/disk",
		"a:b", "json:{\"file\":{\"driver\":\"null-co\"}}", "nbd://host/export", "nbd:host:10809", "file:base",
		"file:///etc/passwd", "https://host/disk", "ssh://host/disk", "fat:rw:/", "host_device:/dev/sda",
		"blkdebug::base", ":base",
		"escape", "door/base", "round", "fifo", "device", "magic", "sub", ".", "/proc/self/environ",
	};
	struct vd_error e;
	char path[PATH_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		strcpy(path, "untouched");
		if (ask_own_folder(names[i], path, &e) != VD_EREFERENCE)
			fail_msg("'%s' was not refused: %s", names[i], e.message);
		assert_string_equal(path, "untouched");
		assert_non_null(strstr(e.message, "vm/top.qcow2: names the backing file '"));
		assert_string_not_equal(e.hint, "");
	}
}

static void refusals_say_what_to_allow(void **state)
{
	char path[PATH_MAX], real[PATH_MAX], want[PATH_MAX + 100];
	struct vd_error e;

	(void)state;
	assert_int_equal(ask_own_folder("", path, &e), VD_EREFERENCE);
	assert_non_null(strstr(e.message, "'', which is empty"));
	assert_int_equal(ask_own_folder("/srv/golden/base.qcow2", path, &e), VD_EREFERENCE);
	assert_string_equal(e.message, "vm/top.qcow2: names the backing file '/srv/golden/base.qcow2', which is an absolute name");
	assert_string_equal(e.hint, "if you trust the image, allow what it names: --allow /srv/golden");
	assert_int_equal(ask_own_folder("../no/base", path, &e), VD_EREFERENCE);
	assert_string_equal(e.hint, "if you trust the image, allow what it names: --allow vm/../no");
	assert_int_equal(ask_own_folder("escape", path, &e), VD_EREFERENCE);
	assert_non_null(realpath("no/base", real));
	snprintf(want, sizeof(want), "if you trust the image, allow what it names: --allow %s", real);
	assert_string_equal(e.hint, want);
}

static void missing_files_are_told_from_forbidden_ones(void **state)
{
	char path[PATH_MAX];
	struct vd_error e;

	(void)state;
	assert_int_equal(ask_own_folder("absent", path, &e), VD_ENOENT);
	assert_string_equal(e.message, "vm/top.qcow2: names the backing file 'absent', which does not exist");
	assert_string_equal(e.hint, "the file is expected at vm/absent");
	assert_int_equal(ask_own_folder("base/x", path, &e), VD_ENOENT);
}

static void an_image_named_without_a_folder_has_the_current_one(void **state)
{
	char path[PATH_MAX];
	struct vd_error e;

	(void)state;
	assert_int_equal(chdir("vm"), 0);
	assert_int_equal(vd_gate_own_folder(NULL, VD_REF_DATA_FILE, "top.qcow2", "base", NULL, path, PATH_MAX, &e), 0);
	assert_string_equal(path, "base");
	assert_int_equal(vd_gate_own_folder(NULL, VD_REF_DATA_FILE, "top.qcow2", "escape", NULL, path, PATH_MAX, &e),
			 VD_EREFERENCE);
	assert_non_null(strstr(e.message, "names the data file"));
}

static void a_path_that_does_not_fit_is_refused(void **state)
{
	char path[8], long_name[5000];
	struct vd_error e;

	(void)state;
	assert_int_equal(vd_gate_own_folder(NULL, VD_REF_BACKING, IMAGE, "sub/base", NULL, path, sizeof(path), &e),
			 VD_EREFERENCE);
	memset(long_name, 'x', sizeof(long_name));
	long_name[sizeof(long_name) - 1] = '\0';
	assert_int_equal(vd_gate_own_folder(NULL, VD_REF_BACKING, IMAGE, long_name, NULL, path, sizeof(path), &e),
			 VD_EREFERENCE);
}

static void allowed_folders_admit_what_lies_below_them(void **state)
{
	static const char *const dirs[] = { "absent", "ok", "no/base" };
	struct vd_gate_dirs allow = { dirs, 2 };
	static const struct { const char *name; size_t n; int want; } cases[] = {
		{ "../ok/base", 2, 0 },
		{ "to-ok", 2, 0 },
		{ "base", 2, 0 },
		{ "base", 0, 0 },
		{ "../ok/base", 0, VD_EREFERENCE },
		{ "../okay/base", 2, VD_EREFERENCE },
		{ "../no/base", 2, VD_EREFERENCE },
		{ "../no/base", 3, 0 },
		{ "../ok/escape", 2, VD_EREFERENCE },
		{ "../ok/../no/base", 2, VD_EREFERENCE },
		{ "door/base", 2, VD_EREFERENCE },
		{ "../ok", 2, VD_EREFERENCE },
		{ "../ok/absent", 2, VD_ENOENT },
		{ "nbd://ok/base", 2, VD_EREFERENCE },
		{ "..\\ok\\base", 2, VD_EREFERENCE },
		{ "device", 2, VD_EREFERENCE },
		{ "fifo", 2, VD_EREFERENCE },
	};
	char path[PATH_MAX];
	struct vd_error e;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		allow.n = cases[i].n;
		if (vd_gate_below_dirs(&allow, VD_REF_BACKING, IMAGE, cases[i].name, NULL, path, PATH_MAX, &e) !=
		    cases[i].want)
			fail_msg("'%s' with %zu folders", cases[i].name, cases[i].n);
	}
}

static void absolute_names_pass_below_an_allowed_folder(void **state)
{
	const char *dirs[] = { "ok/" };
	struct vd_gate_dirs allow = { dirs, 1 };
	char path[PATH_MAX], real[PATH_MAX];
	struct vd_error e;

	(void)state;
	assert_non_null(realpath("ok/base", real));
	assert_int_equal(vd_gate_below_dirs(&allow, VD_REF_BACKING, IMAGE, real, NULL, path, PATH_MAX, &e), 0);
	assert_string_equal(path, real);
	assert_non_null(realpath("no/base", real));
	assert_int_equal(vd_gate_below_dirs(&allow, VD_REF_BACKING, IMAGE, real, NULL, path, PATH_MAX, &e), VD_EREFERENCE);
	dirs[0] = "/";
	assert_int_equal(vd_gate_below_dirs(&allow, VD_REF_BACKING, IMAGE, real, NULL, path, PATH_MAX, &e), 0);
	assert_int_equal(vd_gate_below_dirs(&allow, VD_REF_BACKING, IMAGE, "/dev/zero", NULL, path, PATH_MAX, &e),
			 VD_EREFERENCE);
}

int main(void)
{
#define IN_TREE(test) cmocka_unit_test_setup_teardown(test, make_tree, vd_tempdir_leave)
	const struct CMUnitTest tests[] = {
		IN_TREE(names_in_the_own_folder_pass),
		IN_TREE(hostile_names_are_refused),
		IN_TREE(refusals_say_what_to_allow),
		IN_TREE(missing_files_are_told_from_forbidden_ones),
		IN_TREE(an_image_named_without_a_folder_has_the_current_one),
		IN_TREE(a_path_that_does_not_fit_is_refused),
		IN_TREE(allowed_folders_admit_what_lies_below_them),
		IN_TREE(absolute_names_pass_below_an_allowed_folder),
	};

	return cmocka_run_group_tests_name("gate", tests, NULL, NULL);
}
