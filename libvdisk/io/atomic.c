/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Outputs that appear under their final name whole or not at all. What is written into them, and that it is flushed
 * before the commit, is the caller's part.
 *
 * A1 The lock of the partial file tells a run at work from one that was killed. It is held from open until after the
 *    commit, so whoever has it may remove the file, provided that the name still leads to it. A file is without its
 *    lock for a moment after it was made: its maker, too, looks whether the name still leads to it.
 * A2 A stale partial is removed, never written to: somebody else may have put it there, as a second name of a file
 *    of ours.
 * A3 The final name changes only in commit, by one rename.
 */
#include "libvdisk/io/atomic.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/io/nbd.h"

#define SUFFIX ".vdisk-partial"

/* Others may make and remove the partial between our steps; each time round one of them got further. */
#define N_ROUNDS 16

static int partial_name_of(const char *path, char **out, struct vd_error *e)
{
	size_t len = strlen(path) + sizeof(SUFFIX);
	int r = vd_alloc(len, 1, out, e);

	if (r >= 0)
		snprintf(*out, len, "%s" SUFFIX, path);
	return r;
}

/* The name may lead to another file by now than the one that we opened and locked. */
static int is_still_named(struct vd_host *host, const char *name, const struct vd_io *io, bool *yes, struct vd_error *e)
{
	struct vd_io *again;
	int r = host->open(host, name, VD_IO_FORCE_SHARE | VD_IO_NO_SYMLINK, &again, e);

	*yes = false;
	if (r == VD_ENOENT)
		return 0;
	if (r < 0)
		return r;
	*yes = again->dev == io->dev && again->ino == io->ino;
	vd_io_abort(again);
	return 0;
}

/* 0: the stale partial is gone, or was gone before we came. Keeps A1 and A2. */
static int remove_stale(struct vd_host *host, const char *name, struct vd_error *e)
{
	struct vd_io *io;
	bool named;
	int r = host->open(host, name, VD_IO_WRITE | VD_IO_NO_SYMLINK, &io, e);

	if (r == VD_ENOENT)
		return 0;
	if (r == VD_EBUSY)
		return vd_hint(e, r, "another run writes the same output: wait for it, or choose another name");
	if (r < 0)
		return vd_hint(e, r, "it is in the way of the temporary file: remove it");
	r = is_still_named(host, name, io, &named, e);
	if (r >= 0 && named)
		r = host->unlink(host, name, e);
	vd_io_abort(io);
	return r;
}

/* *io stays NULL when another run removed the file before we had locked it. */
static int make_partial(struct vd_host *host, const char *name, struct vd_io **io, struct vd_error *e)
{
	struct vd_io *made;
	bool named;
	int r = host->open(host, name, VD_IO_CREATE, &made, e);

	if (r == VD_EEXIST)
		return remove_stale(host, name, e);
	if (r < 0)
		return r;
	r = is_still_named(host, name, made, &named, e);
	if (r >= 0 && named)
		*io = made;
	else
		vd_io_abort(made);
	return r;
}

static int open_partial(struct vd_host *host, const char *name, struct vd_io **io, struct vd_error *e)
{
	int r = 0;

	for (int i = 0; i < N_ROUNDS; i++) {
		r = make_partial(host, name, io, e);
		if (r < 0 || *io)
			return r;
	}
	return vd_fail(e, VD_EBUSY, "%s: other runs keep making the same temporary file", name);
}

/* Somebody who has the old file open would go on writing to what is no longer there. */
static int check_not_in_use(struct vd_host *host, const char *path, struct vd_error *e)
{
	struct vd_io *io;
	int r = host->open(host, path, VD_IO_WRITE, &io, e);

	if (r == VD_ENOENT) /* a link that leads nowhere */
		return 0;
	if (r >= 0)
		vd_io_abort(io);
	return r;
}

static int is_device(struct vd_host *host, const char *path, bool *yes, struct vd_error *e)
{
	struct vd_io *io;
	int r;

	/* A server may be gone after its first client. */
	*yes = vd_nbd_is_name(path);
	if (*yes)
		return 0;
	r = host->open(host, path, VD_IO_FORCE_SHARE, &io, e);
	if (r == VD_ENOENT)
		return 0;
	if (r < 0)
		return r;
	*yes = io->is_device;
	vd_io_abort(io);
	return 0;
}

/* *io is set when the target is written where it is. */
static int look_at_target(struct vd_host *host, const char *path, bool replace, struct vd_io **io, struct vd_error *e)
{
	bool device;
	int r = is_device(host, path, &device, e);

	if (r < 0)
		return r;
	if (device)
		return host->open(host, path, VD_IO_WRITE, io, e);
	if (!replace) {
		r = vd_fail(e, VD_EEXIST, "%s: exists already", path);
		return vd_hint(e, r, "choose another name, or replace the file with --force");
	}
	return check_not_in_use(host, path, e);
}

int vd_output_open(struct vd_host *host, const char *path, bool replace, struct vd_output *out, struct vd_io **io,
		   struct vd_error *e)
{
	vd_auto_free char *final = NULL, *partial = NULL;
	struct vd_io *opened = NULL;
	int r = vd_strdup(path, &final, e);

