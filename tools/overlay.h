/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Makes an overlay of an image that keeps what the image is: the snapshot of formats that have none inside. */
#ifndef TOOLS_OVERLAY_H
#define TOOLS_OVERLAY_H

#include "settings.h"

struct overlay {
	const char *image;
	const char *name;               /* of the new file; NULL: the next free one of NAME-000001.vmdk and so on, in `room` */
	char room[4096];
	const char *format;             /* NULL: that of the image, qcow2 for raw; it says what it was afterwards */
	bool is_encrypted;              /* afterwards: it is, with the image's key, because the image is */
};

/* VD_EBUSY: somebody writes to the image. VD_EEXIST: something has the name. A crash leaves the overlay whole or not at all. */
int overlay_make(struct settings *s, struct overlay *o, struct vd_error *e);

#endif
