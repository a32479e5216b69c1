/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changes the size of a disk: its last extent grows, and where extents are not to become larger, others come behind it; or
 * the extents behind the new end go, and the one in which it lies becomes smaller. The descriptor's change, at one
 * instant, is the commit: before it, all that it leads to is durable, and the disk is the old one. What it leads to no
 * more is taken away behind it.
 *
 *   larger    sparse: larger directories and new tables in new space; the header's sector, which names them. Flat: the file.
 *             The files of further extents. The descriptor
 *   smaller   the descriptor; the header's size; entries behind the end in both tables; space and files that nothing names
 */
#include "formats/vmdk/vmdk_shape.h"
#include "formats/vmdk/vmdk_visit.h"

#include <stdio.h>
#include <stdlib.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

#define ENTRY 4

static uint64_t length_of(const struct vd_vmdk_extent *x)
{
	return x->end - x->start;
}

static struct vd_vmdk_extent *last_listed(struct vd_vmdk *s)
{
	return &s->extents[vd_vmdk_n_listed(s) - 1];
}

/* How large the last extent may become; one that is larger already stays so. */
static uint64_t longest(const struct vd_vmdk *s, const struct vd_vmdk_extent *x)
{
	if (vd_vmdk_is_split(s))
		return vd_max_u64(VMDK_PART_BYTES, length_of(x));
	return x->kind == VMDK_SPARSE ? VMDK_SPARSE_MAX : INT64_MAX;
}

static int judge_size(const struct vd_vmdk *s, uint64_t size, struct vd_error *e)
{
	if (!s->d.n_lines)
		return vd_fail(e, VD_EUNSUPPORTED, "%s: its descriptor lists no extent", s->name);
	if (!size || size % VMDK_SECTOR)
		return vd_fail(e, VD_EARG, "%s: a size of %" PRIu64 " bytes is not whole sectors", s->name, size);
	return 0;
}

static int judge_growth(struct vd_vmdk *s, uint64_t size, struct vd_error *e)
{
	const struct vd_vmdk_extent *x = last_listed(s);
	uint64_t most = longest(s, x), more = size - x->start > most ? size - x->start - most : 0;

	if (x->access != VMDK_RW || (x->kind != VMDK_FLAT && x->kind != VMDK_SPARSE)) {
		vd_fail(e, VD_EUNSUPPORTED, "%s: its last extent is no flat or sparse one that may be written, and cannot grow", s->name);
		return vd_hint(e, VD_EUNSUPPORTED, "convert it: vdisk convert -O vmdk, then resize that");
	}
	if (more && !vd_vmdk_is_split(s))
		return vd_fail(e, VD_EARG, "%s: a disk of %" PRIu64 " bytes is too large for its last extent, which has at most %" PRIu64,
			       s->name, size, most);
	if (more / VMDK_PART_BYTES + vd_vmdk_n_listed(s) >= VMDK_EXTENTS_MAX)
		return vd_fail(e, VD_EARG, "%s: a disk of %" PRIu64 " bytes has too many extents", s->name, size);
	if (more && x->kind == VMDK_SPARSE && (x->start + most) % x->sp.grain)
		return vd_fail(e, VD_EUNSUPPORTED, "%s: its next extent would not begin where a grain does", s->name);
	return 0;
}

/* ---- room behind the end --------------------------------------------------------------------------------- */

static int grow_tables(struct vd_vmdk *s, struct vd_vmdk_extent *x, uint64_t len, struct vd_error *e)
{
	struct vd_vmdk_header_change h = { 0 };
	struct vd_vmdk_layout l;
	int r = vd_vmdk_tables_extend(s, x, len, &l, e);

	if (r < 0)
		return r;
	h.rgd_off = l.rgd;
	h.gd_off = l.gd;
	if (vd_vmdk_header_write(s, x->file, &h, NULL) < 0)
		return vd_vmdk_unsure(s, e);
	vd_vmdk_tables_adopt(s, x, &l);
	return 0;
}

/* What a try that was cut off left behind reads as zeros; anything else is not the disk's. */
static int judge_behind(struct vd_io *io, uint64_t at, uint64_t end, struct vd_error *e)
{
	uint8_t buf[4096];
	uint64_t n;
	bool is_data;
	int r = 0;

	for (; at < end && r == 0; at += n) {
		r = vd_io_extent(io, at, &is_data, &n, e);
		if (r < 0 || !is_data)
			continue;
		n = vd_min_u64(vd_min_u64(n, end - at), sizeof(buf));
		r = vd_io_pread(io, buf, n, at, e);
		if (r == 0 && !vd_is_zero(buf, n))
			r = vd_fail(e, VD_EUNSUPPORTED, "%s: behind the extent there are other bytes, from %" PRIu64 " on", io->name, at);
	}
	return r;
}

