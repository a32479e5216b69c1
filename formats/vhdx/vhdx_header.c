/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reads, judges and writes what lies in the first MiB: headers and region tables, each kept twice. */
#include "formats/vhdx/vhdx.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/base/cursor.h"

#define REGION_REQUIRED 1u

const uint8_t vd_vhdx_no_guid[VD_GUID_LEN];

/* The checksum lies behind the signature, in all structures that have one. */
static bool is_sound(const uint8_t *raw, size_t len, const char *signature)
{
	static const uint8_t zeros[4];
	uint32_t crc;

	if (memcmp(raw, signature, 4))
		return false;
	crc = vd_crc32c(0, raw, 4);
	crc = vd_crc32c(crc, zeros, 4);
	return vd_crc32c(crc, raw + 8, len - 8) == vd_get_le32(raw + 4);
}

static void seal(uint8_t *raw, size_t len)
{
	vd_put_le32(raw + 4, 0);
	vd_put_le32(raw + 4, vd_crc32c(0, raw, len));
}

/* ---- headers -------------------------------------------------------------------------------------------- */

static bool header_parse(const uint8_t raw[VHDX_HEADER_BYTES], struct vd_vhdx_header *h)
{
	if (!is_sound(raw, VHDX_HEADER_BYTES, "head"))
		return false;
	h->sequence = vd_get_le64(raw + 8);
	memcpy(h->file_write, raw + 16, VD_GUID_LEN);
	memcpy(h->data_write, raw + 32, VD_GUID_LEN);
	memcpy(h->log, raw + 48, VD_GUID_LEN);
	h->log_version = vd_get_le16(raw + 64);
	h->version = vd_get_le16(raw + 66);
	h->log_length = vd_get_le32(raw + 68);
	h->log_offset = vd_get_le64(raw + 72);
	return true;
}

void vd_vhdx_header_build(const struct vd_vhdx_header *h, uint8_t raw[VHDX_HEADER_BYTES])
{
	memset(raw, 0, VHDX_HEADER_BYTES);
	memcpy(raw, "head", 4);
	vd_put_le64(raw + 8, h->sequence);
	memcpy(raw + 16, h->file_write, VD_GUID_LEN);
	memcpy(raw + 32, h->data_write, VD_GUID_LEN);
	memcpy(raw + 48, h->log, VD_GUID_LEN);
	vd_put_le16(raw + 64, h->log_version);
	vd_put_le16(raw + 66, h->version);
	vd_put_le32(raw + 68, h->log_length);
	vd_put_le64(raw + 72, h->log_offset);
	seal(raw, VHDX_HEADER_BYTES);
}

static int judge_header(struct vd_vhdx *s, uint64_t file_size, struct vd_error *e)
{
	const struct vd_vhdx_header *h = &s->h;
	uint64_t at = VHDX_HEADER_OFF << s->current;

	if (h->version != 1)
		return vd_fail_at(e, VD_EUNSUPPORTED, at, "VHDX of version %u is not known", h->version);
	if (h->log_version && memcmp(h->log, vd_vhdx_no_guid, VD_GUID_LEN))
		return vd_fail_at(e, VD_EUNSUPPORTED, at, "a log of version %u is not known", h->log_version);
	if (h->log_offset % VHDX_MIB || h->log_length % VHDX_MIB || h->log_offset < VHDX_MIB || !h->log_length ||
	    !vd_range_inside(h->log_offset, h->log_length, file_size))
		return vd_corrupt(s->name, e, at, "the log of %" PRIu32 " bytes at %" PRIu64 " does not lie in whole MiB of the file",
				  h->log_length, h->log_offset);
	s->log = (struct vd_vhdx_area){ "log", h->log_offset, h->log_length };
	return 0;
}

int vd_vhdx_headers_read(struct vd_vhdx *s, struct vd_io *io, uint64_t file_size, struct vd_error *e)
{
	uint8_t raw[2][VHDX_HEADER_BYTES];
	struct vd_vhdx_header h[2];
	bool sound[2];
	int r = vd_io_pread(io, raw[0], 8, 0, e);

	if (r == 0 && memcmp(raw[0], "vhdxfile", 8))
		return vd_fail_at(e, VD_ECORRUPT, 0, "the file does not begin as a VHDX does");
	for (unsigned i = 0; i < 2 && r == 0; i++)
		r = vd_io_pread(io, raw[i], VHDX_HEADER_BYTES, VHDX_HEADER_OFF << i, e);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < 2; i++)
		sound[i] = header_parse(raw[i], &h[i]);
	if (!sound[0] && !sound[1])
		return vd_corrupt(s->name, e, VHDX_HEADER_OFF, "neither of its two headers has the right checksum");
	/* Disk2vhd writes two that are the same. */
	if (sound[0] && sound[1] && h[0].sequence == h[1].sequence && memcmp(raw[0], raw[1], VHDX_HEADER_BYTES))
		return vd_corrupt(s->name, e, VHDX_HEADER_OFF, "its two headers contradict each other");
	s->has_both_headers = sound[0] && sound[1];
	s->current = sound[1] && (!sound[0] || h[1].sequence > h[0].sequence);
	s->h = h[s->current];
	vd_guid_show(s->h.data_write, true, s->id);
	return judge_header(s, file_size, e);
}

