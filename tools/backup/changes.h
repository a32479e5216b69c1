/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which bytes of a disk may have changed since it was last backed up, from whoever can tell: a qcow2 bitmap, a VMware CTK file, a list of the
 * caller's, qemu over NBD. It never reads payload. In doubt it says so and tells nothing: then every allocated byte is read.
 *
 *   changes_begin     before the image is opened: what records from here on is made
 *   changes_look      the image is open: what has changed since the base, or why a scan has to be made
 *   changes_next      while it is read
 *   changes_mark      goes into the snapshot, and is handed in as the base's with the next backup
 *   changes_settle    the snapshot is durable, or there will be none; the image is closed
 *
 * So there is no moment that nothing records: the new bitmap is there before the first byte is read, and the old one until the snapshot is durable. A
 * crash between leaves both; the next backup of the image removes the one that nobody needs.
 */
#ifndef TOOLS_BACKUP_CHANGES_H
#define TOOLS_BACKUP_CHANGES_H

#include <stdbool.h>
#include <stdint.h>
#include <vdisk.h>

#define CHANGES_MARK_SIZE 513
#define CHANGES_WHY_SIZE 160

struct changes_want {
	const char *bitmap;             /* qcow2's, by name, that the caller looks after; with nbd: qemu's. NULL: none is asked for */
	const char *list;               /* file of changed blocks in JSON, "-" for standard input; NULL: none */
	const char *nbd;                /* qemu's export with its bitmap, nbd+unix:///EXPORT?socket=PATH; NULL: none */
	const char *qmp;                /* qemu's QMP socket: a machine has the image open, and its qemu shows it; NULL: nobody has */
	const char *agent;              /* with qmp: the guest agent's socket, to freeze the guest's file systems for the moment; NULL: they go on */
	bool is_automatic;              /* take what the image has: the bitmap that the base's mark tells of */
	bool tracks;                    /* changes_begin() makes a bitmap that records from here on, which writes to the image */
	bool trusts_ctk;                /* with is_automatic: a CTK file, too, whose layout VMware has not published */
	const char *mark;               /* changes_mark() of the backup that is the base, "" if it kept none; NULL: there is no base */
};
struct change_range {
	uint64_t off, len;
};
struct changes;

/*
 * `opts` says how the image is opened, but for the flags; it and `want` have to live until changes_close(). Makes the bitmap, where asked for and
 * the format has them, and removes those that backups of this series have left behind when they were killed. That it cannot is no failure: `why` says so
 * in a few words, else it is "".
 */
int changes_begin(const char *path, const struct vd_open_opts *opts, const struct changes_want *want, struct changes **out,
		  char why[CHANGES_WHY_SIZE], struct vd_error *e);
/* What to open as the image: its path, or where a machine's qemu shows it, to be opened without a format. */
const char *changes_path(const struct changes *c);
/*
 * `img` is open for reading, and outlives the call. 1: what changed is known. 0: a scan has to be made, and `why` says it in a few words ("no base",
 * "bitmap in use", "the list is of another disk"). Errors are of what was asked for by name and cannot be read at all.
 */
int changes_look(struct changes *c, struct vd_image *img, char why[CHANGES_WHY_SIZE], struct vd_error *e);
/* After a 1. The first range at or after `off` that may have changed, or len 0: none. Ranges are within the disk, sorted, disjoint. Any thread. */
void changes_next(const struct changes *c, uint64_t off, struct change_range *r);
/* After a 1. Their sum. */
uint64_t changes_bytes(const struct changes *c);
/* After a 1. What told: "qcow2 bitmap", "VMware CTK", "list", "NBD bitmap". */
const char *changes_source(const struct changes *c);
/* After changes_look(), whatever it said: the point in time of what is backed up now. Text of less than CHANGES_MARK_SIZE bytes, of `c`. */
const char *changes_mark(const struct changes *c);
/* Removes the bitmap that nobody needs: the base's, or if it is not durable the new one. For writing: nobody may have the image open. */
int changes_settle(struct changes *c, bool is_durable, struct vd_error *e);
/* NULL is allowed. */
void changes_close(struct changes *c);

#endif
