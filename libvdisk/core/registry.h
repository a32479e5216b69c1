/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The list of drivers: a new format is one line in registry.c. */
#ifndef VD_CORE_REGISTRY_H
#define VD_CORE_REGISTRY_H

#include "libvdisk/core/format.h"

extern const struct vd_format vd_format_raw, vd_format_qcow2, vd_format_vhd, vd_format_vhdx, vd_format_vmdk;

/* By name or alias; NULL when unknown. */
const struct vd_format *vd_registry_find(const char *name);

/* What content is told by: the ends of a file. */
struct vd_ends {
	struct vd_bytes head, tail;     /* at most 64 KiB, 4 KiB; all of a shorter file is in both */
	uint64_t size;
	uint8_t *room;
};
int vd_ends_read(struct vd_io *io, struct vd_ends *ends, struct vd_error *e) VD_MUST_CHECK;
/* Of [off, off+len) of the file, as if that were one. */
int vd_ends_read_part(struct vd_io *io, uint64_t off, uint64_t len, struct vd_ends *ends, struct vd_error *e) VD_MUST_CHECK;
void vd_ends_free(struct vd_ends *ends);
#define vd_auto_ends __attribute__((cleanup(vd_ends_free)))

/* By content: the first driver that knows it, raw if none does. */
const struct vd_format *vd_registry_probe(const struct vd_ends *ends);
/* The next driver after `last` (NULL: the first) that knows the content, but for raw, which knows all; NULL past the last. */
const struct vd_format *vd_registry_next_match(const struct vd_ends *ends, const struct vd_format *last);

#endif
