/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A disk as a child: how it knows its parent, gets another one or none, and gives up what it holds. That the disk reads the
 * same before and after is the core's care.
 *
 * A parent that is written gets another CID, and its children hold the old one. A commit writes into two files, so a crash
 * can come between: the CID that it gives the parent is therefore one that the child can work out from its own two. So the
 * child still knows its parent, and follows it when it is written next. To all others the parent is another disk.
 */
#include "formats/vmdk/vmdk_shape.h"

#include <stdio.h>
#include <stdlib.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

static size_t cid_digits(const struct vd_vmdk *s)
{
	return vd_min_u64(s->d.cid_in.len, 8);
}

/*
 * The CID of the parent after a commit of this child into it, of so many digits. All bits of both of the child's count; what
 * stands for "none" and "elsewhere" is left out, and the old one.
 */
static uint32_t committed_cid(const struct vd_vmdk *child, size_t digits)
{
	uint32_t mask = UINT32_MAX >> (32 - 4 * digits), h = child->d.parent_cid * 0x9e3779b1u ^ child->d.cid;

	h = (h ^ h >> 16) * 0x85ebca6bu;
	h = (h ^ h >> 13) * 0xc2b2ae35u;
	h ^= h >> 16;
	while (!(h & mask) || (h & mask) == child->d.parent_cid || (h & mask) >= VMDK_CID_LONG)
		h++;
	return h & mask;
}

int vd_vmdk_check_parent(void *st, const void *parent, struct vd_error *e)
{
	struct vd_vmdk *s = st;
	const struct vd_vmdk *p = parent;

	if (s->d.parent_cid == p->d.cid || s->d.parent_cid == VMDK_CID_LONG || !p->d.has_cid)
		return 0;
	if (s->d.has_cid && p->d.cid == committed_cid(s, cid_digits(p))) {
		s->parent_now = p->d.cid;
		return 0;
	}
	vd_fail(e, VD_ECORRUPT, "the disk was made on a parent with the CID %08" PRIx32 ", but %s has %08" PRIx32,
		s->d.parent_cid, p->name, p->d.cid);
	return vd_hint(e, VD_ECORRUPT, "the parent was written since, or is another disk: find the one that this was made on");
}

int vd_vmdk_expect_parent(void *st, void *parent, struct vd_error *e)
{
	struct vd_vmdk *s = st, *p = parent;
	int r = vd_vmdk_check_parent(s, p, e);

	if (r < 0 || !p->d.has_cid || !s->d.has_cid || s->d.parent_cid == VMDK_CID_LONG)
		return r;
	p->next_cid = committed_cid(s, cid_digits(p));
	s->parent = p;
	return 0;
}

/* ---- the descriptor -------------------------------------------------------------------------------------- */

/* The whole line around a place in the text. */
static int line_around(struct vd_vmdk *s, size_t at, struct vd_vmdk_span *line, struct vd_error *e)
{
	vd_auto_free char *text = NULL;
	size_t from = at, to = at;
	int r = vd_alloc(s->text_len, 1, &text, e);

	if (r == 0)
		r = vd_set_pread(s->set, 0, text, s->text_len, s->desc_off, e);
	if (r < 0)
		return r;
	while (from && text[from - 1] != '\n')
		from--;
	while (to < s->text_len && text[to] != '\n')
		to++;
	*line = (struct vd_vmdk_span){ from, vd_min_u64(to + 1, s->text_len) - from };
	return 0;
}

static void add_edit(struct vd_vmdk_edit *edits, size_t *n, struct vd_vmdk_span where, const char *text)
{
	size_t i = (*n)++;

	for (; i && edits[i - 1].where.at > where.at; i--)
		edits[i] = edits[i - 1];
	edits[i] = (struct vd_vmdk_edit){ where, text };
}

/* The name in its place, or in a line of its own behind the parent's CID; NULL: no line. `line` has room for it. */
static int edit_hint(struct vd_vmdk *s, const char *name, char *line, size_t room, struct vd_vmdk_edit *edits, size_t *n,
		     struct vd_error *e)
{
	struct vd_vmdk_span where = { 0 };
	int r;

