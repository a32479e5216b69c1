/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A stream as a file that was looked at only at its ends: it came once, and what was between is gone. */
#ifndef VD_IO_CAPTURE_H
#define VD_IO_CAPTURE_H

#include "libvdisk/io/io.h"

#define VD_CAPTURE_HEAD (UINT64_C(20) << 20)    /* all of a LUKS2 header of the usual size */
#define VD_CAPTURE_TAIL (UINT64_C(1) << 20)

struct vd_capture;

int vd_capture_new(struct vd_capture **out, struct vd_error *e) VD_MUST_CHECK;
void vd_capture_free(struct vd_capture *c);
/* The next bytes of the stream. */
int vd_capture_add(struct vd_capture *c, const void *bytes, size_t len, struct vd_error *e) VD_MUST_CHECK;
/*
 * A host on which every name is the stream, for reading; nothing is added while a file of it is open. Reading what is not
 * kept is VD_EAGAIN.
 */
struct vd_host *vd_capture_host(struct vd_capture *c);

#endif
