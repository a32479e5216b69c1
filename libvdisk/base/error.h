/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Wording failures. Whoever detects a failure words it, once; callers at most add the place. Every function
 * here accepts e == NULL and returns the code, so that a failure is one line: return vd_fail(e, VD_ECORRUPT, ...).
 */
#ifndef VD_BASE_ERROR_H
#define VD_BASE_ERROR_H

#include "libvdisk/include/vdisk.h"

/* Sets code and message, clears errno, offset and hint. Message: lower case, no full stop. */
int vd_fail(struct vd_error *e, int code, const char *fmt, ...) VD_PRINTF(3, 4);
/* The same for a failed system call: the code follows from `err`, ": strerror" is appended. */
int vd_fail_errno(struct vd_error *e, int err, const char *fmt, ...) VD_PRINTF(3, 4);
/* The same with the offset in the file at which the trouble is; ", at offset N" is appended to the message. */
int vd_fail_at(struct vd_error *e, int code, uint64_t offset, const char *fmt, ...) VD_PRINTF(4, 5);
/* What to do about it; keeps the rest. Returns e->code, or `code` when e is NULL. */
int vd_hint(struct vd_error *e, int code, const char *fmt, ...) VD_PRINTF(3, 4);
/* Puts the place before the message; keeps the rest. Returns e->code, or `code` when e is NULL. */
int vd_error_prefix(struct vd_error *e, int code, const char *fmt, ...) VD_PRINTF(3, 4);

/* The code that stands for an errno: ENOSPC -> VD_ENOSPC, ENOENT -> VD_ENOENT, EACCES -> VD_EACCESS, else VD_EIO. */
int vd_code_of_errno(int err);

#endif