	if (name && s->d.parent_hint) {
		add_edit(edits, n, s->d.hint_in, name);
		return 0;
	}
	if (!name && !s->d.parent_hint)
		return 0;
	r = line_around(s, name ? s->d.parent_cid_in.at : s->d.hint_in.at, &where, e);
	if (r < 0)
		return r;
	if (name) {
		snprintf(line, room, "parentFileNameHint=\"%s\"\n", name);
		where = (struct vd_vmdk_span){ where.at + where.len, 0 };
	}
	add_edit(edits, n, where, name ? line : "");
	return 0;
}

static int say_parent(struct vd_vmdk *s, uint32_t cid, const char *name, struct vd_error *e)
{
	size_t room = (name ? strlen(name) : 0) + 32, n = 0;
	vd_auto_free char *line = NULL;
	struct vd_vmdk_rewrite w = { 0 };
	struct vd_vmdk_edit edits[2];
	char digits[12];
	int r = vd_alloc(room, 1, &line, e);

	if (r == 0 && !s->d.parent_cid_in.len)
		r = vd_fail(e, VD_EUNSUPPORTED, "%s: its descriptor has no line for a parent's CID", s->name);
	if (r < 0)
		return r;
	snprintf(digits, sizeof(digits), "%08" PRIx32, cid);
	add_edit(edits, &n, s->d.parent_cid_in, digits);
	r = edit_hint(s, name, line, room, edits, &n, e);
	if (r == 0)
		r = vd_vmdk_rewrite_prepare(s, edits, n, &w, e);
	if (r == 0 && (w.d.parent_cid != cid || !w.d.parent_hint != !name || (name && strcmp(w.d.parent_hint, name)))) {
		vd_fail(e, VD_EUNSUPPORTED, "%s: its descriptor cannot have the name of the parent '%s'", s->name, name ? name : "");
		r = vd_hint(e, VD_EUNSUPPORTED, "give the parent a name of letters and digits");
	}
	if (r == 0)
		r = vd_vmdk_rewrite_commit(s, &w, NULL, e);
	vd_vmdk_rewrite_fini(&w);
	if (r < 0)
		return r;
	s->parent_now = 0;
	return vd_vmdk_learn_parent(s, e);
}

int vd_vmdk_follow_parent(struct vd_vmdk *s, struct vd_error *e)
{
	vd_auto_free char *name = NULL;
	int r = s->parent_now ? vd_strdup(s->d.parent_hint, &name, e) : 0;

	return r < 0 || !name ? r : say_parent(s, s->parent_now, name, e);
}

/* Whose name alone changes keeps its CID. */
static int parent_cid(const struct vd_vmdk *s, const char *name, const char *format, const struct vd_vmdk *p, uint32_t *cid,
		      struct vd_error *e)
{
	*cid = !name ? VMDK_CID_NONE : p ? p->d.cid : s->d.parent_cid;
	if (!name || (p && p->d.has_cid) || (!p && s->has_parent && !strcmp(format, "vmdk")))
		return 0;
	if (p)
		return vd_fail(e, VD_EUNSUPPORTED, "the parent %s has no CID, by which a child would know it", name);
	if (strcmp(format, "vmdk"))
		return vd_fail(e, VD_EUNSUPPORTED, "the parent of a VMDK is a VMDK, not %s", format);
	vd_fail(e, VD_EUNSUPPORTED, "%s has no parent, and the CID of one can only be read from it", s->name);
	return vd_hint(e, VD_EUNSUPPORTED, "rebase it without -u");
}

int vd_vmdk_set_backing(void *st, const char *name, const char *format, const void *parent, struct vd_error *e)
{
	struct vd_vmdk *s = st;
	vd_auto_free char *copy = NULL;
	uint32_t cid;
	int r = parent_cid(s, name, format, parent, &cid, e);

	/* It may be the descriptor's own. */
	if (r == 0 && name)
		r = vd_strdup(name, &copy, e);
	return r < 0 ? r : say_parent(s, cid, copy, e);
}

/* ---- giving up ------------------------------------------------------------------------------------------- */

static int judge_empty(const struct vd_vmdk *s, struct vd_error *e)
{
	for (size_t i = 0; i < s->n_extents; i++) {
		const struct vd_vmdk_extent *x = &s->extents[i];

		if (x->access == VMDK_RW && x->kind == VMDK_SPARSE)
			continue;
		vd_fail(e, VD_EUNSUPPORTED, "%s: an extent of it is not sparse, and keeps what it holds", s->name);
		return vd_hint(e, VD_EUNSUPPORTED, "the parent has it all now: make a new child of it");
	}
	return 0;
}

