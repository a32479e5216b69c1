/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Draws a survey: characters for a terminal, or SVG for a report. */
#ifndef TOOLS_PICTURE_H
#define TOOLS_PICTURE_H

#include "survey.h"

#define PICTURE_COLUMNS 64
#define PICTURE_ROWS_MAX 8

void picture_draw(const struct survey *v);
void picture_draw_svg(const struct survey *v, const char *title);
/* Text as it may stand in XML. */
void picture_print_xml(const char *text);

#endif
