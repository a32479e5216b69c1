/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Tells whether anybody uses a member, and keeps machines away from it while it is wiped. */
#ifndef TOOLS_WIPE_INUSE_H
#define TOOLS_WIPE_INUSE_H

#include "settings.h"
#include "wipe/set.h"

/* VD_EBUSY says who, where that can be told; EXIT_EREFUSED: a hard link, or a file that may not be changed. */
int wipe_judge_use(const struct settings *s, struct wipe_set *set, struct vd_error *e);
/* Takes qemu's locks, all of them, by a descriptor that holds them until it is closed. VD_EBUSY: somebody has one. */
int wipe_lock(const char *path, int *fd, struct vd_error *e);

#endif