/* Where the last table ends: beyond are grains alone. */
static int find_end(struct vd_vmdk *s, const struct vd_vmdk_extent *x, uint64_t *end, struct vd_error *e)
{
	const struct vd_vmdk_sparse *sp = &x->sp;
	int r = 0;

	*end = sp->overhead;
	for (size_t i = 0; i < sp->n_areas; i++)
		*end = vd_max_u64(*end, sp->areas[i].end);
	for (uint64_t i = 0; i < 2 * sp->n_tables && r == 0; i++) {
		uint64_t off = 0;

		if (i % 2 == 0 || sp->rgd_off)
			r = vd_vmdk_table(s, x, i / 2, i % 2, 0, &off, e);
		*end = vd_max_u64(*end, off ? off + sp->entries * sp->entry_size : 0);
	}
	*end = vd_round_up(*end, sp->grain);
	return r;
}

static void release(struct vd_vmdk *s, const struct vd_vmdk_extent *x, uint64_t off, uint64_t len)
{
	vd_space_release(s->space, (struct vd_range){ .file = x->file, .host_off = off, .len = len, .to_host = true });
}

/* Grains between tables, which are there after the disk grew; then all the rest of the file at once. */
static int release_grains(struct vd_vmdk *s, const struct vd_vmdk_extent *x, uint64_t end, struct vd_error *e)
{
	uint64_t file_end = atomic_load(&x->sp.host_end);
	struct vd_run run;
	int r = 0;

	for (uint64_t at = x->start; at < x->end && r == 0; at = run.guest_off + run.len) {
		size_t one = 1;

		r = vd_vmdk_map(s, at, x->end - at, VD_MAP_TO_READ, &run, &one, e);
		if (r == 0 && run.where == VD_DATA && run.host_off < end)
			release(s, x, run.host_off, vd_min_u64(vd_round_up(run.len, x->sp.grain), end - run.host_off));
	}
	if (r == 0 && end < file_end)
		release(s, x, end, file_end - end);
	return r;
}

static int clear_table(struct vd_vmdk *s, const struct vd_vmdk_extent *x, uint64_t index, bool redundant, struct vd_error *e)
{
	static const uint8_t zeros[VMDK_GTES_MAX * 4];
	uint64_t left = vd_round_up(x->sp.capacity, x->sp.grain) - index * x->sp.span, off;
	int r = vd_vmdk_table(s, x, index, redundant, 0, &off, e);

	return r < 0 || !off ? r : vd_set_pwrite(s->set, x->file, zeros, vd_min_u64(x->sp.entries, left / x->sp.grain) * 4, off, e);
}

/* Each half-done state reads the same, because the parent has what is given up. */
static int clear_extent(struct vd_vmdk *s, struct vd_vmdk_extent *x, struct vd_error *e)
{
	uint64_t end;
	int r = find_end(s, x, &end, e);

	if (r == 0)
		r = release_grains(s, x, end, e);
	for (int redundant = x->sp.rgd_off != 0; redundant >= 0 && r == 0; redundant--) {
		for (uint64_t i = 0; i < x->sp.n_tables && r == 0; i++)
			r = clear_table(s, x, i, redundant, e);
		if (r == 0)
			r = vd_set_flush(s->set, e);
	}
	return r;
}

int vd_vmdk_empty(void *st, struct vd_error *e)
{
	struct vd_vmdk *s = st;
	const struct vd_vmdk *p = s->parent;
	vd_auto_free char *name = NULL;
	int r = judge_empty(s, e);

	if (r == 0)
		r = vd_strdup(s->d.parent_hint, &name, e);
	if (r == 0 && p && p->d.cid != s->d.parent_cid)
		r = say_parent(s, p->d.cid, name, e);
	if (r < 0)
		return r;
	for (size_t i = 0; i < s->n_extents && r == 0; i++)
		r = clear_extent(s, &s->extents[i], e);
	vd_meta_forget_all(s->meta);
	/* What is released may be named still. */
	return r < 0 ? vd_vmdk_unsure(s, e) : 0;
}
