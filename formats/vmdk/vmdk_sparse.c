/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads the headers of extents that have grain tables: hosted sparse, COWD and seSparse. Judges here all that needs no
 * table; what the tables say is judged where they are used.
 */
#include "formats/vmdk/vmdk.h"

#include "libvdisk/base/cursor.h"

#define GTES_HOSTED_MAX 512             /* qemu's limit too; VMware writes 512 always */
#define FOOTER_BACK     1024            /* from the end of the file: footer, end-of-stream marker */

/* A header field in sectors as bytes; false when no file can be so long. */
static bool bytes_of(uint64_t sectors, uint64_t *bytes)
{
	return sectors <= VMDK_SECTORS_MAX && vd_mul_u64(sectors, VMDK_SECTOR, bytes);
}

static void add_area(struct vd_vmdk_sparse *sp, uint64_t off, uint64_t len)
{
	if (len && sp->n_areas < VMDK_AREAS_MAX)
		sp->areas[sp->n_areas++] = (struct vd_vmdk_area){ off, off + len };
}

bool vd_vmdk_overlaps(const struct vd_vmdk_sparse *sp, uint64_t off, uint64_t len)
{
	for (size_t i = 0; i < sp->n_areas; i++)
		if (off < sp->areas[i].end && sp->areas[i].off < off + len)
			return true;
	return false;
}

/* Grain and table sizes, and how many tables the capacity takes. */
static int set_geometry(struct vd_vmdk_sparse *sp, uint64_t capacity, uint64_t grain, uint64_t entries,
			uint64_t entries_max, uint32_t entry_size, struct vd_error *e)
{
	if (!bytes_of(capacity, &sp->capacity))
		return vd_fail(e, VD_ECORRUPT, "the header claims a capacity of %" PRIu64 " sectors", capacity);
	if (!bytes_of(grain, &sp->grain) || !vd_is_pow2(sp->grain) || sp->grain > VMDK_GRAIN_MAX)
		return vd_fail(e, VD_ECORRUPT, "the header claims grains of %" PRIu64 " sectors: not a power of two up to 1 GiB",
			       grain);
	if (!entries || entries > entries_max)
		return vd_fail(e, VD_ECORRUPT, "the header claims grain tables of %" PRIu64 " entries: 1 to %" PRIu64
			       " are possible", entries, entries_max);
	sp->entries = entries;
	sp->entry_size = entry_size;
	sp->span = sp->grain * entries;
	sp->n_tables = vd_round_up(sp->capacity, sp->span) / sp->span;
	if (sp->n_tables > VMDK_GD_ENTRIES_MAX)
		return vd_fail(e, VD_ECORRUPT, "the header claims %" PRIu64 " grain tables", sp->n_tables);
	return 0;
}

static bool is_inside(const struct vd_vmdk_sparse *sp, uint64_t off, uint64_t len, uint64_t file_size)
{
	return off >= VMDK_HEADER_LEN && vd_range_inside(off, len, file_size) && !vd_vmdk_overlaps(sp, off, len);
}

/* ---- hosted sparse --------------------------------------------------------------------------------------- */

void vd_vmdk_header_get(const uint8_t *raw, struct vd_vmdk_header *h)
{
	struct vd_reader r = vd_reader_of(raw + 4, VMDK_HEADER_LEN - 4);

	h->version = vd_read_le32(&r);
	h->flags = vd_read_le32(&r);
	h->capacity = vd_read_le64(&r);
	h->grain = vd_read_le64(&r);
	h->desc_off = vd_read_le64(&r);
	h->desc_len = vd_read_le64(&r);
	h->entries = vd_read_le32(&r);
	h->rgd_off = vd_read_le64(&r);
	h->gd_off = vd_read_le64(&r);
	h->overhead = vd_read_le64(&r);
	h->unclean = vd_read_u8(&r);
	for (int i = 0; i < 4; i++)
		h->newlines[i] = vd_read_u8(&r);
	h->compression = vd_read_le16(&r);
}

