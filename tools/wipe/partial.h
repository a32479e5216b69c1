/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Wipes a part of an image that stays in use: what is nobody's in it, with or without a snapshot that is deleted first. */
#ifndef TOOLS_WIPE_PARTIAL_H
#define TOOLS_WIPE_PARTIAL_H

#include "settings.h"
#include "wipe/run.h"

/* The set becomes the files of the one image. Written to is nothing. */
int wipe_partial_find(const struct settings *s, const char *path, struct wipe_run *run, struct vd_error *e);
/* As wipe_run(), with zeros, and without a state: whoever kills it begins it anew. */
int wipe_partial_run(const struct settings *s, struct wipe_run *run, struct vd_error *e);

#endif
