/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A new OVA around a new disk. */
#ifndef VD_CORE_PACKAGE_H
#define VD_CORE_PACKAGE_H

#include "libvdisk/io/io.h"

struct vd_package;

/*
 * Leaves room in the new file for what stands before the disk; *io becomes the disk's part of it, for writing. `path` names
 * the members. The file is the caller's, or the part's, whatever is returned.
 */
int vd_package_begin(const char *path, struct vd_io **io, struct vd_package **out, struct vd_error *e) VD_MUST_CHECK;
/* The disk of `size` bytes is whole: reads it for the manifest, writes descriptor, manifest and the end, and flushes. */
int vd_package_end(struct vd_package *p, uint64_t size, struct vd_error *e) VD_MUST_CHECK;
void vd_package_free(struct vd_package *p);

#endif
