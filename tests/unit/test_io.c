/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files and devices of the operating system behind struct vd_io. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "libvdisk/base/bytes.h"
#include "libvdisk/io/io.h"
#include "tests/support/tempdir.h"

#define MIB (1024 * 1024)

static struct vd_io *open_io(const char *name, unsigned flags)
{
	struct vd_host *os = vd_host_os();
	struct vd_error e = { 0 };
	struct vd_io *io = NULL;

	if (os->open(os, name, flags, &io, &e) < 0)
		fail_msg("%s", e.message);
	return io;
}

static int try_open(const char *name, unsigned flags, struct vd_error *e)
{
	struct vd_host *os = vd_host_os();
	struct vd_io *io;
	int r = os->open(os, name, flags, &io, e);

	if (r >= 0)
		vd_io_abort(io);
	return r;
}

static void write_file(const char *name, const void *bytes, size_t len)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, len), len);
	assert_int_equal(close(fd), 0);
}

/* How the kernel has the file open: looked up by its inode, for the interface does not give the descriptor away. */
static unsigned kernel_flags(const struct vd_io *io)
{
	char path[64], key[32], line[64];
	unsigned flags = 0;
	struct stat st;
	FILE *f;

	for (int fd = 3; fd < 64; fd++) {
		if (fstat(fd, &st) < 0 || st.st_ino != io->ino)
			continue;
		snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
		f = fopen(path, "re");
		assert_non_null(f);
		while (fgets(line, sizeof(line), f))
			if (sscanf(line, "%30s %o", key, &flags) == 2 && !strcmp(key, "flags:"))
				break;
		fclose(f);
	}
	return flags;
}

static void a_new_file_is_private_and_gives_back_its_bytes(void **state)
{
	struct vd_io *io = open_io("new", VD_IO_CREATE);
	struct stat st;
	char buf[8];

	(void)state;
	assert_int_equal(vd_io_pwrite(io, "hello", 5, 1000, NULL), 0);
	memset(buf, 'x', sizeof(buf));
	assert_int_equal(vd_io_pread(io, buf, sizeof(buf), 1000, NULL), 0);
	assert_memory_equal(buf, "hello\0\0\0", 8);
	assert_int_equal(vd_io_flush(io, NULL), 0);
	assert_int_equal(vd_io_close(io, NULL), 0);
	assert_int_equal(stat("new", &st), 0);
	assert_int_equal(st.st_size, 1005);
	assert_int_equal(st.st_mode & 07777, 0600);
}

static void reading_past_the_end_gives_zeros(void **state)
{
	char buf[100], zeros[100] = { 0 };
	struct vd_io *io;

	(void)state;
	write_file("f", "abc", 3);
	io = open_io("f", 0);
	memset(buf, 'x', sizeof(buf));
	assert_int_equal(vd_io_pread(io, buf, sizeof(buf), 2, NULL), 0);
	assert_int_equal(buf[0], 'c');
	assert_memory_equal(buf + 1, zeros, sizeof(buf) - 1);
	assert_int_equal(vd_io_pread(io, buf, sizeof(buf), (uint64_t)1 << 62, NULL), 0);
	assert_memory_equal(buf, zeros, sizeof(buf));
	vd_io_abort(io);
}

static void exact_reads_refuse_what_is_not_there(void **state)
{
	struct vd_error e = { 0 };
	struct vd_io *io;
	char buf[4];

	(void)state;
	write_file("f", "abcd", 4);
	io = open_io("f", 0);
	assert_int_equal(vd_io_pread_exact(io, buf, 4, 0, &e), 0);
	assert_int_equal(vd_io_pread_exact(io, buf, 4, 1, &e), VD_ECORRUPT);
	assert_string_equal(e.message, "f: 4 bytes reach past the end of the file (4 bytes), at offset 1");
	assert_int_equal(vd_io_pread_exact(io, buf, 4, UINT64_MAX - 1, &e), VD_ECORRUPT);
	assert_int_equal(vd_io_pread(io, buf, 4, UINT64_MAX - 1, &e), VD_ERANGE);
	vd_io_abort(io);
}

