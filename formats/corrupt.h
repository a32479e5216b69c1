/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How drivers say that an image breaks a rule of its format, and that they do not know what they did to it. */
#ifndef VD_FORMATS_CORRUPT_H
#define VD_FORMATS_CORRUPT_H

#include "libvdisk/base/error.h"

/* VD_ECORRUPT at this offset, with the file's name before the message if it is not NULL, and what to do about it. */
int vd_corrupt(const char *name, struct vd_error *e, uint64_t at, const char *fmt, ...) VD_PRINTF(4, 5);
/* VD_EPOISONED with what is not known ("the new size may be said or not") and, after it, the failure that e holds. */
int vd_unsure(const char *name, struct vd_error *e, const char *what);

#endif
