/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Each source of keys, the rules for newlines, and that no secret stays behind in memory. */
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/core/keysrc.h"
#include "libvdisk/crypto/random.h"
#include "tests/support/leftover.h"
#include "tests/support/tempdir.h"

/* ---- what is unmapped, and in what state: the library's calls of munmap() end here ---- */

static struct {
	const void *page;
	bool seen, was_zero;
} watched;

int munmap(void *p, size_t len)
{
	if (p == watched.page) {
		watched.seen = true;
		watched.was_zero = vd_is_zero(p, len);
	}
	return (int)syscall(SYS_munmap, p, len);
}

/* ---- a file in the folder of this test ---- */

static void put(const void *bytes, size_t len)
{
	FILE *f = fopen("secret", "wb");

	assert_non_null(f);
	assert_int_equal(fwrite(bytes, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
}

static void is(struct vd_key *key, const void *bytes, size_t len)
{
	struct vd_bytes b = vd_key_bytes(key);

	assert_int_equal(b.len, len);
	assert_memory_equal(b.p, bytes, len);
	vd_key_free(key);
}

static int pipe_with(const void *bytes, size_t len)
{
	int ends[2];

	assert_int_equal(pipe(ends), 0);
	assert_int_equal(write(ends[1], bytes, len), len);
	close(ends[1]);
	return ends[0];
}

/* ---- sources ---- */

static void a_key_file_is_taken_verbatim(void **state)
{
	static const char bytes[] = "two\nlines\0and a zero\n";
	struct vd_key *key;

	(void)state;
	put(bytes, sizeof(bytes) - 1);
	assert_int_equal(vd_key_from_file("secret", &key, NULL), 0);
	is(key, bytes, sizeof(bytes) - 1);
}

static void a_passphrase_file_is_its_first_line(void **state)
{
	static const struct {
		const char *file;
		size_t len;
		const char *key;
	} rows[] = {
		{ "secret", 6, "secret" }, { "secret\n", 7, "secret" }, { "secret\nmore\n", 12, "secret" },
		{ "secret\r\n", 8, "secret\r" }, { " s \n", 4, " s " },
	};
	struct vd_key *key;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		put(rows[i].file, rows[i].len);
		assert_int_equal(vd_key_from_passphrase_file("secret", &key, NULL), 0);
		is(key, rows[i].key, strlen(rows[i].key));
	}
}

static void a_missing_file_is_told_with_its_name(void **state)
{
	struct vd_error e = { 0 };
	struct vd_key *key = NULL;

	(void)state;
	assert_int_equal(vd_key_from_file("no-such-file", &key, &e), VD_ENOENT);
	assert_non_null(strstr(e.message, "no-such-file"));
	assert_int_equal(vd_key_from_file("/", &key, &e), VD_EIO);
	assert_int_equal(e.sys_errno, EISDIR);
	assert_null(key);
}

static void an_empty_secret_is_refused(void **state)
{
	struct vd_error e = { 0 };
	struct vd_key *key = NULL;
	int fd;

	(void)state;
	put("\n", 1);
	assert_int_equal(vd_key_from_passphrase_file("secret", &key, &e), VD_EARG);
	assert_non_null(strstr(e.message, "empty"));
	put("", 0);
	assert_int_equal(vd_key_from_file("secret", &key, &e), VD_EARG);
	assert_int_equal(vd_key_from_bytes("", 0, &key, &e), VD_EARG);
	assert_int_equal(vd_key_from_command("true", &key, &e), VD_EARG);
	fd = pipe_with("", 0);
	assert_int_equal(vd_key_from_fd(fd, true, &key, &e), VD_EARG);
	close(fd);
	assert_null(key);
}

static void a_secret_has_a_longest_length(void **state)
{
	static char bytes[VD_KEY_MAX + 1];
	struct vd_error e = { 0 };
	struct vd_key *key = NULL;

	(void)state;
	memset(bytes, 'x', sizeof(bytes));
	put(bytes, VD_KEY_MAX);
	assert_int_equal(vd_key_from_file("secret", &key, NULL), 0);
	is(key, bytes, VD_KEY_MAX);
	assert_int_equal(vd_key_from_passphrase_file("secret", &key, NULL), 0);
	is(key, bytes, VD_KEY_MAX);
	put(bytes, VD_KEY_MAX + 1);
	assert_int_equal(vd_key_from_file("secret", &key, &e), VD_EARG);
	assert_non_null(strstr(e.message, "longer than 8192"));
	assert_int_equal(vd_key_from_passphrase_file("secret", &key, &e), VD_EARG);
	assert_int_equal(vd_key_from_bytes(bytes, sizeof(bytes), &key, &e), VD_EARG);
	assert_int_equal(vd_key_from_file("/dev/zero", &key, &e), VD_EARG);
}

static void a_descriptor_gives_a_line_and_keeps_the_rest(void **state)
{
	int fd = pipe_with("first\nsecond\n", 13);
	struct vd_key *key;

	(void)state;
	assert_int_equal(vd_key_from_fd(fd, false, &key, NULL), 0);
	is(key, "first", 5);
	assert_int_equal(vd_key_from_fd(fd, false, &key, NULL), 0);
	is(key, "second", 6);
	assert_int_equal(close(fd), 0); /* it has stayed open */
}

static void a_descriptor_gives_all_verbatim(void **state)
{
	int fd = pipe_with("first\nsecond\n", 13);
	struct vd_error e = { 0 };
	struct vd_key *key;

	(void)state;
	assert_int_equal(vd_key_from_fd(fd, true, &key, NULL), 0);
	is(key, "first\nsecond\n", 13);
	close(fd);
	assert_int_equal(vd_key_from_fd(fd, true, &key, &e), VD_EIO);
	assert_int_equal(e.sys_errno, EBADF);
}

static void a_key_goes_through_a_pipe_whole(void **state)
{
	static uint8_t bytes[VD_KEY_MAX];
	struct vd_key *key, *there;
	struct vd_error e = { 0 };
	int ends[2];

	(void)state;
	memset(bytes, '\n', sizeof(bytes));
	assert_int_equal(vd_key_from_bytes(bytes, sizeof(bytes), &key, NULL), 0);
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(vd_key_to_fd(key, ends[1], NULL), 0);
	close(ends[1]);
	assert_int_equal(vd_key_from_fd(ends[0], true, &there, NULL), 0);
	is(there, bytes, sizeof(bytes));
	assert_int_equal(vd_key_to_fd(key, ends[1], &e), VD_EIO);
	assert_int_equal(e.sys_errno, EBADF);
	vd_key_free(key);
	close(ends[0]);
	assert_int_equal(vd_key_from_key_command("true", NULL, &key, NULL), 0);
	assert_int_equal(vd_key_to_fd(key, 1, &e), VD_EARG);
	vd_key_free(key);
}

static void a_command_gives_its_first_line(void **state)
{
	static const char *const commands[] = {
		"printf secret", "echo secret", "printf 'secret\\nlogin: x\\n'",
		"echo secret; seq 1 3000",      /* more than a pipe holds behind the line */
		"echo secret; sleep 0.1; echo late", "echo secret; exec >&-; sleep 0.1",
	};
	struct vd_key *key;

	(void)state;
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		assert_int_equal(vd_key_from_command(commands[i], &key, NULL), 0);
		is(key, "secret", 6);
	}
}

