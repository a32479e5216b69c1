/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Looks at a window of a host file, for the jobs that go over all of an image's bytes. */
#ifndef VD_CORE_HOST_H
#define VD_CORE_HOST_H

#include "libvdisk/core/cover.h"

/*
 * Fills a window with all claims from `start` (at a multiple of VD_WINDOW_ALIGN) up to `end`, or to where they get too
 * many, or to the end of the file. With the control lock held exclusively; what was written is in the tables, and durable,
 * afterwards. The caller fini()s the window whatever is returned.
 */
int vd_host_look(struct vd_image *img, uint32_t file, uint64_t start, uint64_t end, struct vd_window *w,
		 struct vd_error *e) VD_MUST_CHECK;

/* scrub.c: what vd_host_scrub() may overwrite. */
bool vd_owner_is_nobody(int owner);
/* The same, when the image is closed. */
void vd_host_forget(struct vd_image *img);

#endif
