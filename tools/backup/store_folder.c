/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A repository in a folder, laid out as restic's local one ("Repository Layout", Local): config, and a folder a kind, packs in data/<two digits>.
 *
 *  I1  An object's name appears when all of its bytes are on the disk, and never for other bytes.
 *  I2  A call has not returned before the folder that holds the name is on the disk too.
 *
 * What a killed run leaves is called <name>-tmp-<something>, as restic's own is, and is passed over by both.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backup/store_kind.h"
#include "fail.h"
#include "ui.h"

#define FOLDER_MODE 0700
#define FILE_MODE 0400
#define COMPARE_SIZE 65536
#define PLACE_SIZE 24                           /* "snapshots", "data/ff" */
#define PATH_SIZE (PLACE_SIZE + STORE_NAME_SIZE + 32)

struct folder {
	struct store store;
	int fd;
};

static struct folder *folder_of(struct store *s)
{
	return (struct folder *)s;
}

/* Where the object lies, and in what folder; both from the top. */
static void name_path(enum store_kind kind, const char *name, char place[PLACE_SIZE], char path[PATH_SIZE])
{
	if (kind == STORE_CONFIG) {
		strcpy(place, ".");
		strcpy(path, store_place(kind));
		return;
	}
	snprintf(place, PLACE_SIZE, kind == STORE_PACK ? "%s/%.2s" : "%s", store_place(kind), name);
	snprintf(path, PATH_SIZE, "%s/%s", place, name);
}

static int fail_at(const struct folder *f, int err, const char *path, struct vd_error *e)
{
	return fail_errno(e, err, "%s/%s", f->store.where, path);
}