static int grow_flat(struct vd_vmdk *s, const struct vd_vmdk_extent *x, uint64_t len, struct vd_error *e)
{
	struct vd_io *io = vd_set_io(s->set, x->file);
	uint64_t size;
	int r;

	if (io->is_device)
		return vd_fail(e, VD_EUNSUPPORTED, "%s is a device: its size is fixed", io->name);
	if (vd_vmdk_shares_file(s, x->file, x))
		return vd_fail(e, VD_EUNSUPPORTED, "%s: other extents of the disk lie in the same file", io->name);
	r = vd_io_size(io, &size, e);
	if (r == 0)
		r = judge_behind(io, x->host_off + length_of(x), size, e);
	if (r == 0 && size < x->host_off + len)
		r = vd_io_truncate(io, x->host_off + len, e);
	return r < 0 ? r : vd_set_flush(s->set, e);
}

static int reach_last(struct vd_vmdk *s, struct vd_vmdk_extent *x, uint64_t len, struct vd_error *e)
{
	int r;

	if (len <= length_of(x))
		return 0;
	r = x->kind == VMDK_FLAT ? grow_flat(s, x, len, e) : grow_tables(s, x, len, e);
	if (r < 0)
		return r;
	/* Whole grains: the core hides the parent behind all of the last one. */
	x->sp.capacity = x->kind == VMDK_FLAT ? len : vd_round_up(len, x->sp.grain);
	x->end = x->start + x->sp.capacity;
	return 0;
}

int vd_vmdk_reach(void *st, uint64_t size, struct vd_error *e)
{
	struct vd_vmdk *s = st;
	uint64_t at;
	int r = judge_size(s, size, e);

	if (r == 0)
		r = judge_growth(s, size, e);
	if (r < 0)
		return r;
	/* What an earlier try on this handle made is not listed. */
	s->n_extents = vd_vmdk_n_listed(s);
	at = last_listed(s)->start + vd_min_u64(size - last_listed(s)->start, longest(s, last_listed(s)));
	r = reach_last(s, last_listed(s), at - last_listed(s)->start, e);
	for (uint64_t n; at < size && r == 0; at += n) {
		n = vd_min_u64(size - at, VMDK_PART_BYTES);
		r = vd_vmdk_part_add(s, n, e);
	}
	return r;
}

/* ---- what the descriptor says ---------------------------------------------------------------------------- */

/* Edits, and the texts that they own. */
struct edits {
	struct vd_vmdk_edit *e;
	size_t n;
	char digits[24];
	char *lines;                    /* of new extents; NULL: there are none */
};

static void edits_fini(struct edits *t)
{
	free(t->e);
	free(t->lines);
}

/* In one sector of the file where that is possible, else with another file. */
static int say(struct vd_vmdk *s, const struct edits *t, size_t n_extents, const struct vd_vmdk_header_change *h,
	       struct vd_error *e)
{
	struct vd_vmdk_rewrite w;
	int r = vd_vmdk_rewrite_prepare(s, t->e, t->n, &w, e);

	if (r == VD_EUNSUPPORTED && !s->is_embedded) {
		vd_vmdk_rewrite_fini(&w);
		r = vd_vmdk_rewrite_prepare_whole(s, t->e, t->n, &w, e);
	}
	if (r == 0 && w.d.n_lines != n_extents)
		r = vd_fail(e, VD_EUNSUPPORTED, "%s: its descriptor cannot have the names of its new extents", s->name);
	if (r == 0)
		r = vd_vmdk_rewrite_commit(s, &w, h, e);
	vd_vmdk_rewrite_fini(&w);
	return r;
}

/* One line for each extent that is not listed. */
static int add_lines(struct vd_vmdk *s, char **out, struct vd_error *e)
{
	const char *type = last_listed(s)->kind == VMDK_SPARSE ? "SPARSE" : "FLAT";
	const struct vd_vmdk_line *last = &s->d.lines[vd_vmdk_n_listed(s) - 1];
	size_t room = (s->n_extents - vd_vmdk_n_listed(s)) * (strlen(last->file) + 80) + 2, len = 0;
	char end;
	int r = vd_alloc(room, 1, out, e);

	if (r == 0)
		r = vd_set_pread(s->set, 0, &end, 1, s->desc_off + last->line.at + last->line.len - 1, e);
	if (r == 0 && end != '\n')
		(*out)[len++] = '\n';
	for (size_t i = vd_vmdk_n_listed(s); i < s->n_extents && r == 0; i++) {
		vd_auto_free char *name = NULL;

		r = vd_vmdk_part_name(s, i, &name, e);
		if (r == 0)
			len += snprintf(*out + len, room - len, "RW %" PRIu64 " %s \"%s\"%s\n", length_of(&s->extents[i]) / VMDK_SECTOR,
					type, name, last_listed(s)->kind == VMDK_SPARSE ? "" : " 0");
	}
	return r;
}

