/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Gives a differencing disk another parent, or none, or takes its content from it. What is said of the parent changes by one
 * entry of the log; whatever a crash leaves reads the same:
 *
 *   no parent        first blocks that are partially present become fully present: the parent has zeros where they have nothing
 *   its parent is    the second linkage is the identifier that the parent will have, so it is known before and after its first
 *   to be written    write
 *   empty            entries go one after the other: the parent has by then what they led to
 */
#include "formats/vhdx/vhdx.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

/* ---- the locator ---------------------------------------------------------------------------------------- */

/* As after an open. */
static int read_again(struct vd_vhdx *s, struct vd_error *e)
{
	vd_parent_names_free(&s->parent);
	s->n_linkages = 0;
	s->parent_id[0] = '\0';
	return vd_vhdx_metadata_read(s, e);
}

/* The locator in force, or none; on return durable and known. */
static int put_locator(struct vd_vhdx *s, const struct vd_vhdx_locator_next *next, struct vd_error *e)
{
	vd_auto_free uint8_t *raw = NULL;
	size_t len = 0;
	int r = vd_alloc(1, VHDX_ITEM_MAX, &raw, e);

	if (r == 0 && next)
		r = vd_vhdx_locator_build(next, raw, VHDX_ITEM_MAX, &len, e);
	if (r == 0)
		r = vd_vhdx_metadata_set_locator(s, (struct vd_bytes){ raw, len }, e);
	if (r < 0) {
		/* Half of a change is none; nothing else waits to be written. */
		vd_meta_forget_all(s->meta);
		return r;
	}
	r = vd_vhdx_commit(s, e);
	if (r == 0)
		r = read_again(s, e);
	return r < 0 ? vd_unsure(s->name, e, "the new parent may be said or not") : 0;
}

/* The names stay. */
static int put_linkages(struct vd_vhdx *s, const uint8_t (*linkage)[VD_GUID_LEN], unsigned n, struct vd_error *e)
{
	struct vd_vhdx_locator_next next = { .linkage = linkage, .n_linkages = n };
	vd_auto_free uint8_t *old = NULL;
	size_t len;
	int r = vd_alloc(1, VHDX_ITEM_MAX, &old, e);

	if (r == 0)
		r = vd_vhdx_metadata_locator(s, old, VHDX_ITEM_MAX, &len, e);
	if (r < 0)
		return r;
	next.old = (struct vd_bytes){ old, len };
	return put_locator(s, &next, e);
}

/* ---- another parent ------------------------------------------------------------------------------------- */

static int judge(const struct vd_vhdx *s, const char *name, const char *format, const struct vd_vhdx *parent, struct vd_error *e)
{
	if (s->leaves_allocated && !s->has_parent)
		return vd_fail(e, VD_EUNSUPPORTED, "%s is a fixed VHDX, which has no parent", s->name);
	if (name && strcmp(format, "vhdx"))
		return vd_fail(e, VD_EUNSUPPORTED, "%s: the parent of a differencing VHDX is a VHDX, not %s", s->name, format);
	if (name && !parent && !s->has_parent) {
		vd_fail(e, VD_EUNSUPPORTED, "%s has no parent, whose identifier would go with the name", s->name);
		return vd_hint(e, VD_EUNSUPPORTED, "without -u the parent is opened, and its identifier is known");
	}
	if (parent && parent->sector_size != s->sector_size)
		return vd_fail(e, VD_EUNSUPPORTED, "%s has sectors of %" PRIu32 " bytes, and its parent cannot have %" PRIu32, s->name,
			       s->sector_size, parent->sector_size);
	return 0;
}

static int make_absent_zeros(struct vd_vhdx *s, uint64_t block, uint64_t host_off, struct vd_error *e)
{
	uint64_t start = block * s->block_size;
	int r = 0;

	for (uint64_t at = 0, len; at < s->block_size && r == 0; at += len) {
		bool are_set;

		r = vd_vhdx_sectors_alike(s, start + at, start + s->block_size, 0, &are_set, &len, e);
		if (r == 0 && !are_set)
			r = vd_vhdx_zero_space(s, host_off + at, len, e);
	}
	return r;
}

static int fill_block(struct vd_vhdx *s, uint64_t block, struct vd_error *e)
{
	uint64_t entry = vd_vhdx_block_entry(s, block), host_off;
	uint32_t state;
	int r = vd_vhdx_entry(s, entry, 0, &state, &host_off, e);

	if (r < 0 || state != VHDX_PARTIAL)
		return r;
	r = make_absent_zeros(s, block, host_off, e);
	if (r == 0)
		r = vd_vhdx_entry_write(s, entry, VHDX_FULL, host_off, VD_RANK_ROOT, e);
	return r < 0 || !vd_meta_wants_commit(s->meta) ? r : vd_vhdx_commit(s, e);
}

static int remove_parent(struct vd_vhdx *s, struct vd_error *e)
{
	uint64_t n = vd_vhdx_n_blocks(s, s->size);
	int r = 0;

	for (uint64_t block = 0; block < n && r == 0; block++)
		r = fill_block(s, block, e);
	if (r == 0)
		r = vd_vhdx_commit(s, e);
	return r < 0 ? r : put_locator(s, NULL, e);
}

