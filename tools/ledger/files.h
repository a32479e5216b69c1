/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Small files read whole, and files that appear under their name whole and durable or not at all. */
#ifndef TOOLS_LEDGER_FILES_H
#define TOOLS_LEDGER_FILES_H

#include <sys/types.h>

#include "ledger/bytes.h"

/* At most `max` bytes, of a regular file or a pipe; into what has room already, if `out` is fixed. */
int file_read(const char *path, size_t max, struct bytes *out, struct vd_error *e);
/* VD_EEXIST: something has that name. */
int file_judge_new(const char *path, struct vd_error *e);
/*
 * Under a temporary name in the same folder, flushed, renamed, the folder flushed. VD_EEXIST with `replaces` false: something has
 * that name, and it is left as it is.
 */
int file_write(const char *path, const struct bytes *content, mode_t mode, bool replaces, struct vd_error *e);

/* What is at `path`, if anything is; gone for good when it returns. */
int file_remove(const char *path, struct vd_error *e);

#endif