/* The last extent that is listed has so many bytes from now on, and those behind it follow. */
static int say_larger(struct vd_vmdk *s, uint64_t len, const struct vd_vmdk_header_change *h, struct vd_error *e)
{
	const struct vd_vmdk_line *last = &s->d.lines[vd_vmdk_n_listed(s) - 1];
	struct edits t = { 0 };
	int r = vd_alloc(2, sizeof(*t.e), &t.e, e);

	snprintf(t.digits, sizeof(t.digits), "%" PRIu64, len / VMDK_SECTOR);
	if (r == 0 && len / VMDK_SECTOR != last->sectors)
		t.e[t.n++] = (struct vd_vmdk_edit){ last->digits, t.digits };
	if (r == 0 && s->n_extents > vd_vmdk_n_listed(s)) {
		r = add_lines(s, &t.lines, e);
		t.e[t.n++] = (struct vd_vmdk_edit){ { last->line.at + last->line.len, 0 }, t.lines };
	}
	if (r == 0)
		r = say(s, &t, s->n_extents, h, e);
	edits_fini(&t);
	return r;
}

/* The index-th extent is the last one, and has so many bytes. */
static int say_smaller(struct vd_vmdk *s, size_t index, uint64_t len, const struct vd_vmdk_header_change *h, struct vd_error *e)
{
	struct edits t = { 0 };
	int r = vd_alloc(s->d.n_lines, sizeof(*t.e), &t.e, e);

	snprintf(t.digits, sizeof(t.digits), "%" PRIu64, len / VMDK_SECTOR);
	if (r == 0 && len / VMDK_SECTOR != s->d.lines[index].sectors)
		t.e[t.n++] = (struct vd_vmdk_edit){ s->d.lines[index].digits, t.digits };
	for (size_t i = index + 1; i < s->d.n_lines && r == 0; i++)
		t.e[t.n++] = (struct vd_vmdk_edit){ s->d.lines[i].line, "" };
	if (r == 0)
		r = say(s, &t, index + 1, h, e);
	edits_fini(&t);
	return r;
}

/* A sparse extent with a descriptor of its own says its capacity, too; the larger of the two does no harm. */
static int say_capacity(struct vd_vmdk *s, const struct vd_vmdk_extent *x, uint64_t len, struct vd_error *e)
{
	const struct vd_vmdk_header_change h = { .capacity = len };

	return s->is_embedded || x->kind != VMDK_SPARSE ? 0 : vd_vmdk_header_write(s, x->file, &h, e);
}

/* ---- space that nothing names any more ------------------------------------------------------------------- */

static int no_progress(struct vd_check *c, uint64_t done, uint64_t total, struct vd_error *e)
{
	(void)c;
	(void)done;
	(void)total;
	(void)e;
	return 0;
}

/* The new size is in force, whatever comes of this. Not while a conversion counts on the places of what is there. */
static int give_back(struct vd_vmdk *s, struct vd_error *e)
{
	struct vd_check_report report = { .struct_size = sizeof(report) };
	struct vd_check c = { .progress = no_progress, .report = &report };
	int r = s->appends ? 0 : vd_vmdk_give_back(s, &c, e);

	if (r == 0)
		return 0;
	vd_error_prefix(e, VD_EPOISONED, "%s: the disk has its new size, but what it does not need any more is not given back: ",
			s->name);
	return vd_hint(e, VD_EPOISONED, "make sure that the image's disk works; vdisk check --repair=leaks gives it back");
}

static int zero_entries(struct vd_vmdk *s, const struct vd_vmdk_extent *x, uint64_t table, uint64_t from, uint64_t to,
			struct vd_error *e)
{
	return to > from ? vd_vmdk_overwrite(s, x->file, table + from * ENTRY, (to - from) * ENTRY, e) : 0;
}

/*
 * Of both sets: entries of the table in which the disk ends, and of the directory. Those that counted, and no others; first
 * the header says that they do not count any more, because for a time the sets say different things.
 */
