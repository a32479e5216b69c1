/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Tells whether what lies below an image's files keeps blocks that were overwritten. */
#ifndef TOOLS_KEEPS_H
#define TOOLS_KEEPS_H

#include <vdisk.h>

/* Each fact once, with the file of which it was found first: a line of result, or an object of JSON. */
void keeps_tell(struct vd_image *img);

#endif