int vd_vmdk_header_judge(const struct vd_vmdk_header *h, struct vd_error *e)
{
	uint32_t unknown = h->flags & VMDK_FLAGS_INCOMPATIBLE & ~(VMDK_FLAG_COMPRESSED | VMDK_FLAG_MARKERS);

	if (!h->version || h->version > 3)
		return vd_fail_at(e, VD_EUNSUPPORTED, 4, "a sparse extent of version %" PRIu32 ", 1 to 3 are known", h->version);
	if (unknown)
		return vd_fail_at(e, VD_EUNSUPPORTED, 8, "the sparse extent needs features that are not known: flags %#" PRIx32,
				  unknown);
	if (h->flags & VMDK_FLAG_NEWLINE && memcmp(h->newlines, "\n \r\n", 4)) {
		vd_fail_at(e, VD_ECORRUPT, 73, "line ends in the header were changed: the file was copied as if it were text");
		return vd_hint(e, VD_ECORRUPT, "copy it again in binary mode");
	}
	if (h->flags & VMDK_FLAG_COMPRESSED && h->compression != 1)
		return vd_fail_at(e, VD_EUNSUPPORTED, 77, "compression %u of grains is not known", h->compression);
	return 0;
}

/* What the header says of sizes. */
int vd_vmdk_header_apply(const struct vd_vmdk_header *h, struct vd_vmdk_sparse *sp, struct vd_error *e)
{
	int r = set_geometry(sp, h->capacity, h->grain, h->entries, GTES_HOSTED_MAX, 4, e);

	if (r < 0)
		return r;
	sp->version = h->version;
	sp->flags = h->flags;
	sp->unclean = h->unclean;
	if (!bytes_of(h->overhead, &sp->overhead))
		sp->overhead = 0;
	if (h->flags & VMDK_FLAG_COMPRESSED && sp->grain > VMDK_PACKED_GRAIN_MAX)
		return vd_fail_at(e, VD_EUNSUPPORTED, 20, "compressed grains of %" PRIu64 " bytes are too large", sp->grain);
	return 0;
}

/* Everything but where the directory is, which the first header of a stream does not know. */
bool vd_vmdk_header_is_footers(const struct vd_vmdk_header *h, const struct vd_vmdk_header *footer)
{
	return h->version == footer->version && h->flags == footer->flags && h->capacity == footer->capacity &&
	       h->grain == footer->grain && h->desc_off == footer->desc_off && h->desc_len == footer->desc_len &&
	       h->entries == footer->entries && footer->gd_off != VMDK_GD_AT_END;
}

int vd_vmdk_cut_off(struct vd_error *e, uint64_t file_end, uint64_t sound_to, uint64_t sound, uint64_t size)
{
	vd_fail_at(e, VD_ECORRUPT, file_end, "the stream-optimized disk is cut off: its end is missing, and only the first %"
		   PRIu64 " of %" PRIu64 " bytes of the disk are all there, in the first %" PRIu64 " bytes of the file",
		   vd_min_u64(sound, size), size, sound_to);
	return vd_hint(e, VD_ECORRUPT, "copy or download the file again");
}

/*
 * Goes through a stream without a footer, marker by marker: how much of the disk its grains are, up to the first that is not
 * all there. Ends with the file, because each step is at least a sector.
 */
static int measure_stream(struct vd_io *io, uint64_t file_size, const struct vd_vmdk_header *h, uint64_t *sound,
			  uint64_t *sound_to, struct vd_error *e)
{
	uint64_t at = vd_max_u64(vd_min_u64(h->overhead, VMDK_SECTORS_MAX), 1) * VMDK_SECTOR;
	uint8_t raw[16];

	*sound = 0;
	*sound_to = vd_min_u64(at, file_size);
	while (vd_range_inside(at, sizeof(raw), file_size)) {
		int r = vd_io_pread(io, raw, sizeof(raw), at, e);
		uint64_t value = vd_get_le64(raw), len = vd_get_le32(raw + 8);

		if (r < 0)
			return r;
		if (!len && vd_get_le32(raw + 12) != VMDK_MARKER_GT)
			return 0;
		if (!len && value > VMDK_GTES_MAX)
			return 0;
		len = len ? VMDK_MARKER_LEN + len : VMDK_SECTOR + value * VMDK_SECTOR;
		if (!vd_range_inside(at, len, file_size))
			return 0;
		if (vd_get_le32(raw + 8)) {
			*sound = (vd_min_u64(value, h->capacity) + h->grain) * VMDK_SECTOR;
			*sound_to = at + len;
		}
		at += vd_round_up(len, VMDK_SECTOR);
	}
	return 0;
}

