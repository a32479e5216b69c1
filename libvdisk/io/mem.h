/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A host in memory: one flat folder of named files, sparse in 64 KiB pieces, with the same rules of opening as the
 * operating system's. For unit tests, fuzzing and the states after a crash; nothing of it outlives its host.
 */
#ifndef VD_IO_MEM_H
#define VD_IO_MEM_H

#include "libvdisk/base/bytes.h"
#include "libvdisk/io/io.h"

int vd_mem_host_new(struct vd_host **out, struct vd_error *e) VD_MUST_CHECK;
/* All files must be closed. NULL is allowed. */
void vd_mem_host_free(struct vd_host *h);

/* Makes the file, or replaces the content of the one that has this name. */
int vd_mem_put(struct vd_host *h, const char *name, const void *bytes, size_t len, struct vd_error *e) VD_MUST_CHECK;
/* The name of the i-th file, in the order they were made; NULL past the last. */
const char *vd_mem_name(struct vd_host *h, size_t i);
/* How often the file was flushed since it was made. */
unsigned vd_mem_flushes(struct vd_host *h, const char *name);

#endif
