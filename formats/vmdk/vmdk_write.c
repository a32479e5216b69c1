/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Gives out the place for a write and links it afterwards (keeps V1 and V2). The core fills and writes what lies there.
 * New grains come at the end of their extent's file, and before them a COWD extent's new tables; what was given out and never
 * linked stays unused there.
 */
#include "formats/vmdk/vmdk.h"

#include <stdio.h>
#include <sys/random.h>

/* ---- what is durable before the first byte, and after the last ------------------------------------------- */

static bool has_tables_to_write(const struct vd_vmdk_extent *x)
{
	return x->access == VMDK_RW && (x->kind == VMDK_SPARSE || x->kind == VMDK_COWD);
}

int vd_vmdk_mark_unclean(struct vd_vmdk *s, const struct vd_vmdk_extent *x, bool unclean, struct vd_error *e)
{
	const uint8_t raw[4] = { unclean, 0, 0, 0 };

	if (x->kind == VMDK_COWD)
		return vd_set_pwrite(s->set, x->file, raw, 4, VMDK_COWD_AT_UNCLEAN, e);
	return vd_set_pwrite(s->set, x->file, raw, 1, VMDK_AT_UNCLEAN, e);
}

static int mark_all(struct vd_vmdk *s, bool unclean, struct vd_error *e)
{
	int r = 0;

	for (size_t i = 0; i < s->n_extents && r == 0; i++)
		if (has_tables_to_write(&s->extents[i]))
			r = vd_vmdk_mark_unclean(s, &s->extents[i], unclean, e);
	return r;
}

static int choose_cid(const struct vd_vmdk *s, size_t digits, uint32_t *cid, struct vd_error *e)
{
	uint32_t mask = UINT32_MAX >> (32 - 4 * digits);

	if (s->next_cid) {
		*cid = s->next_cid;
		return 0;
	}
	do {
		if (getrandom(cid, sizeof(*cid), 0) != sizeof(*cid))
			return vd_fail(e, VD_EIO, "no random numbers are to be had");
		*cid &= mask;
	} while (*cid == s->d.cid || *cid >= VMDK_CID_LONG);
	return 0;
}

/* Of as many digits, so that nothing else in the text moves. */
int vd_vmdk_change_cid(struct vd_vmdk *s, struct vd_error *e)
{
	size_t digits = vd_min_u64(s->d.cid_in.len, 8);
	uint32_t cid;
	char text[12];
	int r;

	if (!s->d.has_cid)
		return 0;
	r = choose_cid(s, digits, &cid, e);
	if (r < 0)
		return r;
	snprintf(text, sizeof(text), "%0*" PRIx32, (int)digits, cid);
	r = vd_set_pwrite(s->set, 0, text, digits, s->desc_off + s->d.cid_in.at + s->d.cid_in.len - digits, e);
	if (r == 0)
		s->d.cid = cid;
	return r;
}

int vd_vmdk_begin_write(void *st, struct vd_error *e)
{
	struct vd_vmdk *s = st;
	int r;

	if (s->stream)
		return vd_vmdk_stream_begin(s, e);
	if (s->is_fresh)
		return 0;
	r = vd_vmdk_follow_parent(s, e);
	if (r == 0)
		r = vd_vmdk_change_cid(s, e);
	if (r == 0)
		r = mark_all(s, true, e);
	return r < 0 ? r : vd_set_flush(s->set, e);
}

int vd_vmdk_end_write(void *st, struct vd_error *e)
{
	struct vd_vmdk *s = st;

	if (s->stream)
		return vd_vmdk_stream_end(s, e);
	return s->is_fresh ? 0 : mark_all(s, false, e);
}

/* ---- reserving ------------------------------------------------------------------------------------------- */

static int judge_access(const struct vd_vmdk *s, const struct vd_vmdk_extent *x, struct vd_error *e)
{
	static const char *const words[] = { [VMDK_RDONLY] = "RDONLY", [VMDK_NOACCESS] = "NOACCESS" };

	if (x->kind == VMDK_ZERO)
		return vd_fail(e, VD_EREADONLY, "%s: bytes %" PRIu64 " to %" PRIu64 " of the disk are a ZERO extent, which holds nothing",
			       s->name, x->start, x->end);
	if (x->access == VMDK_RW)
		return 0;
	return vd_fail(e, VD_EREADONLY, "%s: the disk's descriptor forbids writing to bytes %" PRIu64 " to %" PRIu64 " (%s)",
		       s->name, x->start, x->end, words[x->access]);
}

