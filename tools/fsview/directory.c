/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A plain directory as a view: for tests, and trees that are unpacked. The kernel reads it, so nothing here parses anything;
 * no name leads out of the directory (openat2), and no other file system below it is entered.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "fail.h"
#include "fsview/backend.h"

struct directory {
	int fd;
	struct fsview *v;
};

/* getdents64(2) has no struct in the system's headers. */
struct dirent_raw {
	uint64_t ino;
	int64_t off;
	uint16_t reclen;
	uint8_t type;
	char name[];
};

static int words(int err, const char *path, struct vd_error *e)
{
	if (err == ENOENT || err == ENOTDIR || err == ELOOP)
		return fail(e, VD_ENOENT, "/%s: there is no such file", path);
	if (err == EXDEV)
		return fail(e, VD_EUNSUPPORTED, "/%s: is on another file system, which is not entered", path);
	return fail_errno(e, err, "/%s", path);
}

static int open_at(const struct directory *d, const char *path, int flags)
{
	struct open_how how = {
		.flags = (uint64_t)(flags | O_NOFOLLOW | O_CLOEXEC),
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV,
	};

	return (int)syscall(SYS_openat2, d->fd, path[0] ? path : ".", &how, sizeof(how));
}

static void take_stat(const struct stat *st, struct fsview_stat *out)
{
	*out = (struct fsview_stat){
		.ino = st->st_ino, .size = (uint64_t)st->st_size, .mtime = st->st_mtim.tv_sec, .ctime = st->st_ctim.tv_sec,
		.mode = st->st_mode, .uid = st->st_uid, .gid = st->st_gid, .nlink = (uint32_t)st->st_nlink,
		.rdev_major = major(st->st_rdev), .rdev_minor = minor(st->st_rdev), .flags = FSVIEW_HAS_XATTRS,
	};
}

/* Of the part of the path that ends at `end`. VD_EAGAIN: it is no link, and the path goes on. */
static int look_part(const struct directory *d, const char *path, size_t end, struct fsview_found *f, struct vd_error *e)
{
	char part[FSVIEW_PATH_MAX];
	struct stat st;
	int fd, r;

	snprintf(part, sizeof(part), "%.*s", (int)end, path);
	fd = open_at(d, part, O_PATH);
	if (fd < 0)
		return words(errno, part, e);
	r = fstat(fd, &st);
	close(fd);
	if (r < 0)
		return words(errno, part, e);
	take_stat(&st, &f->st);
	f->used = end;
	return path[end] && !S_ISLNK(st.st_mode) ? VD_EAGAIN : 0;
}

static int lookup(void *ctx, size_t volume, const char *path, struct fsview_found *f, struct vd_error *e)
{
	const struct directory *d = ctx;
	size_t len = strlen(path), end = 0;
	struct vd_error ignored;
	int r;

	(void)volume;
	/* Most paths have no link in them. */
	r = look_part(d, path, len, f, &ignored);
	if (r == 0)
		return 0;
	for (r = VD_EAGAIN; r == VD_EAGAIN; end++) {
		end += strcspn(path + end, "/");
		r = look_part(d, path, end, f, e);
		if (!path[end])
			break;
	}
	return r;
}

static int read_link(void *ctx, size_t volume, const char *path, char *buf, size_t size, struct vd_error *e)
{
	int fd = open_at(ctx, path, O_PATH), err;
	ssize_t n;

	(void)volume;
	if (fd < 0)
		return words(errno, path, e);
	n = readlinkat(fd, "", buf, size);
	err = errno;
	close(fd);
	if (n < 0)
		return words(err, path, e);
	if ((size_t)n >= size)
		return fail(e, VD_ERANGE, "/%s: the link is longer than %zu bytes", path, size - 1);
	buf[n] = '\0';
	return 0;
}

