/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Words failures that the command detects itself, in the library's struct, so that one place prints both. Each call
 * returns the code: return fail(e, VD_EARG, "..."); a hint follows its failure: fail_hint(e, r, "...").
 */
#ifndef TOOLS_FAIL_H
#define TOOLS_FAIL_H

#include <vdisk.h>

int fail(struct vd_error *e, int code, const char *fmt, ...) VD_PRINTF(3, 4);
/* Adds ": " and the text of err; picks the code by it. */
int fail_errno(struct vd_error *e, int err, const char *fmt, ...) VD_PRINTF(3, 4);
/* Replaces the hint. */
int fail_hint(struct vd_error *e, int code, const char *fmt, ...) VD_PRINTF(3, 4);

#endif