int vd_vhdx_headers_write(struct vd_vhdx *s, struct vd_error *e)
{
	uint8_t raw[VHDX_HEADER_BYTES];
	int r = 0;

	for (int i = 0; i < 2 && r == 0; i++) {
		s->h.sequence++;
		s->current ^= 1;
		vd_vhdx_header_build(&s->h, raw);
		r = vd_set_pwrite(s->set, 0, raw, sizeof(raw), VHDX_HEADER_OFF << s->current, e);
		if (r == 0)
			r = vd_set_flush(s->set, e);
	}
	s->has_both_headers |= r == 0;
	return r;
}

/* ---- regions -------------------------------------------------------------------------------------------- */

static bool touches(const struct vd_vhdx_area *a, uint64_t off, uint64_t len)
{
	return a->len && off < a->off + a->len && a->off < off + len;
}

const char *vd_vhdx_overlaps(const struct vd_vhdx *s, uint64_t off, uint64_t len)
{
	const struct vd_vhdx_area *areas[] = { &s->log, &s->bat, &s->metadata };

	if (off < VHDX_MIB)
		return "header";
	for (size_t i = 0; i < sizeof(areas) / sizeof(areas[0]); i++)
		if (touches(areas[i], off, len))
			return areas[i]->what;
	return NULL;
}

/* Somebody else's: kept off, wherever it lies. */
static int note_unknown(struct vd_vhdx *s, const struct vd_vhdx_area *area, struct vd_error *e)
{
	int r = 0;

	if (!area->len || !vd_range_inside(area->off, area->len, atomic_load(&s->host_end)))
		return 0;
	r = vd_realloc(&s->unknown, s->n_unknown + 1, sizeof(*s->unknown), e);
	if (r == 0)
		s->unknown[s->n_unknown++] = *area;
	return r;
}

static int take_region(struct vd_vhdx *s, const uint8_t *raw, uint64_t at, struct vd_error *e)
{
	struct vd_vhdx_area area = { "region", vd_get_le64(raw + 16), vd_get_le32(raw + 24) }, *mine;
	const char *other;
	char guid[VD_GUID_TEXT_LEN];

	if (!memcmp(raw, vd_vhdx_bat_guid, VD_GUID_LEN)) {
		mine = &s->bat;
		area.what = "block allocation table";
	} else if (!memcmp(raw, vd_vhdx_metadata_guid, VD_GUID_LEN)) {
		mine = &s->metadata;
		area.what = "metadata region";
	} else if (vd_get_le32(raw + 28) & REGION_REQUIRED) {
		vd_guid_show(raw, true, guid);
		return vd_fail_at(e, VD_EUNSUPPORTED, at, "the image has a region %s that must be understood, and is not", guid);
	} else {
		return note_unknown(s, &area, e);
	}
	if (area.off % VHDX_MIB || area.len % VHDX_MIB || !area.len ||
	    !vd_range_inside(area.off, area.len, atomic_load(&s->host_end)))
		return vd_corrupt(s->name, e, at, "the %s of %" PRIu64 " bytes at %" PRIu64 " does not lie in whole MiB of the file",
				  area.what, area.len, area.off);
	other = mine->len ? mine->what : vd_vhdx_overlaps(s, area.off, area.len);
	if (other)
		return vd_corrupt(s->name, e, at, "the %s at %" PRIu64 " meets the %s", area.what, area.off, other);
	*mine = area;
	return 0;
}

static int read_table(struct vd_vhdx *s, const uint8_t *raw, uint64_t at, struct vd_error *e)
{
	uint32_t n = vd_get_le32(raw + 8);
	int r = 0;

	if (n > VHDX_TABLE_ENTRIES_MAX)
		return vd_corrupt(s->name, e, at, "the region table has %" PRIu32 " entries, more than fit", n);
	for (uint32_t i = 0; i < n && r == 0; i++)
		r = take_region(s, raw + 16 + i * 32, at + 16 + i * 32, e);
	if (r == 0 && (!s->bat.len || !s->metadata.len))
		r = vd_corrupt(s->name, e, at, "the region table names no %s", s->bat.len ? "metadata region" : "block allocation table");
	return r;
}

