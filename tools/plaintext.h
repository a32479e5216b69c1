/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdisk check --plaintext: what of an encrypted image is readable without the key. */
#ifndef TOOLS_PLAINTEXT_H
#define TOOLS_PLAINTEXT_H

#include "settings.h"

/* The whole of it; returns as a verb does. */
int plaintext_check(const struct settings *s, struct vd_error *e);

#endif
