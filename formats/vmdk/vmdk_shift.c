/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Moves the disk inside its files, for conversion in place: makes room at its front, or takes it away. Data stay where they
 * are. Each is one write of one sector (vmdk_desc.c), before which all that it leads to is durable:
 *
 *   embedded descriptor   new tables beside the old ones, with every grain named so much further on; the header
 *   file of its own       a flat extent of zeros in a new file, or the front extent's file left, or left in part; the text
 *
 * What is left is released, or overwritten at once where it lies in a flat file, and the file removed when nothing of it is
 * left. A crash before the one write leaves a file of zeros that nothing names, which the next try takes over; one after
 * it, the file that is not named any more.
 */
#include "formats/vmdk/vmdk_shape.h"

#include <stdio.h>
#include <stdlib.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/io/atomic.h"
#include "libvdisk/io/path.h"

#define CHUNK 65536

static int judge_embedded(const struct vd_vmdk *s, uint64_t size, struct vd_error *e)
{
	if (!s->d.n_lines)
		return vd_fail(e, VD_EUNSUPPORTED, "%s: its descriptor lists no extent", s->name);
	if (size <= VMDK_SPARSE_MAX)
		return 0;
	return vd_fail(e, VD_EARG, "%s: a disk of %" PRIu64 " bytes is too large for one sparse extent: at most %" PRIu64, s->name, size,
		       VMDK_SPARSE_MAX);
}

static int judge_drop(const struct vd_vmdk *s, uint64_t len, struct vd_error *e)
{
	const struct vd_vmdk_extent *x = &s->extents[0];

	if (x->access == VMDK_RW && ((x->kind != VMDK_ZERO && x->end == len) || (x->kind == VMDK_FLAT && x->end > len)))
		return 0;
	vd_fail(e, VD_EUNSUPPORTED, "%s: its first %" PRIu64 " bytes are part of a larger %s extent, or of several: no single write takes "
		"them away", s->name, len, x->kind == VMDK_FLAT ? "flat" : "sparse");
	return vd_hint(e, VD_EUNSUPPORTED, "copy the disk instead: vdisk convert");
}

static int judge(const struct vd_vmdk *s, int64_t by, struct vd_error *e)
{
	uint64_t unit = vd_max_u64(s->unit, VMDK_SECTOR), size;

	if (by % (int64_t)unit)
		return vd_fail(e, VD_EARG, "%s: moving the disk by %" PRId64 " bytes is not whole units of %" PRIu64, s->name, by, unit);
	if (by < 0 ? -(uint64_t)by >= s->size : !vd_add_u64(s->size, by, &size) || size > INT64_MAX)
		return vd_fail(e, VD_EARG, "%s: moving the disk by %" PRId64 " bytes leaves no disk", s->name, by);
	/* That its holes show the same bytes afterwards is for the caller to see to, who moves the parent, too. */
	if (s->is_embedded)
		return judge_embedded(s, s->size + by, e);
	return by < 0 ? judge_drop(s, -(uint64_t)by, e) : 0;
}

/* Places on the disk from the index-th extent on. */
static void move_extents(struct vd_vmdk *s, size_t index, int64_t by)
{
	for (size_t i = index; i < s->n_extents; i++) {
		s->extents[i].start += by;
		s->extents[i].end += by;
	}
	s->size += by;
}

/* ---- an extent that has the descriptor inside ------------------------------------------------------------ */

/* Grains of the front that goes. */
static int front_ranges(struct vd_vmdk *s, const struct vd_vmdk_extent *x, uint64_t len, struct vd_space_batch *b,
			struct vd_error *e)
{
	struct vd_run run;
	int r = 0;

	for (uint64_t at = 0; at < len && r == 0; at += run.len) {
		size_t one = 1;

		r = vd_vmdk_map(s, at, len - at, VD_MAP_TO_READ, &run, &one, e);
		if (r == 0 && run.where == VD_DATA)
			r = vd_space_batch_add(b, (struct vd_range){ .file = x->file, .host_off = run.host_off, .len = run.len,
								     .to_host = true }, e);
	}
	return r;
}

