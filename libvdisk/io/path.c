/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Cuts and joins the names of host files; whether such a file exists or may be opened is for others to find out. */
#include "libvdisk/io/path.h"

#include <string.h>

#include "libvdisk/base/alloc.h"

int vd_path_folder(const char *path, char **folder, struct vd_error *e)
{
	const char *slash = strrchr(path, '/');
	int r;

	if (!slash)
		return vd_strdup(".", folder, e);
	if (slash == path)
		return vd_strdup("/", folder, e);
	r = vd_strdup(path, folder, e);
	if (r >= 0)
		(*folder)[slash - path] = '\0';
	return r;
}

int vd_path_beside(const char *path, const char *name, char **joined, struct vd_error *e)
{
	const char *slash = strrchr(path, '/');
	size_t folder_len = slash && name[0] != '/' ? (size_t)(slash - path) + 1 : 0;
	size_t name_len = strlen(name);
	int r = vd_alloc(folder_len + name_len + 1, 1, joined, e);

	if (r < 0)
		return r;
	memcpy(*joined, path, folder_len);
	memcpy(*joined + folder_len, name, name_len);
	return 0;
}
