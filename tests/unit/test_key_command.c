/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Key commands from inside the process: what they leave behind in it, and what they may not disturb. */
#include <dirent.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "keys/base64.h"
#include "keys/keycommand.h"
#include "libvdisk/core/keysrc.h"
#include "libvdisk/crypto/random.h"
#include "tests/support/leftover.h"
#include "tests/support/tempdir.h"

static const struct vd_key_image image = { "/images/a \"disk\".qcow2", "01234567-89ab-cdef-0123-456789abcdef" };

static struct vd_key *command(const char *text)
{
	const struct vd_key_command_opts o = { .struct_size = sizeof(o), .timeout_s = 20 };
	struct vd_key *key;

	assert_int_equal(vd_key_from_key_command(text, &o, &key, NULL), 0);
	assert_true(vd_key_is_command(key));
	return key;
}

static int open_token(struct vd_key *key, const char *token, struct vd_key **out, struct vd_error *e)
{
	struct vd_key_reply reply;
	int r = vd_key_command_open(vd_key_command_of(key), token, &image, out, &reply, e);

	return r == 0 && reply.verdict != VD_KEY_GIVEN ? VD_EKEY : r;
}

static void put(const char *name, const char *text)
{
	FILE *f = fopen(name, "w");

	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

static int count_of(const char *name)
{
	FILE *f = fopen(name, "r");
	int n = 0, c;

	assert_non_null(f);
	while ((c = fgetc(f)) != EOF)
		n += c == '\n';
	fclose(f);
	return n;
}

static void a_token_is_shown_once_as_long_as_it_is_the_same(void **state)
{
	struct vd_key *key = command("cat >> asked; echo '{\"secret\":\"YWJj\"}'"), *got;

	(void)state;
	for (int i = 0; i < 3; i++) {
		assert_int_equal(open_token(key, "{\"a\":1}", &got, NULL), 0);
		assert_memory_equal(vd_key_bytes(got).p, "abc", 3);
		vd_key_free(got);
	}
	assert_int_equal(count_of("asked"), 1);
	assert_int_equal(open_token(key, "{\"a\":2}", &got, NULL), 0);
	vd_key_free(got);
	assert_int_equal(count_of("asked"), 2);
	vd_key_free(key);
}

static void the_request_is_what_the_protocol_says(void **state)
{
	static const char wanted[] = "{\"vdisk-key-command\":1,\"act\":\"open\",\"token\":{\"a\":1},"
				     "\"image\":{\"name\":\"a \\\"disk\\\".qcow2\",\"uuid\":\"01234567-89ab-cdef-0123-456789abcdef\"}}\n";
	char text[sizeof(wanted)] = "";
	struct vd_key *key = command("cat > request; echo '{\"secret\":\"YWJj\"}'"), *got;
	FILE *f;

	(void)state;
	assert_int_equal(open_token(key, "{\"a\":1}", &got, NULL), 0);
	f = fopen("request", "r");
	assert_non_null(f);
	assert_int_equal(fread(text, 1, sizeof(text), f), sizeof(wanted) - 1);
	fclose(f);
	assert_string_equal(text, wanted);
	vd_key_free(got);
	vd_key_free(key);
}

static int n_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void nothing_stays_open_and_no_child_stays(void **state)
{
	static const char *const commands[] = {
		"echo '{\"secret\":\"YWJj\"}'", "exit 3", "true", "head -c 100000 /dev/zero", "kill -9 $$", "sleep 100 & exit 0", "nowhere",
		"exec <&-; echo '{\"error\":{}}'",
	};
	int before = n_descriptors();

	(void)state;
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		struct vd_key *key = command(commands[i]), *got = NULL;
		struct vd_error e = { 0 };
		int r = open_token(key, "{\"a\":1}", &got, &e);

		assert_int_equal(r, i ? r == VD_EKEY ? VD_EKEY : VD_EFAILED : 0);
		vd_key_free(got);
		vd_key_free(key);
		assert_int_equal(n_descriptors(), before);
		assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	}
}

static volatile sig_atomic_t n_pipes;

static void on_pipe(int sig)
{
	(void)sig;
	n_pipes++;
}

static void who_does_not_read_costs_no_sigpipe(void **state)
{
	struct sigaction now = { .sa_handler = on_pipe }, old;
	struct vd_key *key = command("exec <&-; sleep 0.1; echo '{\"secret\":\"YWJj\"}'"), *got;

	(void)state;
	assert_int_equal(sigaction(SIGPIPE, &now, &old), 0);
	assert_int_equal(open_token(key, "{\"a\":1}", &got, NULL), 0);
	assert_int_equal(n_pipes, 0);
	sigaction(SIGPIPE, &old, NULL);
	vd_key_free(got);
	vd_key_free(key);
}

