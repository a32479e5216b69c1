/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Brings a new state of the bitmaps into force: what there is, what it is called, what its bits say. What it is to be, the
 * core says.
 *
 *  B3  Nothing that the directory in force reaches is overwritten. Clusters of bits that change, tables and the directory are
 *      written anew beside it; clusters that stay as they are the new tables share with the old.
 *  B4  The switch is one write of the header's first sector (qcow2_head.h), with all that is new durable and counted before
 *      it. What only the old state reached is released after it. So a crash leaves the old state or the new, and leaks.
 *  B5  While the autoclear bit is clear the refcounts of what bitmaps reach cannot be trusted: another program may have given
 *      the clusters away. Then bitmaps can only be removed, and their clusters are leaked.
 */
#include "formats/qcow2/qcow2_bitmap.h"

#include <stdlib.h>

#include "formats/qcow2/qcow2_head.h"
#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/base/cursor.h"

struct ranges {
	struct vd_range *at;
	size_t n, room;
};

struct vd_qcow2_bitmap_store {
	struct ranges made, dropped;
	uint64_t dir_off, dir_len;
	uint32_t n;
};

struct work {
	struct vd_qcow2 *s;
	struct vd_qcow2_bitmap_store *out;
	bool is_void;                   /* B5 */
	uint8_t *raw, *before;          /* bits of a part */
	uint8_t *dir;
};

/* ---- space ------------------------------------------------------------------------------------------------ */

static int add_range(struct ranges *l, uint64_t off, uint64_t len, struct vd_error *e)
{
	size_t room = l->room ? 2 * l->room : 16;
	int r = 0;

	if (l->n && l->at[l->n - 1].host_off + l->at[l->n - 1].len == off) {
		l->at[l->n - 1].len += len;
		return 0;
	}
	if (l->n == l->room) {
		r = vd_realloc(&l->at, room, sizeof(*l->at), e);
		l->room = r < 0 ? l->room : room;
	}
	if (r == 0)
		l->at[l->n++] = (struct vd_range){ .host_off = off, .len = len };
	return r;
}

static int make(struct work *w, uint64_t n_clusters, uint64_t *off, struct vd_error *e)
{
	int r = vd_qcow2_alloc_stretch(w->s, n_clusters, off, e);

	return r < 0 ? r : add_range(&w->out->made, *off, n_clusters * w->s->cluster_size, e);
}

static int drop(struct work *w, uint64_t off, uint64_t len, struct vd_error *e)
{
	return w->is_void ? 0 : add_range(&w->out->dropped, off, vd_round_up(len, w->s->cluster_size), e);
}

/* All that a bitmap reaches. Words that cannot be are not followed: the space is leaked. */
static int drop_bitmap(struct work *w, const struct vd_qcow2_bitmap *b, struct vd_error *e)
{
	uint64_t words[QCOW2_BATCH_BYTES / 8];
	int r = 0;

	if (!b->has_table || b->shares_table)
		return 0;
	for (uint64_t i = 0, n; i < b->table_size && r == 0; i += n) {
		n = vd_min_u64(sizeof(words) / 8, b->table_size - i);
		r = vd_qcow2_bitmap_words(w->s, b, i, n, words, e);
		for (uint64_t k = 0; k < n && r == 0; k++) {
			uint64_t off = words[k] & QCOW2_OFFSET_MASK;

			if (off && vd_qcow2_bitmap_judge_word(w->s, b, i + k, words[k], NULL) == 0)
				r = drop(w, off, w->s->cluster_size, e);
		}
	}
	return r < 0 ? r : drop(w, b->table_off, (uint64_t)b->table_size * 8, e);
}

/* ---- bits ------------------------------------------------------------------------------------------------- */

/* A bitmap on its way from one state to the next. */
struct change {
	const struct vd_bitmap_next *next;
	const struct vd_qcow2_bitmap *old;      /* NULL: a new one */
	unsigned granularity_bits;
	uint64_t *old_words, n_old;             /* 0: there are none, or they are to be forgotten */
	uint64_t n_words;
};

static bool is_ones(const uint8_t *raw, uint64_t n_bits)
{
	for (uint64_t i = 0; i < n_bits / 8; i++)
		if (raw[i] != 0xff)
			return false;
	return !(n_bits % 8) || raw[n_bits / 8] == (1u << n_bits % 8) - 1;
}

