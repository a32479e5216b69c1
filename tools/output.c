/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Looks at the place of an output. Making it, and undoing it, is the library's. */
#include "output.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "fail.h"
#include "sizes.h"
#include "source.h"
#include "ui.h"

bool output_is_stream(const char *path)
{
	return !strcmp(path, "-");
}

int output_judge_stream(struct vd_error *e)
{
	if (!isatty(STDOUT_FILENO))
		return 0;
	fail(e, VD_EARG, "a disk is not written to a terminal");
	return fail_hint(e, VD_EARG, "send standard output into a pipe or a file; for a file of that name say ./-");
}

bool output_is_device(const char *path)
{
	struct stat st;

	return vd_name_is_address(path) || (stat(path, &st) == 0 && S_ISBLK(st.st_mode));
}

int output_judge(const struct settings *s, const char *path, struct vd_error *e)
{
	char question[PATH_MAX + 64];
	struct stat st;

	if (output_is_device(path)) {
		snprintf(question, sizeof(question), "all that is on the %s %s will be overwritten",
			 vd_name_is_address(path) ? "server's disk" : "block device", path);
		return ui_confirm(s->yes, question, e);
	}
	if (stat(path, &st) < 0)
		return errno == ENOENT ? 0 : fail_errno(e, errno, "%s", path);
	if (S_ISDIR(st.st_mode))
		return fail(e, VD_EEXIST, "%s: is a folder", path);
	if (!S_ISREG(st.st_mode) || s->force)
		return 0;
	fail(e, VD_EEXIST, "%s: exists already", path);
	return fail_hint(e, VD_EEXIST, "choose another name, or replace the file with --force");
}

static bool is_same(const char *a, const char *b)
{
	struct stat x, y;

	if (vd_name_is_address(a))
		return !strcmp(a, b);
	return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static int refuse_same(const char *path, const char *what, struct vd_error *e)
{
	fail(e, VD_EARG, "%s: is %s", path, what);
	return fail_hint(e, VD_EARG, "write to a new name, and rename the file when it is done");
}

int output_is_not_file(const char *path, const char *input, struct vd_error *e)
{
	return is_same(path, input) ? refuse_same(path, "the input itself", e) : 0;
}

static int judge_layer(const struct settings *s, const char *path, struct vd_image *layer, struct vd_error *e)
{
	char data_file[PATH_MAX];
	struct vd_info info;
	int r = source_info(layer, &info, e);

	if (r < 0)
		return r;
	if (is_same(info.path, path))
		return refuse_same(path, "a backing file of the input", e);
	if (info.data_file &&
	    source_resolve(s, VD_REF_DATA_FILE, info.path, info.data_file, data_file, sizeof(data_file), NULL) == 0 &&
	    is_same(path, data_file))
		return refuse_same(path, "the data file of the input", e);
	return 0;
}

int output_is_not_in(const struct settings *s, const char *path, struct vd_image *input, struct vd_error *e)
{
	int r = 0;

	for (struct vd_image *layer = input; layer && r == 0; layer = vd_image_parent(layer))
		r = judge_layer(s, path, layer, e);
	return r;
}

int output_has_room(const char *path, uint64_t bytes, struct vd_error *e)
{
	char copy[PATH_MAX];
	const char *folder;
	struct statvfs fs;
	uint64_t free_bytes;

	if (strlen(path) >= sizeof(copy) || output_is_device(path))
		return 0;
	folder = dirname(strcpy(copy, path));
	/* No answer is no reason to refuse: the write itself will tell. */
	if (statvfs(folder, &fs) < 0)
		return 0;
	free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	if (bytes <= free_bytes)
		return 0;
	fail(e, VD_ENOSPC, "%s: may need %s (%llu bytes), and %s has %s (%llu bytes) free", path,
	     size_show((double)bytes).s, (unsigned long long)bytes, folder, size_show((double)free_bytes).s, (unsigned long long)free_bytes);
	return fail_hint(e, VD_ENOSPC, "if much of the disk is zeros it may fit all the same: --no-space-check");
}
