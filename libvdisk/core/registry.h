/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The list of drivers: a new format is one line in registry.c. */
#ifndef VD_CORE_REGISTRY_H
#define VD_CORE_REGISTRY_H

#include "libvdisk/core/format.h"

extern const struct vd_format vd_format_raw, vd_format_qcow2, vd_format_vhd, vd_format_vmdk;

/* By name or alias; NULL when unknown. */
const struct vd_format *vd_registry_find(const char *name);
/* By content: the first driver that knows it, raw if none does. */
const struct vd_format *vd_registry_probe(struct vd_bytes head, struct vd_bytes tail, uint64_t size);

#endif
