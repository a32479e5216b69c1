/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Draws what a file consists of: characters for a terminal, or SVG for a report. */
#ifndef TOOLS_HOSTPICTURE_H
#define TOOLS_HOSTPICTURE_H

#include <stddef.h>

#include "hostmap.h"

void hostpicture_draw(const struct hostmap *m);
/* All files in one drawing. */
void hostpicture_draw_svg(const struct hostmap *maps, size_t n);

#endif