static void a_failing_command_is_told(void **state)
{
	static const struct {
		const char *command;
		int code;
		const char *message;
	} rows[] = {
		{ "echo secret; exit 3", VD_EFAILED, "status 3" }, { "exit 1", VD_EFAILED, "status 1" },
		{ "no-such-command 2>/dev/null", VD_EFAILED, "status 127" },
		{ "kill -9 $$", VD_EFAILED, "signal 9" }, { "yes", VD_EARG, "prints more than" },
		{ "seq 1 10000 | tr -d '\\n'", VD_EARG, "longer than" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct vd_error e = { 0 };
		struct vd_key *key = NULL;

		assert_int_equal(vd_key_from_command(rows[i].command, &key, &e), rows[i].code);
		assert_non_null(strstr(e.message, rows[i].message));
		assert_null(strstr(e.message, "secret;"));
		assert_null(key);
	}
}

/* Signal dispositions are the application's: ignored SIGPIPE must neither hurt the command nor be changed. */
static void a_command_runs_whatever_the_application_does_with_sigpipe(void **state)
{
	struct vd_key *key;

	(void)state;
	signal(SIGPIPE, SIG_IGN);
	assert_int_equal(vd_key_from_command("sh -c 'kill -PIPE $$' 2>/dev/null; echo $?", &key, NULL), 0);
	is(key, "141", 3);
	assert_ptr_equal(signal(SIGPIPE, SIG_DFL), SIG_IGN);
}

/* Of the pipe that the secret comes through, the command holds its standard output and no other end. */
static void a_command_inherits_no_descriptor_of_ours(void **state)
{
	struct vd_key *key;

	(void)state;
	assert_int_equal(vd_key_from_command("p=$(readlink /proc/$$/fd/1); ls -l /proc/$$/fd | grep -cF \"$p\"", &key, NULL), 0);
	is(key, "1", 1);
}

static void no_descriptor_is_leaked(void **state)
{
	struct vd_key *key;
	int before = dup(0), after;

	(void)state;
	close(before);
	put("x", 1);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(vd_key_from_file("secret", &key, NULL), 0);
		vd_key_free(key);
		assert_int_equal(vd_key_from_command("echo x", &key, NULL), 0);
		vd_key_free(key);
		assert_int_equal(vd_key_from_command("exit 1", &key, NULL), VD_EFAILED);
		assert_int_equal(vd_key_from_command("yes", &key, NULL), VD_EARG);
	}
	after = dup(0);
	close(after);
	assert_int_equal(before, after);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no child either */
}

