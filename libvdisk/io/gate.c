/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Judges the names by which an image refers to other files. Such a name is hostile until it has passed here: an image
 * from a stranger could else make us read any file of the machine into an output. Opening is the set's business.
 *
 * A gate answers for the moment in which it is asked. Who can swap files below an allowed folder afterwards could as
 * well have put the content there, so the folders that are allowed must be in trusted hands.
 */
#include "libvdisk/io/set.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "libvdisk/base/cleanup.h"
#include "libvdisk/io/path.h"

static const char *kind_text(enum vd_reference_kind kind)
{
	switch (kind) {
	case VD_REF_BACKING: return "backing file";
	case VD_REF_DATA_FILE: return "data file";
	case VD_REF_EXTENT: return "extent";
	}
	return "file";
}

struct question {
	enum vd_reference_kind kind;
	const char *image, *name;
};

static int deny(const struct question *q, const char *why, struct vd_error *e)
{
	return vd_fail(e, VD_EREFERENCE, "%s: names the %s '%s', which %s", q->image, kind_text(q->kind), q->name, why);
}

/* The remedy for a name that a trusted image may well hold. */
static int deny_unless_allowed(const struct question *q, const char *why, const char *dir, struct vd_error *e)
{
	int r = deny(q, why, e);

	return vd_hint(e, r, "if you trust the image, allow what it names: --allow %s", dir);
}

static int deny_for_good(const struct question *q, const char *why, struct vd_error *e)
{
	int r = deny(q, why, e);

	return vd_hint(e, r, "such names are never followed: correct it with vdisk rebase -u or qemu-img amend");
}

static bool has_dotdot(const char *name)
{
	for (const char *p = name; p; p = strchr(p, '/')) {
		p += strspn(p, "/");
		if (p[0] == '.' && p[1] == '.' && (p[2] == '/' || !p[2]))
			return true;
	}
	return false;
}

/* "nbd:", "json:", "https:", "C:": qemu takes what stands before a colon in the first component for a protocol. */
static bool has_scheme(const char *name)
{
	return name[strcspn(name, ":/")] == ':';
}

/* What no gate lets pass: not a name of a file on this machine. */
static int check_name(const struct question *q, struct vd_error *e)
{
	if (!q->name[0])
		return deny_for_good(q, "is empty", e);
	if (strchr(q->name, '\\'))
		return deny_for_good(q, "holds a backslash", e);
	if (has_scheme(q->name))
		return deny_for_good(q, "is not the name of a file but a protocol, a drive or an address", e);
	return 0;
}

static int check_relative(const struct question *q, struct vd_error *e)
{
	vd_auto_free char *joined = NULL, *dir = NULL;
	const char *why;
	int r;

	if (q->name[0] == '/')
		why = "is an absolute name";
	else if (has_dotdot(q->name))
		why = "leads out of the image's folder";
	else
		return 0;
	r = vd_path_beside(q->image, q->name, &joined, e);
	if (r >= 0)
		r = vd_path_folder(joined, &dir, e);
	return r < 0 ? r : deny_unless_allowed(q, why, dir, e);
}

static bool is_below(const char *real, const char *real_dir)
{
	size_t n = strlen(real_dir);

	if (n && real_dir[n - 1] == '/')
		n--;
	return !strncmp(real, real_dir, n) && real[n] == '/';
}

/* The place of a directory with all symbolic links followed; false when it does not exist. */
static bool real_path(const char *path, char real[PATH_MAX])
{
	return realpath(path, real) != NULL;
}

static bool is_in_folder_of(const char *image, const char *real)
{
	vd_auto_free char *folder = NULL;
	char real_dir[PATH_MAX];

	return vd_path_folder(image, &folder, NULL) >= 0 && real_path(folder, real_dir) && is_below(real, real_dir);
}

static bool is_in_dirs(const struct vd_gate_dirs *dirs, const char *real)
{
	char real_dir[PATH_MAX];

	for (size_t i = 0; dirs && i < dirs->n; i++)
		if (real_path(dirs->dirs[i], real_dir) && (!strcmp(real, real_dir) || is_below(real, real_dir)))
			return true;
	return false;
}

static int check_exists(const struct question *q, const char *joined, char real[PATH_MAX], struct vd_error *e)
{
	int r;

	if (real_path(joined, real))
		return 0;
	if (errno == ELOOP || errno == ENAMETOOLONG)
		return deny_for_good(q, errno == ELOOP ? "leads round in a circle" : "is too long", e);
	if (errno != ENOENT && errno != ENOTDIR)
		return vd_fail_errno(e, errno, "%s: names the %s '%s', which cannot be looked up", q->image,
				     kind_text(q->kind), q->name);
	r = vd_fail(e, VD_ENOENT, "%s: names the %s '%s', which does not exist", q->image, kind_text(q->kind), q->name);
	return vd_hint(e, r, "the file is expected at %s", joined);
}

static int check_type(const struct question *q, const char *real, bool may_be_device, struct vd_error *e)
{
	struct stat st;

	if (stat(real, &st) < 0)
		return vd_fail_errno(e, errno, "%s: names the %s '%s', which cannot be looked up", q->image,
				     kind_text(q->kind), q->name);
	if (S_ISREG(st.st_mode))
		return 0;
	if (!S_ISBLK(st.st_mode))
		return deny_for_good(q, "is neither a file nor a block device", e);
	return may_be_device ? 0 : deny_unless_allowed(q, "is a device", real, e);
}

static int hand_out(const struct question *q, const char *joined, char *path, size_t path_len, struct vd_error *e)
{
	if (strlen(joined) >= path_len)
		return deny(q, "is too long", e);
	strcpy(path, joined);
	return 0;
}

int vd_gate_own_folder(void *ctx, enum vd_reference_kind kind, const char *image, const char *name,
		       const char *format, char *path, size_t path_len, struct vd_error *e)
{
	const struct question q = { kind, image, name };
	vd_auto_free char *joined = NULL;
	char real[PATH_MAX];
	int r = check_name(&q, e);

	(void)ctx;
	(void)format;
	if (r >= 0)
		r = check_relative(&q, e);
	if (r >= 0)
		r = vd_path_beside(image, name, &joined, e);
	if (r >= 0)
		r = check_exists(&q, joined, real, e);
	if (r < 0)
		return r;
	if (!is_in_folder_of(image, real))
		return deny_unless_allowed(&q, "is a symbolic link out of the image's folder", real, e);
	r = check_type(&q, real, false, e);
	return r < 0 ? r : hand_out(&q, joined, path, path_len, e);
}

VD_PUBLIC int vd_gate_below_dirs(void *ctx, enum vd_reference_kind kind, const char *image, const char *name,
				 const char *format, char *path, size_t path_len, struct vd_error *e)
{
	const struct question q = { kind, image, name };
	vd_auto_free char *joined = NULL;
	char real[PATH_MAX];
	int r = check_name(&q, e);

	(void)format;
	if (r >= 0)
		r = vd_path_beside(image, name, &joined, e);
	if (r >= 0)
		r = check_exists(&q, joined, real, e);
	if (r < 0)
		return r;
	if (!is_in_dirs(ctx, real) && !is_in_folder_of(image, real))
		return deny_unless_allowed(&q, "lies outside the folders that are allowed", real, e);
	r = check_type(&q, real, true, e);
	return r < 0 ? r : hand_out(&q, joined, path, path_len, e);
}
