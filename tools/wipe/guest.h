/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The space that a guest's file systems call free, by the view of them. Overwriting it is partial.c's business. */
#ifndef TOOLS_WIPE_GUEST_H
#define TOOLS_WIPE_GUEST_H

#include "wipe/set.h"

/*
 * Calls each() with ranges of the disk; NULL: only judges. What each() returns ends it, and is returned. EXIT_EREFUSED: a file system
 * was not unmounted cleanly, so that what is free in it is not known; VD_EUNSUPPORTED: none says what is free. Those that do
 * not say it become limits of the set. No range is told of before all file systems were judged.
 */
int wipe_guest_free(struct vd_image *img, struct wipe_set *set, int (*each)(void *ctx, uint64_t off, uint64_t len), void *ctx,
		    struct vd_error *e);

#endif
