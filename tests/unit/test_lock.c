/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Locks against other handles of ours and against a live qemu, in both directions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libvdisk/io/io.h"
#include "libvdisk/io/lock.h"
#include "tests/support/tempdir.h"

#define IMAGE "image.raw"

static int setup(void **state)
{
	int fd;

	if (vd_tempdir_enter(state) < 0)
		return -1;
	fd = open(IMAGE, O_RDWR | O_CREAT, 0600);
	return fd < 0 || ftruncate(fd, 1 << 20) < 0 || close(fd) < 0 ? -1 : 0;
}

static int try_open(unsigned flags, struct vd_io **io, struct vd_error *e)
{
	struct vd_host *os = vd_host_os();

	memset(e, 0, sizeof(*e));
	return os->open(os, IMAGE, flags, io, e);
}

static struct vd_io *hold(unsigned flags)
{
	struct vd_io *io = NULL;
	struct vd_error e;

	if (try_open(flags, &io, &e) < 0)
		fail_msg("%s", e.message);
	return io;
}

static void assert_opens(unsigned flags)
{
	vd_io_abort(hold(flags));
}

static void assert_busy(unsigned flags, struct vd_error *e)
{
	struct vd_io *io = NULL;

	assert_int_equal(try_open(flags, &io, e), VD_EBUSY);
	assert_null(io);
	assert_string_not_equal(e->hint, "");
}

/* ---- a qemu-io that holds the image ---- */

struct qemu {
	pid_t pid;
	FILE *to, *from;
};

static void exec_qemu(const char *const argv[], int in, int out)
{
	dup2(in, 0);
	dup2(out, 1);
	execvp("qemu-io", (char *const *)argv);
	_exit(127);
}

static struct qemu start_qemu(const char *const argv[])
{
	struct qemu q = { .pid = -1 };
	int in[2], out[2];
	char line[128];

	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	q.pid = fork();
	if (!q.pid)
		exec_qemu(argv, in[0], out[1]);
	close(in[0]);
	close(out[1]);
	q.to = fdopen(in[1], "w");
	q.from = fdopen(out[0], "r");
	/* Its answer says that the image is open, and locked. */
	fputs("length\n", q.to);
	fflush(q.to);
	assert_non_null(fgets(line, sizeof(line), q.from));
	return q;
}

static void stop_qemu(struct qemu *q)
{
	fclose(q->to);
	fclose(q->from);
	waitpid(q->pid, NULL, 0);
}

static bool have_qemu(void)
{
	return system("qemu-io --version >/dev/null 2>&1") == 0;
}

static const char *const as_writer[] = { "qemu-io", "-f", "qcow2", IMAGE, NULL };
static const char *const as_reader[] = { "qemu-io", "-r", "-f", "qcow2", IMAGE, NULL };

static const char *const as_raw_writer[] = { "qemu-io", "-f", "raw", IMAGE, NULL };

static void make_qcow2(void)
{
	assert_int_equal(system("qemu-img create -q -f qcow2 " IMAGE " 1M"), 0);
}

static bool qemu_opens(const char *options)
{
	char command[256];

	snprintf(command, sizeof(command), "qemu-io %s -f qcow2 -c length " IMAGE " >out 2>err", options);
	return system(command) == 0;
}

/* ---- claims ---- */

static void readers_share(void **state)
{
	struct vd_io *a = hold(0), *b = hold(0);

	(void)state;
	vd_io_abort(a);
	vd_io_abort(b);
}

static void a_writer_excludes_all_but_forced_readers(void **state)
{
	struct vd_io *writer = hold(VD_IO_WRITE);
	struct vd_error e;
	char want[256];

	(void)state;
	assert_busy(VD_IO_WRITE, &e);
	assert_busy(0, &e);
	snprintf(want, sizeof(want), "image.raw: in use: this process itself (%d) writes to it already", getpid());
	assert_string_equal(e.message, want);
	assert_opens(VD_IO_FORCE_SHARE);
	vd_io_abort(writer);
	assert_opens(VD_IO_WRITE);
}

static void a_reader_excludes_writers_unless_forced(void **state)
{
	struct vd_io *reader = hold(0);
	struct vd_error e;

	(void)state;
	assert_busy(VD_IO_WRITE, &e);
	assert_string_equal(e.hint, "stop what uses the image, then try again");
	vd_io_abort(reader);
	reader = hold(VD_IO_FORCE_SHARE);
	assert_opens(VD_IO_WRITE);
	vd_io_abort(reader);
}

static void a_refused_writer_leaves_no_lock_behind(void **state)
{
	struct vd_io *reader = hold(0);
	int fd = open(IMAGE, O_RDWR | O_CLOEXEC);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(vd_lock_file(fd, IMAGE, VD_IO_WRITE, NULL), VD_EBUSY);
	assert_opens(0);
	vd_io_abort(reader);
	assert_int_equal(vd_lock_file(fd, IMAGE, VD_IO_WRITE, NULL), 0);
	close(fd);
}

