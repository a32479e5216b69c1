/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reads and writes small files. What is in them is the callers' business, and whether it is a secret. */
#include "ledger/files.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fail.h"

#define PIECE 65536

static int read_all(int fd, const char *path, size_t max, struct bytes *out, struct vd_error *e)
{
	uint8_t piece[PIECE];
	ssize_t n;
	int r = 0;

	do {
		n = read(fd, piece, sizeof(piece));
		if (n < 0 && errno != EINTR)
			r = fail_errno(e, errno, "%s", path);
		else if (n > 0 && (size_t)n > max - out->n)
			r = fail(e, VD_EUNSUPPORTED, "%s: is longer than %zu bytes", path, max);
		else if (n > 0)
			bytes_add(out, piece, (size_t)n);
	} while (r == 0 && n != 0);
	explicit_bzero(piece, sizeof(piece));
	return r;
}

int file_read(const char *path, size_t max, struct bytes *out, struct vd_error *e)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), r;
	struct stat st;

	if (fd < 0)
		return fail_errno(e, errno, "%s", path);
	if (fstat(fd, &st) < 0)
		r = fail_errno(e, errno, "%s", path);
	else if (!S_ISREG(st.st_mode) && !S_ISFIFO(st.st_mode))
		r = fail(e, VD_EARG, "%s: is no file", path);
	else
		r = read_all(fd, path, max, out, e);
	close(fd);
	return r;
}

int file_judge_new(const char *path, struct vd_error *e)
{
	struct stat st;

	if (lstat(path, &st) == 0) {
		fail(e, VD_EEXIST, "%s: exists already", path);
		return fail_hint(e, VD_EEXIST, "choose another name");
	}
	return errno == ENOENT ? 0 : fail_errno(e, errno, "%s", path);
}

static int put(int fd, const char *path, const struct bytes *content, struct vd_error *e)
{
	for (size_t done = 0; done < content->n;) {
		ssize_t n = write(fd, content->at + done, content->n - done);

		if (n < 0 && errno != EINTR)
			return fail_errno(e, errno, "%s", path);
		done += n > 0 ? (size_t)n : 0;
	}
	return fsync(fd) < 0 ? fail_errno(e, errno, "%s", path) : 0;
}

static int give_name(const char *partial, const char *path, bool replaces, struct vd_error *e)
{
	int r;

	if (replaces)
		return rename(partial, path) < 0 ? fail_errno(e, errno, "%s", path) : 0;
	if (renameat2(AT_FDCWD, partial, AT_FDCWD, path, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno == EEXIST)
		return file_judge_new(path, e);
	if (errno != EINVAL && errno != ENOSYS)
		return fail_errno(e, errno, "%s", path);
	/* A file system that cannot be told so in one call. */
	r = file_judge_new(path, e);
	if (r == 0 && rename(partial, path) < 0)
		r = fail_errno(e, errno, "%s", path);
	return r;
}

static int flush_folder(const char *path, struct vd_error *e)
{
	char copy[PATH_MAX];
	int fd, r = 0;

	snprintf(copy, sizeof(copy), "%s", path);
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0)
		r = fail_errno(e, errno, "the folder of %s", path);
	if (fd >= 0)
		close(fd);
	return r;
}

int file_write(const char *path, const struct bytes *content, mode_t mode, bool replaces, struct vd_error *e)
{
	char partial[PATH_MAX];
	int fd, r;

	if ((size_t)snprintf(partial, sizeof(partial), "%s.vdisk-partial", path) >= sizeof(partial))
		return fail(e, VD_EARG, "%s: the name is too long", path);
	/* What a killed run left. */
	if (unlink(partial) < 0 && errno != ENOENT)
		return fail_errno(e, errno, "%s", partial);
	fd = open(partial, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	if (fd < 0)
		return fail_errno(e, errno, "%s", partial);
	r = put(fd, partial, content, e);
	if (close(fd) < 0 && r == 0)
		r = fail_errno(e, errno, "%s", partial);
	if (r == 0)
		r = give_name(partial, path, replaces, e);
	if (r < 0) {
		unlink(partial);
		return r;
	}
	return flush_folder(path, e);
}

int file_remove(const char *path, struct vd_error *e)
{
	if (unlink(path) < 0)
		return errno == ENOENT ? 0 : fail_errno(e, errno, "%s", path);
	return flush_folder(path, e);
}
