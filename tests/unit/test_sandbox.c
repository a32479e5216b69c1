/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The cell of the reader of file systems: what somebody who has taken the process over can not do any more. */
#include "fsview/reader/reader.h"        /* before cmocka.h, which has a macro fail() */

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define DID 0           /* exit statuses of a process in the cell */
#define REFUSED 3
#define NOT_LOCKED_IN 4

/* How a process ends that is locked in by `lock` and then tries `act`: an exit status, or 128 and the signal. */
static int end_of(int (*lock)(struct vd_error *e), int (*act)(void))
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (!pid) {
		struct vd_error e;

		/* The test's own output is not to be lost with the descriptors. */
		(void)!dup2(open("/dev/null", O_RDWR), WIRE_SOCKET);
		(void)!dup2(WIRE_SOCKET, WIRE_MEMORY);
		if (lock(&e) < 0)
			_exit(NOT_LOCKED_IN);
		_exit(act() < 0 ? REFUSED : DID);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int do_nothing(void)
{
	return 0;
}

static int open_passwd(void)
{
	return open("/etc/passwd", O_RDONLY);
}

static int make_file(void)
{
	return open("/tmp/vdisk-sandbox-test", O_WRONLY | O_CREAT, 0600);
}

static int start_shell(void)
{
	return execl("/bin/sh", "sh", "-c", "exit 0", (char *)NULL);
}

static int make_socket(void)
{
	return socket(AF_INET, SOCK_STREAM, 0);
}

static int make_process(void)
{
	return fork();
}

static int kill_parent(void)
{
	return kill(getppid(), 0);
}

static int trace_parent(void)
{
	return (int)ptrace(PTRACE_ATTACH, getppid(), NULL, NULL);
}

static int run_memory(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0;
}

static int map_file(void)
{
	return mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, WIRE_MEMORY, 0) == MAP_FAILED ? -1 : 0;
}

static int take_memory(void)
{
	size_t size = (size_t)1 << 30;
	char *p = malloc(size);

	if (!p)
		return -1;
	for (size_t i = 0; i < size; i += 4096)
		p[i] = 1;
	return p[4096] ? 0 : -1;
}

static void what_it_is_for_still_works(void **state)
{
	(void)state;
	assert_int_equal(end_of(sandbox_enter, do_nothing), DID);
}

static void every_way_out_kills_the_process(void **state)
{
	static int (*const acts[])(void) = {
		open_passwd, make_file, start_shell, make_socket, make_process, kill_parent, trace_parent, run_memory, map_file,
	};

	(void)state;
	for (size_t i = 0; i < sizeof(acts) / sizeof(acts[0]); i++)
		assert_int_equal(end_of(sandbox_enter, acts[i]), 128 + SIGSYS);
}

static int lock_nothing(struct vd_error *e)
{
	(void)e;
	return 0;
}

/* Else what is refused in the cell would prove nothing. */
static void the_same_is_possible_outside(void **state)
{
	(void)state;
	assert_int_equal(end_of(lock_nothing, open_passwd), DID);
	assert_int_equal(end_of(lock_nothing, start_shell), DID);
	assert_int_equal(end_of(lock_nothing, make_socket), DID);
	assert_int_equal(end_of(lock_nothing, run_memory), DID);
}

static void landlock_alone_keeps_files_closed(void **state)
{
	(void)state;
	assert_int_equal(end_of(sandbox_landlock, open_passwd), REFUSED);
	assert_int_equal(end_of(sandbox_landlock, make_file), REFUSED);
	assert_int_equal(end_of(sandbox_landlock, start_shell), REFUSED);
}

static void seccomp_alone_kills(void **state)
{
	(void)state;
	assert_int_equal(end_of(sandbox_seccomp, open_passwd), 128 + SIGSYS);
}

static void memory_is_limited(void **state)
{
	(void)state;
#ifndef __SANITIZE_ADDRESS__
	assert_int_equal(end_of(sandbox_enter, take_memory), REFUSED);
#else
	(void)take_memory;
#endif
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_it_is_for_still_works),
		cmocka_unit_test(the_same_is_possible_outside),
		cmocka_unit_test(every_way_out_kills_the_process),
		cmocka_unit_test(landlock_alone_keeps_files_closed),
		cmocka_unit_test(seccomp_alone_kills),
		cmocka_unit_test(memory_is_limited),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
