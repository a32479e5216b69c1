/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The host in memory keeps the rules of a host: sparse bytes, names, locks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/io/mem.h"

#define PIECE 65536

static int make_host(void **state)
{
	struct vd_host *h;

	if (vd_mem_host_new(&h, NULL) < 0)
		return -1;
	*state = h;
	return 0;
}

static int free_host(void **state)
{
	vd_mem_host_free(*state);
	return 0;
}

static struct vd_io *open_io(struct vd_host *h, const char *name, unsigned flags)
{
	struct vd_error e = { 0 };
	struct vd_io *io = NULL;
	int r = h->open(h, name, flags, &io, &e);

	if (r < 0)
		fail_msg("%s", e.message);
	return io;
}

static void assert_data(struct vd_io *io, uint64_t off, bool want_data, uint64_t want_len)
{
	uint64_t len;
	bool is_data;

	assert_int_equal(vd_io_extent(io, off, &is_data, &len, NULL), 0);
	assert_int_equal(is_data, want_data);
	assert_int_equal(len, want_len);
}

static void bytes_come_back_across_pieces(void **state)
{
	struct vd_io *io = open_io(*state, "a", VD_IO_CREATE);
	uint8_t in[3 * PIECE], out[3 * PIECE + 100];
	uint64_t size;

	for (size_t i = 0; i < sizeof(in); i++)
		in[i] = (uint8_t)(i * 7 + i / 256 + 1);
	assert_int_equal(vd_io_pwrite(io, in, sizeof(in), PIECE - 5, NULL), 0);
	assert_int_equal(vd_io_pwrite(io, in, 1, 0, NULL), 0);
	assert_int_equal(vd_io_size(io, &size, NULL), 0);
	assert_int_equal(size, 4 * PIECE - 5);
	memset(out, 0xee, sizeof(out));
	assert_int_equal(vd_io_pread(io, out, sizeof(out), PIECE - 5, NULL), 0);
	assert_memory_equal(in, out, sizeof(in));
	for (size_t i = sizeof(in); i < sizeof(out); i++)
		assert_int_equal(out[i], 0);
	assert_int_equal(vd_io_close(io, NULL), 0);
}

static void far_writes_cost_one_piece(void **state)
{
	struct vd_io *io = open_io(*state, "a", VD_IO_CREATE);
	uint64_t far = (uint64_t)64 << 40, bytes;
	char c = 0;

	assert_int_equal(vd_io_truncate(io, far + 1, NULL), 0);
	assert_int_equal(vd_io_pwrite(io, "x", 1, far, NULL), 0);
	assert_int_equal(vd_io_allocated(io, &bytes, NULL), 0);
	assert_int_equal(bytes, PIECE);
	assert_int_equal(vd_io_pread(io, &c, 1, far, NULL), 0);
	assert_int_equal(c, 'x');
	assert_data(io, 0, false, far);
	assert_data(io, far, true, 1);
	vd_io_abort(io);
}

static void shrinking_and_growing_shows_zeros(void **state)
{
	struct vd_io *io = open_io(*state, "a", VD_IO_CREATE);
	char buf[300], want[300] = { 0 };

	memset(buf, 'y', sizeof(buf));
	memset(want, 'y', 100);
	assert_int_equal(vd_io_pwrite(io, buf, sizeof(buf), 0, NULL), 0);
	assert_int_equal(vd_io_truncate(io, 100, NULL), 0);
	assert_int_equal(vd_io_truncate(io, 300, NULL), 0);
	assert_int_equal(vd_io_pread(io, buf, sizeof(buf), 0, NULL), 0);
	assert_memory_equal(buf, want, sizeof(buf));
	vd_io_abort(io);
}

/* Each hole against a plain array that had the same done to it. */
static void punched_ranges_read_as_zeros(void **state)
{
	static const struct { uint64_t off, len; } holes[] = {
		{ 0, 1 }, { 10, 20 }, { PIECE - 1, 2 }, { PIECE, PIECE }, { 100, 3 * PIECE }, { 4 * PIECE - 7, 1000 },
	};
	static uint8_t model[4 * PIECE], got[4 * PIECE];

	for (size_t i = 0; i < sizeof(holes) / sizeof(holes[0]); i++) {
		struct vd_io *io = open_io(*state, "h", i ? VD_IO_WRITE : VD_IO_CREATE);
		uint64_t end = holes[i].off + holes[i].len, size;

		memset(model, 0xab, sizeof(model));
		assert_int_equal(vd_io_pwrite(io, model, sizeof(model), 0, NULL), 0);
		end = end < sizeof(model) ? end : sizeof(model);
		memset(model + holes[i].off, 0, end - holes[i].off);
		assert_int_equal(vd_io_punch(io, holes[i].off, holes[i].len, NULL), 0);
		assert_int_equal(vd_io_pread(io, got, sizeof(got), 0, NULL), 0);
		assert_memory_equal(got, model, sizeof(model));
		assert_int_equal(vd_io_size(io, &size, NULL), 0);
		assert_int_equal(size, sizeof(model));
		vd_io_abort(io);
	}
}

