/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Mends what verify found: blobs of bad packs that are still whole, and those that the source image still holds, go into new packs; indexes forget the
 * bad ones, which are put aside and not thrown away. At each moment every blob that could be read before can be read.
 */
#ifndef TOOLS_BACKUP_REPAIR_H
#define TOOLS_BACKUP_REPAIR_H

#include "backup/verify.h"

struct repair {
	struct verify *v;               /* what is bad; the repository is locked for this process alone */
	struct vd_image *source;        /* NULL: only what the packs still hold */
	const char *quarantine;         /* folder for bad packs, which is there */

	uint64_t kept, remade, lost;    /* blobs: still whole in a bad pack, from the source, in neither */
	uint64_t put_aside;             /* packs */
};
int repair_run(struct repair *r, struct vd_error *e);

#endif
