/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which bytes of a disk may have changed since it was last backed up, from whoever can tell: a qcow2 bitmap, a VMware CTK file, a list of the
 * caller's, qemu over NBD. It never reads payload. In doubt it says so and tells nothing: then every allocated byte is read.
 */
#ifndef TOOLS_BACKUP_CHANGES_H
#define TOOLS_BACKUP_CHANGES_H

#include <stdbool.h>
#include <stdint.h>
#include <vdisk.h>

struct changes_want {
	const char *bitmap;             /* qcow2's, by name; NULL: none is asked for */
	const char *list;               /* file of changed blocks in JSON, "-" for standard input; NULL: none */
	const char *nbd;                /* qemu's export with its bitmap, nbd+unix://...; NULL: none */
	bool is_automatic;              /* take what the image has: a bitmap of ours, a CTK file */
	const char *mark;               /* changes_mark() of the backup that is the base; NULL: there is none, or it kept none */
};
struct change_range {
	uint64_t off, len;
};
struct changes;

/*
 * `img` is open for reading and outlives it; `path` is the image's. *out is NULL, with 0, where a scan has to be made: `why` then says it in a few
 * words ("no base", "bitmap in use", "the list is of another disk"). Errors are of what was asked for by name and cannot be read at all.
 */
int changes_open(struct vd_image *img, const char *path, const struct changes_want *want, struct changes **out, char why[160], struct vd_error *e);
void changes_close(struct changes *c);

/* The first changed range at or after `off`, or len 0: none. Ranges are within the disk, sorted, disjoint. Any thread. */
int changes_next(struct changes *c, uint64_t off, struct change_range *r, struct vd_error *e);
/* What told: "qcow2 bitmap", "VMware CTK", "list", "NBD bitmap". */
const char *changes_source(const struct changes *c);

/*
 * The point in time of what is backed up now, to be kept with the snapshot and handed in as `mark` the next time: text of at most 512 bytes, or
 * "": nothing can tell changes the next time. To be called before the first byte is read. Where asked for, makes the bitmap that records from here on.
 */
int changes_mark(struct vd_image *img, const char *path, const struct changes_want *want, char mark[513], struct vd_error *e);

#endif
