/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Makes, opens, fills and checks images in memory. What holds of them is for the tests to claim. */
#include "tests/support/disks.h"

#include <stdio.h>

#include "libvdisk/base/cleanup.h"

struct disks disks;

int disks_start(void **state)
{
	(void)state;
	if (vd_mem_host_new(&disks.mem, NULL) < 0 || vd_fault_new(disks.mem, &disks.fault, NULL) < 0 ||
	    vd_record_new(vd_fault_host(disks.fault), &disks.record, NULL) < 0)
		return -1;
	disks.host = vd_record_host(disks.record);
	return 0;
}

int disks_stop(void **state)
{
	(void)state;
	vd_record_free(disks.record);
	vd_fault_free(disks.fault);
	vd_mem_host_free(disks.mem);
	return 0;
}

int disks_gate(void *ctx, enum vd_reference_kind kind, const char *image, const char *name, const char *format,
	       char *path, size_t path_len, struct vd_error *e)
{
	(void)ctx;
	(void)kind;
	(void)image;
	(void)format;
	if ((size_t)snprintf(path, path_len, "%s", name) >= path_len)
		return vd_fail(e, VD_EARG, "the name is too long");
	return 0;
}

void expect_failure_at(int result, int code, const struct vd_error *e, const char *words, const char *file, int line)
{
	if (result == code && e->code == code && strstr(e->message, words))
		return;
	print_error("wanted %s: ...%s..., got %s: %s\n", vd_code_name(code), words,
		    result ? vd_code_name(result) : "success", result ? e->message : "");
	_fail(file, line);
}

void expect_ok_at(int result, const struct vd_error *e, const char *file, int line)
{
	if (result == 0)
		return;
	print_error("%s: %s\n", vd_code_name(result), e->message);
	_fail(file, line);
}

struct vd_create_opts disk_create_opts(const struct vd_format *format, uint64_t size)
{
	return (struct vd_create_opts){
		.struct_size = sizeof(struct vd_create_opts), .format = format->name, .size = size, .gate = disks_gate,
	};
}

struct vd_open_opts disk_open_opts(const struct vd_format *format, unsigned flags)
{
	return (struct vd_open_opts){
		.struct_size = sizeof(struct vd_open_opts), .format = format->name, .flags = flags, .gate = disks_gate,
	};
}

struct vd_image *disk_create(const struct vd_format *format, const char *name, const struct vd_create_opts *opts)
{
	struct vd_image *img = NULL;
	struct vd_error e;

	expect_ok(vd_image_create_on(disks.host, format, name, opts, &img, &e), &e);
	return img;
}

void disk_make(const struct vd_format *format, const char *name, uint64_t size, const char *backing)
{
	struct vd_create_opts opts = disk_create_opts(format, size);
	struct vd_image *img;

	opts.backing_file = backing;
	opts.backing_format = backing ? format->name : NULL;
	img = disk_create(format, name, &opts);
	disk_commit(img);
	disk_close(img);
}

void disk_put_raw(const char *name, uint64_t size, uint8_t value)
{
	vd_auto_free uint8_t *bytes = malloc(size + 1);
	struct vd_error e;

	memset(bytes, value, size);
	expect_ok(vd_mem_put(disks.mem, name, bytes, size, &e), &e);
}

struct vd_image *disk_open(const struct vd_format *format, const char *name, unsigned flags)
{
	struct vd_open_opts opts = disk_open_opts(format, flags);
	struct vd_image *img = NULL;
	struct vd_error e;

	expect_ok(vd_image_open_on(disks.host, format, name, &opts, &img, &e), &e);
	return img;
}

void disk_commit(struct vd_image *img)
{
	struct vd_error e;

	expect_ok(vd_image_commit(img, &e), &e);
}

void disk_close(struct vd_image *img)
{
	struct vd_error e;

	expect_ok(vd_image_close(img, &e), &e);
}

void disk_write(struct vd_image *img, uint64_t off, uint64_t len, uint8_t value)
{
	vd_auto_free uint8_t *bytes = malloc(len + 1);
	struct vd_error e;

	memset(bytes, value, len);
	expect_ok(vd_image_pwrite(img, bytes, len, off, &e), &e);
}

void disk_zero(struct vd_image *img, uint64_t off, uint64_t len)
{
	struct vd_error e;

	expect_ok(vd_image_write_zeroes(img, off, len, 0, &e), &e);
}

void disk_flush(struct vd_image *img)
{
	struct vd_error e;

	expect_ok(vd_image_flush(img, &e), &e);
}

void disk_expect(struct vd_image *img, uint64_t off, uint64_t len, uint8_t value)
{
	vd_auto_free uint8_t *bytes = malloc(len + 1);
	struct vd_error e;

	expect_ok(vd_image_pread(img, bytes, len, off, &e), &e);
	for (uint64_t i = 0; i < len; i++)
		if (bytes[i] != value)
			fail_msg("byte %llu is 0x%02x, want 0x%02x", (unsigned long long)(off + i), bytes[i], value);
}

size_t disks_count(unsigned kinds, uint64_t tick)
{
	return vd_record_count(disks.record, kinds, tick);
}

struct vd_host *disks_clone(void)
{
	struct vd_host *mem = NULL;
	const char *name;

	assert_int_equal(vd_mem_host_new(&mem, NULL), 0);
	for (size_t i = 0; (name = vd_mem_name(disks.mem, i)); i++) {
		vd_auto_free uint8_t *bytes = NULL;
		struct vd_io *io;
		uint64_t size;

		assert_int_equal(disks.mem->open(disks.mem, name, 0, &io, NULL), 0);
		assert_int_equal(vd_io_size(io, &size, NULL), 0);
		bytes = malloc(size + 1);
		assert_int_equal(vd_io_pread(io, bytes, size, 0, NULL), 0);
		vd_io_abort(io);
		assert_int_equal(vd_mem_put(mem, name, bytes, size, NULL), 0);
	}
	return mem;
}
