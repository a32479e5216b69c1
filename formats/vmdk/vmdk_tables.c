/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Makes directories and tables of a hosted sparse extent beside those in force, for a disk that grows or moves inside it.
 * They lie at the end of the file, the redundant set first, and count from the header's next write, which is not made here.
 */
#include "formats/vmdk/vmdk_shape.h"

#include <stdlib.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

#define ENTRY 4

static uint64_t table_len(const struct vd_vmdk_sparse *sp)
{
	return vd_round_up(sp->entries * (uint64_t)ENTRY, VMDK_SECTOR);
}

/* Room for directories of l->n entries and n_new tables for each; it reads as zeros. */
static int lay_out(struct vd_vmdk *s, const struct vd_vmdk_extent *x, uint64_t n_new, struct vd_vmdk_layout *l,
		   uint64_t *gd_len, struct vd_error *e)
{
	const struct vd_vmdk_sparse *sp = &x->sp;
	uint64_t at = atomic_load(&sp->host_end);

	*gd_len = vd_round_up(l->n * ENTRY, VMDK_SECTOR);
	l->rgd = sp->rgd_off ? at : 0;
	l->gd = sp->rgd_off ? at + *gd_len + n_new * table_len(sp) : at;
	l->end = vd_round_up(l->gd + *gd_len + n_new * table_len(sp), sp->grain);
	if (l->end / VMDK_SECTOR > UINT32_MAX)
		return vd_fail(e, VD_ENOSPC, "%s has no room left that its tables can name: 2 TiB", vd_set_name(s->set, x->file));
	return vd_io_truncate(vd_set_io(s->set, x->file), l->end, e);
}

/* A directory: the first n_kept entries of the old one, then tables one after the other. */
static int write_directory(struct vd_vmdk *s, const struct vd_vmdk_extent *x, uint64_t old, uint64_t n_kept, uint64_t at,
			   uint64_t tables, uint64_t n, struct vd_error *e)
{
	vd_auto_free uint8_t *raw = NULL;
	int r = vd_alloc(n, ENTRY, &raw, e);

	if (r == 0)
		r = vd_set_pread(s->set, x->file, raw, n_kept * ENTRY, old, e);
	for (uint64_t i = n_kept; i < n && r == 0; i++)
		vd_put_le32(raw + ENTRY * i, (tables + (i - n_kept) * table_len(&x->sp)) / VMDK_SECTOR);
	return r < 0 ? r : vd_set_pwrite(s->set, x->file, raw, n * ENTRY, at, e);
}

static int write_directories(struct vd_vmdk *s, const struct vd_vmdk_extent *x, uint64_t n_kept, uint64_t gd_len,
			     const struct vd_vmdk_layout *l, struct vd_error *e)
{
	int r = l->rgd ? write_directory(s, x, x->sp.rgd_off, n_kept, l->rgd, l->rgd + gd_len, l->n, e) : 0;

	return r < 0 ? r : write_directory(s, x, x->sp.gd_off, n_kept, l->gd, l->gd + gd_len, l->n, e);
}

/* ---- the same grains, and moved ones --------------------------------------------------------------------- */

/* The entries of n grains from `at` on, which lie in one table, as they are. */
static int copy_entries(struct vd_vmdk *s, const struct vd_vmdk_extent *x, uint64_t at, uint64_t n, uint8_t *raw,
			bool *any, struct vd_error *e)
{
	struct vd_vmdk_grain grains[VMDK_BATCH];
	int r = vd_vmdk_grains(s, x, at, n, 0, grains, e);

	for (uint64_t i = 0; i < n && r == 0; i++) {
		uint64_t entry = grains[i].where == VD_ZERO ? 1 : grains[i].where == VD_DATA ? grains[i].host_off / VMDK_SECTOR : 0;

		vd_put_le32(raw + ENTRY * i, entry);
		*any |= entry != 0;
	}
	return r;
}

/* One new table: that of guest bytes from `start` on, which were `by` before. */
static int fill_table(struct vd_vmdk *s, const struct vd_vmdk_extent *x, uint64_t start, uint64_t end, int64_t by,
		      uint8_t *raw, bool *any, struct vd_error *e)
{
	const struct vd_vmdk_sparse *sp = &x->sp;
	uint64_t lowest = by > 0 ? (uint64_t)by : 0, highest = vd_round_up(sp->capacity, sp->grain) + by;
	uint64_t at = vd_max_u64(start, lowest), to = vd_min_u64(end, highest), n;
	int r = 0;

	*any = false;
	for (; at < to && r == 0; at += n * sp->grain) {
		uint64_t old = at - by;

		n = vd_min_u64((to - at) / sp->grain, (sp->span - old % sp->span) / sp->grain);
		n = vd_min_u64(n, VMDK_BATCH);
		r = copy_entries(s, x, old, n, raw + (at - start) / sp->grain * ENTRY, any, e);
	}
	return r;
}

/*
 * The last table is made anew where the disk ended inside it: what its other entries say, or what follows it in the file
 * where it was made shorter, nobody knows.
 */
