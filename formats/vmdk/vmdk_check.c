/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Checks a disk: entries that make no sense, tables that contradict each other, grains that two entries name, space that
 * nothing names. The files are gone through in windows, so that memory does not grow with them.
 */
#include <stdio.h>

#include "formats/vmdk/vmdk_visit.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

#define WINDOW_SECTORS (UINT64_C(64) << 20)     /* a bit each: 8 MiB for 32 GiB of file */

struct checker {
	struct vd_check *c;
	struct vd_vmdk *s;
	uint32_t file;
	uint64_t start, end;            /* the window of the file, in sectors */
	uint8_t *taken;                 /* a bit for each of its sectors */
	bool is_first;                  /* of the file's windows: what does not depend on the window is told and counted once */
	uint64_t used_end;              /* bytes: nothing lies behind */
	bool gives_back;                /* tells nothing, counts nothing, and releases what nothing names */
	bool is_broken;                 /* an entry makes no sense: what nothing names may be what it named once */
	bool has_released;
};

static int found(struct checker *k, const struct vd_vmdk_fault *f, enum vd_severity severity, struct vd_error *e)
{
	struct vd_finding finding = {
		.kind = f->kind, .severity = severity, .can_mend = f->can_mend, .n = f->n,
		.file = vd_set_name(k->s->set, f->file),
		.has_entry = f->entry_off != UINT64_MAX, .entry_off = f->entry_off,
		.has_guest = f->guest_off != UINT64_MAX, .guest_off = f->guest_off,
	};

	if (k->gives_back)
		return 0;
	snprintf(finding.text, sizeof(finding.text), "%.*s", (int)sizeof(finding.text) - 1, f->what->message);
	return k->c->found(k->c, &finding, e);
}

static int fault(struct vd_vmdk_visit *v, const struct vd_vmdk_fault *f, struct vd_error *e)
{
	struct checker *k = v->ctx;

	k->is_broken = true;
	if (!k->is_first)
		return 0;
	return found(k, f, f->kind == VD_FOUND_UNREADABLE ? VD_SEVERITY_UNKNOWN : VD_SEVERITY_CORRUPTION, e);
}

/* Marks sectors; false when some were taken. */
static bool mark(struct checker *k, uint64_t from, uint64_t to)
{
	bool is_new = true;

	for (uint64_t i = vd_max_u64(from, k->start); i < vd_min_u64(to, k->end); i++) {
		uint8_t bit = 1u << i % 8, *byte = &k->taken[(i - k->start) / 8];

		is_new &= !(*byte & bit);
		*byte |= bit;
	}
	return is_new;
}

static void count(struct checker *k, const struct vd_vmdk_ref *ref)
{
	struct vd_check_report *rep = k->c->report;

	k->used_end = vd_max_u64(k->used_end, ref->host_off + ref->len);
	if (k->gives_back || (ref->kind != VMDK_REF_DATA && ref->kind != VMDK_REF_PACKED))
		return;
	rep->allocated_clusters += ref->kind == VMDK_REF_PACKED ? 1 : vd_round_up(ref->used, k->s->unit) / k->s->unit;
	rep->compressed_clusters += ref->kind == VMDK_REF_PACKED;
}

static int take(struct vd_vmdk_visit *v, const struct vd_vmdk_ref *ref, struct vd_error *e)
{
	struct checker *k = v->ctx;
	uint64_t from = ref->host_off / VMDK_SECTOR, to = vd_round_up(ref->host_off + ref->len, VMDK_SECTOR) / VMDK_SECTOR;
	struct vd_error what = { 0 };
	struct vd_vmdk_fault f = {
		.kind = VD_FOUND_OVERLAP, .file = ref->file, .entry_off = ref->entry_off, .guest_off = ref->guest_off, .n = 1,
		.what = &what,
	};

	if (k->is_first)
		count(k, ref);
	/* Of what lies across two windows the one where it begins tells. */
	if (mark(k, from, to) || from < k->start || from >= k->end)
		return 0;
	vd_fail_at(&what, VD_ECORRUPT, ref->host_off, "%s: what an entry names there belongs to something else, too",
		   vd_set_name(k->s->set, ref->file));
	return found(k, &f, VD_SEVERITY_CORRUPTION, e);
}

/* ---- space that nothing names ----------------------------------------------------------------------------- */

/* A hole costs nothing. What cannot be asked for is taken to be there. */
static bool is_stored(struct vd_io *io, uint64_t off, uint64_t len)
{
	bool is_data;
	uint64_t n;

	return vd_io_extent(io, off, &is_data, &n, NULL) < 0 || is_data || n < len;
}

