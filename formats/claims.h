/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Claims of a host walk as the formats with blocks make them: what is used of a place, and what is not. */
#ifndef VD_FORMATS_CLAIMS_H
#define VD_FORMATS_CLAIMS_H

#include "libvdisk/core/format.h"

/* A place of `len` bytes, the first `used` of which are the owner's; the rest is slack. */
struct vd_place {
	uint64_t off, used, len;
	uint8_t owner, why, rest;       /* enum vd_owner, enum vd_why; why the rest is slack */
	uint64_t guest_off;             /* VD_HOST_NOWHERE: none */
	uint64_t parent_off;            /* the same */
};

/* Claims what of it meets the window. */
int vd_claim_place(struct vd_window *w, const struct vd_place *p, struct vd_error *e) VD_MUST_CHECK;

#endif