static void *open_often(void *key)
{
	for (int i = 0; i < 10; i++) {
		struct vd_key *got = NULL;

		if (open_token(key, i % 2 ? "{\"a\":1}" : "{\"a\":2}", &got, NULL) || memcmp(vd_key_bytes(got).p, "abc", 3))
			return key;
		vd_key_free(got);
	}
	return NULL;
}

static void threads_share_a_key(void **state)
{
	struct vd_key *key = command("echo '{\"secret\":\"YWJj\"}'");
	pthread_t threads[4];

	(void)state;
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, open_often, key), 0);
	for (int i = 0; i < 4; i++) {
		void *failed = key;

		pthread_join(threads[i], &failed);
		assert_null(failed);
	}
	vd_key_free(key);
}

#define SECRET 24
/* Another process makes the secret and the reply, so that this one meets them through the library alone; shifted, both. */
static void make_reply_elsewhere(uint8_t shifted[SECRET + VD_BASE64_LEN(SECRET)])
{
	const size_t len = SECRET + VD_BASE64_LEN(SECRET);
	int ends[2], status;
	pid_t pid;

	assert_int_equal(pipe(ends), 0);
	pid = fork();
	if (!pid) {
		char text[VD_BASE64_LEN(SECRET) + 1], reply[128];

		assert_int_equal(vd_random(shifted, SECRET, NULL), 0);
		vd_base64_encode((struct vd_bytes){ shifted, SECRET }, text);
		snprintf(reply, sizeof(reply), "{\"secret\":\"%s\"}", text);
		put("reply", reply);
		memcpy(shifted + SECRET, text, VD_BASE64_LEN(SECRET));
		vd_leftover_shift(shifted, len);
		_exit(write(ends[1], shifted, len) == (ssize_t)len ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(read(ends[0], shifted, len), len);
	close(ends[0]);
	close(ends[1]);
}

static void no_copy_of_a_reply_stays_behind(void **state)
{
	static uint8_t shifted[SECRET + VD_BASE64_LEN(SECRET)];
	struct vd_key *key, *got;

	(void)state;
	if (VD_SANITIZED)
		return;
	make_reply_elsewhere(shifted);
	key = command("cat reply");
	assert_int_equal(open_token(key, "{\"a\":1}", &got, NULL), 0);
	/* The key that was got, and what the command remembers. */
	assert_int_equal(vd_leftovers(shifted, SECRET), 2);
	assert_int_equal(vd_leftovers(shifted + SECRET, VD_BASE64_LEN(SECRET)), 0);
	vd_key_free(got);
	vd_key_free(key);
	assert_int_equal(vd_leftovers(shifted, SECRET), 0);
}

static void where_a_secret_is_wanted_a_command_is_refused(void **state)
{
	static char shares[3][VD_SHARE_SIZE];
	struct vd_key *key = command("echo '{\"secret\":\"YWJj\"}'");
	const char *recipient = "age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq";
	struct vd_error e = { 0 };

	(void)state;
	assert_int_equal(vd_key_split(key, 2, 3, shares, &e), VD_EARG);
	assert_int_equal(vd_key_escrow(key, &recipient, 1, "escrow", &e), VD_EARG);
	assert_non_null(strstr(e.hint, "--new-key-command"));
	assert_int_equal(access("escrow", F_OK), -1);
	assert_false(vd_key_ends_with_newline(key));
	assert_int_equal(vd_key_bytes(key).len, 0);
	vd_key_free(key);
}

static void options_are_judged(void **state)
{
	struct vd_key_command_opts o = { .struct_size = sizeof(o), .timeout_s = 86401 };
	struct vd_key *key = NULL;

	(void)state;
	assert_int_equal(vd_key_from_key_command("true", &o, &key, NULL), VD_EARG);
	o = (struct vd_key_command_opts){ .struct_size = 1 };
	assert_int_equal(vd_key_from_key_command("true", &o, &key, NULL), VD_EARG);
	assert_null(key);
	assert_int_equal(vd_key_from_key_command("true", NULL, &key, NULL), 0);
	vd_key_free(key);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_token_is_shown_once_as_long_as_it_is_the_same),
		cmocka_unit_test(the_request_is_what_the_protocol_says),
		cmocka_unit_test(nothing_stays_open_and_no_child_stays),
		cmocka_unit_test(who_does_not_read_costs_no_sigpipe),
		cmocka_unit_test(threads_share_a_key),
		cmocka_unit_test(no_copy_of_a_reply_stays_behind),
		cmocka_unit_test(where_a_secret_is_wanted_a_command_is_refused),
		cmocka_unit_test(options_are_judged),
	};

	return cmocka_run_group_tests(tests, vd_tempdir_enter, vd_tempdir_leave);
}
