/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reads footer and header, judges what needs no table, and keeps the footer at its two places (keeps V1). */
#include "formats/vhd/vhd.h"

#include <time.h>

#include "libvdisk/base/cursor.h"

uint32_t vd_vhd_checksum(const uint8_t *raw, size_t len, size_t at_checksum)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < len; i++)
		if (i < at_checksum || i >= at_checksum + 4)
			sum += raw[i];
	return ~sum;
}

bool vd_vhd_footer_parse(const uint8_t *raw, size_t len, struct vd_vhd_footer *f)
{
	struct vd_reader r = vd_reader_of(raw, len);
	const uint8_t *cookie = vd_reader_take(&r, 8), *creator, *id;

	if (!cookie || memcmp(cookie, "conectix", 8) ||
	    vd_get_be32(raw + VHD_AT_CHECKSUM) != vd_vhd_checksum(raw, len, VHD_AT_CHECKSUM))
		return false;
	vd_read_be32(&r);                       /* features */
	f->version = vd_read_be32(&r);
	f->data_offset = vd_read_be64(&r);
	f->time = vd_read_be32(&r);
	creator = vd_reader_take(&r, 4);
	f->creator_version = vd_read_be32(&r);
	vd_read_be32(&r);                       /* host_os */
	vd_read_be64(&r);                       /* original_size */
	f->current_size = vd_read_be64(&r);
	f->cylinders = vd_read_be16(&r);
	f->heads = vd_read_u8(&r);
	f->sectors = vd_read_u8(&r);
	f->type = vd_read_be32(&r);
	vd_read_be32(&r);                       /* checksum */
	id = vd_reader_take(&r, VD_GUID_LEN);
	if (r.failed)
		return false;
	memcpy(f->creator, creator, sizeof(f->creator));
	memcpy(f->id, id, VD_GUID_LEN);
	return true;
}

/*
 * Virtual PC's disks, and those of qemu before it wrote "qem2", are as large as their geometry says; whoever else
 * writes VHD means current_size. The largest geometry there is says nothing either way.
 */
uint64_t vd_vhd_disk_size(const struct vd_vhd_footer *f)
{
	uint64_t by_geometry = (uint64_t)f->cylinders * f->heads * f->sectors * VHD_SECTOR;
	bool is_old = !memcmp(f->creator, "vpc ", 4) || !memcmp(f->creator, "qemu", 4);
	bool is_largest = f->cylinders == 65535 && f->heads == 16 && f->sectors == 255;

	return is_old && by_geometry && !is_largest ? by_geometry : f->current_size;
}

static int judge_footer(const struct vd_vhd *s, uint64_t at, struct vd_error *e)
{
	const struct vd_vhd_footer *f = &s->f;

	if (f->version >> 16 != VHD_VERSION >> 16)
		return vd_fail_at(e, VD_EUNSUPPORTED, at, "VHD of version %" PRIu32 ".%" PRIu32 " is not known",
				  f->version >> 16, f->version & 0xffff);
	if (f->type < VHD_FIXED || f->type > VHD_DIFFERENCING)
		return vd_fail_at(e, VD_EUNSUPPORTED, at, "VHD of type %" PRIu32 " is not known: neither fixed, dynamic nor differencing",
				  f->type);
	if (s->size > INT64_MAX)
		return vd_corrupt(s->name, e, at, "the disk has %" PRIu64 " bytes by its footer", s->size);
	return 0;
}

static bool try_tail(struct vd_vhd *s, struct vd_io *io, uint64_t file_size, size_t len, struct vd_error *e, int *r)
{
	if (file_size < len)
		return false;
	memset(s->footer, 0, sizeof(s->footer));
	*r = vd_io_pread(io, s->footer, len, file_size - len, e);
	if (*r < 0 || !vd_vhd_footer_parse(s->footer, len, &s->f))
		return false;
	s->has_tail = true;
	s->is_short_footer = len < VHD_FOOTER_BYTES;
	s->footer_off = s->data_end = file_size - len;
	return true;
}

