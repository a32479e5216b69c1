/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Outputs that appear under their final name whole or not at all: made as "PATH.vdisk-partial" in the same folder,
 * locked while they grow, renamed after a flush. A partial that a killed run left behind (nobody holds its lock)
 * is replaced by the next run.
 */
#ifndef VD_IO_ATOMIC_H
#define VD_IO_ATOMIC_H

#include "libvdisk/io/io.h"

struct vd_output {
	struct vd_host *host;
	char *final_name;       /* NULL once committed or abandoned */
	char *partial_name;     /* NULL for a device, which is written where it is */
	bool replace;
};

/*
 * Opens a new output. VD_EEXIST if final_name exists and replace is false; VD_EBUSY if it exists and is in use, or
 * if another run is writing the same output. A block device at `path` is opened itself (needs no replace).
 */
int vd_output_open(struct vd_host *host, const char *path, bool replace, struct vd_output *out, struct vd_io **io,
		   struct vd_error *e) VD_MUST_CHECK;
/*
 * The file must be flushed already, and still open: its lock is what tells other runs to keep off. Renames, flushes the
 * folder; afterwards *out is spent. After a failure it is as before: abandon it.
 */
int vd_output_commit(struct vd_output *out, struct vd_error *e) VD_MUST_CHECK;
/* A whole new file of these bytes, and zeros up to `size`. VD_EEXIST if the name is taken and replace is false. */
int vd_output_put(struct vd_host *host, const char *path, bool replace, const void *bytes, size_t len, uint64_t size,
		  struct vd_error *e) VD_MUST_CHECK;
/*
 * Puts a new file of these bytes in the place of one that is open for writing, under its name and with its owner and mode:
 * durably, at one instant. *io is the new one then, locked before it had the name, and *old the other, for the caller to close;
 * names that others keep of them stay good. Failed, nothing has changed, but for VD_EPOISONED: it may have.
 */
int vd_output_exchange(struct vd_host *host, struct vd_io **io, const void *bytes, size_t len, struct vd_io **old,
		       struct vd_error *e) VD_MUST_CHECK;
/* Removes the partial file, which is still open; a spent or zeroed output is allowed. */
void vd_output_abandon(struct vd_output *out);

#endif
