/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Finds a driver by name or by content. */
#include "libvdisk/core/registry.h"

/* Raw knows every file, so it is last. */
static const struct vd_format *const formats[] = { &vd_format_qcow2, &vd_format_vmdk, &vd_format_vhd, &vd_format_raw };
#define N_FORMATS (sizeof(formats) / sizeof(formats[0]))

const struct vd_format *vd_registry_find(const char *name)
{
	for (size_t i = 0; i < N_FORMATS; i++)
		if (!strcmp(formats[i]->name, name) || (formats[i]->alias && !strcmp(formats[i]->alias, name)))
			return formats[i];
	return NULL;
}

const struct vd_format *vd_registry_probe(struct vd_bytes head, struct vd_bytes tail, uint64_t size)
{
	for (size_t i = 0; i < N_FORMATS; i++)
		if (formats[i]->probe(head, tail, size))
			return formats[i];
	return &vd_format_raw;
}

VD_PUBLIC const char *vd_format_name(size_t i)
{
	return i < N_FORMATS ? formats[i]->name : NULL;
}

VD_PUBLIC bool vd_format_is_writable(const char *name)
{
	const struct vd_format *f = vd_registry_find(name);

	return f && f->writable;
}
