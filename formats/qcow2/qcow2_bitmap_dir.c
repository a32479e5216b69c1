/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads and judges the bitmap directory and the words of bitmap tables. What the bits mean and how they change is for
 * qcow2_bitmap.c and qcow2_bitmap_store.c. Past the cache of tables, which never holds any of this.
 */
#include "formats/qcow2/qcow2_bitmap_dir.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/base/cursor.h"

int vd_qcow2_bitmap_broken(const struct vd_qcow2 *s, struct vd_error *e, uint64_t at, const char *fmt, ...)
{
	char text[sizeof(e->message)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	vd_fail_at(e, VD_EBITMAP, at, "%s: %s", vd_set_name(s->set, 0), text);
	return vd_hint(e, VD_EBITMAP, "the disk itself may be whole: copy all of it, not what a bitmap says");
}

uint64_t vd_qcow2_bitmap_table_size(const struct vd_qcow2 *s, uint64_t disk_size, unsigned granularity_bits)
{
	uint64_t n_bits = vd_round_up(disk_size, UINT64_C(1) << granularity_bits) >> granularity_bits;
	uint64_t per_word = s->cluster_size * 8;

	return n_bits / per_word + (n_bits % per_word != 0);
}

/* ---- one bitmap ------------------------------------------------------------------------------------------- */

static bool table_has_place(const struct vd_qcow2 *s, const struct vd_qcow2_bitmap *b)
{
	uint64_t len = (uint64_t)b->table_size * 8;

	return b->table_size && b->table_size <= QCOW2_BITMAP_BYTES_MAX / s->cluster_size && b->table_off && b->table_off % s->cluster_size == 0 &&
	       vd_range_inside(b->table_off, len, atomic_load(&s->host_end)) && !vd_qcow2_overlaps(s, b->table_off, len);
}

static const char *why_unusable(const struct vd_qcow2 *s, const struct vd_qcow2_bitmap *b)
{
	if (!(s->h.autoclear & QCOW2_AUTOCLEAR_BITMAPS))
		return "a program that does not know bitmaps has written to the image";
	if (b->flags & QCOW2_BITMAP_IN_USE)
		return "it was not stored after the image was last written to";
	if (b->flags & ~QCOW2_BITMAP_FLAGS_KNOWN || b->type != QCOW2_BITMAP_DIRTY_TRACKING)
		return "it is of a kind that this library does not know";
	if (b->extra_len && !(b->flags & QCOW2_BITMAP_EXTRA_COMPATIBLE))
		return "it has extra data that this library does not know";
	if (b->granularity_bits < QCOW2_BITMAP_GRANULARITY_MIN || b->granularity_bits > QCOW2_BITMAP_GRANULARITY_MAX)
		return "its granularity is impossible";
	if (b->table_size * s->cluster_size > QCOW2_BITMAP_BYTES_MAX)
		return "it is too large";
	if (b->table_size != vd_qcow2_bitmap_table_size(s, s->h.size, b->granularity_bits))
		return "it does not fit the size of the disk";
	return b->has_table ? NULL : "its table lies where none can be";
}

static int take_name(const struct vd_qcow2 *s, const uint8_t *p, size_t len, uint64_t at, char **room,
		     struct vd_qcow2_bitmap *b, struct vd_error *e)
{
	if (!len || len > QCOW2_BITMAP_NAME_MAX)
		return vd_qcow2_bitmap_broken(s, e, at, "a bitmap's name of %zu bytes: it has 1 to %u", len,
					      QCOW2_BITMAP_NAME_MAX);
	if (memchr(p, 0, len))
		return vd_qcow2_bitmap_broken(s, e, at, "a bitmap's name has a NUL byte inside");
	b->name = memcpy(*room, p, len);
	*room += len + 1;
	return 0;
}

static int take_entry(const struct vd_qcow2 *s, struct vd_reader *r, char **room, struct vd_qcow2_bitmap *b,
		      struct vd_error *e)
{
	uint64_t at = s->bitmaps_off + r->pos;
	const uint8_t *name;
	size_t name_len;

	b->at = r->pos;
	b->table_off = vd_read_be64(r);
	b->table_size = vd_read_be32(r);
	b->flags = vd_read_be32(r);
	b->type = vd_read_u8(r);
	b->granularity_bits = vd_read_u8(r);
	name_len = vd_read_be16(r);
	b->extra_len = vd_read_be32(r);
	b->extra = vd_reader_take(r, b->extra_len);
	name = vd_reader_take(r, name_len);
	if (r->failed)
		return vd_qcow2_bitmap_broken(s, e, at, "an entry reaches beyond the end of the bitmap directory");
	vd_reader_take(r, vd_min_u64(vd_reader_left(r), -r->pos % 8));
	b->has_table = table_has_place(s, b);
	b->unusable = why_unusable(s, b);
	return take_name(s, name, name_len, at, room, b, e);
}

/* ---- the directory ---------------------------------------------------------------------------------------- */

static int judge_place(const struct vd_qcow2 *s, struct vd_error *e)
{
	const uint64_t least = (uint64_t)s->n_bitmaps * (QCOW2_BITMAP_ENTRY_BYTES + 8);
	const char *other;

	if (s->n_bitmaps > QCOW2_BITMAPS_MAX)
		return vd_qcow2_bitmap_broken(s, e, 0, "%" PRIu32 " bitmaps are too many", s->n_bitmaps);
	if (s->bitmaps_len > QCOW2_BITMAP_DIR_MAX || s->bitmaps_len < least)
		return vd_qcow2_bitmap_broken(s, e, 0, "a directory of %" PRIu64 " bytes cannot be that of %" PRIu32 " bitmaps",
					      s->bitmaps_len, s->n_bitmaps);
	if (s->bitmaps_off % s->cluster_size || !vd_range_inside(s->bitmaps_off, s->bitmaps_len, atomic_load(&s->host_end)))
		return vd_qcow2_bitmap_broken(s, e, s->bitmaps_off,
					      "the bitmap directory of %" PRIu64 " bytes lies where none can be", s->bitmaps_len);
	other = vd_qcow2_overlaps(s, s->bitmaps_off, s->bitmaps_len);
	return other ? vd_qcow2_bitmap_broken(s, e, s->bitmaps_off, "the bitmap directory lies on the %s", other) : 0;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int judge_names(const struct vd_qcow2 *s, const struct vd_qcow2_bitmaps *list, struct vd_error *e)
{
	vd_auto_free const char **names = NULL;
	int r = vd_alloc(list->n, sizeof(*names), &names, e);

	if (r < 0)
		return r;
	for (size_t i = 0; i < list->n; i++)
		names[i] = list->at[i].name;
	qsort(names, list->n, sizeof(*names), compare_names);
	for (size_t i = 1; i < list->n; i++)
		if (!strcmp(names[i - 1], names[i]))
			return vd_qcow2_bitmap_broken(s, e, s->bitmaps_off, "two bitmaps have the name '%s'", names[i]);
	return 0;
}

static int compare_tables(const void *a, const void *b)
{
	const struct vd_qcow2_bitmap *const *x = a, *const *y = b;

	return (*x)->table_off < (*y)->table_off ? -1 : (*x)->table_off > (*y)->table_off;
}

static void shares(struct vd_qcow2_bitmap *b)
{
	b->shares_table = true;
	if (!b->unusable)
		b->unusable = "its table lies on that of another";
}

/* So that all tables together are no more than the file, however many bitmaps there are. */
static int judge_overlaps(struct vd_qcow2_bitmaps *list, struct vd_error *e)
{
	vd_auto_free struct vd_qcow2_bitmap **by_place = NULL;
	struct vd_qcow2_bitmap *last = NULL;
	int r = vd_alloc(list->n, sizeof(*by_place), &by_place, e);
	size_t n = 0;

	if (r < 0)
		return r;
	for (size_t i = 0; i < list->n; i++)
		if (list->at[i].has_table)
			by_place[n++] = &list->at[i];
	qsort(by_place, n, sizeof(*by_place), compare_tables);
	for (size_t i = 0; i < n; i++) {
		struct vd_qcow2_bitmap *b = by_place[i];

		if (last && b->table_off < last->table_off + (uint64_t)last->table_size * 8) {
			shares(last);
			shares(b);
		}
		if (!last || b->table_off + (uint64_t)b->table_size * 8 > last->table_off + (uint64_t)last->table_size * 8)
			last = b;
	}
	return 0;
}

static int read_directory(const struct vd_qcow2 *s, struct vd_qcow2_bitmaps *list, struct vd_error *e)
{
	uint64_t len = s->bitmaps_len;
	struct vd_reader r;
	char *room;
	int err = vd_alloc(len, 1, &list->raw, e);

	/* An entry has more bytes before its name than the name's end needs. */
	if (err == 0)
		err = vd_alloc(len, 1, &list->names, e);
	if (err == 0)
		err = vd_alloc(s->n_bitmaps, sizeof(*list->at), &list->at, e);
	if (err == 0)
		err = vd_set_pread(s->set, 0, list->raw, len, s->bitmaps_off, e);
	r = vd_reader_of(list->raw, len);
	room = list->names;
	for (; list->n < s->n_bitmaps && err == 0; list->n++)
		err = take_entry(s, &r, &room, &list->at[list->n], e);
	if (err == 0 && vd_reader_left(&r))
		return vd_qcow2_bitmap_broken(s, e, s->bitmaps_off + r.pos, "the bitmap directory has bytes past its last entry");
	if (err == 0)
		err = judge_names(s, list, e);
	return err < 0 ? err : judge_overlaps(list, e);
}

VD_DEFINE_CLEANUP(struct vd_qcow2_bitmaps, cleanup_bitmaps, vd_qcow2_bitmaps_free)

int vd_qcow2_bitmaps_read(const struct vd_qcow2 *s, struct vd_qcow2_bitmaps **out, struct vd_error *e)
{
	__attribute__((cleanup(cleanup_bitmaps))) struct vd_qcow2_bitmaps *list = NULL;
	int r = vd_alloc(1, sizeof(*list), &list, e);

	if (r == 0 && s->n_bitmaps)
		r = judge_place(s, e);
	if (r == 0 && s->n_bitmaps)
		r = read_directory(s, list, e);
	if (r < 0)
		return r;
	list->disk_size = s->h.size;
	*out = vd_steal(&list);
	return 0;
}

void vd_qcow2_bitmaps_free(struct vd_qcow2_bitmaps *list)
{
	if (!list)
		return;
	free(list->at);
	free(list->names);
	free(list->raw);
	free(list);
}

/* ---- tables ----------------------------------------------------------------------------------------------- */

int vd_qcow2_bitmap_words(const struct vd_qcow2 *s, const struct vd_qcow2_bitmap *b, uint64_t first, uint64_t n,
			  uint64_t *words, struct vd_error *e)
{
	int r = vd_set_pread(s->set, 0, words, n * 8, b->table_off + first * 8, e);

	for (uint64_t i = 0; i < n && r == 0; i++)
		words[i] = vd_get_be64(&words[i]);
	return r;
}

int vd_qcow2_bitmap_judge_word(const struct vd_qcow2 *s, const struct vd_qcow2_bitmap *b, uint64_t i, uint64_t word,
			       struct vd_error *e)
{
	uint64_t off = word & QCOW2_OFFSET_MASK, at = b->table_off + i * 8;
	const char *other;

	if (word & QCOW2_BITMAP_RESERVED || (off && word & QCOW2_BITMAP_ONES))
		return vd_qcow2_bitmap_broken(s, e, at, "bitmap '%s': table entry 0x%016" PRIx64 " has reserved bits set",
					      b->name, word);
	if (!off)
		return 0;
	if (off % s->cluster_size || !vd_range_inside(off, s->cluster_size, atomic_load(&s->host_end)))
		return vd_qcow2_bitmap_broken(s, e, at, "bitmap '%s': its bits at %" PRIu64 " lie where none can be", b->name,
					      off);
	other = vd_qcow2_overlaps(s, off, s->cluster_size);
	return other ? vd_qcow2_bitmap_broken(s, e, at, "bitmap '%s': its bits at %" PRIu64 " lie on the %s", b->name, off,
					      other) : 0;
}
