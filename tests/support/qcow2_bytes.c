/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opens the file for each access and closes it again, so that an image may be opened in between. */
#include "tests/support/qcow2_bytes.h"

#include "tests/support/qcow2_check.h"

static struct vd_io *open_file(const char *name, unsigned flags)
{
	struct vd_io *io = NULL;
	struct vd_error e;

	expect_ok(disks.mem->open(disks.mem, name, flags, &io, &e), &e);
	return io;
}

void bytes_read(const char *name, uint64_t off, void *buf, size_t len)
{
	struct vd_io *io = open_file(name, VD_IO_FORCE_SHARE);
	struct vd_error e;

	expect_ok(vd_io_pread(io, buf, len, off, &e), &e);
	vd_io_abort(io);
}

void bytes_write(const char *name, uint64_t off, const void *buf, size_t len)
{
	struct vd_io *io = open_file(name, VD_IO_WRITE);
	struct vd_error e;

	expect_ok(vd_io_pwrite(io, buf, len, off, &e), &e);
	vd_io_abort(io);
}

uint64_t bytes_size(const char *name)
{
	struct vd_io *io = open_file(name, VD_IO_FORCE_SHARE);
	uint64_t size = 0;
	struct vd_error e;

	expect_ok(vd_io_size(io, &size, &e), &e);
	vd_io_abort(io);
	return size;
}

void bytes_truncate(const char *name, uint64_t size)
{
	struct vd_io *io = open_file(name, VD_IO_WRITE);
	struct vd_error e;

	expect_ok(vd_io_truncate(io, size, &e), &e);
	vd_io_abort(io);
}

uint64_t bytes_get(const char *name, uint64_t off, unsigned n_bytes)
{
	uint8_t raw[8] = { 0 };

	bytes_read(name, off, raw + 8 - n_bytes, n_bytes);
	return vd_get_be64(raw);
}

void bytes_put(const char *name, uint64_t off, unsigned n_bytes, uint64_t value)
{
	uint8_t raw[8];

	vd_put_be64(raw, value);
	bytes_write(name, off, raw + 8 - n_bytes, n_bytes);
}

uint64_t bytes_l1(const char *name)
{
	return bytes_get(name, 40, 8);
}

uint64_t bytes_l2_entry(const char *name, uint64_t guest_off)
{
	bool is_v3 = bytes_get(name, 4, 4) == 3, is_extended = is_v3 && bytes_get(name, 72, 8) & 16;
	uint64_t cluster = UINT64_C(1) << bytes_get(name, 20, 4), entry = is_extended ? 16 : 8;
	uint64_t n = cluster / entry, index = guest_off / cluster;
	uint64_t l2_off = bytes_get(name, bytes_l1(name) + index / n * 8, 8) & UINT64_C(0x00fffffffffffe00);

	assert_int_not_equal(l2_off, 0);
	return l2_off + index % n * entry;
}

uint64_t bytes_refcount(const char *name, uint64_t host_off)
{
	unsigned order = bytes_get(name, 4, 4) == 3 ? bytes_get(name, 96, 4) : 4, bits = 1u << order;
	uint64_t cluster = UINT64_C(1) << bytes_get(name, 20, 4), n = cluster * 8 / bits, index = host_off / cluster;
	uint64_t block = bytes_get(name, bytes_get(name, 48, 8) + index / n * 8, 8);

	if (!block)
		return 0;
	if (bits >= 8)
		return bytes_get(name, block + index % n * (bits / 8), bits / 8);
	return bytes_get(name, block + index % n * bits / 8, 1) >> index % n * bits % 8 & ((1u << bits) - 1);
}

void expect_sound_at(const char *name, unsigned n_leaks, const char *file, int line)
{
	struct qcow2_verdict v = qcow2_check(disks.mem, name);

	if (!v.n_errors && v.n_leaks == n_leaks)
		return;
	print_error("%s: %u errors, %u leaks (wanted %u): %s\n", name, v.n_errors, v.n_leaks, n_leaks, v.first);
	_fail(file, line);
}
