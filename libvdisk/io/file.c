/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The operating system's files and block devices as a struct vd_host. Locks are lock.c's; when to flush, and in
 * which order, is the callers' business.
 */
#include "libvdisk/io/io.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/io/lock.h"
#include "libvdisk/io/https.h"
#include "libvdisk/io/nbd.h"
#include "libvdisk/io/path.h"
#include "libvdisk/io/stream.h"

/*
 * New files may hold what was decrypted a moment ago, so nobody else reads them until the owner says so; qemu-img's
 * 0644 would show a plaintext image to every user of the machine.
 */
#define NEW_FILE_MODE 0600

/* A file system that cannot answer RENAME_NOREPLACE says one of these. */
#define IS_UNKNOWN_CALL(err) ((err) == ENOSYS || (err) == EINVAL || (err) == EOPNOTSUPP)

struct file {
	struct vd_io io;
	int fd;
	struct vd_stream stream;
	atomic_int lost;                /* errno of a failure to store that fsync may not hear of any more; 0: none */
};

static struct file *file_of(struct vd_io *io)
{
	return (struct file *)io;
}

/* Moves as much as the kernel takes at once; 0 at the end of the file, or -errno. */
static ssize_t read_some(int fd, void *buf, size_t len, uint64_t off)
{
	ssize_t n;

	do {
		n = pread(fd, buf, len, (off_t)off);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

static ssize_t write_some(int fd, const void *buf, size_t len, uint64_t off)
{
	ssize_t n;

	do {
		n = pwrite(fd, buf, len, (off_t)off);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

static int file_failed_at(struct vd_io *io, int err, uint64_t off, const char *what, struct vd_error *e)
{
	int r = vd_fail_errno(e, err, "%s: %s at offset %llu failed", io->name, what, (unsigned long long)off);

	if (e) {
		e->has_offset = true;
		e->offset = off;
	}
	if (r == VD_ENOSPC)
		return vd_hint(e, r, "free some space there, or write to another place");
	return vd_hint(e, r, "the disk, or the way to it, is failing: see the kernel's log, and keep a copy");
}

static int file_pread(struct vd_io *io, void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	uint8_t *p = buf;

	while (len) {
		ssize_t n = read_some(file_of(io)->fd, p, len, off);

		if (n < 0)
			return file_failed_at(io, (int)-n, off, "reading", e);
		if (!n) {
			memset(p, 0, len);
			return 0;
		}
		p += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static int file_pwrite(struct vd_io *io, const void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	const uint8_t *p = buf;
	int lost = atomic_load(&file_of(io)->lost);

	/* No use in going on. */
	if (lost)
		return file_failed_at(io, lost, off, "writing", e);
	while (len) {
		ssize_t n = write_some(file_of(io)->fd, p, len, off);

		if (n <= 0)
			return file_failed_at(io, n ? (int)-n : ENOSPC, off, "writing", e);
		p += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static int file_descriptor(const struct vd_io *io)
{
	return ((const struct file *)io)->fd;
}

/* A failure shows at the flush. */
static void file_finished(struct vd_io *io, uint64_t off, uint64_t len)
{
	int err = vd_stream_add(&file_of(io)->stream, file_of(io)->fd, off, len);

	if (err)
		atomic_store(&file_of(io)->lost, err);
}

static int file_flush(struct vd_io *io, struct vd_error *e)
{
	int err = atomic_load(&file_of(io)->lost);

	while (!err && fdatasync(file_of(io)->fd) < 0)
		err = errno == EINTR ? 0 : errno;
	if (err)
		return vd_fail_errno(e, err, "%s: flushing to stable storage failed", io->name);
	return 0;
}

static int file_stat(struct vd_io *io, struct stat *st, struct vd_error *e)
{
	if (fstat(file_of(io)->fd, st) < 0)
		return vd_fail_errno(e, errno, "%s: asking for the file's size failed", io->name);
	return 0;
}

static int file_size(struct vd_io *io, uint64_t *size, struct vd_error *e)
{
	struct stat st;
	int r;

	if (io->is_device) {
		if (ioctl(file_of(io)->fd, BLKGETSIZE64, size) < 0)
			return vd_fail_errno(e, errno, "%s: asking for the device's size failed", io->name);
		return 0;
	}
	r = file_stat(io, &st, e);
	if (r >= 0)
		*size = (uint64_t)st.st_size;
	return r;
}

static int device_truncate(struct vd_io *io, uint64_t want, struct vd_error *e)
{
	uint64_t size;
	int r = file_size(io, &size, e);

	if (r < 0 || want == size)
		return r;
	if (want > size)
		return vd_fail(e, VD_ENOSPC, "%s: the device has %llu bytes, %llu are needed", io->name,
			       (unsigned long long)size, (unsigned long long)want);
	return vd_fail(e, VD_EUNSUPPORTED, "%s: a device cannot be made smaller", io->name);
}

static int file_truncate(struct vd_io *io, uint64_t size, struct vd_error *e)
{
	int r;

	if (io->is_device)
		return device_truncate(io, size, e);
	do {
		r = ftruncate(file_of(io)->fd, (off_t)size);
	} while (r < 0 && errno == EINTR);
	if (r < 0)
		return vd_fail_errno(e, errno, "%s: setting the size to %llu bytes failed", io->name,
				     (unsigned long long)size);
	return 0;
}

static int file_punch(struct vd_io *io, uint64_t off, uint64_t len, struct vd_error *e)
{
	int fd = file_of(io)->fd;
	int r = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len);

	/* A device that cannot discard to zeros: the kernel writes them, still without moving them through here. */
	if (r < 0 && errno == EOPNOTSUPP && io->is_device)
		r = fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len);
	if (!r)
		return 0;
	/* EINVAL: not aligned to the device's sectors. */
	if (IS_UNKNOWN_CALL(errno))
		return vd_fail(e, VD_EUNSUPPORTED, "%s: the file system or device cannot make holes here", io->name);
	return file_failed_at(io, errno, off, "making a hole", e);
}

/* Where the hole or data that holds `off` ends; `size` when the host does not know. */
static uint64_t seek_end(int fd, uint64_t off, uint64_t size, int whence)
{
	off_t end = lseek(fd, (off_t)off, whence);

	return end <= (off_t)off ? size : vd_min_u64((uint64_t)end, size);
}

static int file_extent(struct vd_io *io, uint64_t off, bool *is_data, uint64_t *len, struct vd_error *e)
{
	int fd = file_of(io)->fd;
	uint64_t size;
	off_t data;
	int r = file_size(io, &size, e);

	if (r < 0)
		return r;
	if (off >= size)
		return vd_fail_at(e, VD_ERANGE, off, "%s: the file ends before (%llu bytes)", io->name,
				  (unsigned long long)size);
	data = lseek(fd, (off_t)off, SEEK_DATA);
	/* ENXIO: no data from here to the end. Every other failure: the host cannot tell, so all may be data. */
	*is_data = data == (off_t)off || (data < 0 && errno != ENXIO);
	if (*is_data)
		*len = (data < 0 ? size : seek_end(fd, off, size, SEEK_HOLE)) - off;
	else
		*len = (data < 0 ? size : vd_min_u64((uint64_t)data, size)) - off;
	return 0;
}

static int file_allocated(struct vd_io *io, uint64_t *bytes, struct vd_error *e)
{
	struct stat st;
	int r;

	if (io->is_device)
		return file_size(io, bytes, e);
	r = file_stat(io, &st, e);
	if (r >= 0)
		*bytes = (uint64_t)st.st_blocks * 512; /* stat(2): st_blocks counts 512 bytes whatever the block size */
	return r;
}

static int file_close(struct vd_io *io, struct vd_error *e)
{
	int r = 0;

	/* EINTR: Linux has closed the descriptor all the same. */
	if (close(file_of(io)->fd) < 0 && errno != EINTR)
		r = vd_fail_errno(e, errno, "%s: closing failed", io->name);
	vd_stream_fini(&file_of(io)->stream);
	free(io->name);
	free(io);
	return r;
}

static const struct vd_io_ops file_ops = {
	.pread = file_pread,
	.pwrite = file_pwrite,
	.descriptor = file_descriptor,
	.finished = file_finished,
	.flush = file_flush,
	.size = file_size,
	.truncate = file_truncate,
	.punch = file_punch,
	.extent = file_extent,
	.allocated = file_allocated,
	.close = file_close,
};

/* Anything but files and disks may block, have side effects when read, or never end. */
static int check_type(const char *path, mode_t mode, struct vd_error *e)
{
	const char *what = S_ISDIR(mode) ? "a folder" : S_ISFIFO(mode) ? "a pipe" :
			   S_ISSOCK(mode) ? "a socket" : S_ISLNK(mode) ? "a symbolic link" : "a character device";
	int r;

	if (S_ISREG(mode) || S_ISBLK(mode))
		return 0;
	r = vd_fail(e, VD_EARG, "%s: is %s, not a disk image", path, what);
	return vd_hint(e, r, "name a regular file or a block device");
}

static int failed_to_open(const char *path, bool is_device, int err, struct vd_error *e)
{
	int r;

	if (err == ELOOP) {
		r = vd_fail_errno(e, err, "%s: is a symbolic link, or one that leads round in a circle", path);
		return vd_hint(e, r, "name the file that the link points to");
	}
	r = vd_fail_errno(e, err, "%s: opening failed", path);
	if (err == EBUSY && is_device)
		return vd_hint(e, r, "the device is mounted or part of another device: unmount or release it first");
	if (r == VD_EACCESS)
		return vd_hint(e, r, "act as a user who may, or change the permissions of the file or its folder");
	return r == VD_ENOENT ? vd_hint(e, r, "check the spelling, and that the folder exists") : r;
}

/* Judges what a path leads to before it is opened: even to open a pipe or a device of another kind can do harm. */
static int judge(const char *path, unsigned flags, bool *is_device, struct vd_error *e)
{
	struct stat st;
	int r = fstatat(AT_FDCWD, path, &st, flags & VD_IO_NO_SYMLINK ? AT_SYMLINK_NOFOLLOW : 0);

	if (r < 0)
		return failed_to_open(path, false, errno, e);
	*is_device = S_ISBLK(st.st_mode);
	return check_type(path, st.st_mode, e);
}

static int open_flags(unsigned flags, bool is_device)
{
	/* O_NONBLOCK: a pipe that was put in the file's place after judge() does not hang us. */
	int f = O_CLOEXEC | O_NOCTTY | O_NONBLOCK;

	f |= flags & VD_IO_WRITE ? O_RDWR : O_RDONLY;
	if (flags & VD_IO_CREATE)
		f |= O_CREAT | O_EXCL;
	if (flags & VD_IO_NO_SYMLINK)
		f |= O_NOFOLLOW;
	/* On a device O_EXCL means: not while it is mounted or otherwise claimed (open(2)). */
	if (is_device && (flags & VD_IO_WRITE))
		f |= O_EXCL;
	return f;
}

static int identify(struct file *f, struct vd_error *e)
{
	struct stat st;
	int r = file_stat(&f->io, &st, e);

	if (r >= 0)
		r = check_type(f->io.name, st.st_mode, e);
	if (r < 0)
		return r;
	f->io.is_device = S_ISBLK(st.st_mode);
	f->io.dev = f->io.is_device ? st.st_rdev : st.st_dev;
	f->io.ino = f->io.is_device ? 0 : st.st_ino;
	return 0;
}

static int adopt_fd(int fd, const char *path, unsigned flags, struct vd_io **out, struct vd_error *e)
{
	vd_auto_fd int owned = fd;
	vd_auto_free struct file *f = NULL;
	int r = vd_alloc(1, sizeof(*f), &f, e);

	if (r < 0)
		return r;
	f->fd = fd;
	r = vd_io_init(&f->io, &file_ops, path, flags, e);
	if (r < 0)
		return r;
	r = identify(f, e);
	if (r >= 0)
		r = vd_lock_file(fd, path, flags, e);
	if (r < 0) {
		free(f->io.name);
		return r;
	}
	vd_stream_init(&f->stream);
	owned = -1;
	*out = &vd_steal(&f)->io;
	return 0;
}

static int os_open(struct vd_host *h, const char *path, unsigned flags, struct vd_io **out, struct vd_error *e)
{
	bool is_device = false;
	int fd, r;

	(void)h;
	if (vd_nbd_is_name(path))
		return vd_nbd_open(path, flags, out, e);
	if (vd_https_is_name(path))
		return vd_https_open(path, flags, out, e);
	if (flags & VD_IO_CREATE)
		flags |= VD_IO_WRITE;
	else if ((r = judge(path, flags, &is_device, e)) < 0)
		return r;
	fd = open(path, open_flags(flags, is_device), NEW_FILE_MODE);
	if (fd < 0)
		return failed_to_open(path, is_device, errno, e);
	return adopt_fd(fd, path, flags, out, e);
}

static int flush_folder(const char *path, struct vd_error *e)
{
	vd_auto_free char *folder = NULL;
	vd_auto_fd int fd = -1;
	int r = vd_path_folder(path, &folder, e);

	if (r < 0)
		return r;
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return vd_fail_errno(e, errno, "%s: opening the folder failed", folder);
	/* EINVAL: the file system has nothing to flush for a folder. */
	if (fsync(fd) < 0 && errno != EINVAL)
		return vd_fail_errno(e, errno, "%s: flushing the folder failed", folder);
	return 0;
}

/* For file systems without RENAME_NOREPLACE (NFS): a second name fails if it is taken, as atomically. */
static int rename_by_link(const char *from, const char *to)
{
	int err;

	if (linkat(AT_FDCWD, from, AT_FDCWD, to, 0) < 0)
		return -errno;
	if (!unlink(from))
		return 0;
	err = errno;
	return unlink(to) < 0 ? -errno : -err;
}

static int rename_no_replace(const char *from, const char *to)
{
	if (!renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE))
		return 0;
	return IS_UNKNOWN_CALL(errno) ? rename_by_link(from, to) : -errno;
}

static int os_rename(struct vd_host *h, const char *from, const char *to, bool replace, struct vd_error *e)
{
	int err, r;

	(void)h;
	if (replace)
		err = rename(from, to) < 0 ? -errno : 0;
	else
		err = rename_no_replace(from, to);
	if (err == -EEXIST)
		return vd_fail_errno(e, EEXIST, "%s: not replaced", to);
	if (err)
		return vd_fail_errno(e, -err, "%s: renaming it to %s failed", from, to);
	r = flush_folder(to, e);
	/* A failure leaves the new name free, unless it cost an old file: then the new one is better than none. */
	if (r < 0 && !replace && rename_no_replace(to, from))
		return vd_error_prefix(e, r, "%s: renamed, but not durably: ", to);
	return r;
}

static int os_unlink(struct vd_host *h, const char *path, struct vd_error *e)
{
	(void)h;
	if (unlink(path) < 0)
		return vd_fail_errno(e, errno, "%s: removing failed", path);
	return 0;
}

/* A name that is taken, if only by a link that leads nowhere. A server's disk is there, or opening it says why not. */
static bool os_exists(struct vd_host *h, const char *path)
{
	struct stat st;

	(void)h;
	return vd_nbd_is_name(path) || vd_https_is_name(path) || !lstat(path, &st);
}

struct vd_host *vd_host_os(void)
{
	static struct vd_host os = {
		.open = os_open,
		.rename = os_rename,
		.unlink = os_unlink,
		.exists = os_exists,
	};

	return &os;
}