static void reserve_flat(const struct vd_vmdk_extent *x, struct vd_resv *v)
{
	v->covered = v->fill_len = vd_min_u64(v->len, x->end - v->off);
	v->fill_off = v->off;
	v->host_off = x->host_off + (v->off - x->start);
	v->file = x->file;
	v->in_place = true;
	v->fresh = false;
}

/* Neighbours that are alike: data that go on where the last one ends, or no data. */
static uint64_t stretch_of(const struct vd_vmdk_grain *grains, uint64_t n, uint64_t grain)
{
	uint64_t i = 1;

	while (i < n && grains[i].where == grains[0].where && grains[0].where == VD_DATA &&
	       grains[i].host_off == grains[0].host_off + i * grain)
		i++;
	while (i < n && grains[0].where != VD_DATA && grains[i].where != VD_DATA)
		i++;
	return i;
}

/* A COWD extent says where the next one comes: before anything that lies there is named. */
static int say_free(struct vd_vmdk *s, const struct vd_vmdk_extent *x, uint64_t end, struct vd_error *e)
{
	uint8_t raw[4];

	vd_put_le32(raw, end / VMDK_SECTOR);
	return x->kind == VMDK_COWD ? vd_meta_write(s->meta, x->file, VMDK_COWD_AT_FREE, raw, 4, VD_RANK_OWNER, e) : 0;
}

/* Room at the end of the file, which grows at once: zeros in it need not be written, and readers find it whole. */
static int take_room(struct vd_vmdk *s, struct vd_vmdk_extent *x, uint64_t len, uint64_t *host_off, struct vd_error *e)
{
	uint64_t at = atomic_load(&x->sp.host_end), end = at + len;
	int r;

	if (end / VMDK_SECTOR > UINT32_MAX)
		return vd_fail(e, VD_ENOSPC, "%s has no room left that its tables can name: 2 TiB", vd_set_name(s->set, x->file));
	r = vd_io_truncate(vd_set_io(s->set, x->file), end, e);
	if (r == 0)
		r = say_free(s, x, end, e);
	if (r < 0)
		return r;
	atomic_store(&x->sp.host_end, end);
	*host_off = at;
	return 0;
}

/* Of COWD: the first grain of a table's span brings the table, which is empty on disk and linked at once. */
static int need_table(struct vd_vmdk *s, struct vd_vmdk_extent *x, uint64_t index, struct vd_error *e)
{
	uint64_t off;
	uint8_t raw[4];
	int r = vd_vmdk_table(s, x, index, false, 0, &off, e);

	if (r < 0 || off)
		return r;
	r = take_room(s, x, VMDK_COWD_GTES * sizeof(raw), &off, e);
	vd_put_le32(raw, off / VMDK_SECTOR);
	return r < 0 ? r : vd_meta_write(s->meta, x->file, x->sp.gd_off + index * sizeof(raw), raw, sizeof(raw), VD_RANK_ROOT, e);
}

static int reserve_grains(struct vd_vmdk *s, struct vd_vmdk_extent *x, struct vd_resv *v, struct vd_error *e)
{
	const struct vd_vmdk_sparse *sp = &x->sp;
	uint64_t at = v->off - x->start, first = vd_round_down(at, sp->grain);
	uint64_t end = vd_min_u64(vd_min_u64(v->off + v->len, x->end) - x->start, vd_round_down(first, sp->span) + sp->span);
	uint64_t n = vd_min_u64((end - 1 - first) / sp->grain + 1, VMDK_BATCH);
	struct vd_vmdk_grain grains[VMDK_BATCH];
	int r = vd_vmdk_grains(s, x, first, n, 0, grains, e);

	if (r < 0)
		return r;
	n = stretch_of(grains, n, sp->grain);
	end = vd_min_u64(end, first + n * sp->grain);
	v->in_place = grains[0].where == VD_DATA;
	v->fresh = !v->in_place;
	v->file = x->file;
	v->covered = end - at;
	if (v->in_place) {
		v->fill_off = v->off;
		v->fill_len = v->covered;
		v->host_off = grains[0].host_off + (at - first);
		return 0;
	}
	v->fill_off = x->start + first;
	v->fill_len = vd_min_u64(n * sp->grain, x->end - v->fill_off);
	r = x->kind == VMDK_COWD ? need_table(s, x, first / sp->span, e) : 0;
	return r < 0 ? r : take_room(s, x, n * sp->grain, &v->host_off, e);
}

