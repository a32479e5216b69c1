/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of an image consist of, byte for byte, as one goes through them: listed, or summed up in cells to be drawn. */
#ifndef TOOLS_HOSTMAP_H
#define TOOLS_HOSTMAP_H

#include <vdisk.h>

#define HOSTMAP_COLUMNS 64
#define HOSTMAP_ROWS_MAX 16
#define HOSTMAP_CELLS_MAX (HOSTMAP_COLUMNS * HOSTMAP_ROWS_MAX)

/* One file. */
struct hostmap {
	const char *name;
	uint64_t size;
	uint64_t cell_bytes;
	size_t n_cells;
	uint64_t cells[HOSTMAP_CELLS_MAX][VD_N_OWNERS];         /* bytes */
	uint64_t bytes[VD_N_OWNERS], n_runs[VD_N_OWNERS];
	uint64_t shared, sparse;        /* bytes: that several lead to; that the host does not store, claimed or not */
};

/* Of all files of the image, as JSON on standard output: an array with one object a run. */
int hostmap_print(struct vd_image *img, struct vd_error *e);
/* Fills *maps (malloc'ed) with *n files, those that were opened. */
int hostmap_gather(struct vd_image *img, struct hostmap **maps, size_t *n, struct vd_error *e);

#endif
