/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files that are no images and hold some. */
#ifndef VD_CORE_ARCHIVE_H
#define VD_CORE_ARCHIVE_H

#include "libvdisk/core/image.h"

/*
 * If the file is an archive of disks (OVA), *io becomes the one that opts->disk names, or the only one; else it stays as it is.
 * VD_EARG when there are several and none is named; the file is the caller's whatever is returned.
 */
int vd_archive_enter(struct vd_io **io, const struct vd_open_opts *opts, struct vd_error *e) VD_MUST_CHECK;

#endif
