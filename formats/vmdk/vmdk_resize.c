/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changes the size of a disk of one extent. Each step is durable before the next, and after each the disk is the old one or
 * the new one:
 *
 *   sparse   larger directories and new tables in new space; the header's sector, which names them; then a descriptor in
 *            new space; the header's sector with the size and that descriptor; the descriptor in its old place; the header
 *   flat     the file; the size in the descriptor (smaller: the other way round)
 */
#include "formats/vmdk/vmdk.h"

#include <stdio.h>
#include <stdlib.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

#define AT_CAPACITY     12
#define AT_DESC_OFF     28
#define AT_RGD_OFF      48
#define AT_GD_OFF       56
#define SPARSE_MAX      ((UINT64_C(2) << 40) - (UINT64_C(8) << 30))

static struct vd_vmdk_extent *only_extent(struct vd_vmdk *s)
{
	return &s->extents[0];
}

static int write_durably(struct vd_vmdk *s, uint32_t file, const void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	int r = vd_set_pwrite(s->set, file, buf, len, off, e);

	return r < 0 ? r : vd_set_flush(s->set, e);
}

/* From here on a failure leaves open which of two states is on disk. */
static int unsure(const struct vd_vmdk *s, struct vd_error *e)
{
	vd_fail(e, VD_EPOISONED, "%s: the change of its size may or may not have come into force", s->name);
	return vd_hint(e, VD_EPOISONED, "close the image and look at it again: it is the old disk or the new one");
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
	if (x->kind == VMDK_SPARSE && size > SPARSE_MAX)
		return vd_fail(e, VD_EARG, "%s: a disk of %" PRIu64 " bytes is too large for one sparse extent: at most %" PRIu64,
			       s->name, size, SPARSE_MAX);
	return 0;
}

/* ---- tables that reach further --------------------------------------------------------------------------- */

/* A directory of n entries: those that there are, and new tables from `tables` on. */
static int write_directory(struct vd_vmdk *s, const struct vd_vmdk_extent *x, uint64_t old, uint64_t at, uint64_t tables,
			   uint64_t n, struct vd_error *e)
{
	const struct vd_vmdk_sparse *sp = &x->sp;
	vd_auto_free uint8_t *raw = NULL;
	int r = vd_alloc(n, 4, &raw, e);

	if (r == 0)
		r = vd_set_pread(s->set, x->file, raw, sp->n_tables * 4, old, e);
	for (uint64_t i = sp->n_tables; i < n && r == 0; i++)
		vd_put_le32(raw + 4 * i, (tables + (i - sp->n_tables) * sp->entries * 4) / VMDK_SECTOR);
	return r < 0 ? r : vd_set_pwrite(s->set, x->file, raw, n * 4, at, e);
}

static void set_area(struct vd_vmdk_sparse *sp, uint64_t old, uint64_t off, uint64_t len)
{
	for (size_t i = 0; i < sp->n_areas; i++)
		if (sp->areas[i].off == old)
			sp->areas[i] = (struct vd_vmdk_area){ off, off + len };
}

