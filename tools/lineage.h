/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Follows an image down its chain of parents, by tables alone, for those who show it. */
#ifndef TOOLS_LINEAGE_H
#define TOOLS_LINEAGE_H

#include "settings.h"

struct json_object;

/* A tree of files with the snapshots inside each, down to what cannot be found or opened, which is said. */
int lineage_print(const struct settings *s, const char *image, struct vd_error *e);
/* The same as an array, the image first. */
int lineage_put(const struct settings *s, const char *image, struct json_object *array, struct vd_error *e);

#endif