static int add_entry(const struct directory *d, int fd, const char *path, const struct dirent_raw *de, struct fsview_batch *b)
{
	struct fsview_stat out;
	struct stat st;

	if (!strcmp(de->name, ".") || !strcmp(de->name, ".."))
		return 1;
	if (fstatat(fd, de->name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0) {
		fsview_fall_short(d->v, FSVIEW_ACCESS, path, "%s in it: %s", de->name, strerror(errno));
		return 1;
	}
	take_stat(&st, &out);
	return fsview_batch_add(b, de->name, strlen(de->name), &out);
}

static int read_dir(void *ctx, size_t volume, const char *path, uint64_t *cursor, struct fsview_batch *b, struct vd_error *e)
{
	const struct directory *d = ctx;
	char buf[16384] __attribute__((aligned(8)));
	int fd = open_at(d, path, O_RDONLY | O_DIRECTORY | O_NONBLOCK), err;
	bool has_room = true;
	ssize_t n = 0;

	(void)volume;
	if (fd < 0)
		return words(errno, path, e);
	if (!*cursor || lseek(fd, (off_t)*cursor, SEEK_SET) >= 0)
		n = syscall(SYS_getdents64, fd, buf, sizeof(buf));
	else
		n = -1;
	err = errno;
	for (ssize_t at = 0; at < n && has_room;) {
		const struct dirent_raw *de = (const void *)(buf + at);

		has_room = add_entry(d, fd, path, de, b);
		if (has_room)
			*cursor = (uint64_t)de->off;
		at += de->reclen;
	}
	close(fd);
	if (n < 0)
		return words(err, path, e);
	if (n == 0)
		*cursor = FSVIEW_CURSOR_END;
	return 0;
}

static int read_file(void *ctx, size_t volume, const char *path, void *buf, size_t len, uint64_t off, size_t *got, struct vd_error *e)
{
	int fd = open_at(ctx, path, O_RDONLY | O_NONBLOCK | O_NOCTTY), err;
	ssize_t n;

	(void)volume;
	if (fd < 0)
		return words(errno, path, e);
	n = pread(fd, buf, len, (off_t)off);
	err = errno;
	close(fd);
	if (n < 0)
		return words(err, path, e);
	*got = (size_t)n;
	return 0;
}

static int get_xattr(void *ctx, size_t volume, const char *path, const char *name, void *buf, size_t size, size_t *got,
		     struct vd_error *e)
{
	int fd = open_at(ctx, path, O_PATH), err;
	char through[64];
	ssize_t n;

	(void)volume;
	if (fd < 0)
		return words(errno, path, e);
	snprintf(through, sizeof(through), "/proc/self/fd/%d", fd);
	n = getxattr(through, name, buf, size);
	err = errno;
	close(fd);
	if (n < 0 && (err == ENODATA || err == ENOTSUP || err == ELOOP))
		return fail(e, VD_ENOENT, "/%s: has no attribute %s", path, name);
	if (n < 0)
		return err == ERANGE ? fail(e, VD_ERANGE, "/%s: %s is longer than %zu bytes", path, name, size) : words(err, path, e);
	*got = (size_t)n;
	return 0;
}

static void close_directory(void *ctx)
{
	struct directory *d = ctx;

	close(d->fd);
	free(d);
}

static const struct fsview_backend directory_backend = {
	.lookup = lookup, .readlink = read_link, .readdir = read_dir, .read = read_file, .xattr = get_xattr, .close = close_directory,
};

int fsview_open_directory(const char *path, struct fsview **out, struct vd_error *e)
{
	struct directory *d = calloc(1, sizeof(*d));
	int r;

	if (!d)
		return fail(e, VD_ENOMEM, "not enough memory for a view of %s", path);
	d->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (d->fd < 0) {
		r = fail_errno(e, errno, "%s", path);
		free(d);
		return r;
	}
	r = fsview_new(&directory_backend, d, &d->v, e);
	if (r < 0) {
		close_directory(d);
		return r;
	}
	d->v->table = "directory";
	d->v->n_volumes = 1;
	d->v->volumes[0] = (struct fsview_volume){ .name = "directory", .fs = FSVIEW_FS_DIR, .is_readable = true };
	fsview_add_mount(d->v, "", 0);
	*out = d->v;
	return 0;
}
