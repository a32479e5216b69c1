/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The disk of an open image, and its partitions, as the files of a FUSE file system: "disk", "p1", "p2" ... */
#ifndef TOOLS_FUSEFS_H
#define TOOLS_FUSEFS_H

#include <sys/ioctl.h>

#include "partitions.h"

struct fusefs;

struct fusefs_opts {
	struct vd_image *img;           /* borrowed until fusefs_free() */
	const struct partitions *parts;
	const char *image, *dir;        /* names: of the image, for lists of mounts; where to mount */
	bool writes;
};

/* Mounted when it returns 0; nothing is served yet. VD_EUNSUPPORTED: built without libfuse. */
int fusefs_mount(const struct fusefs_opts *o, struct fusefs **out, struct vd_error *e);
/* Serves until somebody unmounts it, or a signal says so; then it is unmounted. */
int fusefs_serve(struct fusefs *f, struct vd_error *e);
/* Where whoever unmounts wants to hear what closing the image came to: a FIFO; NULL: nobody asked. */
const char *fusefs_report_to(const struct fusefs *f);
void fusefs_free(struct fusefs *f);

/* How the unmounter says so, to the file "disk": which answers with the process that serves. */
struct fusefs_farewell {
	char report_to[256];
	int32_t pid;
};
#define FUSEFS_FAREWELL _IOWR('v', 1, struct fusefs_farewell)

#endif
