/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Finds a driver by name or by content. */
#include "libvdisk/core/registry.h"

#include <stdlib.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"

#define HEAD 65536
#define TAIL 4096

/* Raw knows every file, so it is last. */
static const struct vd_format *const formats[] = {
	&vd_format_qcow2, &vd_format_vmdk, &vd_format_vhd, &vd_format_vhdx, &vd_format_raw,
};
#define N_FORMATS (sizeof(formats) / sizeof(formats[0]))

const struct vd_format *vd_registry_find(const char *name)
{
	for (size_t i = 0; i < N_FORMATS; i++)
		if (!strcmp(formats[i]->name, name) || (formats[i]->alias && !strcmp(formats[i]->alias, name)))
			return formats[i];
	return NULL;
}

int vd_ends_read_part(struct vd_io *io, uint64_t off, uint64_t len, struct vd_ends *ends, struct vd_error *e)
{
	int r = vd_alloc(1, HEAD + TAIL, &ends->room, e);

	if (r < 0)
		return r;
	ends->size = len;
	ends->head = (struct vd_bytes){ ends->room, vd_min_u64(HEAD, len) };
	ends->tail = (struct vd_bytes){ ends->room + HEAD, vd_min_u64(TAIL, len) };
	r = vd_io_pread(io, ends->room, ends->head.len, off, e);
	return r < 0 ? r : vd_io_pread(io, ends->room + HEAD, ends->tail.len, off + len - ends->tail.len, e);
}

int vd_ends_read(struct vd_io *io, struct vd_ends *ends, struct vd_error *e)
{
	uint64_t size = 0;
	int r = vd_io_size(io, &size, e);

	return r < 0 ? r : vd_ends_read_part(io, 0, size, ends, e);
}

void vd_ends_free(struct vd_ends *ends)
{
	free(ends->room);
}

const struct vd_format *vd_registry_next_match(const struct vd_ends *ends, const struct vd_format *last)
{
	size_t i = 0;

	while (last && formats[i++] != last)
		;
	for (; i < N_FORMATS; i++)
		if (formats[i] != &vd_format_raw && formats[i]->probe(ends->head, ends->tail, ends->size))
			return formats[i];
	return NULL;
}

const struct vd_format *vd_registry_probe(const struct vd_ends *ends)
{
	const struct vd_format *f = vd_registry_next_match(ends, NULL);

	return f ? f : &vd_format_raw;
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