static bool try_front(struct vd_vhd *s, struct vd_io *io, uint64_t file_size, struct vd_error *e, int *r)
{
	*r = vd_io_pread(io, s->footer, VHD_FOOTER_BYTES, 0, e);
	s->footer_off = UINT64_MAX;
	s->data_end = vd_round_up(file_size, VHD_SECTOR);
	return *r == 0 && vd_vhd_footer_parse(s->footer, VHD_FOOTER_BYTES, &s->f) && s->f.type != VHD_FIXED;
}

int vd_vhd_footer_read(struct vd_vhd *s, struct vd_io *io, uint64_t file_size, struct vd_error *e)
{
	bool is_found;
	int r = 0;

	is_found = try_tail(s, io, file_size, VHD_FOOTER_BYTES, e, &r) ||
		   (r == 0 && try_tail(s, io, file_size, VHD_OLD_FOOTER_BYTES, e, &r)) ||
		   (r == 0 && try_front(s, io, file_size, e, &r));
	if (r < 0)
		return r;
	if (!is_found) {
		vd_fail_at(e, VD_ECORRUPT, file_size, "neither the end nor the beginning of the file holds a VHD footer with the right checksum");
		return vd_hint(e, VD_ECORRUPT, "a fixed disk that lost its end can be read with -f raw");
	}
	s->size = vd_vhd_disk_size(&s->f);
	/* Some round the geometry up: it means nothing where the file holds less than it says, but all of the current size. */
	if (vd_vhd_is_fixed(s) && s->size > s->footer_off && s->f.current_size <= s->footer_off)
		s->size = s->f.current_size;
	vd_guid_show(s->f.id, false, s->id);
	r = judge_footer(s, s->has_tail ? s->footer_off : 0, e);
	if (r == 0 && vd_vhd_is_fixed(s) && s->size > s->footer_off)
		r = vd_corrupt(s->name, e, s->footer_off, "the disk has %" PRIu64 " bytes by its footer, the file holds %" PRIu64,
				   s->size, s->footer_off);
	return r;
}

/* ---- header --------------------------------------------------------------------------------------------- */

static bool header_parse(const uint8_t raw[VHD_HEADER_BYTES], struct vd_vhd_header *h)
{
	struct vd_reader r = vd_reader_of(raw, VHD_HEADER_BYTES);

	if (memcmp(vd_reader_take(&r, 8), "cxsparse", 8) || vd_get_be32(raw + VHD_AT_HEADER_CHECKSUM) !=
	    vd_vhd_checksum(raw, VHD_HEADER_BYTES, VHD_AT_HEADER_CHECKSUM))
		return false;
	vd_read_be64(&r);                       /* reserved */
	h->table_offset = vd_read_be64(&r);
	h->version = vd_read_be32(&r);
	h->max_entries = vd_read_be32(&r);
	h->block_size = vd_read_be32(&r);
	vd_read_be32(&r);                       /* checksum */
	memcpy(h->parent_id, vd_reader_take(&r, VD_GUID_LEN), VD_GUID_LEN);
	h->parent_time = vd_read_be32(&r);
	vd_read_be32(&r);                       /* reserved */
	memcpy(h->parent_name, vd_reader_take(&r, VHD_NAME_BYTES), VHD_NAME_BYTES);
	for (int i = 0; i < VHD_LOCATORS; i++) {
		struct vd_vhd_locator *l = &h->locators[i];

		l->code = vd_read_be32(&r);
		vd_read_be32(&r);               /* space: in sectors by the specification, in bytes by Windows 10 */
		l->length = vd_read_be32(&r);
		vd_read_be32(&r);               /* reserved */
		l->offset = vd_read_be64(&r);
	}
	return true;
}

