/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Moves content between the layers of a chain, on all cores: what rebase, flatten and commit have in common. */
#ifndef VD_CORE_MERGE_H
#define VD_CORE_MERGE_H

#include "libvdisk/core/image.h"

/*
 * Makes `to` hold what it has to, so that it reads as `from` does now. `to` is `from` itself, which is to get the parent
 * `below` (NULL: none) and keeps what it has, or a layer below it, and `below` is NULL.
 */
struct vd_merge {
	const char *phase;
	struct vd_image *from, *to, *below;
};

/*
 * With the control lock of `from` held exclusively, and `to` and `below` known to nobody else. Nothing is durable yet
 * when it returns. Failed or cancelled, `from` reads as before. Adds to outcome->done and ->written.
 */
int vd_merge_run(const struct vd_merge *m, const struct vd_job *job, struct vd_outcome *outcome,
		 struct vd_error *e) VD_MUST_CHECK;

/* Whether the two are of one host file. */
bool vd_merge_is_same_file(const struct vd_image *a, const struct vd_image *b);

#endif
