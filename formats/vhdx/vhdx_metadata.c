/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reads and makes the metadata region: how large the disk is, in which blocks and sectors, and whether it has a parent. */
#include "formats/vhdx/vhdx.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/base/cursor.h"

#define TABLE_BYTES 65536u
#define ENTRY_BYTES 32u
#define ITEM_VIRTUAL_DISK 2u
#define ITEM_REQUIRED 4u
#define LEAVES_ALLOCATED 1u
#define HAS_PARENT 2u

const uint8_t vd_vhdx_bat_guid[VD_GUID_LEN] = {
	0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42, 0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08,
};
const uint8_t vd_vhdx_metadata_guid[VD_GUID_LEN] = {
	0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b, 0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e,
};

enum item { PARAMETERS, SIZE, DISK_ID, LOGICAL_SECTOR, PHYSICAL_SECTOR, LOCATOR, N_ITEMS };

static const struct {
	uint8_t guid[VD_GUID_LEN];
	const char *what;
	uint32_t length, flags;         /* length 0: any */
} items[N_ITEMS] = {
	[PARAMETERS] = { { 0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b },
			 "file parameters", 8, ITEM_REQUIRED },
	[SIZE] = { { 0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48, 0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8 },
		   "size of the disk", 8, ITEM_VIRTUAL_DISK | ITEM_REQUIRED },
	[DISK_ID] = { { 0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45, 0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46 },
		      "identifier of the disk", VD_GUID_LEN, ITEM_VIRTUAL_DISK | ITEM_REQUIRED },
	[LOGICAL_SECTOR] = { { 0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47, 0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f },
			     "logical sector size", 4, ITEM_VIRTUAL_DISK | ITEM_REQUIRED },
	[PHYSICAL_SECTOR] = { { 0xc7, 0x48, 0xa3, 0xcd, 0x5d, 0x44, 0x71, 0x44, 0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5, 0x56 },
			      "physical sector size", 4, ITEM_VIRTUAL_DISK | ITEM_REQUIRED },
	[LOCATOR] = { { 0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45, 0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c },
		      "parent locator", 0, ITEM_REQUIRED },
};

/* ---- reading -------------------------------------------------------------------------------------------- */

struct found { uint64_t off; uint32_t len; };

static int take_entry(struct vd_vhdx *s, const uint8_t *raw, uint64_t at, struct found found[N_ITEMS], struct vd_error *e)
{
	uint32_t off = vd_get_le32(raw + 16), len = vd_get_le32(raw + 20), flags = vd_get_le32(raw + 24);
	char guid[VD_GUID_TEXT_LEN];
	int i = 0;

	if (vd_range_inside(off, len, s->metadata.len))
		s->metadata_used = vd_max_u64(s->metadata_used, (uint64_t)off + len);
	while (i < N_ITEMS && memcmp(raw, items[i].guid, VD_GUID_LEN))
		i++;
	if (i == N_ITEMS) {
		vd_guid_show(raw, true, guid);
		return flags & ITEM_REQUIRED ? vd_fail_at(e, VD_EUNSUPPORTED, at, "the image has a metadata item %s that must be understood, and is not",
							  guid) : 0;
	}
	if (found[i].len || off < TABLE_BYTES || !vd_range_inside(off, len, s->metadata.len) ||
	    (items[i].length ? len != items[i].length : len > VHDX_ITEM_MAX))
		return vd_corrupt(s->name, e, at, "the %s of %" PRIu32 " bytes at %" PRIu32 " of the metadata region cannot be", items[i].what,
				  len, off);
	found[i] = (struct found){ s->metadata.off + off, len };
	return 0;
}

static int find_items(struct vd_vhdx *s, struct found found[N_ITEMS], struct vd_error *e)
{
	vd_auto_free uint8_t *raw = NULL;
	uint32_t n;
	int r = vd_alloc(1, TABLE_BYTES, &raw, e);

	if (r == 0)
		r = vd_meta_read(s->meta, 0, s->metadata.off, raw, TABLE_BYTES, 0, e);
	if (r < 0)
		return r;
	n = vd_get_le16(raw + 10);
	s->metadata_used = TABLE_BYTES;
	if (memcmp(raw, "metadata", 8) || n > VHDX_TABLE_ENTRIES_MAX)
		return vd_corrupt(s->name, e, s->metadata.off, "there is no metadata table where the region table says");
	for (uint32_t i = 0; i < n && r == 0; i++)
		r = take_entry(s, raw + (i + 1) * ENTRY_BYTES, s->metadata.off + (i + 1) * ENTRY_BYTES, found, e);
	for (int i = 0; i < LOCATOR && r == 0; i++)
		if (!found[i].len && i != DISK_ID && i != PHYSICAL_SECTOR)
			r = vd_corrupt(s->name, e, s->metadata.off, "the metadata table has no %s", items[i].what);
	return r;
}