/* Where the host gives back only more than a grain at once, zeros are all that is left of one. */
static bool holds_bytes(struct vd_io *io, uint64_t off, uint64_t len)
{
	uint8_t buf[4096];

	for (uint64_t n; len; off += n, len -= n) {
		n = vd_min_u64(len, sizeof(buf));
		if (vd_io_pread(io, buf, n, off, NULL) < 0 || !vd_is_zero(buf, n))
			return true;
	}
	return false;
}

static bool is_leak(const struct checker *k, struct vd_io *io, uint64_t off, uint64_t len)
{
	return is_stored(io, off, len) && (k->gives_back || holds_bytes(io, off, len));
}

static bool is_unnamed(const struct checker *k, uint64_t sector, uint64_t n)
{
	for (uint64_t s = sector; s < sector + n; s++)
		if (k->taken[(s - k->start) / 8] & 1u << s % 8)
			return false;
	return true;
}

/* Sectors side by side. */
struct stretch {
	uint64_t at, end;
};

static void release(struct checker *k, const struct stretch *p)
{
	if (p->end == p->at || !k->gives_back)
		return;
	vd_space_release(k->s->space, (struct vd_range){
		.file = k->file, .host_off = p->at * VMDK_SECTOR, .len = (p->end - p->at) * VMDK_SECTOR, .to_host = true,
	});
	k->has_released = true;
}

static int tell_leaks(struct checker *k, uint64_t sector, uint64_t n, struct vd_error *e)
{
	struct vd_error what = { 0 };
	struct vd_vmdk_fault f = {
		.kind = VD_FOUND_LEAK, .file = k->file, .entry_off = UINT64_MAX, .guest_off = UINT64_MAX, .n = n, .can_mend = true,
		.what = &what,
	};

	if (!n)
		return 0;
	vd_fail_at(&what, VD_ECORRUPT, sector * VMDK_SECTOR, "%s: %" PRIu64 " grains are named by no table, the first",
		   vd_set_name(k->s->set, k->file), n);
	return found(k, &f, VD_SEVERITY_LEAK, e);
}

/* In a sparse extent that grows at its end: whole grains from the first on, which the host stores. */
static int look_for_leaks(struct checker *k, const struct vd_vmdk_extent *x, uint64_t first, struct vd_error *e)
{
	uint64_t grain = x->sp.grain / VMDK_SECTOR, n = 0, at = 0;
	struct vd_io *io = vd_set_io(k->s->set, k->file);
	struct stretch p = { 0 };

	first = vd_max_u64(vd_round_up(first, grain), vd_round_up(k->start, grain));
	for (uint64_t i = first; i + grain <= k->end; i += grain) {
		if (!is_unnamed(k, i, grain) || !is_leak(k, io, i * VMDK_SECTOR, grain * VMDK_SECTOR))
			continue;
		at = n++ ? at : i;
		if (i != p.end) {
			release(k, &p);
			p.at = i;
		}
		p.end = i + grain;
	}
	release(k, &p);
	return tell_leaks(k, at, n, e);
}

/* The sparse extent that the file is, if it is one that is written; *first: the sector where grains begin. */
static const struct vd_vmdk_extent *growing_extent(const struct checker *k, uint64_t *first)
{
	for (size_t i = 0; i < k->s->n_extents; i++) {
		const struct vd_vmdk_extent *x = &k->s->extents[i];
		uint64_t end = x->sp.overhead;

		if (x->file != k->file || !x->sp.grain || !vd_vmdk_is_mendable(k->s, x))
			continue;
		for (size_t a = 0; a < x->sp.n_areas && !x->sp.overhead; a++)
			end = vd_max_u64(end, x->sp.areas[a].end);
		*first = end / VMDK_SECTOR;
		return x;
	}
	return NULL;
}

/* ---- the whole -------------------------------------------------------------------------------------------- */

static int check_window(struct checker *k, struct vd_error *e)
{
	struct vd_vmdk_visit v = {
		.s = k->s, .ctx = k, .file = k->file, .take = take, .fault = fault,
		.compares = k->is_first,
	};
	const struct vd_vmdk_extent *x;
	uint64_t first = 0;
	int r;

	memset(k->taken, 0, (k->end - k->start + 7) / 8);
	r = vd_vmdk_visit(&v, e);
	x = growing_extent(k, &first);
	return r == 0 && x && !(k->gives_back && k->is_broken) ? look_for_leaks(k, x, first, e) : r;
}