static void locks_are_on_the_bytes_that_qemu_uses(void **state)
{
	static const struct { off_t byte; bool reader, writer; } cases[] = {
		{ 99, false, false }, { 100, true, true }, { 101, false, true }, { 102, false, false },
		{ 103, false, true }, { 104, false, false }, { 200, false, false }, { 201, true, true },
		{ 202, false, false }, { 203, true, true }, { 204, false, false },
	};
	int fd = open(IMAGE, O_RDWR | O_CLOEXEC);

	(void)state;
	assert_true(fd >= 0);
	for (unsigned flags = 0; flags <= VD_IO_WRITE; flags++) {
		struct vd_io *io = hold(flags);

		for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
			struct flock fl = { .l_type = F_WRLCK, .l_start = cases[i].byte, .l_len = 1 };

			assert_int_equal(fcntl(fd, F_OFD_GETLK, &fl), 0);
			assert_int_equal(fl.l_type != F_UNLCK, flags ? cases[i].writer : cases[i].reader);
		}
		vd_io_abort(io);
	}
	close(fd);
}

static void what_qemu_writes_is_refused_by_name(void **state)
{
	struct vd_error e;
	struct qemu q;
	char want[256];

	(void)state;
	if (!have_qemu())
		skip();
	make_qcow2();
	q = start_qemu(as_writer);
	assert_busy(0, &e);
	snprintf(want, sizeof(want), "image.raw: in use: qemu-io (process %d) writes to it", q.pid);
	assert_string_equal(e.message, want);
	assert_non_null(strstr(e.hint, "-U (--force-share)"));
	assert_busy(VD_IO_WRITE, &e);
	snprintf(want, sizeof(want), "image.raw: in use: qemu-io (process %d) uses it", q.pid);
	assert_string_equal(e.message, want);
	assert_null(strstr(e.hint, "-U"));
	assert_opens(VD_IO_FORCE_SHARE);
	stop_qemu(&q);
	assert_opens(VD_IO_WRITE);
}

/* Of a raw image qemu itself lets others write; we do not join in. */
static void what_qemu_writes_as_raw_is_refused(void **state)
{
	struct vd_error e;
	struct qemu q;

	(void)state;
	if (!have_qemu())
		skip();
	q = start_qemu(as_raw_writer);
	assert_busy(0, &e);
	assert_busy(VD_IO_WRITE, &e);
	assert_opens(VD_IO_FORCE_SHARE);
	stop_qemu(&q);
}

static void what_qemu_reads_can_be_read_but_not_written(void **state)
{
	struct vd_error e;
	struct qemu q;

	(void)state;
	if (!have_qemu())
		skip();
	make_qcow2();
	q = start_qemu(as_reader);
	assert_opens(0);
	assert_busy(VD_IO_WRITE, &e);
	stop_qemu(&q);
}

static void qemu_refuses_what_we_write(void **state)
{
	struct vd_io *io;

	(void)state;
	if (!have_qemu())
		skip();
	make_qcow2();
	io = hold(VD_IO_WRITE);
	assert_false(qemu_opens(""));
	assert_int_equal(system("grep -q lock err"), 0);
	assert_false(qemu_opens("-r"));
	assert_int_equal(system("grep -q 'shared \"write\" lock' err"), 0);
	assert_true(qemu_opens("-r -U"));
	vd_io_abort(io);
	assert_true(qemu_opens(""));
}

static void qemu_shares_what_we_read(void **state)
{
	struct vd_io *io;

	(void)state;
	if (!have_qemu())
		skip();
	make_qcow2();
	io = hold(0);
	assert_true(qemu_opens("-r"));
	assert_false(qemu_opens(""));
	vd_io_abort(io);
	io = hold(VD_IO_FORCE_SHARE);
	assert_true(qemu_opens(""));
	vd_io_abort(io);
}

/* A lock that cannot be taken for another reason than a holder: O_PATH stands for a file system without locks. */
static void want_of_locks_is_no_obstacle(void **state)
{
	int fd = open(IMAGE, O_PATH | O_CLOEXEC);

	(void)state;
	assert_int_equal(vd_lock_file(fd, IMAGE, VD_IO_WRITE, NULL), 0);
	close(fd);
}

static void our_locks_do_not_pass_to_children(void **state)
{
	struct vd_io *io = hold(VD_IO_WRITE);
	pid_t child = fork();

	(void)state;
	if (!child) {
		execlp("sleep", "sleep", "5", (char *)NULL);
		_exit(1);
	}
	vd_io_abort(io);
	/* Until the child has executed it shares the descriptor; the retries of the lock cover that moment. */
	assert_opens(VD_IO_WRITE);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

int main(void)
{
#define ON_FILE(test) cmocka_unit_test_setup_teardown(test, setup, vd_tempdir_leave)
	const struct CMUnitTest tests[] = {
		ON_FILE(readers_share),
		ON_FILE(a_writer_excludes_all_but_forced_readers),
		ON_FILE(a_reader_excludes_writers_unless_forced),
		ON_FILE(a_refused_writer_leaves_no_lock_behind),
		ON_FILE(locks_are_on_the_bytes_that_qemu_uses),
		ON_FILE(what_qemu_writes_is_refused_by_name),
		ON_FILE(what_qemu_writes_as_raw_is_refused),
		ON_FILE(what_qemu_reads_can_be_read_but_not_written),
		ON_FILE(qemu_refuses_what_we_write),
		ON_FILE(qemu_shares_what_we_read),
		ON_FILE(want_of_locks_is_no_obstacle),
		ON_FILE(our_locks_do_not_pass_to_children),
	};

	return cmocka_run_group_tests_name("lock", tests, NULL, NULL);
}