static int cut_tables(struct vd_vmdk *s, struct vd_vmdk_extent *x, uint64_t len, struct vd_error *e)
{
	struct vd_vmdk_sparse *sp = &x->sp;
	uint64_t n = vd_round_up(len, sp->span) / sp->span, start = (n - 1) * sp->span;
	uint64_t first = vd_round_up(len - start, sp->grain) / sp->grain, off;
	uint64_t end = vd_round_up(vd_min_u64(sp->capacity - start, sp->span), sp->grain) / sp->grain;
	int r = say_capacity(s, x, len, e);

	for (int redundant = sp->rgd_off != 0; redundant >= 0 && r == 0; redundant--) {
		r = vd_vmdk_table(s, x, n - 1, redundant, 0, &off, e);
		if (r == 0)
			r = zero_entries(s, x, off, first, end, e);
		if (r == 0)
			r = zero_entries(s, x, redundant ? sp->rgd_off : sp->gd_off, n, sp->n_tables, e);
	}
	vd_meta_forget_all(s->meta);
	sp->capacity = len;
	sp->n_tables = n;
	/* Others may come to lie where tables were. */
	memset(sp->tables, 0, sizeof(sp->tables));
	return r;
}

/* A file that is longer has bytes of somebody else. */
static int cut_flat(struct vd_vmdk *s, const struct vd_vmdk_extent *x, uint64_t len, struct vd_error *e)
{
	struct vd_io *io = vd_set_io(s->set, x->file);
	uint64_t size;
	int r = vd_io_size(io, &size, e);

	if (r < 0 || io->is_device || vd_vmdk_shares_file(s, x->file, x) || size != x->host_off + length_of(x))
		return r;
	if (s->scrubs)
		r = vd_vmdk_overwrite(s, x->file, x->host_off + len, length_of(x) - len, e);
	return r < 0 ? r : vd_io_truncate(io, x->host_off + len, e);
}

static int cut_extent(struct vd_vmdk *s, struct vd_vmdk_extent *x, uint64_t len, struct vd_error *e)
{
	int r = 0;

	if (len < length_of(x) && x->access == VMDK_RW && x->kind == VMDK_FLAT)
		r = cut_flat(s, x, len, e);
	else if (len < length_of(x) && x->access == VMDK_RW && x->kind == VMDK_SPARSE)
		r = cut_tables(s, x, len, e);
	x->end = x->start + len;
	return r;
}

static int dispose_rest(struct vd_vmdk *s, size_t n_was, struct vd_error *e)
{
	int r = 0;

	for (size_t i = s->n_extents; i < n_was && r == 0; i++)
		r = vd_vmdk_part_dispose(s, &s->extents[i], e);
	return r;
}

/* ---- the whole ------------------------------------------------------------------------------------------- */

static int no_cowd(const struct vd_vmdk *s, struct vd_error *e)
{
	vd_fail(e, VD_EUNSUPPORTED, "%s: a vmfsSparse extent keeps its size", s->name);
	return vd_hint(e, VD_EUNSUPPORTED, "convert it: vdisk convert -O vmdk, then resize that");
}

/* That nothing is behind the new end, the core has seen. */
static int shrink(struct vd_vmdk *s, uint64_t size, struct vd_error *e)
{
	struct vd_vmdk_extent *x = (struct vd_vmdk_extent *)vd_vmdk_extent_at(s, size - 1);
	const struct vd_vmdk_header_change h = { .capacity = size };
	size_t n_was = s->n_extents;
	int r = x->kind == VMDK_COWD && size < x->end ? no_cowd(s, e) : 0;

	if (r == 0)
		r = say_smaller(s, x - s->extents, size - x->start, &h, e);

	if (r < 0)
		return r;
	s->size = size;
	s->n_extents = x - s->extents + 1;
	r = cut_extent(s, x, size - x->start, e);
	if (r == 0)
		r = dispose_rest(s, n_was, e);
	if (r == 0)
		return give_back(s, e);
	vd_error_prefix(e, VD_EPOISONED, "%s: the disk is smaller now, but what was behind its end is not all gone: ", s->name);
	return vd_hint(e, VD_EPOISONED, "make sure that the image's disk works; vdisk check tells what is left");
}

static int enlarge(struct vd_vmdk *s, uint64_t size, struct vd_error *e)
{
	const struct vd_vmdk_header_change h = { .capacity = size };
	struct vd_vmdk_extent *x = last_listed(s);
	uint64_t len = vd_min_u64(size - x->start, longest(s, x));
	/* Before the descriptor: an extent that holds less than that says is refused. */
	int r = say_capacity(s, x, len, e);

	if (r == 0)
		r = say_larger(s, len, &h, e);
	if (r < 0)
		return r;
	s->size = size;
	x->end = x->start + len;
	x->sp.capacity = x->kind == VMDK_SPARSE ? len : 0;
	return give_back(s, e);
}

int vd_vmdk_resize(void *st, uint64_t size, struct vd_error *e)
{
	struct vd_vmdk *s = st;
	int r = judge_size(s, size, e);

	if (r < 0)
		return r;
	return size < s->size ? shrink(s, size, e) : enlarge(s, size, e);
}
