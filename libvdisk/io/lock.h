/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The locks that keep two programs from one image, compatible with qemu's. */
#ifndef VD_IO_LOCK_H
#define VD_IO_LOCK_H

#include "libvdisk/base/error.h"

/*
 * Locks the open file for reading or, with VD_IO_WRITE in flags (enum vd_io_flag), for writing; held until the
 * descriptor is closed. VD_EBUSY names the holder where /proc tells. A file system without such locks is no failure.
 */
int vd_lock_file(int fd, const char *path, unsigned flags, struct vd_error *e) VD_MUST_CHECK;

#endif