static bool is_touched(const struct work *w, const struct change *c, uint64_t part)
{
	uint64_t span = w->s->cluster_size * 8 << c->granularity_bits, from, to;

	/* Where a disk ends or ended, bits are cut, or made clear. */
	if (w->s->bitmaps->disk_size != w->s->h.size && (part + 1 == c->n_old || part + 1 == c->n_words))
		return true;
	return c->next->add && vd_dirty_next(c->next->add, part * span, part * span + span, &from, &to);
}

/* What becomes of a part's word. Bits that stay the same stay where they are. */
static int next_word(struct work *w, const struct change *c, uint64_t part, uint64_t *word, struct vd_error *e)
{
	struct vd_qcow2 *s = w->s;
	uint64_t old = part < c->n_old ? c->old_words[part] : 0, off = 0;
	uint64_t n_bits = vd_qcow2_bitmap_n_bits(s, c->granularity_bits, part, s->h.size);
	int r = 0;

	*word = old;
	if (!is_touched(w, c, part))
		return 0;
	memset(w->before, 0, s->cluster_size);
	if (c->old)
		r = vd_qcow2_bitmap_bits(s, c->old, part, old, vd_min_u64(s->bitmaps->disk_size, s->h.size), w->before, e);
	if (r < 0)
		return r;
	memcpy(w->raw, w->before, s->cluster_size);
	if (c->next->add)
		vd_dirty_add_to(c->next->add, c->granularity_bits, part * s->cluster_size * 8, n_bits, w->raw);
	if (is_ones(w->raw, n_bits))
		*word = QCOW2_BITMAP_ONES;
	else if (vd_is_zero(w->raw, s->cluster_size))
		*word = 0;
	else if (old & QCOW2_OFFSET_MASK && !memcmp(w->raw, w->before, s->cluster_size) &&
		 s->bitmaps->disk_size == s->h.size)
		return 0;
	else
		r = make(w, 1, &off, e);
	if (r == 0 && off) {
		*word = off;
		r = vd_set_pwrite(s->set, 0, w->raw, s->cluster_size, off, e);
	}
	if (r == 0 && old & QCOW2_OFFSET_MASK)
		r = drop(w, old & QCOW2_OFFSET_MASK, s->cluster_size, e);
	return r;
}

/* Judged, all of them: a bitmap that turns out broken later would have left half its work behind. */
static int read_old_words(struct work *w, struct change *c, struct vd_error *e)
{
	int r;

	if (!c->old || c->next->is_cleared)
		return 0;
	c->n_old = c->old->table_size;
	r = vd_alloc(c->n_old, 8, &c->old_words, e);
	if (r == 0)
		r = vd_qcow2_bitmap_words(w->s, c->old, 0, c->n_old, c->old_words, e);
	for (uint64_t i = 0; i < c->n_old && r == 0; i++)
		r = vd_qcow2_bitmap_judge_word(w->s, c->old, i, c->old_words[i], e);
	return r;
}

/* What the new table does not go on from. */
static int drop_rest(struct work *w, const struct change *c, struct vd_error *e)
{
	int r = 0;

	if (!c->old)
		return 0;
	if (c->next->is_cleared)
		return drop_bitmap(w, c->old, e);
	for (uint64_t i = c->n_words; i < c->n_old && r == 0; i++)
		if (c->old_words[i] & QCOW2_OFFSET_MASK)
			r = drop(w, c->old_words[i] & QCOW2_OFFSET_MASK, w->s->cluster_size, e);
	return r < 0 ? r : drop(w, c->old->table_off, c->n_old * 8, e);
}

static int write_table(struct work *w, const struct change *c, uint64_t *table_off, struct vd_error *e)
{
	struct vd_qcow2 *s = w->s;
	uint64_t len = vd_round_up(c->n_words * 8, s->cluster_size);
	vd_auto_free uint8_t *raw = NULL;
	int r = vd_alloc(len, 1, &raw, e);

	for (uint64_t i = 0; i < c->n_words && r == 0; i++) {
		uint64_t word = 0;

		r = next_word(w, c, i, &word, e);
		vd_put_be64(raw + i * 8, word);
	}
	if (r == 0)
		r = make(w, len / s->cluster_size, table_off, e);
	return r < 0 ? r : vd_set_pwrite(s->set, 0, raw, len, *table_off, e);
}