static void punched_pieces_are_given_back(void **state)
{
	struct vd_io *io = open_io(*state, "a", VD_IO_CREATE);
	static uint8_t ones[4 * PIECE];
	uint64_t bytes;

	memset(ones, 1, sizeof(ones));
	assert_int_equal(vd_io_pwrite(io, ones, sizeof(ones), 0, NULL), 0);
	assert_int_equal(vd_io_punch(io, PIECE - 1, 2 * PIECE + 2, NULL), 0);
	assert_int_equal(vd_io_allocated(io, &bytes, NULL), 0);
	assert_int_equal(bytes, 2 * PIECE);
	assert_data(io, PIECE, false, 2 * PIECE);
	assert_data(io, 10, true, PIECE - 10);
	vd_io_abort(io);
}

static void writer_excludes_all_but_forced_readers(void **state)
{
	struct vd_host *h = *state;
	struct vd_io *writer = open_io(h, "a", VD_IO_CREATE), *other;
	struct vd_error e = { 0 };

	assert_int_equal(h->open(h, "a", VD_IO_WRITE, &other, &e), VD_EBUSY);
	assert_int_equal(h->open(h, "a", 0, &other, &e), VD_EBUSY);
	assert_string_equal(e.message, "a: in use: this process itself has it open");
	other = open_io(h, "a", VD_IO_FORCE_SHARE);
	vd_io_abort(writer);
	writer = open_io(h, "a", VD_IO_WRITE);
	vd_io_abort(other);
	vd_io_abort(writer);
}

static void readers_share_and_exclude_a_writer(void **state)
{
	struct vd_host *h = *state;
	struct vd_io *a, *b, *writer;

	vd_io_abort(open_io(h, "a", VD_IO_CREATE));
	a = open_io(h, "a", 0);
	b = open_io(h, "a", 0);
	assert_int_equal(h->open(h, "a", VD_IO_WRITE, &writer, NULL), VD_EBUSY);
	vd_io_abort(a);
	vd_io_abort(b);
	vd_io_abort(open_io(h, "a", VD_IO_WRITE));
}

static void names_follow_rename_and_unlink(void **state)
{
	struct vd_host *h = *state;
	struct vd_io *io;
	char c = 0;

	assert_int_equal(vd_mem_put(h, "a", "1", 1, NULL), 0);
	assert_int_equal(vd_mem_put(h, "b", "2", 1, NULL), 0);
	assert_int_equal(h->rename(h, "a", "b", false, NULL), VD_EEXIST);
	assert_int_equal(h->rename(h, "x", "y", true, NULL), VD_ENOENT);
	assert_int_equal(h->rename(h, "a", "b", true, NULL), 0);
	assert_false(h->exists(h, "a"));
	assert_string_equal(vd_mem_name(h, 0), "b");
	assert_null(vd_mem_name(h, 1));
	io = open_io(h, "b", 0);
	assert_int_equal(h->unlink(h, "b", NULL), 0);
	assert_int_equal(h->open(h, "b", 0, &io, NULL), VD_ENOENT);
	assert_int_equal(vd_io_pread(io, &c, 1, 0, NULL), 0);
	assert_int_equal(c, '1');
	vd_io_abort(io);
}

static void creating_a_taken_name_fails(void **state)
{
	struct vd_host *h = *state;
	struct vd_io *io;

	vd_io_abort(open_io(h, "a", VD_IO_CREATE));
	assert_int_equal(h->open(h, "a", VD_IO_CREATE, &io, NULL), VD_EEXIST);
}

static void want_of_memory_is_survived(void **state)
{
	struct vd_host *h = *state;
	int r;

	for (long n = 0; ; n++) {
		vd_alloc_fail_after(n);
		r = vd_mem_put(h, "a", "abc", 3, NULL);
		vd_alloc_fail_after(-1);
		if (r == 0)
			break;
		assert_int_equal(r, VD_ENOMEM);
		assert_true(n < 100);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(bytes_come_back_across_pieces, make_host, free_host),
		cmocka_unit_test_setup_teardown(far_writes_cost_one_piece, make_host, free_host),
		cmocka_unit_test_setup_teardown(shrinking_and_growing_shows_zeros, make_host, free_host),
		cmocka_unit_test_setup_teardown(punched_ranges_read_as_zeros, make_host, free_host),
		cmocka_unit_test_setup_teardown(punched_pieces_are_given_back, make_host, free_host),
		cmocka_unit_test_setup_teardown(writer_excludes_all_but_forced_readers, make_host, free_host),
		cmocka_unit_test_setup_teardown(readers_share_and_exclude_a_writer, make_host, free_host),
		cmocka_unit_test_setup_teardown(names_follow_rename_and_unlink, make_host, free_host),
		cmocka_unit_test_setup_teardown(creating_a_taken_name_fails, make_host, free_host),
		cmocka_unit_test_setup_teardown(want_of_memory_is_survived, make_host, free_host),
	};

	return cmocka_run_group_tests_name("mem", tests, NULL, NULL);
}