/* Both directories and their new tables at the end of the file, which reads as zeros there. */
static int grow_tables(struct vd_vmdk *s, struct vd_vmdk_extent *x, uint64_t n, struct vd_error *e)
{
	struct vd_vmdk_sparse *sp = &x->sp;
	uint64_t gd_len = vd_round_up(n * 4, VMDK_SECTOR), new_len = (n - sp->n_tables) * sp->entries * 4;
	uint64_t rgd = atomic_load(&sp->host_end), gd = sp->rgd_off ? rgd + gd_len + new_len : rgd;
	uint64_t end = vd_round_up(gd + gd_len + new_len, sp->grain);
	uint8_t raw[VMDK_HEADER_LEN];
	int r;

	if (end / VMDK_SECTOR > UINT32_MAX)
		return vd_fail(e, VD_ENOSPC, "%s has no room left that its tables can name: 2 TiB", vd_set_name(s->set, x->file));
	r = vd_io_truncate(vd_set_io(s->set, x->file), end, e);
	if (r == 0 && sp->rgd_off)
		r = write_directory(s, x, sp->rgd_off, rgd, rgd + gd_len, n, e);
	if (r == 0)
		r = write_directory(s, x, sp->gd_off, gd, gd + gd_len, n, e);
	if (r == 0)
		r = vd_set_flush(s->set, e);
	if (r == 0)
		r = vd_set_pread(s->set, x->file, raw, sizeof(raw), 0, e);
	if (r < 0)
		return r;
	if (sp->rgd_off)
		vd_put_le64(raw + AT_RGD_OFF, rgd / VMDK_SECTOR);
	vd_put_le64(raw + AT_GD_OFF, gd / VMDK_SECTOR);
	if (write_durably(s, x->file, raw, sizeof(raw), 0, NULL) < 0)
		return unsure(s, e);
	set_area(sp, sp->gd_off, gd, gd_len);
	set_area(sp, sp->rgd_off, rgd, gd_len);
	sp->gd_off = gd;
	sp->rgd_off = sp->rgd_off ? rgd : 0;
	sp->n_tables = n;
	/* Two places now: what guards the old one would not guard the new. */
	memset(sp->tables, 0, sizeof(sp->tables));
	atomic_store(&sp->host_end, end);
	vd_meta_forget_all(s->meta);
	return 0;
}

int vd_vmdk_reach(void *st, uint64_t size, struct vd_error *e)
{
	struct vd_vmdk *s = st;
	struct vd_vmdk_extent *x = only_extent(s);
	int r = judge(s, size, e);
	uint64_t n;

	if (r < 0)
		return r;
	if (x->kind == VMDK_FLAT) {
		struct vd_io *io = vd_set_io(s->set, x->file);

		if (io->is_device)
			return vd_fail(e, VD_EUNSUPPORTED, "%s is a device: its size is fixed", io->name);
		r = vd_io_truncate(io, x->host_off + size, e);
		r = r < 0 ? r : vd_set_flush(s->set, e);
	} else {
		n = vd_round_up(size, x->sp.span) / x->sp.span;
		r = n > x->sp.n_tables ? grow_tables(s, x, n, e) : 0;
	}
	if (r < 0)
		return r;
	x->end = size;
	x->sp.capacity = size;
	return 0;
}

/* ---- the size -------------------------------------------------------------------------------------------- */

/* The descriptor with another size in its extent's line. */
static int new_text(struct vd_vmdk *s, uint64_t size, char **text, size_t *len, struct vd_error *e)
{
	const struct vd_vmdk_line *line = &s->d.lines[0];
	size_t room = s->text_len + 24, tail = line->sectors_at + line->sectors_len;
	vd_auto_free char *old = NULL;
	int r = vd_alloc(s->text_len, 1, &old, e), n;

	if (r == 0)
		r = vd_set_pread(s->set, 0, old, s->text_len, s->desc_off, e);
	if (r == 0)
		r = vd_alloc(room, 1, text, e);
	if (r < 0)
		return r;
	n = snprintf(*text, room, "%.*s%" PRIu64 "%.*s", (int)line->sectors_at, old, size / VMDK_SECTOR,
		     (int)(s->text_len - tail), old + tail);
	*len = n;
	return 0;
}

/* What the new text means for later changes of it. */
static void take_text(struct vd_vmdk *s, size_t len)
{
	struct vd_vmdk_line *line = &s->d.lines[0];
	ptrdiff_t by = (ptrdiff_t)len - (ptrdiff_t)s->text_len;

	if (s->d.cid_at > line->sectors_at)
		s->d.cid_at += by;
	line->sectors_len += by;
	s->text_len = len;
}

