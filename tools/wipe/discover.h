/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Finds all that belongs to what a user names: a disk, a machine, a folder of one, a device. */
#ifndef TOOLS_WIPE_DISCOVER_H
#define TOOLS_WIPE_DISCOVER_H

#include "settings.h"
#include "wipe/set.h"

/*
 * Adds the target and what belongs to it. VD_EREFERENCE, VD_ENOENT: the set would not be whole, and the hint says what to do.
 * Nothing is written to.
 */
int wipe_discover(const struct settings *s, const char *target, struct wipe_set *set, struct vd_error *e);
/* One disk with its chain. `parent`: as wipe_set_add(). */
int wipe_discover_image(const struct settings *s, const char *path, const char *format, enum wipe_role role, size_t parent,
			struct wipe_set *set, struct vd_error *e);
/* The tree, for people. */
void wipe_set_print(const struct wipe_set *set);

#endif