static void plain_opens_are_read_only_for_the_kernel_too(void **state)
{
	struct vd_error e = { 0 };
	struct vd_io *io;

	(void)state;
	write_file("f", "abc", 3);
	io = open_io("f", 0);
	assert_int_equal(kernel_flags(io) & O_ACCMODE, O_RDONLY);
	assert_int_equal(kernel_flags(io) & O_CLOEXEC, O_CLOEXEC);
	assert_int_equal(vd_io_pwrite(io, "x", 1, 0, &e), VD_EREADONLY);
	assert_string_equal(e.message, "f: opened for reading only");
	assert_int_equal(vd_io_truncate(io, 0, &e), VD_EREADONLY);
	assert_int_equal(vd_io_punch(io, 0, 1, &e), VD_EREADONLY);
	vd_io_abort(io);
	io = open_io("f", VD_IO_WRITE);
	assert_int_equal(kernel_flags(io) & O_ACCMODE, O_RDWR);
	vd_io_abort(io);
}

static void holes_and_data_are_told_apart(void **state)
{
	static uint8_t block[MIB];
	uint64_t len, bytes;
	bool is_data;
	struct vd_io *io = open_io("sparse", VD_IO_CREATE);

	(void)state;
	memset(block, 7, sizeof(block));
	assert_int_equal(vd_io_truncate(io, 8 * MIB, NULL), 0);
	assert_int_equal(vd_io_pwrite(io, block, sizeof(block), 4 * MIB, NULL), 0);
	assert_int_equal(vd_io_extent(io, 0, &is_data, &len, NULL), 0);
	if (is_data && len == 8 * MIB)
		skip(); /* this file system does not report holes */
	assert_false(is_data);
	assert_int_equal(len, 4 * MIB);
	assert_int_equal(vd_io_extent(io, 4 * MIB + 5, &is_data, &len, NULL), 0);
	assert_true(is_data);
	assert_int_equal(len, MIB - 5);
	assert_int_equal(vd_io_extent(io, 5 * MIB, &is_data, &len, NULL), 0);
	assert_false(is_data);
	assert_int_equal(len, 3 * MIB);
	assert_int_equal(vd_io_extent(io, 8 * MIB, &is_data, &len, NULL), VD_ERANGE);
	assert_int_equal(vd_io_allocated(io, &bytes, NULL), 0);
	assert_in_range(bytes, MIB, 2 * MIB);
	vd_io_abort(io);
}

static void punching_frees_blocks_and_never_grows(void **state)
{
	static uint8_t block[MIB];
	uint64_t before, after, size;
	struct vd_io *io = open_io("f", VD_IO_CREATE);
	int r;

	(void)state;
	memset(block, 7, sizeof(block));
	assert_int_equal(vd_io_pwrite(io, block, sizeof(block), 0, NULL), 0);
	assert_int_equal(vd_io_flush(io, NULL), 0);
	assert_int_equal(vd_io_allocated(io, &before, NULL), 0);
	r = vd_io_punch(io, MIB / 2, 10 * MIB, NULL);
	if (r == VD_EUNSUPPORTED)
		skip();
	assert_int_equal(r, 0);
	assert_int_equal(vd_io_punch(io, 20 * MIB, MIB, NULL), 0);
	assert_int_equal(vd_io_size(io, &size, NULL), 0);
	assert_int_equal(size, MIB);
	assert_int_equal(vd_io_allocated(io, &after, NULL), 0);
	assert_true(after <= before - MIB / 2);
	assert_int_equal(vd_io_pread(io, block, sizeof(block), 0, NULL), 0);
	assert_int_equal(block[MIB / 2 - 1], 7);
	assert_true(vd_is_zero(block + MIB / 2, MIB / 2));
	vd_io_abort(io);
}