static int read_item(const struct vd_vhdx *s, const struct found *f, void *buf, struct vd_error *e)
{
	return vd_meta_read(s->meta, 0, f->off, buf, f->len, 0, e);
}

static int judge(struct vd_vhdx *s, struct vd_error *e)
{
	uint64_t at = s->metadata.off;

	if (s->block_size < VHDX_MIB || s->block_size > VHDX_BLOCK_MAX || !vd_is_pow2(s->block_size))
		return vd_corrupt(s->name, e, at, "blocks of %" PRIu32 " bytes: a power of two from 1 MiB to 256 MiB is possible",
				  s->block_size);
	if (s->sector_size != 512 && s->sector_size != 4096)
		return vd_corrupt(s->name, e, at, "sectors of %" PRIu32 " bytes: 512 and 4096 are possible", s->sector_size);
	if (!s->size || s->size > VHDX_SIZE_MAX || s->size % s->sector_size)
		return vd_corrupt(s->name, e, s->size_off, "the disk has %" PRIu64 " bytes: whole sectors up to 64 TiB are possible",
				  s->size);
	s->chunk_ratio = VHDX_CHUNK_SECTORS * s->sector_size / s->block_size;
	if (vd_vhdx_n_entries(s, s->size) > s->bat.len / 8)
		return vd_corrupt(s->name, e, at, "the block allocation table of %" PRIu64 " bytes is too short for the disk of %" PRIu64,
				  s->bat.len, s->size);
	return 0;
}

static int read_locator(struct vd_vhdx *s, const struct found *f, struct vd_error *e)
{
	vd_auto_free uint8_t *raw = NULL;
	int r;

	if (!f->len)
		return vd_corrupt(s->name, e, s->metadata.off, "a differencing disk without a parent locator");
	r = vd_alloc(1, f->len, &raw, e);
	if (r == 0)
		r = read_item(s, f, raw, e);
	return r < 0 ? r : vd_vhdx_locator_read(s, (struct vd_bytes){ raw, f->len }, f->off, e);
}

uint64_t vd_vhdx_n_entries(const struct vd_vhdx *s, uint64_t size)
{
	uint64_t n_blocks = vd_vhdx_n_blocks(s, size);
	uint64_t n_chunks = n_blocks / s->chunk_ratio + (n_blocks % s->chunk_ratio != 0);

	/* The last chunk's bitmap matters to differencing disks only. */
	return s->has_parent ? n_chunks * (s->chunk_ratio + 1) : n_blocks + (n_blocks - 1) / s->chunk_ratio;
}

int vd_vhdx_metadata_read(struct vd_vhdx *s, struct vd_error *e)
{
	struct found found[N_ITEMS] = { 0 };
	uint8_t parameters[8], size[8], sector[4], physical[4] = { 0 };
	int r = find_items(s, found, e);

	if (r == 0)
		r = read_item(s, &found[PARAMETERS], parameters, e);
	if (r == 0)
		r = read_item(s, &found[SIZE], size, e);
	if (r == 0)
		r = read_item(s, &found[LOGICAL_SECTOR], sector, e);
	if (r == 0)
		r = read_item(s, &found[PHYSICAL_SECTOR], physical, e);
	if (r < 0)
		return r;
	s->block_size = vd_get_le32(parameters);
	s->leaves_allocated = vd_get_le32(parameters + 4) & LEAVES_ALLOCATED;
	s->has_parent = vd_get_le32(parameters + 4) & HAS_PARENT;
	s->size = vd_get_le64(size);
	s->size_off = found[SIZE].off;
	s->sector_size = vd_get_le32(sector);
	s->physical_sector_size = vd_get_le32(physical);
	r = judge(s, e);
	return r < 0 || !s->has_parent ? r : read_locator(s, &found[LOCATOR], e);
}

