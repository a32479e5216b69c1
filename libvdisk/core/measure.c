/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Tells how large a copy would be, before it is made: what the driver says of its tables, and how many of its units the
 * source has data in. Reads tables only.
 */
#include "libvdisk/core/image.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/core/keysrc.h"
#include "libvdisk/core/registry.h"
#include "libvdisk/core/walk.h"

/* Bytes of the units that hold data of the source, the last one cut at `full`. */
static int count_data(struct vd_image *src, uint64_t unit, uint64_t full, uint64_t *bytes, struct vd_error *e)
{
	vd_auto_free struct vd_walk *w = NULL;
	uint64_t at = 0;
	int r = vd_alloc(1, sizeof(*w), &w, e);

	*bytes = 0;
	if (r == 0)
		r = vd_walk_start(w, src, e);
	while (at < src->size && r == 0) {
		struct vd_extent x;
		uint64_t end;

		r = vd_walk_to(w, at, &x, e);
		end = vd_min_u64(vd_extent_end(&x), src->size);
		if (r == 0 && !vd_extent_is_zero(&x)) {
			end = vd_min_u64(vd_round_up(end, unit), full);
			*bytes += end - vd_round_down(at, unit);
		}
		at = end;
	}
	return r;
}

/* What of a LUKS header the file gets: a container all up to the payload, a format's own key area just the header. */
static void add_key(const struct vd_create_opts *o, bool is_container, struct vd_create *c)
{
	enum vd_luks_type type = o->luks_type == VD_LUKS2 ? VD_LUKS2 : VD_LUKS1;

	if (is_container)
		c->size += o->header ? 0 : vd_luks_payload_off(type);
	else
		c->key_area.len = vd_luks1_header_len(o->cipher == VD_AES_128_XTS ? 32 : 64);
}

/* Moves those that are usable to the front. */
static void list_bitmaps(struct vd_image *src, struct vd_bitmap **list, size_t *n)
{
	size_t all = 0;

	/* Where none can be told, there is none that a copy could get. */
	if (!src || !src->format->bitmap || vd_bitmap_list(src, list, &all, NULL) < 0)
		return;
	for (size_t i = 0; i < all; i++)
		if (!(*list)[i].unusable)
			(*list)[(*n)++] = (*list)[i];
}

/* A container has ciphertext in all of its units. */
static int measure(struct vd_image *src, const struct vd_format *format, const struct vd_create *c, bool is_container,
		   struct vd_measure_report *m, struct vd_error *e)
{
	struct vd_bitmap *bitmaps = NULL;
	struct vd_forecast f = { .unit = 1 };
	uint64_t data = 0, full;
	int r;

	list_bitmaps(src, &bitmaps, &f.n_bitmaps);
	f.bitmaps = bitmaps;
	r = format->forecast(c, &f, e);
	vd_bitmap_list_free(bitmaps);
	full = vd_round_up(c->size, f.unit);
	f.is_full |= is_container;
	if (r == 0 && src && !f.is_full)
		r = count_data(src, vd_max_u64(f.unit, VD_COPY_GRANULE), full, &data, e);
	if (r < 0)
		return r;
	m->bitmaps = f.bitmap_bytes;
	m->fully_allocated = f.overhead + full;
	m->required = f.is_full ? m->fully_allocated : f.overhead + data;
	return 0;
}

VD_PUBLIC int vd_image_measure_output(struct vd_image *src, const struct vd_create_opts *opts, bool encrypted,
				      struct vd_measure_report *report, struct vd_error *e)
{
	struct vd_create c = { .opts = opts };
	const struct vd_format *format = NULL;
	bool is_container;
	int r;

	if (report->struct_size != sizeof(*report))
		return vd_fail(e, VD_EARG, "struct vd_measure_report: struct_size is %zu, want %zu", report->struct_size,
			       sizeof(*report));
	*report = (struct vd_measure_report){ .struct_size = sizeof(*report) };
	encrypted |= opts->key || (opts->format && !strcmp(opts->format, "luks"));
	r = vd_create_judge(opts, encrypted, &format, e);
	if (r == 0 && !format->forecast)
		r = vd_fail(e, VD_EUNSUPPORTED, "how large an image of format '%s' would be is not known", opts->format);
	if (r < 0)
		return r;
	is_container = encrypted && !format->encrypts;
	if (src && opts->size && opts->size < src->size)
		return vd_fail(e, VD_EARG, "%s has %llu bytes, and a disk of %llu cannot hold them", src->path,
			       (unsigned long long)src->size, (unsigned long long)opts->size);
	r = vd_create_size(opts->size || !src ? opts->size : src->size, opts, format == &vd_format_raw && !encrypted, &c.size, e);
	if (r < 0)
		return r;
	if (encrypted)
		add_key(opts, is_container, &c);
	return measure(src, format, &c, is_container, report, e);
}
