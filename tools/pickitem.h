/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Finds in a snapshot what is to be restored: a disk of ours, or a file as it lay there. */
#ifndef TOOLS_PICKITEM_H
#define TOOLS_PICKITEM_H

#include "backup/disk.h"

struct item {
	char path[4096];                /* in the snapshot */
	bool is_verbatim;               /* a file; else a disk by its content */
	uint64_t size;
	struct disk_base disk;
	struct tree holder;             /* of the file's node */
	struct node *file;
};
/*
 * `path` as the user named it, or NULL: the only disk that there is, else the only file. VD_EARG lists what there is to choose from. The index of the
 * repository has been read.
 */
int pickitem(struct repo *r, const uint8_t root[ID_SIZE], const char *path, struct item *out, struct vd_error *e);
void pickitem_free(struct item *x);

/* All disks, and files outside of disks' folders, in their order. */
int pickitem_each(struct repo *r, const uint8_t root[ID_SIZE], int (*each)(void *ctx, const char *path, bool is_disk, uint64_t size), void *ctx,
		  struct vd_error *e);

#endif