static int copy_last(struct vd_vmdk *s, const struct vd_vmdk_extent *x, uint64_t index, uint64_t gd_len,
		     const struct vd_vmdk_layout *l, struct vd_error *e)
{
	const struct vd_vmdk_sparse *sp = &x->sp;
	uint64_t start = index * sp->span, end = vd_round_up(x->end - x->start, sp->grain), len = table_len(sp);
	vd_auto_free uint8_t *raw = NULL;
	bool any = false;
	int r = end > start ? vd_alloc(len, 1, &raw, e) : 0;

	if (r == 0 && end > start)
		r = fill_table(s, x, start, end, 0, raw, &any, e);
	if (r == 0 && any && l->rgd)
		r = vd_set_pwrite(s->set, x->file, raw, len, l->rgd + gd_len, e);
	if (r == 0 && any)
		r = vd_set_pwrite(s->set, x->file, raw, len, l->gd + gd_len, e);
	return r;
}

int vd_vmdk_tables_extend(struct vd_vmdk *s, struct vd_vmdk_extent *x, uint64_t capacity, struct vd_vmdk_layout *l,
			  struct vd_error *e)
{
	uint64_t n_kept = (x->end - x->start) / x->sp.span, gd_len;
	int r;

	l->n = vd_round_up(capacity, x->sp.span) / x->sp.span;
	r = lay_out(s, x, l->n - n_kept, l, &gd_len, e);
	if (r == 0)
		r = write_directories(s, x, n_kept, gd_len, l, e);
	if (r == 0)
		r = copy_last(s, x, n_kept, gd_len, l, e);
	return r < 0 ? r : vd_set_flush(s->set, e);
}

static int fill_tables(struct vd_vmdk *s, const struct vd_vmdk_extent *x, int64_t by, uint64_t gd_len,
		       const struct vd_vmdk_layout *l, struct vd_error *e)
{
	const struct vd_vmdk_sparse *sp = &x->sp;
	uint64_t len = table_len(sp);
	vd_auto_free uint8_t *raw = NULL;
	int r = vd_alloc(len, 1, &raw, e);

	for (uint64_t i = 0; i < l->n && r == 0; i++) {
		bool any;

		memset(raw, 0, len);
		r = fill_table(s, x, i * sp->span, (i + 1) * sp->span, by, raw, &any, e);
		if (r == 0 && any && l->rgd)
			r = vd_set_pwrite(s->set, x->file, raw, len, l->rgd + gd_len + i * len, e);
		if (r == 0 && any)
			r = vd_set_pwrite(s->set, x->file, raw, len, l->gd + gd_len + i * len, e);
	}
	return r;
}

int vd_vmdk_tables_shifted(struct vd_vmdk *s, struct vd_vmdk_extent *x, uint64_t capacity, int64_t by,
			   struct vd_vmdk_layout *l, struct vd_error *e)
{
	uint64_t gd_len;
	int r;

	l->n = vd_round_up(capacity, x->sp.span) / x->sp.span;
	r = lay_out(s, x, l->n, l, &gd_len, e);
	if (r == 0)
		r = write_directories(s, x, 0, gd_len, l, e);
	if (r == 0)
		r = fill_tables(s, x, by, gd_len, l, e);
	return r < 0 ? r : vd_set_flush(s->set, e);
}

/* ---- those in force -------------------------------------------------------------------------------------- */

static int add_range(struct vd_space_batch *b, const struct vd_vmdk_extent *x, uint64_t off, uint64_t len, struct vd_error *e)
{
	return vd_space_batch_add(b, (struct vd_range){ .file = x->file, .host_off = off, .len = len, .to_host = true }, e);
}

/* Tables that lie in more than one piece are left: no grain is known to keep off each of them. */
int vd_vmdk_tables_ranges(const struct vd_vmdk_extent *x, struct vd_space_batch *b, struct vd_error *e)
{
	const struct vd_vmdk_sparse *sp = &x->sp;
	int r = 0;

	for (int redundant = sp->rgd_off != 0; redundant >= 0 && r == 0; redundant--) {
		const struct vd_vmdk_area *tables = &sp->tables[redundant];

		r = add_range(b, x, redundant ? sp->rgd_off : sp->gd_off, vd_round_up(sp->n_tables * ENTRY, VMDK_SECTOR), e);
		if (r == 0 && tables->end)
			r = add_range(b, x, tables->off, tables->end - tables->off, e);
	}
	return r;
}

static void set_area(struct vd_vmdk_sparse *sp, uint64_t old, uint64_t off, uint64_t len)
{
	for (size_t i = 0; i < sp->n_areas; i++)
		if (sp->areas[i].off == old)
			sp->areas[i] = (struct vd_vmdk_area){ off, off + len };
}

void vd_vmdk_tables_adopt(struct vd_vmdk *s, struct vd_vmdk_extent *x, const struct vd_vmdk_layout *l)
{
	struct vd_vmdk_sparse *sp = &x->sp;

	set_area(sp, sp->gd_off, l->gd, l->n * ENTRY);
	if (sp->rgd_off)
		set_area(sp, sp->rgd_off, l->rgd, l->n * ENTRY);
	sp->gd_off = l->gd;
	sp->rgd_off = l->rgd;
	sp->n_tables = l->n;
	/* Perhaps in more places than one now: what guards the old one would not guard those. */
	memset(sp->tables, 0, sizeof(sp->tables));
	atomic_store(&sp->host_end, l->end);
	vd_meta_forget_all(s->meta);
}
