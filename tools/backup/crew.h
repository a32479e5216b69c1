/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The same work on several threads, until all have come to its end or one has failed. */
#ifndef TOOLS_BACKUP_CREW_H
#define TOOLS_BACKUP_CREW_H

#include <vdisk.h>

#define CREW_MAX 64

/* 0: one for each processor. At most CREW_MAX. */
unsigned crew_size(unsigned wanted);
/*
 * work(ctx, 0) in the calling thread, work(ctx, 1) ... beside it. *stop becomes true when one of them has failed, which is for the others to look
 * at. The failure that came first is returned.
 */
int crew_run(unsigned n, int (*work)(void *ctx, unsigned who, struct vd_error *e), void *ctx, bool *stop, struct vd_error *e);

#endif