static int judge_header(const struct vd_vhd *s, uint64_t file_size, struct vd_error *e)
{
	const struct vd_vhd_header *h = &s->h;
	uint64_t at = s->f.data_offset;

	if (h->version >> 16 != VHD_VERSION >> 16)
		return vd_fail_at(e, VD_EUNSUPPORTED, at, "a dynamic VHD header of version %" PRIu32 ".%" PRIu32 " is not known",
				  h->version >> 16, h->version & 0xffff);
	if (!vd_is_pow2(h->block_size) || h->block_size < VHD_BLOCK_MIN || h->block_size > VHD_BLOCK_MAX)
		return vd_corrupt(s->name, e, at, "blocks of %" PRIu32 " bytes: a power of two from %u to %u is possible",
				      h->block_size, VHD_BLOCK_MIN, VHD_BLOCK_MAX);
	if (!vd_range_inside(h->table_offset, (uint64_t)h->max_entries * 4, file_size))
		return vd_corrupt(s->name, e, at, "the block allocation table of %" PRIu32 " entries at %" PRIu64 " lies outside the file",
				      h->max_entries, h->table_offset);
	if (s->size > (uint64_t)h->max_entries * h->block_size)
		return vd_corrupt(s->name, e, at, "the disk has %" PRIu64 " bytes, its table of %" PRIu32 " blocks reaches less far",
				      s->size, h->max_entries);
	return 0;
}

int vd_vhd_header_read(struct vd_vhd *s, struct vd_io *io, uint64_t file_size, struct vd_error *e)
{
	uint8_t raw[VHD_HEADER_BYTES];
	int r;

	if (!vd_range_inside(s->f.data_offset, sizeof(raw), file_size))
		return vd_corrupt(s->name, e, s->f.data_offset, "the dynamic header lies outside the file");
	r = vd_io_pread(io, raw, sizeof(raw), s->f.data_offset, e);
	if (r < 0)
		return r;
	if (!header_parse(raw, &s->h))
		return vd_corrupt(s->name, e, s->f.data_offset, "there is no dynamic header with the right checksum where the footer says");
	s->bitmap_size = vd_round_up(s->h.block_size / VHD_SECTOR / 8, VHD_SECTOR);
	s->bits_from_low = !memcmp(s->f.creator, "tap", 3) && s->f.creator_version == 1;
	return judge_header(s, file_size, e);
}

/* ---- Xen's map of full blocks, of which only the key's hash counts here -------------------------------------- */

#define BATMAP_KEY_COOKIE 29
#define BATMAP_NONCE 30
#define BATMAP_HASH 62

int vd_vhd_batmap_read(struct vd_vhd *s, struct vd_io *io, uint64_t file_size, struct vd_error *e)
{
	uint64_t at = s->h.table_offset + vd_round_up((uint64_t)s->h.max_entries * 4, VHD_SECTOR);
	uint8_t raw[VHD_SECTOR];
	int r;

	if (memcmp(s->f.creator, "tap", 3) || !vd_range_inside(at, sizeof(raw), file_size))
		return 0;
	r = vd_io_pread(io, raw, sizeof(raw), at, e);
	if (r < 0 || memcmp(raw, "tdbatmap", 8) || !raw[BATMAP_KEY_COOKIE])
		return r;
	s->is_encrypted = true;
	memcpy(s->key_nonce, raw + BATMAP_NONCE, VHD_KEY_HASH);
	memcpy(s->key_hash, raw + BATMAP_HASH, VHD_KEY_HASH);
	return 0;
}

/* ---- writing -------------------------------------------------------------------------------------------- */

uint32_t vd_vhd_now(void)
{
	return time(NULL) - VHD_EPOCH;
}

void vd_vhd_geometry(uint64_t size, uint8_t out[4])
{
	uint32_t total = vd_min_u64(size / VHD_SECTOR, 65535u * 16 * 255), sectors = 17, heads, cylinders_heads;

	if (total >= 65535u * 16 * 63) {
		sectors = 255;
		heads = 16;
		cylinders_heads = total / sectors;
	} else {
		cylinders_heads = total / sectors;
		heads = vd_max_u64((cylinders_heads + 1023) / 1024, 4);
		if (cylinders_heads >= heads * 1024 || heads > 16) {
			sectors = 31;
			heads = 16;
			cylinders_heads = total / sectors;
		}
		if (cylinders_heads >= heads * 1024) {
			sectors = 63;
			heads = 16;
			cylinders_heads = total / sectors;
		}
	}
	vd_put_be16(out, cylinders_heads / heads);
	out[2] = heads;
	out[3] = sectors;
}

