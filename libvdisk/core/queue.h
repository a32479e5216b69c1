/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What tests ask of a queue beside the public calls. */
#ifndef VD_CORE_QUEUE_H
#define VD_CORE_QUEUE_H

#include "libvdisk/base/error.h"

/* Whether the kernel reads for this queue; and how many requests were left to it so far. */
bool vd_queue_has_ring(const struct vd_queue *q);
uint64_t vd_queue_n_ring_reads(const struct vd_queue *q);

#endif