static void a_credential_is_one_file_of_its_folder(void **state)
{
	static const char *const bad[] = { "", ".", "..", "../secret", "/etc/hostname", "a/b", "secret/" };
	struct vd_error e = { 0 };
	struct vd_key *key = NULL;

	(void)state;
	put("verbatim\n", 9);
	assert_int_equal(vd_key_from_credential(".", "secret", &key, NULL), 0);
	is(key, "verbatim\n", 9);
	key = NULL;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(vd_key_from_credential(".", bad[i], &key, &e), VD_EARG);
	assert_int_equal(vd_key_from_credential(".", "other", &key, &e), VD_ENOENT);
	assert_non_null(strstr(e.message, "other"));
	assert_null(key);
}

/* ---- the kernel keyring ---- */

/* In a session keyring of this process's own, which ends with it. False where the system does not allow keyrings. */
static bool put_into_keyring(const char *type, const char *name, const void *bytes, size_t len)
{
	static long session;

	if (!session)
		session = syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL);
	return session >= 0 && syscall(SYS_add_key, type, name, bytes, len, KEY_SPEC_SESSION_KEYRING) >= 0;
}

static void a_key_of_the_kernel_keyring_is_verbatim(void **state)
{
	static const char *const spellings[] = { "vdisk:test", "user:vdisk:test" };
	struct vd_error e = { 0 };
	struct vd_key *key = NULL;

	(void)state;
	if (!put_into_keyring("user", "vdisk:test", "ver\0batim\n", 10)) {
		assert_int_equal(vd_key_from_keyring("vdisk:test", &key, &e), VD_EUNSUPPORTED);
		return;
	}
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(vd_key_from_keyring(spellings[i], &key, NULL), 0);
		is(key, "ver\0batim\n", 10);
		key = NULL;
	}
	assert_int_equal(vd_key_from_keyring("vdisk:other", &key, &e), VD_ENOENT);
	assert_non_null(strstr(e.message, "vdisk:other"));
	assert_null(key);
}

