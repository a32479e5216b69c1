/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is left in the container itself: what goes along with the image although no guest sees it. */
#ifndef TOOLS_SCAN_CONTAINER_H
#define TOOLS_SCAN_CONTAINER_H

#include "fsview/fsview.h"
#include "scan/findings.h"

/* What could not be looked at is a shortfall of the view. */
int scan_container(struct vd_image *img, struct fsview *v, struct scan_findings *f, struct vd_error *e);

#endif