/* Where no block needs them. */
static int drop_bitmaps(struct vd_vhdx *s, struct vd_error *e)
{
	uint64_t n = vd_vhdx_n_entries(s, s->size);
	bool is_sound;
	int r = 0;

	for (uint64_t i = s->chunk_ratio; i < n && r == 0; i += s->chunk_ratio + 1)
		r = vd_vhdx_cut_entry(s, i, &is_sound, e);
	return r < 0 ? r : vd_vhdx_commit(s, e);
}

/* Bitmaps meant nothing so far; the last chunk's has an entry of a disk with a parent alone. */
static int make_differencing(struct vd_vhdx *s, struct vd_error *e)
{
	uint64_t n = vd_vhdx_n_entries(s, s->size);
	int r = drop_bitmaps(s, e);

	s->has_parent = true;
	if (r == 0 && vd_vhdx_n_entries(s, s->size) > s->bat.len / 8)
		r = vd_vhdx_move_bat(s, s->size, e);
	for (; r == 0 && n < vd_vhdx_n_entries(s, s->size); n++)
		r = vd_vhdx_entry_write(s, n, VHDX_NOT_PRESENT, 0, VD_RANK_LEAF, e);
	s->has_parent = false;
	return r;
}

static int set_parent(struct vd_vhdx *s, const char *name, const struct vd_vhdx *parent, struct vd_error *e)
{
	const struct vd_vhdx_locator_next next = {
		.linkage = parent ? &parent->h.data_write : s->linkage, .n_linkages = parent ? 1 : s->n_linkages, .name = name,
	};
	int r = s->has_parent ? 0 : make_differencing(s, e);

	return r < 0 ? r : put_locator(s, &next, e);
}

/* The log that an act opened ends with it, whatever came of it. */
static int end_act(struct vd_vhdx *s, int r, struct vd_error *e)
{
	int end = r == VD_EPOISONED ? r : vd_vhdx_shape_changed(s, r < 0 ? NULL : e);

	return r < 0 ? r : end;
}

int vd_vhdx_set_backing(void *st, const char *name, const char *format, const void *parent, struct vd_error *e)
{
	struct vd_vhdx *s = st;
	int r = judge(s, name, format, parent, e);

	if (r < 0 || (!name && !s->has_parent))
		return r;
	r = vd_vhdx_log_open(s, VHDX_CHANGES_TABLES, e);
	if (r < 0)
		return r;
	r = name ? set_parent(s, name, parent, e) : remove_parent(s, e);
	return end_act(s, r, e);
}

/* ---- its parent is to be written ------------------------------------------------------------------------ */

int vd_vhdx_expect_parent(void *st, void *parent, struct vd_error *e)
{
	struct vd_vhdx *s = st, *p = parent;
	uint8_t linkage[2][VD_GUID_LEN];
	int r = vd_guid_make(p->next_data_write, true, e);

	if (r == 0)
		r = vd_vhdx_log_open(s, VHDX_CHANGES_TABLES, e);
	if (r < 0)
		return r;
	memcpy(linkage[0], p->h.data_write, VD_GUID_LEN);
	memcpy(linkage[1], p->next_data_write, VD_GUID_LEN);
	r = put_linkages(s, (const uint8_t (*)[VD_GUID_LEN])linkage, 2, e);
	return end_act(s, r, e);
}

/* ---- nothing of its own --------------------------------------------------------------------------------- */

static int drop_entries(struct vd_vhdx *s, bool *are_sound, struct vd_error *e)
{
	uint64_t n = vd_vhdx_n_entries(s, s->size);
	int r = 0;

	for (uint64_t i = 0; i < n && r == 0; i++) {
		bool is_sound;

		if (vd_vhdx_is_bitmap_entry(s, i))
			continue;
		r = vd_vhdx_cut_entry(s, i, &is_sound, e);
		*are_sound &= is_sound;
		if (r == 0 && vd_meta_wants_commit(s->meta))
			r = vd_vhdx_commit(s, e);
	}
	return r < 0 ? r : vd_vhdx_commit(s, e);
}

static int drop_all(struct vd_vhdx *s, struct vd_error *e)
{
	uint8_t last[1][VD_GUID_LEN];
	bool are_sound = true;
	int r = drop_entries(s, &are_sound, e);

	if (r == 0 && are_sound)
		r = drop_bitmaps(s, e);
	memcpy(last[0], s->linkage[s->n_linkages - 1], VD_GUID_LEN);
	if (r == 0)
		r = put_linkages(s, (const uint8_t (*)[VD_GUID_LEN])last, 1, e);
	if (r == 0)
		r = vd_space_drain(s->space, e);
	if (r == 0 && are_sound)
		vd_vhdx_trim(s, 0);
	return r < 0 ? vd_unsure(s->name, e, "some blocks may be gone, and the parent has them") : 0;
}

int vd_vhdx_empty(void *st, struct vd_error *e)
{
	struct vd_vhdx *s = st;
	int r = vd_vhdx_log_open(s, VHDX_CHANGES_TABLES, e);

	if (r < 0)
		return r;
	return end_act(s, drop_all(s, e), e);
}
