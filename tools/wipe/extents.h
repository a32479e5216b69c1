/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where the bytes of a file lie on its device, asked for before and after they are overwritten. */
#ifndef TOOLS_WIPE_EXTENTS_H
#define TOOLS_WIPE_EXTENTS_H

#include "wipe/set.h"

#define WIPE_EXTENTS_MAX 65536  /* in a window */

struct wipe_extent {
	uint64_t off, len;
	uint64_t phys;                  /* on the device; of a file system that does not tell: 0 */
	uint32_t flags;                 /* FIEMAP_EXTENT_* */
};
/* A window of a file: what is allocated in [from, to), in order. */
struct wipe_window {
	uint64_t from, to;
	struct wipe_extent *at;         /* room for WIPE_EXTENTS_MAX */
	size_t n;
	uint64_t bytes;
};

void wipe_window_init(struct wipe_window *w);
void wipe_window_free(struct wipe_window *w);
/*
 * Fills the window from `from` on until it has `bytes_max` bytes, or all extents that fit, or the file ends; `to` says where. With
 * `has_map` false by SEEK_DATA, which misses what is allocated and unwritten. What lies past the end of the file is left out.
 */
int wipe_window_read(int fd, const struct wipe_member *m, uint64_t from, uint64_t bytes_max, struct wipe_window *w, struct vd_error *e);
/* Whether the file system tells where a file's bytes lie. */
bool wipe_has_map(int fd);
/*
 * How many bytes of the window are not at the places any more at which they were: the file is asked again. Bytes whose place cannot be
 * compared, since they are packed, inline or not yet given a place, count as moved.
 */
int wipe_window_moved(int fd, const struct wipe_window *before, uint64_t *moved, struct vd_error *e);
/* Extents of the whole file, and a hash of them; in m how many bytes are shared, packed, unwritten, or past its end. */
struct wipe_map {
	uint64_t extents, bytes;
	char sha256[65];
};
int wipe_map_sum(int fd, struct wipe_member *m, struct wipe_map *map, struct vd_error *e);

#endif