static int switch_tables(struct vd_vmdk *s, struct vd_vmdk_extent *x, uint64_t capacity, const struct vd_vmdk_layout *l,
			 struct vd_error *e)
{
	const struct vd_vmdk_header_change h = { .capacity = capacity, .rgd_off = l->rgd, .gd_off = l->gd };
	struct vd_vmdk_rewrite w;
	struct vd_vmdk_edit edit;
	char digits[24];
	int r;

	snprintf(digits, sizeof(digits), "%" PRIu64, capacity / VMDK_SECTOR);
	edit = (struct vd_vmdk_edit){ s->d.lines[0].digits, digits };
	/* The descriptor's spare place is behind the tables. */
	atomic_store(&x->sp.host_end, l->end);
	r = vd_vmdk_rewrite_prepare(s, &edit, 1, &w, e);
	if (r == 0)
		r = vd_vmdk_rewrite_commit(s, &w, &h, e);
	vd_vmdk_rewrite_fini(&w);
	return r;
}

static int shift_tables(struct vd_vmdk *s, int64_t by, struct vd_error *e)
{
	struct vd_vmdk_extent *x = &s->extents[0];
	uint64_t capacity = x->sp.capacity + by;
	struct vd_space_batch left = { 0 };
	vd_auto_free struct vd_range *ranges = NULL;
	struct vd_vmdk_layout l;
	int r = 0;

	if (by < 0)
		r = front_ranges(s, x, -by, &left, e);
	if (r == 0)
		r = vd_vmdk_tables_ranges(x, &left, e);
	ranges = left.ranges;
	if (r == 0)
		r = vd_vmdk_tables_shifted(s, x, capacity, by, &l, e);
	if (r == 0)
		r = switch_tables(s, x, capacity, &l, e);
	if (r < 0)
		return r;
	vd_vmdk_tables_adopt(s, x, &l);
	x->sp.capacity = s->size = x->end = capacity;
	for (size_t i = 0; i < left.n; i++)
		vd_space_release(s->space, left.ranges[i]);
	return 0;
}

/* ---- a new front ----------------------------------------------------------------------------------------- */

/* "disk.vmdk": "disk-f000.vmdk". The first of VMware's own files of a disk in pieces has the number 001. */
static int front_name(const struct vd_vmdk *s, char **out, struct vd_error *e)
{
	const char *slash = strrchr(s->name, '/'), *name = slash ? slash + 1 : s->name, *dot = strrchr(name, '.');
	size_t stem = dot && dot != name ? (size_t)(dot - name) : strlen(name), room = strlen(name) + 8;
	int r = vd_alloc(room, 1, out, e);

	if (r == 0)
		snprintf(*out, room, "%.*s-f000%s", (int)stem, name, name + stem);
	return r;
}

/* What a try that was killed left behind: zeros of this length. */
static bool is_left_over(struct vd_host *host, const char *path, uint64_t len)
{
	uint8_t buf[CHUNK];
	struct vd_io *io;
	uint64_t size, n;
	bool yes;

	if (host->open(host, path, VD_IO_NO_SYMLINK, &io, NULL) < 0)
		return false;
	yes = vd_io_size(io, &size, NULL) == 0 && size == len && !io->is_device;
	for (uint64_t at = 0; at < len && yes; at += n) {
		n = vd_min_u64(len - at, sizeof(buf));
		yes = vd_io_pread(io, buf, n, at, NULL) == 0 && vd_is_zero(buf, n);
	}
	vd_io_abort(io);
	return yes;
}

