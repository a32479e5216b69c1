/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A stream whose ends are kept: what reads back, and what is told of the rest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "libvdisk/io/capture.h"

#define MIB ((uint64_t)1 << 20)
#define HEAD VD_CAPTURE_HEAD

/* Byte `at` of every stream here. */
static uint8_t byte_at(uint64_t at)
{
	return (uint8_t)(at * 7 + at / 251 + at / 65521);
}

/* A stream of `size` bytes, in pieces of up to `piece`. */
static struct vd_capture *stream_of(uint64_t size, size_t piece)
{
	uint8_t *buf = malloc(piece);
	struct vd_capture *c = NULL;

	assert_non_null(buf);
	assert_int_equal(vd_capture_new(&c, NULL), 0);
	for (uint64_t at = 0, n; at < size; at += n) {
		n = size - at < piece ? size - at : piece;
		for (uint64_t i = 0; i < n; i++)
			buf[i] = byte_at(at + i);
		assert_int_equal(vd_capture_add(c, buf, n, NULL), 0);
	}
	free(buf);
	return c;
}

static void expect_bytes(struct vd_io *io, uint64_t off, size_t len, uint64_t size)
{
	uint8_t *buf = malloc(len);

	assert_non_null(buf);
	assert_int_equal(vd_io_pread(io, buf, len, off, NULL), 0);
	for (size_t i = 0; i < len; i++)
		assert_int_equal(buf[i], off + i < size ? byte_at(off + i) : 0);
	free(buf);
}

static struct vd_io *open_stream(struct vd_capture *c)
{
	struct vd_host *h = vd_capture_host(c);
	struct vd_io *io = NULL;

	assert_int_equal(h->open(h, "s", 0, &io, NULL), 0);
	return io;
}

static void both_ends_read_back(void **state)
{
	static const uint64_t sizes[] = { 0, 1, 511, MIB, HEAD - 1, HEAD, HEAD + 1, HEAD + MIB, HEAD + MIB + 77, HEAD + 13 * MIB + 4097 };
	static const size_t pieces[] = { 4096, 65537, 3 * MIB };

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint64_t size = sizes[i], head = size < VD_CAPTURE_HEAD ? size : VD_CAPTURE_HEAD;
		uint64_t tail = size < VD_CAPTURE_TAIL ? 0 : size - VD_CAPTURE_TAIL;
		struct vd_capture *c = stream_of(size, pieces[i % 3]);
		struct vd_io *io = open_stream(c);

		expect_bytes(io, 0, head + 1 < size ? head : head + 1, size);
		expect_bytes(io, tail, size - tail + 100, size);
		vd_io_abort(io);
		vd_capture_free(c);
	}
}

static void what_went_by_is_told(void **state)
{
	struct vd_capture *c = stream_of(HEAD + 4 * MIB, MIB);
	struct vd_io *io = open_stream(c);
	uint8_t byte;

	(void)state;
	assert_int_equal(vd_io_pread(io, &byte, 1, HEAD, NULL), VD_EAGAIN);
	assert_int_equal(vd_io_pread(io, &byte, 1, HEAD + 3 * MIB - 1, NULL), VD_EAGAIN);
	assert_int_equal(vd_io_pread(io, &byte, 1, HEAD + 3 * MIB, NULL), 0);
	vd_io_abort(io);
	vd_capture_free(c);
}

static void nothing_is_written(void **state)
{
	struct vd_capture *c = stream_of(10, 10);
	struct vd_host *h = vd_capture_host(c);
	struct vd_io *io = NULL;

	(void)state;
	assert_int_equal(h->open(h, "s", VD_IO_WRITE, &io, NULL), VD_EREADONLY);
	vd_capture_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(both_ends_read_back),
		cmocka_unit_test(what_went_by_is_told),
		cmocka_unit_test(nothing_is_written),
	};

	return cmocka_run_group_tests_name("capture", tests, NULL, NULL);
}
