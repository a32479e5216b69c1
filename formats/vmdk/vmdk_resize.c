/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changes the size of a disk of one extent. Each step is durable before the next, and after each the disk is the old one or
 * the new one:
 *
 *   sparse   larger directories and new tables in new space; the header's sector, which names them; then a descriptor in
 *            new space; the header's sector with the size and that descriptor; the descriptor in its old place; the header
 *   flat     the file; the size in the descriptor (smaller: the other way round)
 */
#include "formats/vmdk/vmdk_shape.h"

#include <stdio.h>

static struct vd_vmdk_extent *only_extent(struct vd_vmdk *s)
{
	return &s->extents[0];
}

static int judge(const struct vd_vmdk *s, uint64_t size, struct vd_error *e)
{
	const struct vd_vmdk_extent *x = &s->extents[0];

	if (s->n_extents > 1 || x->access != VMDK_RW || x->kind == VMDK_ZERO) {
		vd_fail(e, VD_EUNSUPPORTED, "%s: only the size of a disk of one extent is changed", s->name);
		return vd_hint(e, VD_EUNSUPPORTED, "convert it: vdisk convert -O vmdk, then resize that");
	}
	if (!size || size % VMDK_SECTOR)
		return vd_fail(e, VD_EARG, "%s: a size of %" PRIu64 " bytes is not whole sectors", s->name, size);
	if (x->kind == VMDK_SPARSE && size > VMDK_SPARSE_MAX)
		return vd_fail(e, VD_EARG, "%s: a disk of %" PRIu64 " bytes is too large for one sparse extent: at most %" PRIu64,
			       s->name, size, VMDK_SPARSE_MAX);
	return 0;
}

/* ---- tables that reach further --------------------------------------------------------------------------- */

static int grow_tables(struct vd_vmdk *s, struct vd_vmdk_extent *x, uint64_t size, struct vd_error *e)
{
	struct vd_vmdk_header_change h = { 0 };
	struct vd_vmdk_layout l;
	int r = vd_vmdk_tables_extend(s, x, size, &l, e);

	if (r < 0)
		return r;
	h.rgd_off = l.rgd;
	h.gd_off = l.gd;
	if (vd_vmdk_header_write(s, x->file, &h, NULL) < 0)
		return vd_vmdk_unsure(s, e);
	vd_vmdk_tables_adopt(s, x, &l);
	return 0;
}

int vd_vmdk_reach(void *st, uint64_t size, struct vd_error *e)
{
	struct vd_vmdk *s = st;
	struct vd_vmdk_extent *x = only_extent(s);
	int r = judge(s, size, e);

	if (r < 0)
		return r;
	if (x->kind == VMDK_FLAT) {
		struct vd_io *io = vd_set_io(s->set, x->file);

		if (io->is_device)
			return vd_fail(e, VD_EUNSUPPORTED, "%s is a device: its size is fixed", io->name);
		r = vd_io_truncate(io, x->host_off + size, e);
		r = r < 0 ? r : vd_set_flush(s->set, e);
	} else {
		r = size > x->sp.n_tables * x->sp.span ? grow_tables(s, x, size, e) : 0;
	}
	if (r < 0)
		return r;
	/* Whole grains: the core hides the parent behind all of the last one. */
	x->end = x->kind == VMDK_FLAT ? size : vd_round_up(size, x->sp.grain);
	x->sp.capacity = x->end;
	return 0;
}

/* ---- the size -------------------------------------------------------------------------------------------- */

static int say_size(struct vd_vmdk *s, uint64_t size, struct vd_error *e)
{
	const struct vd_vmdk_header_change h = { .capacity = size };
	struct vd_vmdk_rewrite w = { 0 };
	struct vd_vmdk_edit edit;
	char digits[24];
	int r;

	if (!s->d.n_lines)
		return vd_fail(e, VD_EUNSUPPORTED, "%s: its descriptor lists no extent", s->name);
	snprintf(digits, sizeof(digits), "%" PRIu64, size / VMDK_SECTOR);
	edit = (struct vd_vmdk_edit){ s->d.lines[0].digits, digits };
	r = vd_vmdk_rewrite_prepare(s, &edit, 1, &w, e);
	if (r == 0)
		r = vd_vmdk_rewrite_commit(s, &w, &h, e);
	vd_vmdk_rewrite_fini(&w);
	return r;
}

/* A sparse extent with a descriptor of its own says its capacity, too; the larger of the two does no harm. */
static int say_capacity(struct vd_vmdk *s, uint64_t size, struct vd_error *e)
{
	struct vd_vmdk_extent *x = only_extent(s);
	const struct vd_vmdk_header_change h = { .capacity = size };

	return s->is_embedded || x->kind != VMDK_SPARSE ? 0 : vd_vmdk_header_write(s, x->file, &h, e);
}

/* Nothing is behind the new end, by the tables or by the host's holes. */
static int judge_tail(struct vd_vmdk *s, uint64_t size, struct vd_error *e)
{
	uint64_t at = vd_min_u64(vd_round_up(size, s->unit), s->size);

	while (at < s->size) {
		struct vd_run run;
		size_t one = 1;
		int r = vd_vmdk_map(s, at, s->size - at, 0, &run, &one, e);

		if (r < 0)
			return r;
		if (run.where != VD_HOLE && run.where != VD_ZERO) {
			vd_fail(e, VD_EUNSUPPORTED, "%s: there is data at byte %" PRIu64 ", behind the new end", s->name, run.guest_off);
			return vd_hint(e, VD_EUNSUPPORTED, "discard it in the guest first, or convert to a smaller disk");
		}
		at = run.guest_off + run.len;
	}
	return 0;
}

static int shrink(struct vd_vmdk *s, uint64_t size, struct vd_error *e)
{
	struct vd_vmdk_extent *x = only_extent(s);
	int r = judge_tail(s, size, e);

	if (r == 0)
		r = say_size(s, size, e);
	if (r < 0)
		return r;
	s->size = x->end = size;
	if (x->kind == VMDK_FLAT)
		return vd_io_truncate(vd_set_io(s->set, x->file), x->host_off + size, e);
	r = say_capacity(s, size, e);
	x->sp.capacity = size;
	x->sp.n_tables = vd_round_up(size, x->sp.span) / x->sp.span;
	return r;
}

int vd_vmdk_resize(void *st, uint64_t size, struct vd_error *e)
{
	struct vd_vmdk *s = st;
	int r = judge(s, size, e);

	if (r < 0)
		return r;
	if (size < s->size)
		return shrink(s, size, e);
	/* Before the descriptor: an extent that holds less than that says is refused. */
	r = say_capacity(s, size, e);
	if (r == 0)
		r = say_size(s, size, e);
	if (r == 0)
		s->size = only_extent(s)->end = only_extent(s)->sp.capacity = size;
	return r;
}
