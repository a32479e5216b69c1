/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What -o and the encryption options say of an image to be made, checked against its format. */
#ifndef TOOLS_NEWIMAGE_H
#define TOOLS_NEWIMAGE_H

#include "settings.h"

/* Reads the -o lists by the table of `format` into s->made. */
int newimage_parse(struct settings *s, const char *format, struct vd_error *e);
/* The same by another table. */
struct opt;
int newimage_parse_by(const struct opt *table, const char *what, struct settings *s, struct vd_error *e);
/* The library's options from s->made; key, size and gate are the caller's to fill. */
int newimage_opts(const struct settings *s, const char *format, struct vd_create_opts *o, struct vd_error *e);
/* Called so in messages: a format's name as the library knows it; VD_EUNSUPPORTED and the list when it cannot be written. */
int newimage_judge_format(const char *format, struct vd_error *e);

#endif
