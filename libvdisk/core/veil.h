/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The veil over an image that is converted in place: on disk a stub stands where its first sector was (and where else a
 * format is known by), and nobody can open it. Through the veil's host it looks as if the true sectors were there; what is
 * written to them goes to the journal.
 *
 * V1  A true sector is durable in the journal before the stub is written over it.
 * V2  The first sector is hidden before anything else is done, and comes back last: without a stub there the image is whole.
 */
#ifndef VD_CORE_VEIL_H
#define VD_CORE_VEIL_H

#include "libvdisk/core/journal.h"

struct vd_veil;

/* Opens the file at `path` for writing and keeps it, and its lock, until the veil is closed. `inner` is borrowed. */
int vd_veil_open(struct vd_host *inner, const char *path, struct vd_veil **out, struct vd_error *e) VD_MUST_CHECK;
/* The journal that it hides sectors in, from now on; borrowed. */
int vd_veil_use(struct vd_veil *v, struct vd_journal *j, struct vd_error *e) VD_MUST_CHECK;
/* No file of its host may be open. */
int vd_veil_close(struct vd_veil *v, struct vd_error *e) VD_MUST_CHECK;
/* For error paths; NULL is allowed. */
void vd_veil_abort(struct vd_veil *v);

/* Opens `path` as it truly is, any number of times one after the other; other files are the inner host's. */
struct vd_host *vd_veil_host(struct vd_veil *v);
/* The file itself. */
struct vd_io *vd_veil_file(struct vd_veil *v);

/* Hides one more sector, durably, and writes the journal's state. */
int vd_veil_hide(struct vd_veil *v, uint64_t off, struct vd_error *e) VD_MUST_CHECK;
/* All true sectors go back to their places, the first one last; durably. */
int vd_veil_lift(struct vd_veil *v, struct vd_error *e) VD_MUST_CHECK;

#endif
