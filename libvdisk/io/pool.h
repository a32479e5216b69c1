/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Files of which only some are open at a time, for disks in a thousand parts: more than a process may have descriptors.
 * Each looks like an open file; the one that was not used for longest is closed when another is wanted.
 *
 * While a file is closed it is not locked either: what keeps others off is the lock of the file that names the parts.
 */
#ifndef VD_IO_POOL_H
#define VD_IO_POOL_H

#include "libvdisk/io/io.h"

struct vd_pool;

/* At most max_open files are open while nobody uses more at once. */
int vd_pool_new(struct vd_host *host, unsigned max_open, struct vd_pool **out, struct vd_error *e) VD_MUST_CHECK;
/* All its files are closed. NULL is allowed. */
void vd_pool_free(struct vd_pool *p);

/* Opens the file now, so that one that is missing, or in use, is noticed. */
int vd_pool_open(struct vd_pool *p, const char *path, unsigned flags, struct vd_io **out,
		 struct vd_error *e) VD_MUST_CHECK;

#endif