static int check_file(struct checker *k, struct vd_error *e)
{
	struct vd_io *io = vd_set_io(k->s->set, k->file);
	uint64_t size, sectors;
	int r = 0;

	if (!io)
		return vd_fail(e, VD_EREFERENCE, "%s: '%s' was not opened", k->s->name, vd_set_name(k->s->set, k->file));
	r = vd_io_size(io, &size, e);
	sectors = r < 0 ? 0 : vd_round_up(size, VMDK_SECTOR) / VMDK_SECTOR;
	k->is_first = true;
	k->used_end = 0;
	for (k->start = 0; k->start < sectors && r == 0; k->start = k->end, k->is_first = false) {
		k->end = vd_min_u64(sectors, k->start + WINDOW_SECTORS);
		r = check_window(k, e);
		if (r == 0)
			r = k->c->progress(k->c, k->end * VMDK_SECTOR, sectors * VMDK_SECTOR, e);
	}
	return r;
}

/* What is behind everything, in whole grains. Less than one was not told, and stays. */
static int cut_end(struct checker *k, struct vd_error *e)
{
	struct vd_io *io = vd_set_io(k->s->set, k->file);
	uint64_t first = 0, end, size;
	const struct vd_vmdk_extent *x = growing_extent(k, &first);
	int r = x ? vd_io_size(io, &size, e) : 0;

	if (r < 0 || !x)
		return r;
	end = vd_round_up(vd_max_u64(k->used_end, first * VMDK_SECTOR), x->sp.grain);
	if (end > size || size - end < x->sp.grain)
		return 0;
	k->c->report->changed = true;
	atomic_store(&((struct vd_vmdk_extent *)x)->sp.host_end, end);
	return vd_io_truncate(io, end, e);
}

static int give_back_of(struct checker *k, struct vd_error *e)
{
	int r;

	k->is_broken = k->has_released = false;
	r = check_file(k, e);
	k->c->report->changed |= k->has_released;
	if (r == 0 && k->has_released)
		r = vd_space_drain(k->s->space, e);
	return r < 0 || k->is_broken ? r : cut_end(k, e);
}

int vd_vmdk_give_back(struct vd_vmdk *s, struct vd_check *c, struct vd_error *e)
{
	struct checker k = { .c = c, .s = s, .gives_back = true };
	vd_auto_free uint8_t *taken = NULL;
	int r = vd_alloc(WINDOW_SECTORS / 8, 1, &taken, e);

	k.taken = taken;
	for (size_t i = 0; i < s->n_extents && r == 0; i++) {
		k.file = s->extents[i].file;
		if (s->extents[i].sp.grain && vd_vmdk_is_mendable(s, &s->extents[i]))
			r = give_back_of(&k, e);
	}
	return r < 0 ? r : vd_set_flush(s->set, e);
}

static int tell_unclean(struct checker *k, struct vd_error *e)
{
	struct vd_error what = { 0 };
	int r = 0;

	for (size_t i = 0; i < k->s->n_extents && r == 0; i++) {
		const struct vd_vmdk_extent *x = &k->s->extents[i];
		struct vd_vmdk_fault f = {
			.kind = VD_FOUND_DIRTY, .file = x->file, .entry_off = VMDK_AT_UNCLEAN, .guest_off = UINT64_MAX, .n = 1,
			.what = &what, .can_mend = x->sp.unclean && vd_vmdk_can_be_clean(k->s, x),
		};

		if (!x->sp.unclean)
			continue;
		vd_fail(&what, VD_ECORRUPT, "%s was not closed cleanly", vd_set_name(k->s->set, x->file));
		r = found(k, &f, VD_SEVERITY_LEAK, e);
	}
	return r;
}

static int vmdk_check(void *st, struct vd_check *c, struct vd_error *e)
{
	struct vd_vmdk *s = st;
	struct checker k = { .c = c, .s = s };
	vd_auto_free uint8_t *taken = NULL;
	int r = vd_alloc(WINDOW_SECTORS / 8, 1, &taken, e);

	k.taken = taken;
	if (r == 0)
		r = tell_unclean(&k, e);
	for (uint32_t i = 0; i < vd_set_count(s->set) && r == 0; i++) {
		k.file = i;
		r = check_file(&k, e);
		if (!i)
			c->report->image_end_offset = k.used_end;
	}
	c->report->has_clusters = s->unit > 1;
	c->report->total_clusters = vd_round_up(s->size, s->unit) / s->unit;
	return r;
}

const struct vd_repair_ops vd_vmdk_repair_ops = { .check = vmdk_check, .mend = vd_vmdk_mend };