/* *table_off and *table_size: of the new table. VD_EBITMAP: it cannot go on; nothing was done. */
static int rewrite(struct work *w, struct change *c, uint64_t *table_off, uint32_t *table_size, struct vd_error *e)
{
	vd_auto_free uint64_t *words = NULL;
	int r = read_old_words(w, c, e);

	words = c->old_words;
	c->n_words = vd_qcow2_bitmap_table_size(w->s, w->s->h.size, c->granularity_bits);
	*table_size = c->n_words;
	/* The disk has grown: see judge_new(). */
	if (r == 0 && c->n_words > QCOW2_BITMAP_BYTES_MAX / w->s->cluster_size)
		r = vd_qcow2_bitmap_broken(w->s, e, 0, "bitmap '%s' is too large for the disk now", c->old->name);
	if (r == 0)
		r = write_table(w, c, table_off, e);
	return r < 0 ? r : drop_rest(w, c, e);
}

/* ---- the directory ---------------------------------------------------------------------------------------- */

static size_t entry_len(const struct vd_qcow2_bitmap *old, const char *name)
{
	return QCOW2_BITMAP_ENTRY_BYTES + (old ? old->extra_len : 0) + strlen(name);
}

static void put_new_entry(uint8_t *entry, const struct vd_bitmap_next *next)
{
	struct vd_writer wr = vd_writer_of(entry, entry_len(NULL, next->name));

	vd_write_zeros(&wr, QCOW2_BITMAP_AT_FLAGS + 4);
	vd_write_u8(&wr, QCOW2_BITMAP_DIRTY_TRACKING);
	vd_write_u8(&wr, next->granularity_bits);
	vd_write_be16(&wr, strlen(next->name));
	vd_write_be32(&wr, 0);
	vd_write_bytes(&wr, next->name, strlen(next->name));
}

static bool has_changed(const struct work *w, const struct change *c)
{
	uint64_t from, to;

	return !c->old || c->next->is_cleared || w->s->bitmaps->disk_size != w->s->h.size ||
	       (c->next->add && vd_dirty_next(c->next->add, 0, w->s->h.size, &from, &to));
}

/* The entry has what it had, extra data too; here it learns where its bits are now. */
static int update_entry(struct work *w, struct change *c, uint8_t *entry, struct vd_error *e)
{
	uint32_t flags = c->old ? c->old->flags & ~(QCOW2_BITMAP_IN_USE | QCOW2_BITMAP_AUTO) : 0, table_size;
	uint64_t table_off;
	int r = 0;

	if (has_changed(w, c)) {
		r = rewrite(w, c, &table_off, &table_size, e);
		/* One that was held goes on as one that does not hold, rather than keep the others from being stored. */
		if (r == VD_EBITMAP && c->old && c->old->is_held)
			return 0;
		if (r < 0)
			return r;
		vd_put_be64(entry, table_off);
		vd_put_be32(entry + 8, table_size);
	}
	vd_put_be32(entry + QCOW2_BITMAP_AT_FLAGS, flags | (c->next->is_enabled ? QCOW2_BITMAP_AUTO : 0));
	return r;
}

/* *at moves behind the entry. */
static int put_entry(struct work *w, const struct vd_bitmap_next *next, uint64_t *at, struct vd_error *e)
{
	struct change c = { .next = next, .granularity_bits = next->granularity_bits };
	uint8_t *entry = w->dir + *at;

	if (next->from == VD_BITMAP_NEW) {
		put_new_entry(entry, next);
		*at += vd_round_up(entry_len(NULL, next->name), 8);
		return update_entry(w, &c, entry, e);
	}
	c.old = &w->s->bitmaps->at[next->from];
	c.granularity_bits = c.old->granularity_bits;
	memcpy(entry, w->s->bitmaps->raw + c.old->at, entry_len(c.old, c.old->name));
	*at += vd_round_up(entry_len(c.old, c.old->name), 8);
	return c.old->unusable ? 0 : update_entry(w, &c, entry, e);
}