int vd_vmdk_reserve(void *st, struct vd_resv *v, struct vd_error *e)
{
	struct vd_vmdk *s = st;
	struct vd_vmdk_extent *x = (struct vd_vmdk_extent *)vd_vmdk_extent_at(s, v->off);
	int r;

	if (s->stream)
		return vd_vmdk_stream_reserve(s, v, e);
	r = judge_access(s, x, e);
	if (r < 0)
		return r;
	if (x->kind == VMDK_FLAT) {
		reserve_flat(x, v);
		return 0;
	}
	return reserve_grains(s, x, v, e);
}

/* ---- linking --------------------------------------------------------------------------------------------- */

/* The same entries into both tables of one directory entry: the redundant one first. */
static int write_entries(struct vd_vmdk *s, const struct vd_vmdk_extent *x, uint64_t at, const uint8_t *raw, uint64_t n,
			 struct vd_error *e)
{
	const struct vd_vmdk_sparse *sp = &x->sp;
	uint64_t index = at / sp->span, in_table = at % sp->span / sp->grain * sp->entry_size, off;
	int r = 0;

	for (int redundant = sp->rgd_off != 0; redundant >= 0 && r == 0; redundant--) {
		r = vd_vmdk_table(s, x, index, redundant, 0, &off, e);
		if (r == 0)
			r = vd_meta_write(s->meta, x->file, off + in_table, raw, n * sp->entry_size,
					  redundant ? VD_RANK_LEAF : VD_RANK_ROOT, e);
	}
	return r;
}

int vd_vmdk_publish(void *st, struct vd_resv *v, struct vd_error *e)
{
	struct vd_vmdk *s = st;
	const struct vd_vmdk_extent *x = vd_vmdk_extent_at(s, v->off);
	uint64_t n = (v->fill_len - 1) / x->sp.grain + 1;
	uint8_t raw[VMDK_BATCH * 4];

	/* The stream's table knows it since it was reserved. */
	if (s->stream)
		return 0;
	for (uint64_t i = 0; i < n; i++)
		vd_put_le32(raw + 4 * i, (v->host_off + i * x->sp.grain) / VMDK_SECTOR);
	return write_entries(s, x, v->fill_off - x->start, raw, n, e);
}

/* The room at the end stays unused: what was written there is not known to be zeros any more. */
void vd_vmdk_cancel(void *st, struct vd_resv *v)
{
	struct vd_vmdk *s = st;

	(void)v;
	if (s->stream)
		vd_vmdk_stream_cancel(s);
}

/* V1: only what is at the end is given out again, by the file's growing anew. */
int vd_vmdk_freed(void *st, const struct vd_range *range, struct vd_error *e)
{
	struct vd_vmdk *s = st;

	for (size_t i = 0; i < s->n_extents && !s->appends; i++) {
		struct vd_vmdk_sparse *sp = &s->extents[i].sp;

		if (s->extents[i].file != range->file || s->extents[i].kind != VMDK_SPARSE ||
		    range->host_off + range->len != atomic_load(&sp->host_end) || range->host_off % sp->grain)
			continue;
		atomic_store(&sp->host_end, range->host_off);
		return vd_io_truncate(vd_set_io(s->set, range->file), range->host_off, e);
	}
	return 0;
}

/* ---- zeros ----------------------------------------------------------------------------------------------- */

/* How many grains from the first on are zeros already, or can be made so; *marks: an entry has to change for it. */
static uint64_t zeros_among(const struct vd_vmdk *s, const struct vd_vmdk_extent *x, const struct vd_vmdk_grain *grains,
			    uint64_t n, enum vd_punch_mode mode, bool *marks)
{
	bool keeps_holes = !s->has_parent && mode != VD_PUNCH_MASK;
	uint64_t i = 0;

	*marks = false;
	for (; i < n && grains[i].where != VD_DATA; i++) {
		if (grains[i].where == VD_ZERO || keeps_holes)
			continue;
		if (!(x->sp.flags & VMDK_FLAG_ZEROED))
			break;
		*marks = true;
	}
	return i;
}

