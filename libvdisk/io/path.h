/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Names of host files as text: folders and what is in them. Looks at no file. */
#ifndef VD_IO_PATH_H
#define VD_IO_PATH_H

#include "libvdisk/base/error.h"

/* The folder of a path: "." for a bare name, "/" for what is directly below the root. The caller frees it. */
int vd_path_folder(const char *path, char **folder, struct vd_error *e) VD_MUST_CHECK;
/* What `name`, found inside the file at `path`, means: relative to that file's folder. The caller frees it. */
int vd_path_beside(const char *path, const char *name, char **joined, struct vd_error *e) VD_MUST_CHECK;

#endif