static int put_entries(struct work *w, const struct vd_bitmap_next *next, size_t n, struct vd_error *e)
{
	uint64_t len = 0, at = 0;
	int r;

	for (size_t i = 0; i < n; i++) {
		const struct vd_qcow2_bitmap *old = next[i].from == VD_BITMAP_NEW ? NULL : &w->s->bitmaps->at[next[i].from];

		len += vd_round_up(entry_len(old, old ? old->name : next[i].name), 8);
	}
	if (n > QCOW2_BITMAPS_MAX || len > QCOW2_BITMAP_DIR_MAX)
		return vd_fail(e, VD_EUNSUPPORTED, "%s: %zu bitmaps are more than the format can hold", w->s->name, n);
	w->out->n = n;
	w->out->dir_len = len;
	len = vd_round_up(len, w->s->cluster_size);
	r = vd_alloc(len, 1, &w->dir, e);
	for (size_t i = 0; i < n && r == 0; i++)
		r = put_entry(w, &next[i], &at, e);
	if (r == 0 && n)
		r = make(w, len / w->s->cluster_size, &w->out->dir_off, e);
	return r < 0 || !n ? r : vd_set_pwrite(w->s->set, 0, w->dir, len, w->out->dir_off, e);
}

/* ---- judging ---------------------------------------------------------------------------------------------- */

static int judge_new(const struct work *w, const struct vd_bitmap_next *next, struct vd_error *e)
{
	const struct vd_qcow2 *s = w->s;

	if (s->h.version < 3) {
		vd_fail(e, VD_EUNSUPPORTED, "%s: qcow2 version 2 has no bitmaps", s->name);
		return vd_hint(e, VD_EUNSUPPORTED, "qemu-img amend -o compat=1.1 makes it version 3");
	}
	if (w->is_void) {
		vd_fail(e, VD_EBITMAP, "%s: it has bitmaps that are void: a program that does not know bitmaps has written to it",
			s->name);
		return vd_hint(e, VD_EBITMAP, "remove those first");
	}
	if (!next->name[0] || strlen(next->name) > QCOW2_BITMAP_NAME_MAX)
		return vd_fail(e, VD_EARG, "a bitmap's name has 1 to %u bytes", QCOW2_BITMAP_NAME_MAX);
	if (next->granularity_bits < QCOW2_BITMAP_GRANULARITY_MIN || next->granularity_bits > QCOW2_BITMAP_GRANULARITY_MAX)
		return vd_fail(e, VD_EARG, "a bitmap's granularity is from 512 bytes to 2 GiB");
	if (!s->h.size)
		return vd_fail(e, VD_EARG, "%s: the disk is empty: there is nothing to record", s->name);
	if (vd_qcow2_bitmap_table_size(s, s->h.size, next->granularity_bits) <= QCOW2_BITMAP_BYTES_MAX / s->cluster_size)
		return 0;
	vd_fail(e, VD_EUNSUPPORTED, "%s: a bitmap of this disk in pieces of %" PRIu64 " bytes is too large", s->name,
		UINT64_C(1) << next->granularity_bits);
	return vd_hint(e, VD_EUNSUPPORTED, "choose a larger granularity");
}

static int judge(const struct work *w, const struct vd_bitmap_next *next, size_t n, struct vd_error *e)
{
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++)
		if (next[i].from == VD_BITMAP_NEW)
			r = judge_new(w, &next[i], e);
	return r;
}

/* Those that are not to be any more. */
static int drop_removed(struct work *w, const struct vd_bitmap_next *next, size_t n, struct vd_error *e)
{
	const struct vd_qcow2_bitmaps *list = w->s->bitmaps;
	vd_auto_free bool *stays = NULL;
	int r = vd_alloc(list->n, sizeof(*stays), &stays, e);

	for (size_t i = 0; i < n && r == 0; i++)
		if (next[i].from != VD_BITMAP_NEW)
			stays[next[i].from] = true;
	for (size_t i = 0; i < list->n && r == 0; i++)
		if (!stays[i])
			r = drop_bitmap(w, &list->at[i], e);
	return r < 0 || !list->n ? r : drop(w, w->s->bitmaps_off, w->s->bitmaps_len, e);
}

