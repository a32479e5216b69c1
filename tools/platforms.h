/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the places where disks run import. */
#ifndef TOOLS_PLATFORMS_H
#define TOOLS_PLATFORMS_H

#include "opts.h"

/* The names, for --for. */
extern const struct opt_choice platform_names[];

/*
 * Fills in what --for says and nothing else has said: format, kind, adapter, unit of the size. VD_EARG where -O says
 * otherwise. Before -o is taken apart.
 */
int platforms_apply(struct settings *s, struct vd_error *e);
/* What is left for the user to do with the file, or NULL. */
const char *platforms_next_step(const struct settings *s);

#endif
