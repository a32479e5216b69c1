/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reads the headers of images beside the members. Nothing that they name is opened: names are compared as files, by number. */
#include "wipe/children.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "exit.h"
#include "fail.h"
#include "signals.h"
#include "source.h"
#include "ui.h"

#define DEPTH_MAX 8

struct search {
	const struct settings *s;
	struct wipe_set *set;
	bool deep;
};

/* The file that an image's reference leads to, as a file and not as a name; false: it is no file here. */
static bool find_referred(const char *image, const char *name, struct stat *st)
{
	const char *slash = strrchr(image, '/'), *json = strstr(name, "\"filename\"");
	char path[PATH_MAX];

	if (!strncmp(name, "json:", 5) && json && (json = strchr(json + strlen("\"filename\""), '"')))
		name = json + 1;
	if (!strncmp(name, "file:", 5))
		name += 5;
	snprintf(path, sizeof(path), "%.*s%.*s", name[0] != '/' && slash ? (int)(slash - image + 1) : 0, image,
		 (int)strcspn(name, "\""), name);
	return stat(path, st) == 0;
}

static const struct wipe_member *member_referred(const struct wipe_set *set, const char *image, const char *name)
{
	struct stat st;

	if (!name || !find_referred(image, name, &st))
		return NULL;
	for (size_t i = 0; i < set->n; i++)
		if (S_ISBLK(st.st_mode) ? set->at[i].is_device && set->at[i].ino == st.st_rdev
					: set->at[i].dev == st.st_dev && set->at[i].ino == st.st_ino)
			return &set->at[i];
	return NULL;
}

static int refuse(const struct search *q, const char *child, const struct wipe_member *m, struct vd_error *e)
{
	if (q->s->force) {
		wipe_set_note(q->set, "%s depends on %s, and is lost with it: --force", child, m->path);
		return 0;
	}
	fail(e, EXIT_EREFUSED, "%s depends on %s, and is not to be wiped", child, m->path);
	return fail_hint(e, EXIT_EREFUSED, "name it too, flatten it first, leave its base with --keep-backing, or --force if it may be lost");
}

static int judge_image(const struct search *q, const char *path, struct vd_error *e)
{
	struct vd_open_opts o = { .struct_size = sizeof(o), .flags = VD_OPEN_METADATA | VD_OPEN_FORCE_SHARE };
	struct vd_inspect_opts io = { .struct_size = sizeof(io) };
	struct vd_inspection seen = { .struct_size = sizeof(seen) };
	const struct wipe_member *m = NULL;
	struct vd_image *img = NULL;
	struct vd_info info;
	struct vd_error ignored;

	if (vd_inspect(path, &io, &seen, &ignored) < 0 || !seen.format || !strcmp(seen.format, "raw"))
		return 0;
	o.format = seen.format;
	if (vd_image_open(path, &o, &img, &ignored) < 0)
		return 0;
	if (source_info(img, &info, &ignored) == 0) {
		m = member_referred(q->set, path, info.backing_file);
		m = m ? m : member_referred(q->set, path, info.data_file);
	}
	for (uint32_t i = 1; !m && i < vd_host_file_count(img); i++)
		m = member_referred(q->set, path, vd_host_file_name(img, i));
	vd_image_abort(img);
	return m ? refuse(q, path, m, e) : 0;
}

static int search(const struct search *q, const char *folder, unsigned depth, struct vd_error *e)
{
	DIR *dir = opendir(folder);
	const struct dirent *d;
	int r = 0;

	if (!dir) {
		wipe_set_note(q->set, "%s cannot be looked through for images that depend on what is wiped", folder);
		return 0;
	}
	while (r == 0 && (d = readdir(dir))) {
		char path[PATH_MAX];
		struct stat st;

		snprintf(path, sizeof(path), "%s/%s", strcmp(folder, "/") ? folder : "", d->d_name);
		r = signals_check(e);
		if (r < 0 || !strcmp(d->d_name, ".") || !strcmp(d->d_name, "..") || lstat(path, &st))
			continue;
		if (S_ISDIR(st.st_mode) && q->deep && depth < DEPTH_MAX)
			r = search(q, path, depth + 1, e);
		else if (S_ISREG(st.st_mode) && !wipe_set_has(q->set, st.st_dev, st.st_ino))
			r = judge_image(q, path, e);
	}
	closedir(dir);
	return r;
}

static void folder_of(const char *path, char folder[PATH_MAX])
{
	const char *slash = strrchr(path, '/');

	snprintf(folder, PATH_MAX, "%.*s", slash == path ? 1 : (int)(slash - path), path);
}

/* Folders once each: those of members before this one are done. */
static bool is_first_of_folder(const struct wipe_set *set, size_t i, const char *folder)
{
	char other[PATH_MAX];

	for (size_t j = 0; j < i; j++) {
		folder_of(set->at[j].path, other);
		if (!set->at[j].is_device && !strcmp(folder, other))
			return false;
	}
	return true;
}

int wipe_judge_children(const struct settings *s, struct wipe_set *set, struct vd_error *e)
{
	struct search q = { .s = s, .set = set };
	char folder[PATH_MAX];
	int r = 0;

	for (size_t i = 0; i < set->n && r == 0; i++) {
		folder_of(set->at[i].path, folder);
		if (!set->at[i].is_device && is_first_of_folder(set, i, folder))
			r = search(&q, folder, 0, e);
	}
	q.deep = true;
	for (size_t i = 0; i < s->wipe.also_scan.n && r == 0; i++)
		r = search(&q, s->wipe.also_scan.at[i], 0, e);
	return r;
}