static int cut_off(struct vd_io *io, uint64_t file_size, const struct vd_vmdk_header *h, struct vd_error *e)
{
	uint64_t sound = 0, to = 0, capacity = vd_min_u64(h->capacity, VMDK_SECTORS_MAX) * VMDK_SECTOR;
	int r = h->grain > VMDK_GRAIN_MAX ? 0 : measure_stream(io, file_size, h, &sound, &to, e);

	if (r == VD_EAGAIN)
		return vd_fail_at(e, VD_ECORRUPT, file_size, "the stream-optimized disk is cut off: its end is missing");
	return r < 0 ? r : vd_vmdk_cut_off(e, file_size, to, sound, capacity);
}

/* The header that counts is the footer when tables follow the grains. */
static int read_footer(struct vd_io *io, uint64_t file_size, struct vd_vmdk_header *h, struct vd_error *e)
{
	uint8_t raw[VMDK_HEADER_LEN];
	uint64_t at = vd_round_down(file_size, VMDK_SECTOR) - FOOTER_BACK;
	struct vd_vmdk_header first = *h;
	int r;

	if (file_size < VMDK_HEADER_LEN + FOOTER_BACK)
		at = 0;
	r = at ? vd_io_pread_exact(io, raw, sizeof(raw), at, e) : 0;
	if (r < 0)
		return r;
	if (!at || vd_get_le32(raw) != VMDK_MAGIC)
		return cut_off(io, file_size, h, e);
	vd_vmdk_header_get(raw, h);
	r = vd_vmdk_header_judge(h, e);
	if (r < 0)
		return r;
	if (!vd_vmdk_header_is_footers(&first, h))
		return vd_fail_at(e, VD_ECORRUPT, at, "header and footer of the stream-optimized disk contradict each other");
	return 0;
}

static int set_descriptor(struct vd_vmdk_sparse *sp, const struct vd_vmdk_header *h, uint64_t file_size, struct vd_error *e)
{
	if (!h->desc_off)
		return 0;
	if (!bytes_of(h->desc_off, &sp->desc_off) || !bytes_of(h->desc_len, &sp->desc_len) ||
	    !is_inside(sp, sp->desc_off, sp->desc_len, file_size) || sp->desc_len > VMDK_DESCRIPTOR_MAX)
		return vd_fail_at(e, VD_ECORRUPT, 28, "the header claims a descriptor of %" PRIu64 " sectors at sector %" PRIu64,
				  h->desc_len, h->desc_off);
	add_area(sp, sp->desc_off, sp->desc_len);
	return 0;
}

int vd_vmdk_header_place(const struct vd_vmdk_header *h, uint64_t file_size, struct vd_vmdk_sparse *sp, struct vd_error *e)
{
	add_area(sp, 0, VMDK_HEADER_LEN);
	return set_descriptor(sp, h, file_size, e);
}

/* Either directory will do; the second stands in for the first. */
static int set_directories(struct vd_vmdk_sparse *sp, const struct vd_vmdk_header *h, uint64_t file_size, struct vd_error *e)
{
	uint64_t len = sp->n_tables * sp->entry_size;
	bool has_first = bytes_of(h->gd_off, &sp->gd_off) && is_inside(sp, sp->gd_off, len, file_size);
	bool has_second = h->flags & VMDK_FLAG_REDUNDANT && bytes_of(h->rgd_off, &sp->rgd_off) &&
			  is_inside(sp, sp->rgd_off, len, file_size) && sp->rgd_off != sp->gd_off;

	sp->lost_second = !has_second && h->flags & VMDK_FLAG_REDUNDANT && h->rgd_off;
	if (!has_second)
		sp->rgd_off = 0;
	if (!has_first) {
		if (!has_second && sp->n_tables)
			return vd_fail_at(e, VD_ECORRUPT, 56, "the grain directory of %" PRIu64 " bytes at sector %" PRIu64
					  " is not inside the file", len, h->gd_off);
		sp->gd_off = sp->rgd_off;
		sp->rgd_off = 0;
		sp->lost_first = true;
	}
	add_area(sp, sp->gd_off, len);
	if (sp->rgd_off)
		add_area(sp, sp->rgd_off, len);
	return 0;
}

