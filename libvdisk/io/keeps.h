/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Whether what lies below a file keeps blocks that were overwritten, for tests with a system of their own; else vdisk.h. */
#ifndef VD_IO_KEEPS_H
#define VD_IO_KEEPS_H

#include <sys/types.h>

#include "libvdisk/base/error.h"

/* Facts go into buf as long as there is room; n counts all. */
struct vd_keeps_list {
	const char *sys, *proc;         /* where sysfs and procfs are */
	struct vd_keeps *buf;
	size_t room, n;
	const char *via;                /* what the facts of a lower layer begin with, "" at the top */
	unsigned depth;                 /* of devices and files on one another */
};

/* What the type of a file system, as statfs() gives it, says by itself. in_place: the file is marked to be written in place. */
void vd_keeps_of_type(struct vd_keeps_list *l, long type, bool in_place);
/* What the options of a mounted ext4 say, from its file in procfs. */
void vd_keeps_of_options(struct vd_keeps_list *l, dev_t dev);
/* The device, and those it consists of. */
void vd_keeps_of_device(struct vd_keeps_list *l, dev_t dev);

#endif