static int make_file(struct vd_vmdk *s, const char *name, uint64_t len, struct vd_error *e)
{
	struct vd_host *host = vd_set_host(s->set);
	vd_auto_free char *path = NULL;
	int r = vd_path_beside(s->name, name, &path, e);

	if (r == 0)
		r = vd_output_put(host, path, false, "", 0, len, e);
	if (r != VD_EEXIST || is_left_over(host, path, len))
		return r == VD_EEXIST ? 0 : r;
	vd_fail(e, VD_EEXIST, "%s: the name is needed for a new extent of the disk", path);
	return vd_hint(e, VD_EEXIST, "move that file away");
}

/* The types of several extents, and of one. */
static const char *create_type_of(const struct vd_vmdk *s, size_t n, bool is_flat)
{
	const char *was = s->d.create_type ? s->d.create_type : "";

	if (n > 1 && !strcmp(was, "monolithicFlat"))
		return "twoGbMaxExtentFlat";
	return n == 1 && is_flat && !strcmp(was, "twoGbMaxExtentFlat") ? "monolithicFlat" : NULL;
}

/* Changes the text so, and the type where that has to be another; both in the order of the text. */
static int prepare(struct vd_vmdk *s, struct vd_vmdk_edit edit, const char *type, struct vd_vmdk_rewrite *w, struct vd_error *e)
{
	struct vd_vmdk_edit edits[2];
	bool is_after = type && s->d.create_type_in.at < edit.where.at;

	edits[is_after] = edit;
	if (type)
		edits[!is_after] = (struct vd_vmdk_edit){ s->d.create_type_in, type };
	return vd_vmdk_rewrite_prepare(s, edits, type ? 2 : 1, w, e);
}

static int prepare_front(struct vd_vmdk *s, const char *name, uint64_t len, struct vd_vmdk_rewrite *w, struct vd_error *e)
{
	bool is_vmfs = s->d.create_type && !strncmp(s->d.create_type, "vmfs", 4);
	vd_auto_free char *line = NULL;
	int r = vd_alloc(strlen(name) + 64, 1, &line, e);

	if (r < 0)
		return r;
	snprintf(line, strlen(name) + 64, "RW %" PRIu64 " %s \"%s\"%s\n", len / VMDK_SECTOR, is_vmfs ? "VMFS" : "FLAT", name,
		 is_vmfs ? "" : " 0");
	r = prepare(s, (struct vd_vmdk_edit){ { s->d.lines[0].line.at, 0 }, line }, create_type_of(s, s->n_extents + 1, false), w, e);
	if (r < 0 || (w->d.n_lines == s->n_extents + 1 && !strcmp(w->d.lines[0].file, name)))
		return r;
	vd_fail(e, VD_EUNSUPPORTED, "%s: its descriptor cannot have the name of a new extent, '%s'", s->name, name);
	return vd_hint(e, VD_EUNSUPPORTED, "rename the disk to letters and digits");
}

static int add_front(struct vd_vmdk *s, uint64_t len, struct vd_error *e)
{
	vd_auto_free char *name = NULL;
	struct vd_vmdk_extent front = { .access = VMDK_RW, .kind = VMDK_FLAT, .end = len };
	struct vd_vmdk_rewrite w = { 0 };
	int r = front_name(s, &name, e);

	if (r == 0)
		r = prepare_front(s, name, len, &w, e);
	if (r == 0)
		r = make_file(s, name, len, e);
	if (r == 0)
		r = vd_set_add(s->set, VD_REF_EXTENT, name, NULL, &front.file, e);
	if (r == 0)
		r = vd_realloc(&s->extents, s->n_extents + 1, sizeof(front), e);
	if (r == 0)
		r = vd_vmdk_rewrite_commit(s, &w, NULL, e);
	vd_vmdk_rewrite_fini(&w);
	if (r < 0)
		return r;
	memmove(s->extents + 1, s->extents, s->n_extents * sizeof(front));
	s->extents[0] = front;
	s->n_extents++;
	move_extents(s, 1, len);
	return 0;
}

/* ---- the front goes -------------------------------------------------------------------------------------- */