/* Header with another capacity, and the descriptor's place. */
static int write_header(struct vd_vmdk *s, uint64_t size, uint64_t desc_off, struct vd_error *e)
{
	uint8_t raw[VMDK_HEADER_LEN];
	int r = vd_set_pread(s->set, 0, raw, sizeof(raw), 0, e);

	if (r < 0)
		return r;
	vd_put_le64(raw + AT_CAPACITY, size / VMDK_SECTOR);
	vd_put_le64(raw + AT_DESC_OFF, desc_off / VMDK_SECTOR);
	return write_durably(s, 0, raw, sizeof(raw), 0, e);
}

static int say_embedded(struct vd_vmdk *s, struct vd_vmdk_extent *x, uint64_t size, const char *text, size_t len,
			struct vd_error *e)
{
	struct vd_vmdk_sparse *sp = &x->sp;
	uint64_t spare = atomic_load(&sp->host_end);
	vd_auto_free uint8_t *padded = NULL;
	int r = vd_alloc(sp->desc_len, 1, &padded, e);

	if (r == 0 && len > sp->desc_len)
		r = vd_fail(e, VD_EUNSUPPORTED, "%s: the descriptor has no room for the new size", s->name);
	if (r < 0)
		return r;
	memcpy(padded, text, len);
	r = write_durably(s, 0, padded, sp->desc_len, spare, e);
	if (r < 0)
		return r;
	if (write_header(s, size, spare, NULL) < 0 || write_durably(s, 0, padded, sp->desc_len, sp->desc_off, NULL) < 0 ||
	    write_header(s, size, sp->desc_off, NULL) < 0)
		return unsure(s, e);
	/* The spare place is nobody's again. */
	return vd_io_truncate(vd_set_io(s->set, 0), spare, e);
}

/* In a file of its own, and without a second place: only what one sector's write can change is changed. */
static int say_alone(struct vd_vmdk *s, const char *text, size_t len, struct vd_error *e)
{
	vd_auto_free char *padded = NULL;
	size_t whole = vd_max_u64(len, s->text_len);
	int r = vd_alloc(whole, 1, &padded, e);

	if (r == 0 && len != s->text_len && whole > VMDK_SECTOR) {
		vd_fail(e, VD_EUNSUPPORTED, "%s: a descriptor of more than one sector cannot take a size of other length safely",
			s->name);
		return vd_hint(e, VD_EUNSUPPORTED, "convert the disk: vdisk convert -O vmdk");
	}
	if (r < 0)
		return r;
	/* Blank lines where the old text was longer. */
	memset(padded, '\n', whole);
	memcpy(padded, text, len);
	return write_durably(s, 0, padded, whole, 0, NULL) < 0 ? unsure(s, e) : 0;
}

static int say_size(struct vd_vmdk *s, uint64_t size, struct vd_error *e)
{
	struct vd_vmdk_extent *x = only_extent(s);
	vd_auto_free char *text = NULL;
	size_t len = 0;
	int r = s->is_embedded && !s->d.n_lines ? vd_fail(e, VD_EUNSUPPORTED, "%s: its descriptor lists no extent", s->name) :
		new_text(s, size, &text, &len, e);

	if (r == 0)
		r = s->is_embedded ? say_embedded(s, x, size, text, len, e) : say_alone(s, text, len, e);
	if (r < 0)
		return r;
	take_text(s, len);
	return 0;
}

/* A sparse extent with a descriptor of its own says its capacity, too; the larger of the two does no harm. */
static int say_capacity(struct vd_vmdk *s, uint64_t size, struct vd_error *e)
{
	struct vd_vmdk_extent *x = only_extent(s);
	uint8_t raw[8];

	if (s->is_embedded || x->kind != VMDK_SPARSE)
		return 0;
	vd_put_le64(raw, size / VMDK_SECTOR);
	return write_durably(s, x->file, raw, sizeof(raw), AT_CAPACITY, e);
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
		s->size = size;
	return r;
}
