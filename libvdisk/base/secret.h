/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory for secrets: its own pages, locked against swap, left out of core dumps, wiped in a forked child and
 * before release.
 */
#ifndef VD_BASE_SECRET_H
#define VD_BASE_SECRET_H

#include "libvdisk/base/error.h"

struct vd_secret {
	uint8_t *p;             /* len bytes; NULL when empty */
	size_t len;             /* bytes in use; may be lowered by the owner */
	size_t mapped;          /* whole pages behind p */
};

/*
 * len zeroed bytes. A process that may not lock memory gets unlocked memory: the secret then might be swapped, which
 * SECURITY.md says; opening an image does not fail for it.
 */
int vd_secret_alloc(struct vd_secret *s, size_t len, struct vd_error *e) VD_MUST_CHECK;
int vd_secret_copy(struct vd_secret *s, const void *src, size_t len, struct vd_error *e) VD_MUST_CHECK;
/* Wipes and unmaps; an empty one is allowed. */
void vd_secret_free(struct vd_secret *s);
/* Overwrites with zeros in a way that no compiler drops. */
void vd_wipe(void *p, size_t len);
/* Equal, in time that does not depend on where they differ. */
bool vd_secret_equal(const void *a, const void *b, size_t len);

#define vd_auto_secret __attribute__((cleanup(vd_secret_free)))

#endif