/* Grains that hold data keep their place (V1): the core makes holes in the file. */
int vd_vmdk_punch(void *st, uint64_t off, uint64_t len, enum vd_punch_mode mode, uint64_t *done, struct vd_error *e)
{
	struct vd_vmdk *s = st;
	const struct vd_vmdk_extent *x = vd_vmdk_extent_at(s, off);
	const struct vd_vmdk_sparse *sp = &x->sp;
	uint64_t at = off - x->start, end = vd_min_u64(len, x->end - off) + at, n;
	struct vd_vmdk_grain grains[VMDK_BATCH];
	uint8_t raw[VMDK_BATCH * 4];
	bool marks;
	int r;

	*done = 0;
	if (s->stream || !has_tables_to_write(x) || at % sp->grain)
		return 0;
	/* What lies past the end of the extent has no content to keep. */
	n = off + len >= x->end ? (end - at - 1) / sp->grain + 1 : (end - at) / sp->grain;
	n = vd_min_u64(vd_min_u64(n, VMDK_BATCH), (sp->span - at % sp->span) / sp->grain);
	r = n ? vd_vmdk_grains(s, x, at, n, 0, grains, e) : 0;
	if (r < 0 || !n)
		return r;
	n = zeros_among(s, x, grains, n, mode, &marks);
	for (uint64_t i = 0; i < n; i++)
		vd_put_le32(raw + 4 * i, 1);
	if (n && marks)
		r = write_entries(s, x, at, raw, n, e);
	*done = vd_min_u64(n * sp->grain, end - at);
	return r;
}

/* ---- before writing is allowed --------------------------------------------------------------------------- */

/* Where the tables of one directory lie, if that is one piece, as it is in every file that was not put together by hand. */
static void note_tables(struct vd_vmdk_sparse *sp, bool redundant, uint64_t low, uint64_t high)
{
	uint64_t size = sp->entries * (uint64_t)sp->entry_size;

	if (high - low == (sp->n_tables - 1) * size)
		sp->tables[redundant] = (struct vd_vmdk_area){ low, high + size };
}

static int scan_directory(struct vd_vmdk *s, struct vd_vmdk_extent *x, bool redundant, struct vd_error *e)
{
	uint64_t low = UINT64_MAX, high = 0, off;

	for (uint64_t i = 0; i < x->sp.n_tables; i++) {
		int r = vd_vmdk_table(s, x, i, redundant, 0, &off, e);

		if (r < 0 && r != VD_ECORRUPT)
			return r;
		if (r == 0 && !off && x->kind == VMDK_COWD)
			continue;
		if (r < 0 || !off) {
			s->is_incomplete = true;
			return 0;
		}
		low = vd_min_u64(low, off);
		high = vd_max_u64(high, off);
	}
	if (x->sp.n_tables && x->kind == VMDK_SPARSE)
		note_tables(&x->sp, redundant, low, high);
	return 0;
}

/*
 * New grains of hosted extents lie at multiples of their size. Others' need not, and the last one may be cut short by the end of
 * the file: then it goes on for less than a grain behind.
 */
static uint64_t end_of_grains(const struct vd_vmdk_extent *x)
{
	const struct vd_vmdk_sparse *sp = &x->sp;
	uint64_t file_end = atomic_load(&sp->host_end), end = vd_round_up(file_end, sp->grain);

	if (x->kind == VMDK_COWD)
		return vd_round_up(file_end, VMDK_SECTOR) + (sp->free_at > file_end ? sp->grain : 0);
	return file_end % sp->grain == 0 && sp->overhead % sp->grain == 0 ? end : end + sp->grain;
}

int vd_vmdk_prepare_write(struct vd_vmdk *s, struct vd_error *e)
{
	int r = 0;

	for (size_t i = 0; i < s->n_extents && r == 0; i++) {
		struct vd_vmdk_extent *x = &s->extents[i];

		if (!has_tables_to_write(x))
			continue;
		r = scan_directory(s, x, false, e);
		if (r == 0 && x->sp.rgd_off)
			r = scan_directory(s, x, true, e);
		atomic_store(&x->sp.host_end, end_of_grains(x));
	}
	return r;
}