static void what_is_no_disk_is_refused_by_its_kind(void **state)
{
	static const struct { const char *path, *want; } cases[] = {
		{ "fifo", "fifo: is a pipe, not a disk image" },
		{ "dir", "dir: is a folder, not a disk image" },
		{ "sock", "sock: is a socket, not a disk image" },
		{ "/dev/null", "/dev/null: is a character device, not a disk image" },
	};
	struct sockaddr_un addr = { .sun_family = AF_UNIX, .sun_path = "sock" };
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct vd_error e = { 0 };

	(void)state;
	assert_int_equal(mkfifo("fifo", 0600), 0);
	assert_int_equal(mkdir("dir", 0700), 0);
	assert_int_equal(bind(s, (struct sockaddr *)&addr, sizeof(addr)), 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		for (unsigned flags = 0; flags <= VD_IO_WRITE; flags++) {
			assert_int_equal(try_open(cases[i].path, flags, &e), VD_EARG);
			assert_string_equal(e.message, cases[i].want);
			assert_string_not_equal(e.hint, "");
		}
	close(s);
}

static void failures_to_open_name_path_and_reason(void **state)
{
	struct vd_error e = { 0 };

	(void)state;
	assert_int_equal(try_open("no/such", 0, &e), VD_ENOENT);
	assert_string_equal(e.message, "no/such: opening failed: No such file or directory");
	assert_int_equal(e.sys_errno, ENOENT);
	assert_string_equal(e.hint, "check the spelling, and that the folder exists");
	write_file("f", "abc", 3);
	assert_int_equal(try_open("f", VD_IO_CREATE, &e), VD_EEXIST);
	assert_int_equal(try_open("f/x", 0, &e), VD_ENOENT);
}

static void links_are_followed_unless_refused(void **state)
{
	struct vd_error e = { 0 };

	(void)state;
	write_file("f", "abc", 3);
	assert_int_equal(symlink("f", "link"), 0);
	assert_int_equal(symlink("round", "round"), 0);
	assert_int_equal(try_open("link", 0, &e), 0);
	assert_int_equal(try_open("link", VD_IO_NO_SYMLINK, &e), VD_EARG);
	assert_string_equal(e.message, "link: is a symbolic link, not a disk image");
	assert_true(try_open("round", 0, &e) < 0);
}

static void a_full_file_system_is_no_space(void **state)
{
	struct rlimit old, small;
	struct vd_error e = { 0 };
	struct vd_io *io = open_io("f", VD_IO_CREATE);
	static uint8_t block[2 * MIB];

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small = (struct rlimit){ MIB, old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	/* The kernel writes the first half, then refuses: the call as a whole must fail, and say where. */
	assert_int_equal(vd_io_pwrite(io, block, sizeof(block), 0, &e), VD_ENOSPC);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_true(e.has_offset);
	assert_int_equal(e.offset, MIB);
	assert_non_null(strstr(e.message, "f: writing at offset 1048576 failed"));
	assert_string_equal(e.hint, "free some space there, or write to another place");
	vd_io_abort(io);
}

static void rename_without_replace_keeps_the_old_file(void **state)
{
	struct vd_host *os = vd_host_os();
	struct vd_error e = { 0 };
	struct stat st;

	(void)state;
	write_file("a", "abc", 3);
	write_file("b", "b", 1);
	assert_int_equal(os->rename(os, "a", "b", false, &e), VD_EEXIST);
	assert_int_equal(stat("b", &st), 0);
	assert_int_equal(st.st_size, 1);
	assert_int_equal(os->rename(os, "a", "b", true, &e), 0);
	assert_int_equal(stat("b", &st), 0);
	assert_int_equal(st.st_size, 3);
	assert_false(os->exists(os, "a"));
	assert_int_equal(os->rename(os, "b", "c", false, &e), 0);
	assert_int_equal(os->unlink(os, "c", &e), 0);
	assert_int_equal(os->unlink(os, "c", &e), VD_ENOENT);
}

/*
 * A loop device on `file`; its name in dev, or -1 where there are none. The kernel takes it away with the last
 * descriptor, also when a test fails. Somebody else may have taken the free one in the meantime: then the next.
 */
static int make_loop(const char *file, char dev[32])
{
	struct loop_config config = { .info.lo_flags = LO_FLAGS_AUTOCLEAR };
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), loop = -1;

	config.fd = (uint32_t)open(file, O_RDWR | O_CLOEXEC);
	for (int i = 0; control >= 0 && loop < 0 && i < 20; i++) {
		snprintf(dev, 32, "/dev/loop%d", ioctl(control, LOOP_CTL_GET_FREE));
		loop = open(dev, O_RDWR | O_CLOEXEC);
		if (loop >= 0 && ioctl(loop, LOOP_CONFIGURE, &config) < 0) {
			close(loop);
			loop = -1;
		}
	}
	close((int)config.fd);
	close(control);
	return loop;
}

struct device {
	char name[32];
	int loop;
};

/* A loop device of 1 MiB, or false where there are none. */
static bool setup_device(struct device *d)
{
	write_file("disk", "", 0);
	assert_int_equal(truncate("disk", MIB), 0);
	d->loop = make_loop("disk", d->name);
	return d->loop >= 0;
}

static void devices_have_a_fixed_size(void **state)
{
	struct vd_error e = { 0 };
	uint64_t size = 0, len;
	struct device d;
	struct vd_io *io;
	bool is_data;

	(void)state;
	if (!setup_device(&d))
		skip();
	io = open_io(d.name, VD_IO_WRITE);
	assert_true(io->is_device);
	assert_int_equal(vd_io_size(io, &size, &e), 0);
	assert_int_equal(size, MIB);
	assert_int_equal(vd_io_allocated(io, &size, &e), 0);
	assert_int_equal(size, MIB);
	assert_int_equal(vd_io_truncate(io, MIB, &e), 0);
	assert_int_equal(vd_io_truncate(io, MIB + 1, &e), VD_ENOSPC);
	assert_int_equal(vd_io_truncate(io, MIB / 2, &e), VD_EUNSUPPORTED);
	assert_int_equal(vd_io_extent(io, 5, &is_data, &len, &e), 0);
	assert_in_range(len, 1, MIB - 5);
	assert_int_equal(vd_io_close(io, &e), 0);
	close(d.loop);
}

static void devices_are_written_to_their_end_and_zeroed(void **state)
{
	uint8_t buf[8192];
	struct vd_error e = { 0 };
	struct device d;
	struct vd_io *io;

	(void)state;
	if (!setup_device(&d))
		skip();
	io = open_io(d.name, VD_IO_WRITE);
	memset(buf, 9, sizeof(buf));
	assert_int_equal(vd_io_pwrite(io, buf, sizeof(buf), 0, &e), 0);
	assert_int_equal(vd_io_pwrite(io, buf, sizeof(buf), MIB - 10, &e), VD_ENOSPC);
	assert_int_equal(vd_io_punch(io, 4096, 4096, &e), 0);
	assert_int_equal(vd_io_punch(io, MIB - 4096, 2 * 4096, &e), 0);
	assert_int_equal(vd_io_punch(io, 1, 5, &e), VD_EUNSUPPORTED);
	assert_int_equal(vd_io_pread(io, buf, sizeof(buf), 0, &e), 0);
	assert_int_equal(buf[4095], 9);
	assert_true(vd_is_zero(buf + 4096, 4096));
	assert_int_equal(try_open(d.name, VD_IO_WRITE, &e), VD_EBUSY);
	assert_int_equal(vd_io_flush(io, &e), 0);
	assert_int_equal(vd_io_close(io, &e), 0);
	close(d.loop);
}

int main(void)
{
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, vd_tempdir_enter, vd_tempdir_leave)
	const struct CMUnitTest tests[] = {
		IN_FOLDER(a_new_file_is_private_and_gives_back_its_bytes),
		IN_FOLDER(reading_past_the_end_gives_zeros),
		IN_FOLDER(exact_reads_refuse_what_is_not_there),
		IN_FOLDER(plain_opens_are_read_only_for_the_kernel_too),
		IN_FOLDER(holes_and_data_are_told_apart),
		IN_FOLDER(punching_frees_blocks_and_never_grows),
		IN_FOLDER(what_is_no_disk_is_refused_by_its_kind),
		IN_FOLDER(failures_to_open_name_path_and_reason),
		IN_FOLDER(links_are_followed_unless_refused),
		IN_FOLDER(a_full_file_system_is_no_space),
		IN_FOLDER(rename_without_replace_keeps_the_old_file),
		IN_FOLDER(devices_have_a_fixed_size),
		IN_FOLDER(devices_are_written_to_their_end_and_zeroed),
	};

	return cmocka_run_group_tests_name("io", tests, NULL, NULL);
}
