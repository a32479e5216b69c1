/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is left on volumes outside of files: deleted files, free blocks that are not zeros, swap, a sleeping machine's memory. */
#ifndef TOOLS_SCAN_RESIDUE_H
#define TOOLS_SCAN_RESIDUE_H

#include "fsview/fsview.h"
#include "scan/findings.h"

/* Counts the bytes of a range of the disk that are not zeros, in pieces; reads nothing of what the image has as zeros or holes. */
struct scan_nonzero {
	uint64_t bytes, first;          /* first: of the disk; valid if bytes */
};
int scan_count_nonzero(struct vd_image *img, struct fsview_range where, struct scan_nonzero *sum, struct vd_error *e);

/* What could not be looked at is a shortfall of the view. */
int scan_residue(struct vd_image *img, struct fsview *v, struct scan_findings *f, struct vd_error *e);

#endif