static int flush_place(struct folder *f, const char *place, struct vd_error *e)
{
	int fd = openat(f->fd, place, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;

	if (fd < 0 || fsync(fd) < 0)
		r = fail_at(f, errno, place, e);
	if (fd >= 0)
		close(fd);
	return r;
}

/* ---- put ------------------------------------------------------------------------------------------------- */

/* The folder that a pack goes to is made for the first of them, and those above it where something has left them out. */
static int make_place(struct folder *f, enum store_kind kind, const char *place, struct vd_error *e)
{
	const char *above = kind == STORE_PACK ? store_place(kind) : ".";

	if (mkdirat(f->fd, place, FOLDER_MODE) == 0)
		return flush_place(f, above, e);
	if (errno == ENOENT && kind == STORE_PACK && (mkdirat(f->fd, above, FOLDER_MODE) == 0 || errno == EEXIST)) {
		if (mkdirat(f->fd, place, FOLDER_MODE) < 0 && errno != EEXIST)
			return fail_at(f, errno, place, e);
		return flush_place(f, ".", e) < 0 ? e->code : flush_place(f, above, e);
	}
	return errno == EEXIST ? 0 : fail_at(f, errno, place, e);
}

static int open_temporary(struct folder *f, enum store_kind kind, const char *place, const char *path, char temporary[PATH_SIZE],
			  struct vd_error *e)
{
	uint64_t random;
	int fd, r;

	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return fail_errno(e, errno, "random numbers");
	snprintf(temporary, PATH_SIZE, "%.*s-tmp-%016llx", PATH_SIZE - 32, path, (unsigned long long)random);
	fd = openat(f->fd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, FILE_MODE);
	if (fd >= 0 || errno != ENOENT)
		return fd >= 0 ? fd : fail_at(f, errno, temporary, e);
	r = make_place(f, kind, place, e);
	if (r < 0)
		return r;
	fd = openat(f->fd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, FILE_MODE);
	return fd >= 0 ? fd : fail_at(f, errno, temporary, e);
}

static int write_pieces(struct folder *f, int fd, const char *path, const struct iovec *pieces, int n, struct vd_error *e)
{
	for (int i = 0; i < n; i++)
		for (size_t done = 0; done < pieces[i].iov_len;) {
			ssize_t put = write(fd, (const char *)pieces[i].iov_base + done, pieces[i].iov_len - done);

			if (put < 0 && errno != EINTR)
				return fail_at(f, errno, path, e);
			done += put > 0 ? (size_t)put : 0;
		}
	return fsync(fd) < 0 ? fail_at(f, errno, path, e) : 0;
}

/* 1: it is there, with this content. 0: it is not there. VD_EEXIST: it is there and is something else. */
static int judge_there(struct folder *f, enum store_kind kind, const char *name, const char *path, const struct iovec *pieces, int n_pieces,
		       struct vd_error *e)
{
	int fd = openat(f->fd, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	uint8_t *buf;
	uint64_t off = 0;
	bool is_same = true;
	ssize_t n = 1;

	if (fd < 0)
		return errno == ENOENT ? 0 : fail_at(f, errno, path, e);
	buf = malloc(COMPARE_SIZE);
	if (!buf)
		ui_out_of_memory();
	while (is_same && (n = read(fd, buf, COMPARE_SIZE)) > 0) {
		is_same = store_is_same(pieces, n_pieces, off, buf, (size_t)n);
		off += (uint64_t)n;
	}
	free(buf);
	/* Whoever wrote it may have been killed before it was durable. */
	if (n < 0 || fsync(fd) < 0) {
		int err = errno;

		close(fd);
		return fail_at(f, err, path, e);
	}
	close(fd);
	return is_same && off == store_sum(pieces, n_pieces) ? 1 : store_refuse_other(&f->store, kind, name, e);
}

/* 0, or 1: something has the name already. */
static int give_name(struct folder *f, const char *temporary, const char *path, struct vd_error *e)
{
	if (renameat2(f->fd, temporary, f->fd, path, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno == EEXIST)
		return 1;
	/* A file system that cannot be told so in one call: the name was not there a moment ago, and is that of the content. */
	if ((errno == EINVAL || errno == ENOSYS) && renameat(f->fd, temporary, f->fd, path) == 0)
		return 0;
	return fail_at(f, errno, path, e);
}

static int folder_put(struct store *s, enum store_kind kind, const char *name, const struct iovec *pieces, int n, struct vd_error *e)
{
	struct folder *f = folder_of(s);
	char place[PLACE_SIZE], path[PATH_SIZE], temporary[PATH_SIZE];
	int fd, r;

	name_path(kind, name, place, path);
	r = judge_there(f, kind, name, path, pieces, n, e);
	if (r != 0)
		return r < 0 ? r : flush_place(f, place, e);
	fd = open_temporary(f, kind, place, path, temporary, e);
	if (fd < 0)
		return fd;
	r = write_pieces(f, fd, path, pieces, n, e);
	if (close(fd) < 0 && r == 0)
		r = fail_at(f, errno, path, e);
	if (r == 0)
		r = give_name(f, temporary, path, e);
	if (r != 0)
		unlinkat(f->fd, temporary, 0);
	if (r == 1) {
		r = judge_there(f, kind, name, path, pieces, n, e);
		r = r < 0 ? r : 0;
	}
	return r < 0 ? r : flush_place(f, place, e);
}

/* ---- get ------------------------------------------------------------------------------------------------- */

static int folder_get(struct store *s, enum store_kind kind, const char *name, uint64_t off, void *buf, size_t n, struct vd_error *e)
{
	struct folder *f = folder_of(s);
	char place[PLACE_SIZE], path[PATH_SIZE];
	int fd, r = 0;

	name_path(kind, name, place, path);
	fd = openat(f->fd, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return fail_at(f, errno, path, e);
	for (size_t done = 0; r == 0 && done < n;) {
		ssize_t got = pread(fd, (char *)buf + done, n - done, (off_t)(off + done));

		if (got < 0 && errno != EINTR)
			r = fail_at(f, errno, path, e);
		else if (got == 0)
			r = store_refuse_short(s, kind, name, e);
		else
			done += got > 0 ? (size_t)got : 0;
	}
	close(fd);
	return r;
}

static int folder_size(struct store *s, enum store_kind kind, const char *name, uint64_t *size, struct vd_error *e)
{
	struct folder *f = folder_of(s);
	char place[PLACE_SIZE], path[PATH_SIZE];
	struct stat st;

	name_path(kind, name, place, path);
	if (fstatat(f->fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return fail_at(f, errno, path, e);
	if (!S_ISREG(st.st_mode))
		return fail(e, VD_ECORRUPT, "%s/%s: is no file", s->where, path);
	*size = (uint64_t)st.st_size;
	return 0;
}

/* ---- list ------------------------------------------------------------------------------------------------ */

struct walk {
	struct folder *f;
	int (*each)(void *ctx, const char *name, uint64_t size);
	void *ctx;
};

/* NULL with *r 0: there is no such folder, as copies are without those that were empty. */
static DIR *open_folder(struct folder *f, const char *place, int *r, struct vd_error *e)
{
	int fd = openat(f->fd, place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	*r = d || errno == ENOENT ? 0 : fail_at(f, errno, place, e);
	if (!d && fd >= 0)
		close(fd);
	return d;
}

static int walk_file(const struct walk *w, int fd, const char *place, const char *name, struct vd_error *e)
{
	struct stat st;

	if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : fail_at(w->f, errno, place, e);
	return S_ISREG(st.st_mode) ? w->each(w->ctx, name, (uint64_t)st.st_size) : 0;
}

/* `digits`: what the names begin with; a pack in another folder is one that no reader finds. */
static int walk_place(const struct walk *w, const char *place, const char *digits, struct vd_error *e)
{
	struct dirent *d;
	DIR *dir;
	int r;

	dir = open_folder(w->f, place, &r, e);
	if (!dir)
		return r;
	while (r == 0 && (errno = 0, d = readdir(dir)) != NULL)
		if (store_is_name(d->d_name) && !strncmp(d->d_name, digits, strlen(digits)))
			r = walk_file(w, dirfd(dir), place, d->d_name, e);
	if (r == 0 && errno)
		r = fail_at(w->f, errno, place, e);
	closedir(dir);
	return r;
}

static int walk_packs(const struct walk *w, struct vd_error *e)
{
	char place[PLACE_SIZE], digits[3];
	int r = 0;

	for (unsigned i = 0; r == 0 && i < 256; i++) {
		snprintf(digits, sizeof(digits), "%02x", i);
		snprintf(place, sizeof(place), "%s/%s", store_place(STORE_PACK), digits);
		r = walk_place(w, place, digits, e);
	}
	return r;
}

static int folder_list(struct store *s, enum store_kind kind, int (*each)(void *ctx, const char *name, uint64_t size), void *ctx,
		       struct vd_error *e)
{
	struct walk w = { folder_of(s), each, ctx };

	return kind == STORE_PACK ? walk_packs(&w, e) : walk_place(&w, store_place(kind), "", e);
}

/* ---- the rest -------------------------------------------------------------------------------------------- */

static int folder_remove(struct store *s, enum store_kind kind, const char *name, struct vd_error *e)
{
	struct folder *f = folder_of(s);
	char place[PLACE_SIZE], path[PATH_SIZE];

	name_path(kind, name, place, path);
	if (unlinkat(f->fd, path, 0) < 0)
		return fail_at(f, errno, path, e);
	return flush_place(f, place, e);
}

static bool is_place(const char *name)
{
	for (int kind = STORE_KEY; kind <= STORE_PACK; kind++)
		if (!strcmp(name, store_place(kind)))
			return true;
	return false;
}

/* A create() that was cut off may have left empty places; nothing else may be there. */
static int judge_empty(struct folder *f, const char *place, bool is_top, struct vd_error *e)
{
	struct dirent *d;
	DIR *dir;
	int r;

	dir = open_folder(f, place, &r, e);
	if (!dir)
		return r;
	while (r == 0 && (d = readdir(dir)) != NULL)
		if (is_top && !strcmp(d->d_name, store_place(STORE_CONFIG)))
			r = store_refuse_full(&f->store, "a repository", e);
		else if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0 && !(is_top && is_place(d->d_name)))
			r = store_refuse_full(&f->store, "something", e);
	closedir(dir);
	return r;
}

static int make_places(struct folder *f, struct vd_error *e)
{
	int r = judge_empty(f, ".", true, e);

	for (int kind = STORE_KEY; r == 0 && kind <= STORE_PACK; kind++)
		r = judge_empty(f, store_place(kind), false, e);
	for (int kind = STORE_KEY; r == 0 && kind <= STORE_PACK; kind++)
		if (mkdirat(f->fd, store_place(kind), FOLDER_MODE) < 0 && errno != EEXIST)
			r = fail_at(f, errno, store_place(kind), e);
	if (r == 0)
		r = flush_place(f, ".", e);
	return r < 0 ? r : flush_place(f, "..", e);
}

static void folder_close(struct store *s)
{
	struct folder *f = folder_of(s);

	if (f->fd >= 0)
		close(f->fd);
	free(f);
}

static const struct store_acts folder_acts = {
	.put = folder_put, .get = folder_get, .size = folder_size, .list = folder_list, .remove = folder_remove, .close = folder_close,
};

int store_folder_open(const char *where, bool creates, struct store **out, struct vd_error *e)
{
	struct folder *f = calloc(1, sizeof(*f));
	int r = 0;

	if (!f || !(f->store.where = strdup(where)))
		ui_out_of_memory();
	f->store.acts = &folder_acts;
	f->fd = -1;
	if (creates && mkdir(where, FOLDER_MODE) < 0 && errno != EEXIST)
		r = fail_errno(e, errno, "%s", where);
	if (r == 0)
		f->fd = open(where, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (r == 0 && f->fd < 0)
		r = fail_errno(e, errno, "%s", where);
	if (r == 0 && creates)
		r = make_places(f, e);
	if (r < 0)
		store_close(&f->store);
	else
		*out = &f->store;
	return r;
}