static int read_hosted(const uint8_t *raw, struct vd_io *io, uint64_t file_size, struct vd_vmdk_sparse *sp,
		       struct vd_error *e)
{
	struct vd_vmdk_header h;
	int r;

	vd_vmdk_header_get(raw, &h);
	r = vd_vmdk_header_judge(&h, e);
	if (r == 0 && h.gd_off == VMDK_GD_AT_END)
		r = read_footer(io, file_size, &h, e);
	if (r == 0)
		r = vd_vmdk_header_apply(&h, sp, e);
	if (r < 0)
		return r;
	r = vd_vmdk_header_place(&h, file_size, sp, e);
	return r < 0 ? r : set_directories(sp, &h, file_size, e);
}

/* ---- COWD ------------------------------------------------------------------------------------------------ */

static int set_directory(struct vd_vmdk_sparse *sp, uint64_t sector, uint64_t n, uint64_t file_size, struct vd_error *e)
{
	if (n < sp->n_tables)
		return vd_fail(e, VD_ECORRUPT, "the grain directory has %" PRIu64 " entries, the disk needs %" PRIu64, n,
			       sp->n_tables);
	if (!bytes_of(sector, &sp->gd_off) || !is_inside(sp, sp->gd_off, sp->n_tables * sp->entry_size, file_size))
		return vd_fail(e, VD_ECORRUPT, "the grain directory at sector %" PRIu64 " is not inside the file", sector);
	add_area(sp, sp->gd_off, sp->n_tables * sp->entry_size);
	return 0;
}

static int read_cowd(const uint8_t *raw, uint64_t file_size, struct vd_vmdk_sparse *sp, struct vd_error *e)
{
	uint32_t version = vd_get_le32(raw + 4), capacity = vd_get_le32(raw + 12), grain = vd_get_le32(raw + 16);
	int r;

	if (version != 1)
		return vd_fail_at(e, VD_EUNSUPPORTED, 4, "a COWD extent of version %" PRIu32 ", only 1 is known", version);
	r = set_geometry(sp, capacity, grain, VMDK_COWD_GTES, VMDK_COWD_GTES, 4, e);
	if (r < 0)
		return r;
	sp->unclean = vd_get_le32(raw + VMDK_COWD_AT_UNCLEAN) != 0;
	sp->free_at = (uint64_t)vd_get_le32(raw + VMDK_COWD_AT_FREE) * VMDK_SECTOR;
	add_area(sp, 0, VMDK_COWD_HEADER_LEN);
	return set_directory(sp, vd_get_le32(raw + 20), vd_get_le32(raw + 24), file_size, e);
}

/* ---- seSparse -------------------------------------------------------------------------------------------- */

struct se_part {
	uint64_t off, len;              /* sectors */
};
enum se_parts { SE_VOLATILE, SE_JOURNAL_HEADER, SE_JOURNAL, SE_GD, SE_GTS, SE_BITMAP, SE_BACKMAP, SE_GRAINS, SE_N_PARTS };

/* Entries in memory alone until the journal is replayed: reading past them would show old data. */
static int judge_volatile(struct vd_io *io, const struct se_part *p, struct vd_error *e)
{
	uint8_t raw[VMDK_SECTOR];
	uint64_t at;
	int r;

	if (!bytes_of(p->off, &at))
		return vd_fail(e, VD_ECORRUPT, "the volatile header at sector %" PRIu64 " is not inside the file", p->off);
	r = vd_io_pread_exact(io, raw, sizeof(raw), at, e);
	if (r < 0)
		return r;
	if (vd_get_le64(raw) != VMDK_SE_VOLATILE_MAGIC)
		return vd_fail_at(e, VD_ECORRUPT, at, "there is no volatile header where the seSparse header says it is");
	if (!vd_get_le64(raw + 24))
		return 0;
	vd_fail_at(e, VD_EUNSUPPORTED, at, "the seSparse journal has to be replayed, which is not known here");
	return vd_hint(e, VD_EUNSUPPORTED, "open the disk once with the VMware host that wrote it");
}

