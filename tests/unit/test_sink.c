/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A file that is a pipe: what goes out, in which order, what is refused, and what becomes of a reader that goes away or sleeps. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "libvdisk/io/sink.h"
#include "tests/support/disks.h"

#define MIB ((size_t)1 << 20)

/* Takes all that comes until the end of file. */
struct reader {
	pthread_t thread;
	int fd;
	uint8_t *bytes;
	size_t len, room;
};

static void *read_all(void *arg)
{
	struct reader *rd = arg;
	ssize_t n;

	while ((n = read(rd->fd, rd->bytes + rd->len, rd->room - rd->len)) > 0)
		rd->len += (size_t)n;
	close(rd->fd);
	return NULL;
}

static int reader_start(struct reader *rd, size_t room)
{
	int ends[2];

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	*rd = (struct reader){ .fd = ends[0], .room = room, .bytes = malloc(room) };
	assert_non_null(rd->bytes);
	assert_int_equal(pthread_create(&rd->thread, NULL, read_all, rd), 0);
	return ends[1];
}

/* The descriptor and the sink are closed already. */
static void reader_end(struct reader *rd)
{
	pthread_join(rd->thread, NULL);
	free(rd->bytes);
}

static struct vd_io *new_sink(int fd)
{
	struct vd_io *io = NULL;
	struct vd_error e;

	expect_ok(vd_sink_new(fd, "the pipe", &io, &e), &e);
	return io;
}

static void put(struct vd_io *io, uint64_t off, size_t len, uint8_t value)
{
	uint8_t *buf = malloc(len);
	struct vd_error e;

	assert_non_null(buf);
	memset(buf, value, len);
	expect_ok(vd_io_pwrite(io, buf, len, off, &e), &e);
	free(buf);
}

static void expect_run(const struct reader *rd, size_t from, size_t to, uint8_t value)
{
	for (size_t i = from; i < to; i++)
		if (rd->bytes[i] != value)
			fail_msg("byte %zu is %u, want %u", i, rd->bytes[i], value);
}

static void what_is_left_out_are_zeros(void **state)
{
	struct reader rd;
	int fd = reader_start(&rd, 16 * MIB);
	struct vd_io *io = new_sink(fd);
	struct vd_error e;

	(void)state;
	expect_ok(vd_io_truncate(io, 9 * MIB + 5, &e), &e);
	put(io, 3, 10, 1);
	put(io, 2 * MIB + 1, 3 * MIB, 2);
	expect_ok(vd_sink_end(io, &e), &e);
	expect_ok(vd_io_close(io, &e), &e);
	close(fd);
	pthread_join(rd.thread, NULL);
	assert_int_equal(rd.len, 9 * MIB + 5);
	expect_run(&rd, 0, 3, 0);
	expect_run(&rd, 3, 13, 1);
	expect_run(&rd, 13, 2 * MIB + 1, 0);
	expect_run(&rd, 2 * MIB + 1, 5 * MIB + 1, 2);
	expect_run(&rd, 5 * MIB + 1, 9 * MIB + 5, 0);
	free(rd.bytes);
}

static void what_waits_can_be_changed_and_what_went_out_cannot(void **state)
{
	struct reader rd;
	int fd = reader_start(&rd, 16 * MIB);
	struct vd_io *io = new_sink(fd);
	struct vd_error e;
	uint8_t b[2];

	(void)state;
	put(io, 0, 1000, 1);
	put(io, 10, 1, 2);
	expect_ok(vd_io_pread(io, b, 2, 10, &e), &e);
	assert_true(b[0] == 2 && b[1] == 1);
	expect_ok(vd_io_truncate(io, 500, &e), &e);
	expect_ok(vd_io_pread(io, b, 2, 499, &e), &e);
	assert_true(b[0] == 1 && b[1] == 0);
	put(io, 500, 2 * MIB, 3);
	expect_failure(vd_io_pwrite(io, b, 1, 10, &e), VD_EUNSUPPORTED, &e, "no way back");
	expect_failure(vd_io_pread(io, b, 1, 10, &e), VD_EUNSUPPORTED, &e, "have gone out");
	expect_failure(vd_io_truncate(io, 10, &e), VD_EUNSUPPORTED, &e, "have gone out");
	expect_failure(vd_io_punch(io, 0, 10, &e), VD_EUNSUPPORTED, &e, "no holes");
	expect_ok(vd_sink_end(io, &e), &e);
	expect_ok(vd_io_close(io, &e), &e);
	close(fd);
	reader_end(&rd);
}

static void without_its_end_nothing_more_goes_out(void **state)
{
	struct reader rd;
	int fd = reader_start(&rd, MIB);
	struct vd_io *io = new_sink(fd);

	(void)state;
	put(io, 0, 1000, 1);
	vd_io_abort(io);
	close(fd);
	pthread_join(rd.thread, NULL);
	assert_int_equal(rd.len, 0);
	free(rd.bytes);
}

static void a_reader_that_goes_is_told_of(void **state)
{
	struct vd_error e;
	struct vd_io *io;
	int ends[2];

	(void)state;
	signal(SIGPIPE, SIG_IGN);
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	io = new_sink(ends[1]);
	close(ends[0]);
	put(io, 0, 1000, 1);
	expect_failure(vd_sink_end(io, &e), VD_EIO, &e, "the reader has gone after 0 bytes");
	assert_int_equal(e.sys_errno, EPIPE);
	/* What has gone out is not known, so nothing that comes later would be in its place. */
	put(io, 1000, 1, 1);
	expect_failure(vd_sink_end(io, &e), VD_EPOISONED, &e, "earlier write");
	vd_io_abort(io);
	close(ends[1]);
}

static void who_waits_for_a_sleeping_reader_can_be_stopped(void **state)
{
	atomic_bool stop = true;
	uint8_t *much = calloc(4, MIB);
	struct vd_error e;
	struct vd_io *io;
	int ends[2];

	(void)state;
	assert_non_null(much);
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	io = new_sink(ends[1]);
	vd_sink_obey(io, &stop);
	expect_failure(vd_io_pwrite(io, much, 4 * MIB, 0, &e), VD_ECANCELLED, &e, "waited for the reader");
	/* The flag that makes this possible is not set for those who share the pipe. */
	assert_false(fcntl(ends[1], F_GETFL) & O_NONBLOCK);
	vd_io_abort(io);
	close(ends[0]);
	close(ends[1]);
	free(much);
}

static void what_cannot_be_written_is_no_sink(void **state)
{
	struct vd_io *io = NULL;
	struct vd_error e;
	int ends[2];

	(void)state;
	expect_failure(vd_sink_new(-1, "the pipe", &io, &e), VD_EIO, &e, "the pipe");
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	expect_failure(vd_sink_new(ends[0], "the pipe", &io, &e), VD_EREADONLY, &e, "reading only");
	close(ends[0]);
	close(ends[1]);
	assert_null(io);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_left_out_are_zeros),
		cmocka_unit_test(what_waits_can_be_changed_and_what_went_out_cannot),
		cmocka_unit_test(without_its_end_nothing_more_goes_out),
		cmocka_unit_test(a_reader_that_goes_is_told_of),
		cmocka_unit_test(who_waits_for_a_sleeping_reader_can_be_stopped),
		cmocka_unit_test(what_cannot_be_written_is_no_sink),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