/* Nothing names those bytes any more. */
static int discard(struct vd_vmdk *s, uint32_t file, uint64_t off, uint64_t len, struct vd_error *e)
{
	struct vd_host *host = vd_set_host(s->set);
	struct vd_io *io = vd_set_io(s->set, file);
	int r = vd_vmdk_overwrite(s, file, off, len, e);

	if (r == 0 && !io->is_device && !vd_vmdk_shares_file(s, file, NULL)) {
		r = vd_io_truncate(io, 0, e);
		if (r == 0)
			r = host->unlink(host, vd_set_name(s->set, file), e);
	}
	if (r == 0)
		return 0;
	vd_error_prefix(e, VD_EPOISONED, "%s: the disk is without its old front now, but the bytes of that are left: ", s->name);
	return vd_hint(e, VD_EPOISONED, "make sure that the disk below works, and overwrite the file that the message names");
}

static int commit(struct vd_vmdk *s, struct vd_vmdk_edit edit, const char *type, struct vd_error *e)
{
	struct vd_vmdk_rewrite w;
	int r = prepare(s, edit, type, &w, e);

	if (r == 0)
		r = vd_vmdk_rewrite_commit(s, &w, NULL, e);
	vd_vmdk_rewrite_fini(&w);
	return r;
}

static int remove_front(struct vd_vmdk *s, struct vd_error *e)
{
	struct vd_vmdk_extent front = s->extents[0];
	uint64_t size = 0;
	int r = front.kind == VMDK_FLAT ? 0 : vd_io_size(vd_set_io(s->set, front.file), &size, e);

	if (r == 0)
		r = commit(s, (struct vd_vmdk_edit){ s->d.lines[0].line, "" },
			   create_type_of(s, s->n_extents - 1, s->extents[1].kind == VMDK_FLAT), e);
	if (r < 0)
		return r;
	s->n_extents--;
	memmove(s->extents, s->extents + 1, s->n_extents * sizeof(front));
	move_extents(s, 0, -(int64_t)front.end);
	return discard(s, front.file, front.host_off, front.kind == VMDK_FLAT ? front.end : size, e);
}

/* The extent begins further on in its file. */
static int cut_front(struct vd_vmdk *s, uint64_t len, struct vd_error *e)
{
	struct vd_vmdk_extent *x = &s->extents[0];
	const struct vd_vmdk_line *line = &s->d.lines[0];
	struct vd_vmdk_edit edits[3];
	struct vd_vmdk_rewrite w;
	char digits[24], first[24];
	int r;

	snprintf(digits, sizeof(digits), "%" PRIu64, (x->end - len) / VMDK_SECTOR);
	snprintf(first, sizeof(first), " %" PRIu64, (x->host_off + len) / VMDK_SECTOR);
	edits[0] = (struct vd_vmdk_edit){ line->digits, digits };
	edits[1] = (struct vd_vmdk_edit){ line->type, "FLAT" };
	edits[2] = (struct vd_vmdk_edit){ line->rest, first };
	r = vd_vmdk_rewrite_prepare(s, edits, 3, &w, e);
	if (r == 0)
		r = vd_vmdk_rewrite_commit(s, &w, NULL, e);
	vd_vmdk_rewrite_fini(&w);
	if (r < 0)
		return r;
	x->host_off += len;
	move_extents(s, 0, -(int64_t)len);
	x->start = 0;
	return discard(s, x->file, x->host_off - len, len, e);
}

int vd_vmdk_shift(void *st, int64_t by, bool only_judge, struct vd_error *e)
{
	struct vd_vmdk *s = st;
	int r = judge(s, by, e);

	if (r < 0 || only_judge)
		return r;
	r = vd_vmdk_change_cid(s, e);
	if (r == 0)
		r = vd_set_flush(s->set, e);
	if (r < 0)
		return r;
	if (s->is_embedded)
		return shift_tables(s, by, e);
	if (by > 0)
		return add_front(s, by, e);
	return s->extents[0].end == -(uint64_t)by ? remove_front(s, e) : cut_front(s, -(uint64_t)by, e);
}