	if (r >= 0 && host->exists(host, path))
		r = look_at_target(host, path, replace, &opened, e);
	if (r >= 0 && !opened) {
		r = partial_name_of(path, &partial, e);
		if (r >= 0)
			r = open_partial(host, partial, &opened, e);
	}
	if (r < 0)
		return r;
	*out = (struct vd_output){ host, vd_steal(&final), vd_steal(&partial), replace };
	*io = opened;
	return 0;
}

static void spend(struct vd_output *out)
{
	free(out->final_name);
	free(out->partial_name);
	out->final_name = NULL;
	out->partial_name = NULL;
}

int vd_output_commit(struct vd_output *out, struct vd_error *e)
{
	struct vd_host *host = out->host;
	int r = 0;

	if (out->partial_name && out->replace && host->exists(host, out->final_name))
		r = check_not_in_use(host, out->final_name, e);
	if (r >= 0 && out->partial_name)
		r = host->rename(host, out->partial_name, out->final_name, out->replace, e);
	if (r == VD_EEXIST)
		r = vd_hint(e, r, "somebody made this file in the meantime: choose another name, or replace it with --force");
	if (r >= 0)
		spend(out);
	return r;
}

void vd_output_abandon(struct vd_output *out)
{
	int dropped = 0;

	if (out->partial_name)
		dropped = out->host->unlink(out->host, out->partial_name, NULL);
	(void)dropped;
	spend(out);
}

static int put(struct vd_output *out, struct vd_io *io, const void *bytes, size_t len, uint64_t size, struct vd_error *e)
{
	int r = vd_io_pwrite(io, bytes, len, 0, e);

	if (r == 0 && size > len)
		r = vd_io_truncate(io, size, e);
	if (r == 0)
		r = vd_io_flush(io, e);
	return r < 0 ? r : vd_output_commit(out, e);
}

int vd_output_put(struct vd_host *host, const char *path, bool replace, const void *bytes, size_t len, uint64_t size,
		  struct vd_error *e)
{
	struct vd_output out = { 0 };
	struct vd_io *io = NULL;
	int r = vd_output_open(host, path, replace, &out, &io, e), c;

	if (r < 0)
		return r;
	r = put(&out, io, bytes, len, size, e);
	if (r < 0)
		vd_output_abandon(&out);
	c = vd_io_close(io, r < 0 ? NULL : e);
	return r < 0 ? r : c;
}

/* ---- in another's place ---------------------------------------------------------------------------------- */

/* Whoever could read the old one can read the new one. Files that are in memory have no owner. */
static int dress_as(struct vd_io *io, const struct vd_io *old, struct vd_error *e)
{
	int to = vd_io_descriptor(io), from = vd_io_descriptor(old);
	struct stat st, now;

	if (to < 0 || from < 0)
		return 0;
	if (fstat(from, &st) || fstat(to, &now))
		return vd_fail_errno(e, errno, "%s: its owner cannot be told", old->name);
	if ((st.st_uid != now.st_uid || st.st_gid != now.st_gid) && fchown(to, st.st_uid, st.st_gid))
		return vd_fail_errno(e, errno, "%s: a new file cannot have its owner", old->name);
	return fchmod(to, st.st_mode & 07777) ? vd_fail_errno(e, errno, "%s: a new file cannot have its mode", old->name) : 0;
}

static int take_name(struct vd_host *host, struct vd_io *io, const struct vd_io *old, struct vd_error *e)
{
	int r = host->rename(host, io->name, old->name, true, e);

	if (r == 0 || host->exists(host, io->name))
		return r;
	return vd_error_prefix(e, VD_EPOISONED, "%s: a new file has taken its name, perhaps not durably: ", old->name);
}

static int fill_and_take(struct vd_host *host, struct vd_io *io, const struct vd_io *old, const void *bytes, size_t len,
			 struct vd_error *e)
{
	int r = dress_as(io, old, e);

	if (r == 0)
		r = vd_io_pwrite(io, bytes, len, 0, e);
	if (r == 0)
		r = vd_io_flush(io, e);
	return r < 0 ? r : take_name(host, io, old, e);
}

static int judge_place(struct vd_host *host, const struct vd_io *io, struct vd_error *e)
{
	bool named;
	int r = is_still_named(host, io->name, io, &named, e);

	if (r < 0)
		return vd_hint(e, r, "if it is a symbolic link, name the file that it leads to");
	return named ? 0 : vd_fail(e, VD_ENOENT, "%s: the name leads to another file by now", io->name);
}

int vd_output_exchange(struct vd_host *host, struct vd_io **io, const void *bytes, size_t len, struct vd_io **old,
		       struct vd_error *e)
{
	vd_auto_free char *partial = NULL;
	struct vd_io *made = NULL, *was = *io;
	char *name;
	int r = judge_place(host, was, e), dropped;

	if (r == 0)
		r = partial_name_of(was->name, &partial, e);
	if (r == 0)
		r = open_partial(host, partial, &made, e);
	if (r < 0)
		return r;
	r = fill_and_take(host, made, was, bytes, len, e);
	if (r < 0) {
		dropped = r == VD_EPOISONED ? 0 : host->unlink(host, partial, NULL);
		(void)dropped;
		vd_io_abort(made);
		return r;
	}
	name = made->name;
	made->name = was->name;
	was->name = name;
	*old = was;
	*io = made;
	return 0;
}