static int set_se_parts(struct vd_vmdk_sparse *sp, const struct se_part *parts, uint64_t file_size, struct vd_error *e)
{
	static const enum se_parts kept[VMDK_SE_PARTS] = {
		SE_VOLATILE, SE_JOURNAL_HEADER, SE_JOURNAL, SE_BITMAP, SE_BACKMAP,
	};
	uint64_t gd_entries, tables_len;

	if (!bytes_of(parts[SE_GTS].off, &sp->tables_off) || !bytes_of(parts[SE_GTS].len, &tables_len) ||
	    !bytes_of(parts[SE_GRAINS].off, &sp->grains_off) || sp->tables_off > file_size || sp->grains_off > file_size)
		return vd_fail(e, VD_ECORRUPT, "the grain tables or the grains do not begin inside the file");
	for (int i = 0; i < VMDK_SE_PARTS; i++)
		if (bytes_of(parts[kept[i]].off, &sp->se_parts[i].off) && bytes_of(parts[kept[i]].len, &sp->se_parts[i].end))
			sp->se_parts[i].end += sp->se_parts[i].off;
		else
			sp->se_parts[i] = (struct vd_vmdk_area){ 0 };
	gd_entries = vd_min_u64(parts[SE_GD].len, VMDK_SECTORS_MAX) * (VMDK_SECTOR / 8);
	return set_directory(sp, parts[SE_GD].off, gd_entries, file_size, e);
}

static int read_sesparse(const uint8_t *raw, struct vd_io *io, uint64_t file_size, struct vd_vmdk_sparse *sp,
			 struct vd_error *e)
{
	struct vd_reader rd = vd_reader_of(raw + 8, VMDK_HEADER_LEN - 8);
	uint64_t version = vd_read_le64(&rd), capacity = vd_read_le64(&rd), grain = vd_read_le64(&rd);
	uint64_t gt_sectors = vd_read_le64(&rd), flags = vd_read_le64(&rd);
	struct se_part parts[SE_N_PARTS];
	int r;

	vd_reader_take(&rd, 4 * 8);
	for (int i = 0; i < SE_N_PARTS; i++) {
		parts[i].off = vd_read_le64(&rd);
		parts[i].len = vd_read_le64(&rd);
	}
	if (version != VMDK_SE_VERSION)
		return vd_fail_at(e, VD_EUNSUPPORTED, 8, "a seSparse extent of version %#" PRIx64 " is not known", version);
	if (flags)
		return vd_fail_at(e, VD_EUNSUPPORTED, 40, "the seSparse extent has flags that are not known: %#" PRIx64, flags);
	if (gt_sectors > VMDK_GTES_MAX / (VMDK_SECTOR / 8))
		gt_sectors = 0;         /* refused below */
	r = set_geometry(sp, capacity, grain, gt_sectors * (VMDK_SECTOR / 8), VMDK_GTES_MAX, 8, e);
	if (r < 0)
		return r;
	add_area(sp, 0, VMDK_HEADER_LEN);
	r = judge_volatile(io, &parts[SE_VOLATILE], e);
	return r < 0 ? r : set_se_parts(sp, parts, file_size, e);
}

int vd_vmdk_sparse_read(struct vd_io *io, enum vd_vmdk_kind *kind, struct vd_vmdk_sparse *sp, struct vd_error *e)
{
	uint8_t raw[VMDK_COWD_HEADER_LEN];
	uint64_t file_size = 0;
	int r = vd_io_size(io, &file_size, e);

	if (r == 0)
		r = vd_io_pread(io, raw, sizeof(raw), 0, e);
	if (r < 0)
		return r;
	atomic_store(&sp->host_end, file_size);
	if (vd_get_le32(raw) == VMDK_MAGIC && file_size >= VMDK_HEADER_LEN) {
		*kind = VMDK_SPARSE;
		return read_hosted(raw, io, file_size, sp, e);
	}
	if (vd_get_le32(raw) == VMDK_COWD_MAGIC && file_size >= VMDK_COWD_HEADER_LEN) {
		*kind = VMDK_COWD;
		return read_cowd(raw, file_size, sp, e);
	}
	if (vd_get_le64(raw) == VMDK_SE_MAGIC && file_size >= VMDK_HEADER_LEN) {
		*kind = VMDK_SESPARSE;
		return read_sesparse(raw, io, file_size, sp, e);
	}
	return vd_fail_at(e, VD_ECORRUPT, 0, "there is no header of a sparse extent");
}
