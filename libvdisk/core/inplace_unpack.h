/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The first pass of a conversion in place: no packed unit is left. */
#ifndef VD_CORE_INPLACE_UNPACK_H
#define VD_CORE_INPLACE_UNPACK_H

#include "libvdisk/core/image.h"

/*
 * Afterwards the image, its disk and every snapshot inside it, has no packed unit: each is expanded once, encrypted by `to`
 * if that has a cipher, and written to space of its own; what it was in is released.
 * Until `to` is the image's own encryption these units read as noise.
 *
 * The handle is open for writing or for control, and nobody holds its control lock. All that is done is durable. After a
 * failure, VD_ECANCELLED or a crash some units are plain and the others packed as before; called again it goes on.
 */
int vd_inplace_unpack(struct vd_image *img, const struct vd_layer *to, const struct vd_job *job,
		      struct vd_error *e) VD_MUST_CHECK;

/* Entries kept at a time. Tests make it small. */
extern size_t vd_unpack_entries;

#endif
