/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Zstandard, one thread's worth: frames of one blob, and unpacking that never makes more than it was told to. */
#ifndef TOOLS_BACKUP_ZPRESS_H
#define TOOLS_BACKUP_ZPRESS_H

#include <stddef.h>
#include <stdint.h>
#include <vdisk.h>

#include "ledger/bytes.h"

/* Of one thread. */
struct zpress;
int zpress_new(struct zpress **out, struct vd_error *e);
/* NULL is allowed. */
void zpress_free(struct zpress *z);

/* The bytes that out needs for n in the worst case. */
size_t zpress_bound(size_t n);
/* One frame; returns its length. */
int zpress_pack(struct zpress *z, const void *in, size_t n, void *out, size_t room, size_t *got, struct vd_error *e);
/* VD_ECORRUPT: it is no frame, or does not hold exactly n bytes. */
int zpress_unpack(struct zpress *z, const void *in, size_t in_len, void *out, size_t n, struct vd_error *e);
/* Adds what it holds, which is not told beforehand, but at most max bytes (more: VD_ECORRUPT). */
int zpress_unpack_any(struct zpress *z, const void *in, size_t in_len, size_t max, struct bytes *out, struct vd_error *e);

#endif