int vd_vhdx_regions_read(struct vd_vhdx *s, struct vd_error *e)
{
	vd_auto_free uint8_t *raw = NULL;
	int r = vd_alloc(1, VHDX_REGIONS_BYTES, &raw, e);

	for (unsigned i = 0; i < 2 && r == 0; i++) {
		uint64_t at = VHDX_REGIONS_OFF + i * VHDX_REGIONS_BYTES;

		r = vd_meta_read(s->meta, 0, at, raw, VHDX_REGIONS_BYTES, 0, e);
		s->current_regions = i;
		if (r == 0 && is_sound(raw, VHDX_REGIONS_BYTES, "regi"))
			return read_table(s, raw, at, e);
	}
	return r < 0 ? r : vd_corrupt(s->name, e, VHDX_REGIONS_OFF, "neither of its two region tables has the right checksum");
}

static void put_region(struct vd_writer *w, const uint8_t guid[VD_GUID_LEN], const struct vd_vhdx_area *area)
{
	vd_write_bytes(w, guid, VD_GUID_LEN);
	vd_write_le64(w, area->off);
	vd_write_le32(w, area->len);
	vd_write_le32(w, REGION_REQUIRED);
}

void vd_vhdx_regions_build(const struct vd_vhdx *s, uint8_t raw[VHDX_REGIONS_BYTES])
{
	struct vd_writer w = vd_writer_of(raw, VHDX_REGIONS_BYTES);

	memset(raw, 0, VHDX_REGIONS_BYTES);
	vd_write_bytes(&w, "regi", 4);
	vd_write_le32(&w, 0);
	vd_write_le32(&w, 2);
	vd_write_le32(&w, 0);
	put_region(&w, vd_vhdx_bat_guid, &s->bat);
	put_region(&w, vd_vhdx_metadata_guid, &s->metadata);
	seal(raw, VHDX_REGIONS_BYTES);
}

int vd_vhdx_regions_compare(struct vd_vhdx *s, bool *are_same, struct vd_error *e)
{
	vd_auto_free uint8_t *raw = NULL;
	int r = vd_alloc_buffer(2 * VHDX_REGIONS_BYTES, &raw, e);

	if (r == 0)
		r = vd_meta_read(s->meta, 0, VHDX_REGIONS_OFF, raw, 2 * VHDX_REGIONS_BYTES, 0, e);
	*are_same = r == 0 && !memcmp(raw, raw + VHDX_REGIONS_BYTES, VHDX_REGIONS_BYTES);
	return r;
}

/* Regions of others stay as they are. */
static int remake_table(const struct vd_vhdx *s, uint8_t *raw, struct vd_error *e)
{
	int r = vd_set_pread(s->set, 0, raw, VHDX_REGIONS_BYTES, VHDX_REGIONS_OFF + s->current_regions * VHDX_REGIONS_BYTES, e);

	for (uint32_t i = 0; r == 0 && i < vd_get_le32(raw + 8); i++) {
		uint8_t *entry = raw + 16 + i * 32;
		const struct vd_vhdx_area *area = !memcmp(entry, vd_vhdx_bat_guid, VD_GUID_LEN) ? &s->bat :
						  !memcmp(entry, vd_vhdx_metadata_guid, VD_GUID_LEN) ? &s->metadata : NULL;

		if (!area)
			continue;
		vd_put_le64(entry + 16, area->off);
		vd_put_le32(entry + 24, area->len);
	}
	seal(raw, VHDX_REGIONS_BYTES);
	return r;
}

int vd_vhdx_regions_write(struct vd_vhdx *s, struct vd_error *e)
{
	vd_auto_free uint8_t *raw = NULL;
	int r = vd_alloc(1, VHDX_REGIONS_BYTES, &raw, e);

	if (r == 0)
		r = remake_table(s, raw, e);
	for (int i = 0; i < 2 && r == 0; i++) {
		s->current_regions ^= 1;
		r = vd_set_pwrite(s->set, 0, raw, VHDX_REGIONS_BYTES, VHDX_REGIONS_OFF + s->current_regions * VHDX_REGIONS_BYTES, e);
		if (r == 0)
			r = vd_set_flush(s->set, e);
	}
	vd_meta_forget_all(s->meta);
	return r < 0 ? vd_unsure(s->name, e, "the new tables may be in force or not") : 0;
}
