/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads grain directories and tables. Where the first set is damaged and there is a redundant one, that one answers:
 * for a table whose place makes no sense or cannot be read, and for a single entry that makes none.
 */
#include "formats/vmdk/vmdk.h"

#include <stdarg.h>
#include <stdio.h>

#define SE_TABLE_MARK   UINT64_C(0x1000000000000000)
#define SE_KIND_MASK    UINT64_C(0xf000000000000000)

int vd_vmdk_corrupt(const struct vd_vmdk *s, uint32_t file, struct vd_error *e, uint64_t at, const char *fmt, ...)
{
	char what[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	return vd_fail_at(e, VD_ECORRUPT, at, "%s: %s", vd_set_name(s->set, file), what);
}

const struct vd_vmdk_extent *vd_vmdk_extent_at(const struct vd_vmdk *s, uint64_t off)
{
	size_t low = 0, high = s->n_extents;

	while (high - low > 1) {
		size_t mid = low + (high - low) / 2;

		if (s->extents[mid].start <= off)
			low = mid;
		else
			high = mid;
	}
	return &s->extents[low];
}

/* ---- directories ----------------------------------------------------------------------------------------- */

static uint64_t entry_at(const struct vd_vmdk_sparse *sp, const uint8_t *raw, uint64_t i)
{
	return sp->entry_size == 8 ? vd_get_le64(raw + i * 8) : vd_get_le32(raw + i * 4);
}

/* Entries of a table that grains of the capacity use: the last may be shorter on disk. */
static uint64_t entries_used(const struct vd_vmdk_sparse *sp, uint64_t index)
{
	return (vd_min_u64(sp->capacity - index * sp->span, sp->span) - 1) / sp->grain + 1;
}

static int decode_table(struct vd_vmdk *s, const struct vd_vmdk_extent *x, uint64_t index, uint64_t entry, uint64_t at,
			uint64_t *off, struct vd_error *e)
{
	const struct vd_vmdk_sparse *sp = &x->sp;
	uint64_t len = entries_used(sp, index) * sp->entry_size;
	bool ok;

	*off = 0;
	if (!entry)
		return 0;
	if (x->kind == VMDK_SESPARSE)
		ok = (entry & ~(uint64_t)UINT32_MAX) == SE_TABLE_MARK &&
		     vd_add_u64(sp->tables_off, (entry & UINT32_MAX) * sp->entries * sp->entry_size, off);
	else
		ok = vd_mul_u64(entry, VMDK_SECTOR, off);
	if (ok && vd_range_inside(*off, len, atomic_load(&sp->host_end)) && !vd_vmdk_overlaps(sp, *off, len))
		return 0;
	return vd_vmdk_corrupt(s, x->file, e, at, "the grain table of guest offset %" PRIu64
			       " cannot be where the directory says: entry %#" PRIx64, x->start + index * sp->span, entry);
}

static int table_of(struct vd_vmdk *s, const struct vd_vmdk_extent *x, uint64_t gd_off, uint64_t index,
		    unsigned meta_flags, uint64_t *off, struct vd_error *e)
{
	const struct vd_vmdk_sparse *sp = &x->sp;
	uint64_t at = gd_off + index * sp->entry_size;
	uint8_t raw[8];
	int r = vd_meta_read(s->meta, x->file, at, raw, sp->entry_size, meta_flags, e);

	return r < 0 ? r : decode_table(s, x, index, entry_at(sp, raw, 0), at, off, e);
}

int vd_vmdk_table(struct vd_vmdk *s, const struct vd_vmdk_extent *x, uint64_t index, bool redundant, unsigned meta_flags,
		  uint64_t *off, struct vd_error *e)
{
	return table_of(s, x, redundant ? x->sp.rgd_off : x->sp.gd_off, index, meta_flags, off, e);
}

static bool may_fall_back(const struct vd_vmdk_sparse *sp, int r)
{
	return sp->rgd_off && (r == VD_ECORRUPT || r == VD_EIO);
}

/* The table to read, of either set; one that only the redundant directory has counts. */
static int table_to_read(struct vd_vmdk *s, const struct vd_vmdk_extent *x, uint64_t index, unsigned meta_flags,
			 uint64_t *off, bool *is_redundant, struct vd_error *e)
{
	int r = vd_vmdk_table(s, x, index, false, meta_flags, off, e), second;

	*is_redundant = false;
	if (!x->sp.rgd_off || !(may_fall_back(&x->sp, r) || (r == 0 && !*off)))
		return r;
	second = vd_vmdk_table(s, x, index, true, meta_flags, off, NULL);
	if (second == VD_EAGAIN)
		return vd_fail(e, VD_EAGAIN, "a table of %s is not in memory", vd_set_name(s->set, x->file));
	if (second < 0)
		*off = 0;
	*is_redundant = *off != 0;
	/* Both say that there is none, or the first one's trouble is not mended by the second. */
	return *is_redundant ? 0 : r;
}

int vd_vmdk_tables_absent(struct vd_vmdk *s, const struct vd_vmdk_extent *x, uint64_t index, uint64_t n,
			  unsigned meta_flags, uint64_t *absent, struct vd_error *e)
{
	const struct vd_vmdk_sparse *sp = &x->sp;
	uint8_t raw[VMDK_BATCH * 8], second[VMDK_BATCH * 8] = { 0 };

	for (uint64_t i = 0, part; i < n; i += part) {
		uint64_t at = (index + i) * sp->entry_size;
		int r;

		part = vd_min_u64(n - i, VMDK_BATCH);
		r = vd_meta_read(s->meta, x->file, sp->gd_off + at, raw, part * sp->entry_size, meta_flags, e);
		if (r == 0 && sp->rgd_off)
			r = vd_meta_read(s->meta, x->file, sp->rgd_off + at, second, part * sp->entry_size, meta_flags, e);
		if (r < 0)
			return r;
		for (uint64_t k = 0; k < part; k++) {
			*absent = i + k;
			if (entry_at(sp, raw, k) || entry_at(sp, second, k))
				return 0;
		}
	}
	*absent = n;
	return 0;
}

/* ---- tables ---------------------------------------------------------------------------------------------- */

static bool decode_sesparse(const struct vd_vmdk_sparse *sp, uint64_t entry, struct vd_vmdk_grain *g)
{
	uint64_t number = (entry >> 48 & 0xfff) | (entry & UINT64_C(0xffffffffffff)) << 12;

	switch (entry & SE_KIND_MASK) {
	case 0:
		g->where = VD_HOLE;
		return !entry;
	case UINT64_C(1) << 60:         /* unmapped by the guest */
	case UINT64_C(2) << 60:
		g->where = VD_ZERO;
		return true;
	case UINT64_C(3) << 60:
		g->where = VD_DATA;
		return vd_mul_u64(number, sp->grain, &g->host_off) && vd_add_u64(sp->grains_off, g->host_off, &g->host_off);
	default:
		return false;
	}
}

static bool meets_tables(const struct vd_vmdk_sparse *sp, uint64_t off, uint64_t len)
{
	for (int i = 0; i < 2; i++)
		if (off < sp->tables[i].end && sp->tables[i].off < off + len)
			return true;
	return false;
}

bool vd_vmdk_decode(const struct vd_vmdk_extent *x, uint64_t entry, struct vd_vmdk_grain *g)
{
	const struct vd_vmdk_sparse *sp = &x->sp;
	uint64_t end = atomic_load(&sp->host_end), len;

	*g = (struct vd_vmdk_grain){ .where = VD_HOLE };
	if (x->kind == VMDK_SESPARSE) {
		if (!decode_sesparse(sp, entry, g))
			return false;
	} else if (entry == 1 && sp->flags & VMDK_FLAG_ZEROED) {
		g->where = VD_ZERO;
	} else if (entry) {
		g->where = sp->flags & VMDK_FLAG_COMPRESSED ? VD_PACKED : VD_DATA;
		g->host_off = entry * VMDK_SECTOR;
	}
	if (g->where != VD_DATA && g->where != VD_PACKED)
		return true;
	/* The last grain of a file may be cut short by its end: what is missing reads as zeros. */
	len = g->where == VD_DATA ? sp->grain : VMDK_MARKER_LEN;
	return g->host_off < end && !vd_vmdk_overlaps(sp, g->host_off, len) && !meets_tables(sp, g->host_off, len);
}

/* One entry of the redundant set, for one that makes no sense. */
static int grain_by_redundant(struct vd_vmdk *s, const struct vd_vmdk_extent *x, uint64_t at, unsigned meta_flags,
			      struct vd_vmdk_grain *g)
{
	const struct vd_vmdk_sparse *sp = &x->sp;
	uint8_t raw[8];
	uint64_t off;
	int r = sp->rgd_off ? vd_vmdk_table(s, x, at / sp->span, true, meta_flags, &off, NULL) : VD_ECORRUPT;

	if (r < 0 || !off)
		return r < 0 ? r : VD_ECORRUPT;
	r = vd_meta_read(s->meta, x->file, off + at % sp->span / sp->grain * sp->entry_size, raw, sp->entry_size, meta_flags,
			 NULL);
	if (r < 0)
		return r;
	return vd_vmdk_decode(x, entry_at(sp, raw, 0), g) ? 0 : VD_ECORRUPT;
}

static int read_entries(struct vd_vmdk *s, const struct vd_vmdk_extent *x, uint64_t index, uint64_t first, uint64_t n,
			unsigned meta_flags, uint8_t *raw, uint64_t *at, struct vd_error *e)
{
	const struct vd_vmdk_sparse *sp = &x->sp;
	bool is_redundant;
	uint64_t off;
	int r = table_to_read(s, x, index, meta_flags, &off, &is_redundant, e);

	*at = off + first * sp->entry_size;
	if (r < 0)
		return r;
	if (!off) {
		memset(raw, 0, n * sp->entry_size);
		return 0;
	}
	r = vd_meta_read(s->meta, x->file, *at, raw, n * sp->entry_size, meta_flags, e);
	if (is_redundant || !may_fall_back(sp, r) || vd_vmdk_table(s, x, index, true, meta_flags, &off, NULL) < 0 || !off)
		return r;
	*at = off + first * sp->entry_size;
	return vd_meta_read(s->meta, x->file, *at, raw, n * sp->entry_size, meta_flags, e);
}

/* Streams grow at their end alone: what would lie behind it was there once. */
static bool is_cut_off(const struct vd_vmdk_extent *x, uint64_t entry)
{
	return x->sp.flags & VMDK_FLAG_COMPRESSED && entry <= UINT32_MAX && entry * VMDK_SECTOR >= atomic_load(&x->sp.host_end);
}

int vd_vmdk_grains(struct vd_vmdk *s, const struct vd_vmdk_extent *x, uint64_t at, uint64_t n, unsigned meta_flags,
		   struct vd_vmdk_grain *grains, struct vd_error *e)
{
	const struct vd_vmdk_sparse *sp = &x->sp;
	uint8_t raw[VMDK_BATCH * 8];
	uint64_t entry_off;
	int r = read_entries(s, x, at / sp->span, at % sp->span / sp->grain, n, meta_flags, raw, &entry_off, e);

	for (uint64_t i = 0; i < n && r == 0; i++) {
		uint64_t entry = entry_at(sp, raw, i);

		if (vd_vmdk_decode(x, entry, &grains[i]))
			continue;
		r = grain_by_redundant(s, x, at + i * sp->grain, meta_flags, &grains[i]);
		if (r < 0 && r != VD_EAGAIN && is_cut_off(x, entry))
			r = vd_vmdk_corrupt(s, x->file, e, atomic_load(&sp->host_end), "the file is cut off: the grain of guest offset %"
					    PRIu64 " would lie at %" PRIu64, x->start + at + i * sp->grain, entry * VMDK_SECTOR);
		else if (r < 0 && r != VD_EAGAIN)
			r = vd_vmdk_corrupt(s, x->file, e, entry_off + i * sp->entry_size, "the grain of guest offset %" PRIu64
					    " cannot be where the table says: entry %#" PRIx64,
					    x->start + at + i * sp->grain, entry);
		else if (r < 0)
			r = vd_fail(e, r, "a table of %s is not in memory", vd_set_name(s->set, x->file));
	}
	return r;
}
