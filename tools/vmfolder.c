/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Tells disks from other files by what they are, or what they are called, and drops those that are parts or parents of others. */
#include "vmfolder.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "fail.h"
#include "source.h"
#include "ui.h"

struct entry {
	char *path;
	dev_t dev;
	ino_t ino;
	bool is_disk, is_used;          /* is_used: a part, or a parent, of another */
};
struct entries {
	struct entry at[2 * VMFOLDER_MAX];
	size_t n;
};

static bool has_ending(const char *name)
{
	static const char *const endings[] = { ".raw", ".img", ".vmdk", ".vhd", ".vhdx", ".avhdx", ".avhd", ".qcow2" };
	const char *dot = strrchr(name, '.');

	for (size_t i = 0; dot && i < sizeof(endings) / sizeof(endings[0]); i++)
		if (!strcasecmp(dot, endings[i]))
			return true;
	return false;
}

static void use(struct entries *all, const struct entry *by, const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return;
	for (size_t i = 0; i < all->n; i++)
		if (&all->at[i] != by && all->at[i].dev == st.st_dev && all->at[i].ino == st.st_ino)
			all->at[i].is_used = true;
}

/* Everything of this folder that the image consists of, or stands on. */
static void judge(const struct settings *s, struct entries *all, struct entry *x)
{
	struct vd_image *img = NULL;
	struct vd_error ignored;
	char parent[PATH_MAX];
	struct vd_info info;

	if (source_open_tables(s, x->path, NULL, &img, &ignored) < 0)
		return;
	if (source_info(img, &info, &ignored) == 0) {
		x->is_disk = strcmp(info.format, "raw") != 0 || has_ending(x->path);
		for (uint32_t i = 0; x->is_disk && i < vd_host_file_count(img); i++)
			use(all, x, vd_host_file_name(img, i));
		if (info.backing_file && source_resolve(s, VD_REF_BACKING, x->path, info.backing_file, parent, sizeof(parent), &ignored) == 0)
			use(all, x, parent);
	}
	vd_image_abort(img);
}

static int add(struct entries *all, const char *folder, const char *name, struct vd_error *e)
{
	struct entry *x = &all->at[all->n];
	struct stat st;

	if (all->n == sizeof(all->at) / sizeof(all->at[0]))
		return fail(e, VD_EARG, "%s: more than %zu files are not the folder of a machine", folder, all->n);
	if (asprintf(&x->path, "%s/%s", folder, name) < 0)
		ui_out_of_memory();
	if (stat(x->path, &st) < 0 || !S_ISREG(st.st_mode)) {
		free(x->path);
		return 0;
	}
	x->dev = st.st_dev;
	x->ino = st.st_ino;
	all->n++;
	return 0;
}

static void sort_out(struct entries *all, struct vmfolder *out)
{
	for (size_t i = 0; i < all->n; i++) {
		struct entry *x = &all->at[i];

		if (x->is_disk && !x->is_used && out->n_disks < VMFOLDER_MAX)
			out->disks[out->n_disks++] = x->path;
		else if (!x->is_disk && !x->is_used && out->n_files < VMFOLDER_MAX)
			out->files[out->n_files++] = x->path;
		else
			free(x->path);
	}
}

int vmfolder_look(const struct settings *s, const char *folder, struct vmfolder *out, struct vd_error *e)
{
	struct entries *all = calloc(1, sizeof(*all));
	struct dirent **names;
	int n = scandir(folder, &names, NULL, alphasort), r = 0;

	if (!all)
		ui_out_of_memory();
	if (n < 0) {
		free(all);
		return fail(e, VD_EIO, "%s: the folder cannot be read", folder);
	}
	for (int i = 0; i < n; i++) {
		if (r == 0)
			r = add(all, folder, names[i]->d_name, e);
		free(names[i]);
	}
	free(names);
	for (size_t i = 0; i < all->n; i++)
		judge(s, all, &all->at[i]);
	sort_out(all, out);
	free(all);
	return r;
}

void vmfolder_free(struct vmfolder *f)
{
	for (size_t i = 0; i < f->n_disks; i++)
		free(f->disks[i]);
	for (size_t i = 0; i < f->n_files; i++)
		free(f->files[i]);
	*f = (struct vmfolder){ 0 };
}
