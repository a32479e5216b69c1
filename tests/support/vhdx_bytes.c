/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Finds its way in VHDX files by the layout that the library itself makes: the block allocation table is the first region. */
#include "tests/support/vhdx_bytes.h"

#include "libvdisk/base/cleanup.h"
#include "libvdisk/base/crc32c.h"

#define REGIONS 196608

void vhdx_make(const char *name, uint64_t size, const char *kind, const char *parent)
{
	struct vd_create_opts o = disk_create_opts(vhdx, size);
	struct vd_image *img;

	o.subformat = kind;
	o.cluster_size = 1 << 20;
	o.backing_file = parent;
	o.backing_format = parent ? "vhdx" : NULL;
	img = disk_create(vhdx, name, &o);
	disk_commit(img);
	disk_close(img);
}

uint64_t le_get(const char *name, uint64_t off, unsigned n_bytes)
{
	uint8_t raw[8] = { 0 };

	bytes_read(name, off, raw, n_bytes);
	return vd_get_le64(raw);
}

void le_put(const char *name, uint64_t off, unsigned n_bytes, uint64_t value)
{
	uint8_t raw[8];

	vd_put_le64(raw, value);
	bytes_write(name, off, raw, n_bytes);
}

void crc_put(const char *name, uint64_t off, size_t len)
{
	vd_auto_free uint8_t *raw = malloc(len);

	le_put(name, off + 4, 4, 0);
	bytes_read(name, off, raw, len);
	le_put(name, off + 4, 4, vd_crc32c(0, raw, len));
}

uint64_t vhdx_bat(const char *name)
{
	return le_get(name, REGIONS + 32, 8);
}

uint64_t vhdx_metadata(const char *name)
{
	return le_get(name, REGIONS + 64, 8);
}

uint64_t vhdx_entry(const char *name, uint64_t block)
{
	return vhdx_bat(name) + block * 8;
}

uint64_t vhdx_chunk_ratio(const char *name)
{
	uint64_t items = vhdx_metadata(name) + 65536;

	return (UINT64_C(1) << 23) * le_get(name, items + 32, 4) / le_get(name, items, 4);
}