static void keys_that_cannot_be_secrets_are_refused(void **state)
{
	static const char *const bad[] = { "logon:vdisk:test", "keyring:_ses", "encrypted:x", "", "user:" };
	static char big[VD_KEY_MAX + 1];
	struct vd_error e = { 0 };
	struct vd_key *key = NULL;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(vd_key_from_keyring(bad[i], &key, &e), VD_EARG);
	if (put_into_keyring("user", "vdisk:big", big, sizeof(big)))
		assert_int_equal(vd_key_from_keyring("vdisk:big", &key, &e), VD_EARG);
	assert_null(key);
}

/* ---- what can be said of a key ---- */

static void a_newline_at_the_end_is_seen(void **state)
{
	struct vd_key *key;

	(void)state;
	assert_int_equal(vd_key_from_bytes("secret\n", 7, &key, NULL), 0);
	assert_true(vd_key_ends_with_newline(key));
	vd_key_free(key);
	assert_int_equal(vd_key_from_bytes("sec\nret", 7, &key, NULL), 0);
	assert_false(vd_key_ends_with_newline(key));
	vd_key_free(key);
}

static bool usable(const void *bytes, size_t len)
{
	struct vd_key *key;
	bool yes;

	assert_int_equal(vd_key_from_bytes(bytes, len, &key, NULL), 0);
	yes = vd_key_is_usable_by_qemu(key);
	vd_key_free(key);
	return yes;
}

static void qemu_takes_utf8_without_nul(void **state)
{
	static const char *const good[] = { "a", "\x7f", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf",
					    "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf", "pass\n" };
	static const char *const bad[] = { "\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xc2", "\xc2\x41", "\xe0\x9f\xbf",
					   "\xed\xa0\x80", "\xed\xbf\xbf", "\xe2\x82", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80",
					   "\xf5\x80\x80\x80", "\xf8\x88\x80\x80\x80", "\xff", "abc\xfe" };
	char longest[513];

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		assert_true(usable(good[i], strlen(good[i])));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(usable(bad[i], strlen(bad[i])));
	assert_false(usable("a\0b", 3));
	memset(longest, 'x', sizeof(longest));
	assert_true(usable(longest, 512));
	assert_false(usable(longest, 513));
}

/* ---- memory ---- */

static void a_freed_key_was_wiped(void **state)
{
	struct vd_key *key;

	(void)state;
	assert_int_equal(vd_key_from_bytes("correct horse", 13, &key, NULL), 0);
	watched.page = vd_key_bytes(key).p;
	watched.seen = watched.was_zero = false;
	assert_false(vd_is_zero(watched.page, 13));
	vd_key_free(key);
	watched.page = NULL;
	assert_true(watched.seen);
	assert_true(watched.was_zero);
	vd_key_free(NULL);
}

/* The kernel's own word on the mapping that holds p. */
static void flags_of(const void *p, char *flags, size_t size)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	char line[512];
	uintptr_t from, to;
	bool inside = false;

	assert_non_null(f);
	*flags = '\0';
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			inside = from <= (uintptr_t)p && (uintptr_t)p < to;
		else if (inside && !strncmp(line, "VmFlags:", 8))
			snprintf(flags, size, "%s", line);
	}
	fclose(f);
}

static void a_key_is_locked_and_left_out_of_core_dumps(void **state)
{
	struct vd_key *key;
	char flags[512];

	(void)state;
	assert_int_equal(vd_key_from_bytes("secret", 6, &key, NULL), 0);
	flags_of(vd_key_bytes(key).p, flags, sizeof(flags));
	if (!VD_SANITIZED)
		assert_non_null(strstr(flags, " lo"));
	assert_non_null(strstr(flags, " dd"));
	assert_non_null(strstr(flags, " wf"));
	vd_key_free(key);
}

