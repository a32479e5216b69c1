/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The names by which an image made for Windows knows its parent, and what they mean on this machine. Whether there is
 * such a file, and whether it may be opened, others find out.
 */
#ifndef VD_FORMATS_PARENTNAME_H
#define VD_FORMATS_PARENTNAME_H

#include "libvdisk/base/error.h"

#define VD_PARENT_NAMES_MAX 12
#define VD_PARENT_NAME_MAX 4096         /* bytes of one, as text */

struct vd_parent_names {
	char *at[VD_PARENT_NAMES_MAX + 1];      /* in the order in which to try them; NULL ends them */
	size_t n;
};

/*
 * Adds what a name means: a relative one with slashes instead of backslashes; an absolute one of Windows nothing but
 * its last part, to be found beside the image; and after any name with folders in it the last part alone.
 */
int vd_parent_names_add(struct vd_parent_names *names, const char *name, struct vd_error *e) VD_MUST_CHECK;
void vd_parent_names_free(struct vd_parent_names *names);

bool vd_parent_name_is_absolute(const char *name);
/* ".\a\b" of "a/b", into cap bytes. A backslash in the name, or want of room, is VD_EARG. */
int vd_parent_name_for_windows(const char *name, char *out, size_t cap, struct vd_error *e) VD_MUST_CHECK;

#endif