static void footer_seal(struct vd_vhd *s)
{
	vd_put_be32(s->footer + VHD_AT_CHECKSUM, vd_vhd_checksum(s->footer, VHD_FOOTER_BYTES, VHD_AT_CHECKSUM));
}

void vd_vhd_footer_set_time(struct vd_vhd *s, uint32_t seconds)
{
	s->f.time = seconds;
	vd_put_be32(s->footer + VHD_AT_TIME, seconds);
	footer_seal(s);
}

/* By a creator whose disks are as large as their geometry the size could not be said exactly. */
void vd_vhd_footer_set_size(struct vd_vhd *s, uint64_t size)
{
	uint8_t *geometry = s->footer + VHD_AT_GEOMETRY;

	vd_put_be64(s->footer + VHD_AT_SIZE, size);
	vd_vhd_geometry(size, geometry);
	s->f.current_size = size;
	s->f.cylinders = vd_get_be16(geometry);
	s->f.heads = geometry[2];
	s->f.sectors = geometry[3];
	if (vd_vhd_disk_size(&s->f) != size) {
		memcpy(s->f.creator, VHD_CREATOR, 4);
		memcpy(s->footer + VHD_AT_CREATOR, VHD_CREATOR, 4);
	}
	footer_seal(s);
}

void vd_vhd_footer_set_header(struct vd_vhd *s, uint64_t off, uint32_t type)
{
	s->f.data_offset = off;
	s->f.type = type;
	vd_put_be64(s->footer + VHD_AT_DATA_OFFSET, off);
	vd_put_be32(s->footer + VHD_AT_TYPE, type);
	footer_seal(s);
}

int vd_vhd_footer_store(struct vd_vhd *s, struct vd_error *e)
{
	int r = 0;

	if (!vd_vhd_is_fixed(s)) {
		r = vd_set_pwrite(s->set, 0, s->footer, VHD_FOOTER_BYTES, 0, e);
		if (r == 0)
			r = vd_set_flush(s->set, e);
	}
	if (r == 0)
		r = vd_set_pwrite(s->set, 0, s->footer, VHD_FOOTER_BYTES, s->footer_off, e);
	return r < 0 ? r : vd_set_flush(s->set, e);
}

/* What the file has behind the last block is cut off after the footer has come there. */
int vd_vhd_footer_settle(struct vd_vhd *s, struct vd_error *e)
{
	bool has_moved = s->footer_off != s->data_end;
	int r;

	if (s->footer_has_moved)
		vd_meta_forget(s->meta, 0, s->footer_off, VHD_FOOTER_BYTES);
	s->footer_has_moved = false;
	s->footer_off = s->data_end;
	r = vd_vhd_footer_store(s, e);
	if (r < 0 || !has_moved)
		return r;
	r = vd_io_truncate(vd_set_io(s->set, 0), s->footer_off + VHD_FOOTER_BYTES, e);
	return r < 0 ? r : vd_set_flush(s->set, e);
}

int vd_vhd_footer_enact(struct vd_vhd *s, struct vd_error *e)
{
	int r = vd_set_pwrite(s->set, 0, s->footer, VHD_FOOTER_BYTES, s->footer_off, e);

	if (r == 0)
		r = vd_set_flush(s->set, e);
	if (r == 0)
		r = vd_vhd_footer_settle(s, e);
	return r < 0 ? vd_unsure(s->name, e, "the change may be in force or not") : 0;
}

int vd_vhd_footer_put_at(struct vd_vhd *s, uint64_t off, struct vd_error *e)
{
	int r = vd_set_pwrite(s->set, 0, s->footer, VHD_FOOTER_BYTES, off, e);

	if (r == 0)
		r = vd_set_flush(s->set, e);
	if (r == 0)
		s->footer_off = off;
	return r;
}
