/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What differs between two trees, by the names of their chunks: nothing of the content is read. */
#ifndef TOOLS_SNAPSHOTDIFF_H
#define TOOLS_SNAPSHOTDIFF_H

#include "backup/tree.h"

enum snapshotdiff_how { DIFF_SAME, DIFF_DIFFERS, DIFF_ADDED, DIFF_REMOVED };
struct snapshotdiff_item {
	const char *path;               /* of a file in the tree */
	enum snapshotdiff_how how;
	uint64_t size;                  /* of the newer one, or the only one */
	uint64_t bytes;                 /* of chunks that are others, or in other places */
};
/* Folders that are the same are not looked into, and not told. The index has been read. */
int snapshotdiff(struct repo *r, const uint8_t a[ID_SIZE], const uint8_t b[ID_SIZE], int (*each)(void *ctx, const struct snapshotdiff_item *d), void *ctx,
		 struct vd_error *e);

#endif