/* ---- making --------------------------------------------------------------------------------------------- */

struct region {
	uint8_t *raw;
	uint16_t n;
	uint32_t used;                  /* of the region */
};

static void put_item(struct region *region, enum item which, const void *bytes, uint32_t len)
{
	uint8_t *entry = region->raw + ++region->n * ENTRY_BYTES;

	memcpy(entry, items[which].guid, VD_GUID_LEN);
	vd_put_le32(entry + 16, region->used);
	vd_put_le32(entry + 20, len);
	vd_put_le32(entry + 24, items[which].flags);
	memcpy(region->raw + region->used, bytes, len);
	region->used += vd_round_up(len, 8);
	vd_put_le16(region->raw + 10, region->n);
}

int vd_vhdx_metadata_build(const struct vd_vhdx *s, struct vd_bytes locator, uint8_t *raw, struct vd_error *e)
{
	struct region region = { .raw = raw, .used = TABLE_BYTES };
	uint8_t parameters[8], size[8], sector[4], physical[4], id[VD_GUID_LEN];
	int r = vd_guid_make(id, true, e);

	if (r < 0)
		return r;
	memset(raw, 0, VHDX_METADATA_BYTES);
	memcpy(raw, "metadata", 8);
	vd_put_le32(parameters, s->block_size);
	vd_put_le32(parameters + 4, (s->leaves_allocated ? LEAVES_ALLOCATED : 0) | (locator.len ? HAS_PARENT : 0));
	vd_put_le64(size, s->size);
	vd_put_le32(sector, s->sector_size);
	vd_put_le32(physical, s->physical_sector_size);
	put_item(&region, PARAMETERS, parameters, sizeof(parameters));
	put_item(&region, SIZE, size, sizeof(size));
	put_item(&region, DISK_ID, id, sizeof(id));
	put_item(&region, LOGICAL_SECTOR, sector, sizeof(sector));
	put_item(&region, PHYSICAL_SECTOR, physical, sizeof(physical));
	if (locator.len)
		put_item(&region, LOCATOR, locator.p, locator.len);
	return 0;
}

/* ---- making another ------------------------------------------------------------------------------------- */

#define REGION_MAX (16u << 20)          /* of items that anybody keeps there */

int vd_vhdx_metadata_remake(struct vd_vhdx *s, const struct vd_vhdx_metadata_next *next, struct vd_vhdx_area *to,
			    struct vd_error *e)
{
	uint64_t len = vd_round_up(s->metadata_used, VHDX_MIB);
	vd_auto_free uint8_t *raw = NULL;
	int r;

	if (len > REGION_MAX)
		return vd_fail(e, VD_EUNSUPPORTED, "%s: metadata of %" PRIu32 " bytes is more than is copied", s->name, s->metadata_used);
	r = vd_alloc(1, len, &raw, e);
	if (r == 0)
		r = vd_set_pread(s->set, 0, raw, s->metadata_used, s->metadata.off, e);
	if (r < 0)
		return r;
	vd_put_le64(raw + (s->size_off - s->metadata.off), next->size);
	*to = (struct vd_vhdx_area){ s->metadata.what, 0, len };
	r = vd_vhdx_new_area(s, len, &to->off, e);
	if (r == 0)
		r = vd_set_pwrite(s->set, 0, raw, s->metadata_used, to->off, e);
	return r < 0 ? r : vd_set_flush(s->set, e);
}

/* ---- another locator ------------------------------------------------------------------------------------ */

/* The table as it is in the cache, and where in it the locator is; n: it is not. */
struct table {
	uint8_t *raw;
	uint32_t n, locator, parameters;
	uint64_t used;                  /* of the region, by all other items */
};

static int load_table(struct vd_vhdx *s, struct table *t, struct vd_error *e)
{
	int r = vd_meta_read(s->meta, 0, s->metadata.off, t->raw, TABLE_BYTES, 0, e);

	if (r < 0)
		return r;
	t->n = t->locator = vd_get_le16(t->raw + 10);
	t->used = TABLE_BYTES;
	for (uint32_t i = 0; i < t->n; i++) {
		const uint8_t *entry = t->raw + (i + 1) * ENTRY_BYTES;

		if (!memcmp(entry, items[PARAMETERS].guid, VD_GUID_LEN))
			t->parameters = vd_get_le32(entry + 16);
		if (!memcmp(entry, items[LOCATOR].guid, VD_GUID_LEN))
			t->locator = i;
		else
			t->used = vd_max_u64(t->used, (uint64_t)vd_get_le32(entry + 16) + vd_get_le32(entry + 20));
	}
	return 0;
}