/* ---- the whole -------------------------------------------------------------------------------------------- */

void vd_qcow2_bitmap_store_free(struct vd_qcow2 *s)
{
	if (!s->store)
		return;
	free(s->store->made.at);
	free(s->store->dropped.at);
	free(vd_steal(&s->store));
}

/* One that never came into force. Nothing ever pointed to its space; a failure leaks the rest of it. */
static void undo(struct vd_qcow2 *s)
{
	const struct ranges *l = &s->store->made;

	for (size_t i = 0; i < l->n; i++)
		if (vd_qcow2_drop(s, l->at[i].host_off, l->at[i].len, NULL) < 0)
			break;
	vd_qcow2_bitmap_store_free(s);
}

static int write_all(struct work *w, const struct vd_bitmap_next *next, size_t n, struct vd_error *e)
{
	int r = judge(w, next, n, e);

	if (r == 0)
		r = vd_alloc_buffer(w->s->cluster_size, &w->raw, e);
	if (r == 0)
		r = vd_alloc_buffer(w->s->cluster_size, &w->before, e);
	if (r == 0)
		r = put_entries(w, next, n, e);
	return r < 0 ? r : drop_removed(w, next, n, e);
}

int vd_qcow2_bitmap_write(void *st, const struct vd_bitmap_next *next, size_t n, struct vd_error *e)
{
	struct vd_qcow2 *s = st;
	struct work w = { .s = s };
	vd_auto_free void *raw = NULL, *before = NULL, *dir = NULL;
	int r = vd_qcow2_bitmaps_get(s, e);

	if (s->store)
		undo(s);
	if (r == 0)
		r = vd_alloc(1, sizeof(*s->store), &s->store, e);
	if (r < 0)
		return r;
	w.out = s->store;
	w.is_void = s->n_bitmaps && !(s->h.autoclear & QCOW2_AUTOCLEAR_BITMAPS);
	r = write_all(&w, next, n, e);
	raw = w.raw;
	before = w.before;
	dir = w.dir;
	if (r < 0)
		undo(s);
	return r;
}

/* The extension, and the autoclear bit; without bitmaps there is neither. */
static int switch_over(struct vd_qcow2 *s, struct vd_error *e)
{
	const struct vd_qcow2_bitmap_store *st = s->store;
	bool was_void = s->n_bitmaps && !(s->h.autoclear & QCOW2_AUTOCLEAR_BITMAPS);
	uint64_t autoclear = s->h.autoclear & ~QCOW2_AUTOCLEAR_BITMAPS;
	vd_auto_head struct vd_qcow2_head head = { 0 };
	uint8_t raw[24] = { 0 };
	int r = vd_qcow2_head_read(s, &head, e);

	vd_put_be32(raw, st->n);
	vd_put_be64(raw + 8, st->dir_len);
	vd_put_be64(raw + 16, st->dir_off);
	/* Taken out and put in again it comes to lie in the first sector, where the next switch is a single write. */
	if (r == 0)
		r = vd_qcow2_head_put(&head, QCOW2_EXT_BITMAPS, NULL, 0, e);
	if (r == 0 && st->n)
		r = vd_qcow2_head_put(&head, QCOW2_EXT_BITMAPS, raw, sizeof(raw), e);
	if (r < 0)
		return r;
	if (s->h.version > 2)
		vd_put_be64(head.fixed + QCOW2_AT_AUTOCLEAR, autoclear | (st->n && !was_void ? QCOW2_AUTOCLEAR_BITMAPS : 0));
	return vd_qcow2_head_switch(s, &head, e);
}

int vd_qcow2_bitmap_enact(void *st, struct vd_error *e)
{
	struct vd_qcow2 *s = st;
	int r = switch_over(s, e);
	const struct ranges *gone = r == 0 ? &s->store->dropped : &s->store->made;

	/* Unsure which of the two is in force, none is touched. */
	if (r != VD_EPOISONED)
		for (size_t i = 0; i < gone->n; i++)
			vd_qcow2_release_table(s, gone->at[i].host_off, gone->at[i].len);
	vd_qcow2_bitmap_store_free(s);
	vd_qcow2_bitmaps_forget(s);
	return r;
}
