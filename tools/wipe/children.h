/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Looks for images outside the set that stand on a member of it: a wipe would take their disks, too. */
#ifndef TOOLS_WIPE_CHILDREN_H
#define TOOLS_WIPE_CHILDREN_H

#include "settings.h"
#include "wipe/set.h"

/*
 * In the folders of the members, and in and below those of --also-scan. EXIT_EREFUSED names the first image that depends on a
 * member; with --force that is noted in the set instead.
 */
int wipe_judge_children(const struct settings *s, struct wipe_set *set, struct vd_error *e);

#endif