int vd_vhdx_metadata_locator(struct vd_vhdx *s, uint8_t *raw, size_t cap, size_t *len, struct vd_error *e)
{
	vd_auto_free uint8_t *table = NULL;
	struct table t;
	struct found f;
	int r = vd_alloc(1, TABLE_BYTES, &table, e);

	t.raw = table;
	if (r == 0)
		r = load_table(s, &t, e);
	if (r < 0)
		return r;
	f = (struct found){ s->metadata.off + vd_get_le32(table + (t.locator + 1) * ENTRY_BYTES + 16),
			    vd_get_le32(table + (t.locator + 1) * ENTRY_BYTES + 20) };
	if (t.locator == t.n || f.len > cap)
		return vd_corrupt(s->name, e, s->metadata.off, "the parent locator has gone");
	*len = f.len;
	return read_item(s, &f, raw, e);
}

/* Puts the entry in its place, or the last one in that of an entry that goes. */
static int put_locator(struct vd_vhdx *s, const struct table *t, struct vd_bytes locator, struct vd_error *e)
{
	uint32_t off = vd_round_up(t->used, 8), which = t->locator, n = t->n + (which == t->n) - !locator.len;
	uint8_t entry[ENTRY_BYTES] = { 0 }, none[ENTRY_BYTES] = { 0 }, count[2];
	int r = 0;

	if (!locator.len) {
		memcpy(entry, t->raw + t->n * ENTRY_BYTES, ENTRY_BYTES);
		r = vd_meta_write(s->meta, 0, s->metadata.off + t->n * ENTRY_BYTES, none, sizeof(none), VD_RANK_ROOT, e);
		/* It was the last one itself. */
		if (which + 1 == t->n)
			memset(entry, 0, sizeof(entry));
	} else {
		memcpy(entry, items[LOCATOR].guid, VD_GUID_LEN);
		vd_put_le32(entry + 16, off);
		vd_put_le32(entry + 20, locator.len);
		vd_put_le32(entry + 24, items[LOCATOR].flags);
		r = vd_meta_write(s->meta, 0, s->metadata.off + off, locator.p, locator.len, VD_RANK_ROOT, e);
	}
	vd_put_le16(count, n);
	if (r == 0)
		r = vd_meta_write(s->meta, 0, s->metadata.off + (which + 1) * ENTRY_BYTES, entry, sizeof(entry), VD_RANK_ROOT, e);
	return r < 0 ? r : vd_meta_write(s->meta, 0, s->metadata.off + 10, count, sizeof(count), VD_RANK_ROOT, e);
}

static int set_has_parent(struct vd_vhdx *s, uint32_t parameters, bool yes, struct vd_error *e)
{
	uint64_t at = s->metadata.off + parameters + 4;
	uint8_t raw[4];
	int r = vd_meta_read(s->meta, 0, at, raw, sizeof(raw), 0, e);

	vd_put_le32(raw, yes ? vd_get_le32(raw) | HAS_PARENT : vd_get_le32(raw) & ~HAS_PARENT);
	return r < 0 ? r : vd_meta_write(s->meta, 0, at, raw, sizeof(raw), VD_RANK_ROOT, e);
}

int vd_vhdx_metadata_set_locator(struct vd_vhdx *s, struct vd_bytes locator, struct vd_error *e)
{
	vd_auto_free uint8_t *table = NULL;
	struct table t;
	int r = vd_alloc(1, TABLE_BYTES, &table, e);

	t.raw = table;
	if (r == 0)
		r = load_table(s, &t, e);
	if (r < 0)
		return r;
	if (t.locator == VHDX_TABLE_ENTRIES_MAX || !vd_range_inside(t.used, locator.len + 8, s->metadata.len))
		return vd_fail(e, VD_ENOSPC, "%s: the metadata region has no room for the name of the parent", s->name);
	r = put_locator(s, &t, locator, e);
	return r < 0 ? r : set_has_parent(s, t.parameters, locator.len, e);
}