static void a_forked_child_has_no_key(void **state)
{
	struct vd_key *key;
	int status;
	pid_t pid;

	(void)state;
	assert_int_equal(vd_key_from_bytes("secret", 6, &key, NULL), 0);
	pid = fork();
	if (!pid)
		_exit(vd_is_zero(vd_key_bytes(key).p, 6) ? 0 : 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	is(key, "secret", 6);
}

/* Another process makes the secret, and it shifted, so that this one meets it through the library alone. */
static void make_secret_elsewhere(uint8_t *shifted, size_t len)
{
	int ends[2], status;
	pid_t pid;

	assert_int_equal(pipe(ends), 0);
	pid = fork();
	if (!pid) {
		assert_int_equal(vd_random(shifted, len, NULL), 0);
		for (size_t i = 0; i < len; i++)
			shifted[i] |= 0x80; /* no newline, no NUL */
		put(shifted, len);
		for (size_t i = 0; i < len; i++)
			shifted[i] = (uint8_t)(shifted[i] + VD_LEFTOVER_SHIFT);
		_exit(write(ends[1], shifted, len) == (ssize_t)len ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(read(ends[0], shifted, len), len);
	close(ends[0]);
	close(ends[1]);
}

static int from_descriptor(const char *path, struct vd_key **key, struct vd_error *e)
{
	int fd = open(path, O_RDONLY), r = vd_key_from_fd(fd, true, key, e);

	close(fd);
	return r;
}

static void no_copy_of_a_secret_stays_behind(void **state)
{
	static int (*const sources[])(const char *, struct vd_key **, struct vd_error *) = {
		vd_key_from_file, vd_key_from_passphrase_file, from_descriptor, vd_key_from_command,
	};
	static uint8_t shifted[24];
	struct vd_key *key;

	(void)state;
	if (VD_SANITIZED)
		return;
	make_secret_elsewhere(shifted, sizeof(shifted));
	for (size_t i = 0; i < 4; i++) {
		assert_int_equal(sources[i](i == 3 ? "cat secret" : "secret", &key, NULL), 0);
		assert_int_equal(vd_leftovers(shifted, sizeof(shifted)), 1);
		vd_key_free(key);
		assert_int_equal(vd_leftovers(shifted, sizeof(shifted)), 0);
	}
}

static void want_of_memory_is_reported(void **state)
{
	struct vd_error e = { 0 };
	struct vd_key *key = NULL;

	(void)state;
	vd_alloc_fail_after(0);
	assert_int_equal(vd_key_from_bytes("secret", 6, &key, &e), VD_ENOMEM);
	vd_alloc_fail_after(-1);
	assert_null(key);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_key_file_is_taken_verbatim),
		cmocka_unit_test(a_passphrase_file_is_its_first_line),
		cmocka_unit_test(a_missing_file_is_told_with_its_name),
		cmocka_unit_test(an_empty_secret_is_refused),
		cmocka_unit_test(a_secret_has_a_longest_length),
		cmocka_unit_test(a_descriptor_gives_a_line_and_keeps_the_rest),
		cmocka_unit_test(a_descriptor_gives_all_verbatim),
		cmocka_unit_test(a_key_goes_through_a_pipe_whole),
		cmocka_unit_test(a_command_gives_its_first_line),
		cmocka_unit_test(a_failing_command_is_told),
		cmocka_unit_test(a_command_runs_whatever_the_application_does_with_sigpipe),
		cmocka_unit_test(a_command_inherits_no_descriptor_of_ours),
		cmocka_unit_test(no_descriptor_is_leaked),
		cmocka_unit_test(a_credential_is_one_file_of_its_folder),
		cmocka_unit_test(a_key_of_the_kernel_keyring_is_verbatim),
		cmocka_unit_test(keys_that_cannot_be_secrets_are_refused),
		cmocka_unit_test(a_newline_at_the_end_is_seen),
		cmocka_unit_test(qemu_takes_utf8_without_nul),
		cmocka_unit_test(a_freed_key_was_wiped),
		cmocka_unit_test(a_key_is_locked_and_left_out_of_core_dumps),
		cmocka_unit_test(a_forked_child_has_no_key),
		cmocka_unit_test(no_copy_of_a_secret_stays_behind),
		cmocka_unit_test(want_of_memory_is_reported),
	};

	return cmocka_run_group_tests(tests, vd_tempdir_enter, vd_tempdir_leave);
}
