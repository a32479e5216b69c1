/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A sparse set of guest bytes in pieces of a power of two: what was written, in memory. Marking never fails, needs no
 * lock, and is cheap where it was done before; what it says is never less than what was marked.
 */
#ifndef VD_CORE_DIRTY_H
#define VD_CORE_DIRTY_H

#include "libvdisk/base/error.h"

struct vd_dirty;

/* Empty, over `size` bytes in pieces of 1 << bits. Memory is taken as pieces are marked: at most a bit for each. */
int vd_dirty_new(uint64_t size, unsigned bits, struct vd_dirty **out, struct vd_error *e) VD_MUST_CHECK;
/* NULL is allowed. */
void vd_dirty_free(struct vd_dirty *d);

/* Any thread. What lies past `size` is left out. */
void vd_dirty_mark(struct vd_dirty *d, uint64_t off, uint64_t len);
/* The first run of marked bytes that touches [off, end), cut to it; false: there is none. */
bool vd_dirty_next(const struct vd_dirty *d, uint64_t off, uint64_t end, uint64_t *from, uint64_t *to);
/*
 * Adds what is marked to a bitmap whose pieces are of any power of two: bits [first, first+n), first a multiple of 8, into
 * `raw`, least significant bit first.
 */
void vd_dirty_add_to(const struct vd_dirty *d, unsigned bits, uint64_t first, uint64_t n, uint8_t *raw);

#endif
