/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reports what an open image is. Reads no payload. */
#include "libvdisk/core/image.h"

#include "libvdisk/core/registry.h"

static int host_sizes(struct vd_image *img, struct vd_info *i, struct vd_error *e)
{
	int r = vd_io_size(vd_set_io(img->set, 0), &i->file_size, e);

	for (uint32_t f = 0; f < vd_set_count(img->set) && r == 0; f++) {
		uint64_t bytes = 0;

		if (vd_set_io(img->set, f))
			r = vd_io_allocated(vd_set_io(img->set, f), &bytes, e);
		i->actual_size += bytes;
	}
	return r;
}

VD_PUBLIC int vd_image_info(struct vd_image *img, struct vd_info *info, struct vd_error *e)
{
	struct vd_info i = { .struct_size = sizeof(i) };
	int r;

	if (info->struct_size != sizeof(*info))
		return vd_fail(e, VD_EARG, "struct vd_info: struct_size is %zu, want %zu", info->struct_size, sizeof(*info));
	r = host_sizes(img, &i, e);
	if (r < 0)
		return r;
	i.path = img->path;
	i.format = img->layer.is_container && img->format == &vd_format_raw && !img->header ? "luks" : img->format->name;
	i.virtual_size = img->size;
	i.cluster_size = img->info.unit > 1 ? img->info.unit : 0;
	i.encryption = img->layer.encryption;
	i.is_encryption_unknown = img->content_is_unknown;
	i.is_container = img->layer.is_container;
	i.header = img->header ? img->header->name : NULL;
	i.luks = img->layer.luks;
	i.backing_file = img->info.backing_file;
	i.backing_format = img->info.backing_format;
	i.is_read_only_format = !img->format->writable;
	if (img->format->info)
		img->format->info(img->state, &i);
	*info = i;
	return 0;
}

VD_PUBLIC int vd_image_part(struct vd_image *img, uint32_t i, struct vd_part *part, struct vd_error *e)
{
	struct vd_info info = { .struct_size = sizeof(info) };

	if (part->struct_size != sizeof(*part))
		return vd_fail(e, VD_EARG, "struct vd_part: struct_size is %zu, want %zu", part->struct_size, sizeof(*part));
	if (img->format->part)
		img->format->info(img->state, &info);
	if (i >= info.n_extents)
		return vd_fail(e, VD_EARG, "%s has %u parts, and none of number %u", img->path, info.n_extents, i);
	*part = (struct vd_part){ .struct_size = sizeof(*part) };
	img->format->part(img->state, i, part);
	return 0;
}
