/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A file on a web server, that is only read, piece by piece. */
#ifndef VD_IO_HTTPS_H
#define VD_IO_HTTPS_H

#include "libvdisk/io/io.h"

/* https://HOST/PATH. No path of a file begins so. */
bool vd_https_is_name(const char *path);
int vd_https_open(const char *name, unsigned flags, struct vd_io **out, struct vd_error *e) VD_MUST_CHECK;

#endif
