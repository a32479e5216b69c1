/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changes the header cluster: header, extensions, backing file name. What they say is others'; here a new arrangement of
 * them comes into force by one write of the first sector, which storage does wholly or not at all.
 *
 *  H1  Bytes past the first sector that the header in force counts on are never written. New ones go where it has none.
 *  H2  They are durable before the first sector is written, and that before success is told.
 *  H3  Where the new arrangement needs the place of the old one, it first comes into force further back: an extension of
 *      unknown type, which every reader skips, spans the old one. Then the way to its place is free.
 */
#include "formats/qcow2/qcow2_head.h"

#include <stdlib.h>

#include "formats/qcow2/qcow2_shape.h"
#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/base/cursor.h"

#define SECTOR 512
#define AT_BACKING 8                    /* backing_off:u64 backing_len:u32 */
#define EXT_HEAD 8                      /* type:u32 len:u32 */
#define EXT_SPAN 0x76647370u            /* keeps H3; "vdsp" */

/* Where things are in a header cluster. What is between them is not counted on. */
struct arrangement {
	uint8_t *raw;                   /* the cluster */
	size_t fixed_end, list_at, list_end, name_at, name_len;
};

/* ---- taking apart --------------------------------------------------------------------------------------- */

static size_t padded(size_t len)
{
	return (len + 7) & ~(size_t)7;
}

/* Where the list ends that begins at header_length, its end mark not counted; it was judged on open. */
static size_t find_list_end(const struct vd_qcow2 *s, const uint8_t *raw, bool *is_marked)
{
	size_t limit = s->h.backing_off ? s->h.backing_off : s->cluster_size, at = s->h.header_length;

	*is_marked = false;
	while (at + EXT_HEAD <= limit) {
		uint32_t type = vd_get_be32(raw + at);
		size_t len = vd_get_be32(raw + at + 4);

		*is_marked = type == QCOW2_EXT_END;
		if (*is_marked || len > limit - at - EXT_HEAD)
			break;
		at += EXT_HEAD + padded(len);
	}
	return at < limit ? at : limit;
}

static int read_cluster(const struct vd_qcow2 *s, struct arrangement *now, struct vd_error *e)
{
	bool is_marked;
	int r = vd_alloc(s->cluster_size, 1, &now->raw, e);

	if (r == 0)
		r = vd_io_pread(vd_set_io(s->set, 0), now->raw, s->cluster_size, 0, e);
	if (r < 0)
		return r;
	now->fixed_end = now->list_at = s->h.header_length;
	now->list_end = find_list_end(s, now->raw, &is_marked) + (is_marked ? EXT_HEAD : 0);
	now->name_at = s->h.backing_off;
	now->name_len = s->h.backing_off ? s->h.backing_len : 0;
	return 0;
}

int vd_qcow2_head_read(const struct vd_qcow2 *s, struct vd_qcow2_head *h, struct vd_error *e)
{
	struct arrangement now = { 0 };
	vd_auto_free uint8_t *raw = NULL;
	size_t list_len;
	bool is_marked;
	int r = read_cluster(s, &now, e);

	*h = (struct vd_qcow2_head){ 0 };
	raw = now.raw;
	if (r < 0)
		return r;
	h->fixed_len = s->h.header_length;
	list_len = find_list_end(s, raw, &is_marked) - h->fixed_len;
	/* The padding of the last one may be missing. */
	h->list_len = padded(list_len);
	r = vd_memdup(raw, h->fixed_len, &h->fixed, e);
	if (r == 0)
		r = vd_alloc(h->list_len, 1, &h->list, e);
	if (r < 0)
		return r;
	memcpy(h->list, raw + h->fixed_len, list_len);
	if (s->backing_file)
		r = vd_strdup(s->backing_file, &h->backing_file, e);
	return r;
}

void vd_qcow2_head_free(struct vd_qcow2_head *h)
{
	free(h->fixed);
	free(h->list);
	free(h->backing_file);
}

/* ---- changing ------------------------------------------------------------------------------------------- */

/* The extension's place and length, padding counted; one that is not there has its place at the list's end. */
static size_t find(const struct vd_qcow2_head *h, uint32_t type, size_t *len)
{
	size_t at = 0;

	for (*len = 0; at + EXT_HEAD <= h->list_len; at += *len) {
		*len = EXT_HEAD + padded(vd_get_be32(h->list + at + 4));
		*len = vd_min_u64(*len, h->list_len - at);
		if (vd_get_be32(h->list + at) == type)
			return at;
	}
	*len = 0;
	return h->list_len;
}

/* Behind the LUKS extension, which stays in one sector with the header, and before all others. */
static size_t place_for_new(const struct vd_qcow2_head *h)
{
	size_t len, at = find(h, QCOW2_EXT_LUKS, &len);

	return at == 0 ? len : 0;
}

int vd_qcow2_head_put(struct vd_qcow2_head *h, uint32_t type, const void *data, size_t len, struct vd_error *e)
{
	size_t old_len, at = find(h, type, &old_len), new_len = data ? EXT_HEAD + padded(len) : 0;
	size_t rest = h->list_len - at - old_len;
	uint8_t *list;
	int r;

	if (!old_len && data) {
		at = place_for_new(h);
		rest = h->list_len - at;
	}
	r = vd_alloc(at + new_len + rest, 1, &list, e);
	if (r < 0)
		return r;
	memcpy(list, h->list, at);
	if (data) {
		vd_put_be32(list + at, type);
		vd_put_be32(list + at + 4, len);
		memcpy(list + at + EXT_HEAD, data, len);
	}
	memcpy(list + at + new_len, h->list + at + old_len, rest);
	free(h->list);
	h->list = list;
	h->list_len = at + new_len + rest;
	return 0;
}

int vd_qcow2_head_set_backing_file(struct vd_qcow2_head *h, const char *name, struct vd_error *e)
{
	char *copy = NULL;
	int r = name ? vd_strdup(name, &copy, e) : 0;

	if (r < 0)
		return r;
	free(h->backing_file);
	h->backing_file = copy;
	return 0;
}

/* ---- arranging ------------------------------------------------------------------------------------------ */

/* With the list at list_at and the name, if any, at name_at or right behind the list, whichever is further back. */
static int arrange(const struct vd_qcow2 *s, const struct vd_qcow2_head *h, size_t list_at, size_t name_at,
		   struct arrangement *a, struct vd_error *e)
{
	size_t name_len = h->backing_file ? strlen(h->backing_file) : 0;
	struct vd_writer w;
	int r = vd_alloc(s->cluster_size, 1, &a->raw, e);

	if (r < 0)
		return r;
	w = vd_writer_of(a->raw, s->cluster_size);
	vd_write_bytes(&w, h->fixed, h->fixed_len);
	if (list_at > h->fixed_len) {
		vd_write_be32(&w, EXT_SPAN);
		vd_write_be32(&w, list_at - h->fixed_len - EXT_HEAD);
		vd_write_zeros(&w, list_at - h->fixed_len - EXT_HEAD);
	}
	vd_write_bytes(&w, h->list, h->list_len);
	vd_write_zeros(&w, EXT_HEAD);
	a->fixed_end = h->fixed_len;
	a->list_at = list_at;
	a->list_end = w.pos;
	if (name_at > w.pos)
		vd_write_zeros(&w, name_at - w.pos);
	a->name_at = name_len ? w.pos : 0;
	a->name_len = name_len;
	vd_write_bytes(&w, h->backing_file, name_len);
	if (w.failed)
		return vd_fail(e, VD_EUNSUPPORTED, "%s: the names of other files do not fit the header: a cluster has %" PRIu64 " bytes",
			       s->name, s->cluster_size);
	vd_put_be64(a->raw + AT_BACKING, a->name_at);
	vd_put_be32(a->raw + AT_BACKING + 8, a->name_len);
	return 0;
}

int vd_qcow2_head_judge(const struct vd_qcow2 *s, const struct vd_qcow2_head *h, struct vd_error *e)
{
	struct arrangement a = { 0 };
	int r = arrange(s, h, h->fixed_len, 0, &a, e);

	free(a.raw);
	return r;
}

static size_t end_of(const struct arrangement *a)
{
	return vd_max_u64(a->list_end, a->name_at + a->name_len);
}

/* What a span covers is not: the list begins behind it. */
static bool is_used(const struct arrangement *a, size_t i)
{
	return i < a->fixed_end || (i >= a->list_at && i < a->list_end) || (i >= a->name_at && i < a->name_at + a->name_len);
}

/* Whether bytes of a that lie past the first sector would take the place of what `now` counts on (H1). */
static bool clashes(const struct vd_qcow2 *s, const struct arrangement *now, const struct arrangement *a)
{
	size_t end = vd_min_u64(vd_min_u64(end_of(now), end_of(a)), s->cluster_size);

	for (size_t i = SECTOR; i < end; i++)
		if (is_used(now, i) && is_used(a, i) && now->raw[i] != a->raw[i])
			return true;
	return false;
}

/* ---- writing -------------------------------------------------------------------------------------------- */

static int write_tail(const struct vd_qcow2 *s, const uint8_t *raw, size_t end, struct vd_error *e)
{
	int r = 0;

	if (end > SECTOR)
		r = vd_set_pwrite(s->set, 0, raw + SECTOR, end - SECTOR, SECTOR, e);
	return r < 0 ? r : vd_set_flush(s->set, e);
}

/* From `now` to a, which do not clash; *begun: the first sector may have been written. */
static int go(const struct vd_qcow2 *s, const struct arrangement *now, const struct arrangement *a, bool *begun,
	      struct vd_error *e)
{
	size_t end = vd_max_u64(end_of(now), end_of(a));
	vd_auto_free uint8_t *both = NULL;
	int r = vd_memdup(a->raw, s->cluster_size, &both, e);

	if (r < 0)
		return r;
	for (size_t i = SECTOR; i < end; i++)
		if (is_used(now, i))
			both[i] = now->raw[i];
	r = write_tail(s, both, end, e);
	if (r < 0)
		return r;
	*begun = true;
	r = vd_set_pwrite(s->set, 0, a->raw, vd_min_u64(SECTOR, s->cluster_size), 0, e);
	if (r == 0)
		r = vd_set_flush(s->set, e);
	/* And nothing of the old one is left. */
	return r < 0 ? r : write_tail(s, a->raw, end, e);
}

/* Keeps H3. */
static int go_by_detour(const struct vd_qcow2 *s, const struct vd_qcow2_head *h, const struct arrangement *now,
			const struct arrangement *a, bool *begun, struct vd_error *e)
{
	struct arrangement detour = { 0 };
	vd_auto_free uint8_t *raw = NULL;
	size_t at = padded(vd_max_u64(SECTOR, vd_max_u64(end_of(now), end_of(a))));
	int r;

	if (h->fixed_len + EXT_HEAD > SECTOR)
		return vd_fail(e, VD_EUNSUPPORTED, "%s: its header of %zu bytes is longer than what can be changed in one write",
			       s->name, h->fixed_len);
	r = arrange(s, h, at, 0, &detour, e);
	raw = detour.raw;
	if (r == 0)
		r = go(s, now, &detour, begun, e);
	return r < 0 ? r : go(s, &detour, a, begun, e);
}

static int change(const struct vd_qcow2 *s, const struct vd_qcow2_head *h, bool *begun, struct vd_error *e)
{
	struct arrangement now = { 0 }, plain = { 0 }, behind = { 0 };
	vd_auto_free uint8_t *now_raw = NULL, *plain_raw = NULL, *behind_raw = NULL;
	int r = read_cluster(s, &now, e);

	now_raw = now.raw;
	if (r == 0)
		r = arrange(s, h, h->fixed_len, 0, &plain, e);
	plain_raw = plain.raw;
	if (r < 0)
		return r;
	if (!clashes(s, &now, &plain))
		return go(s, &now, &plain, begun, e);
	/* The same with the name behind all that is there: usually that is enough. */
	r = arrange(s, h, h->fixed_len, end_of(&now), &behind, NULL);
	behind_raw = behind.raw;
	if (r == 0 && !clashes(s, &now, &behind))
		return go(s, &now, &behind, begun, e);
	return go_by_detour(s, h, &now, &plain, begun, e);
}

/* ---- the whole ------------------------------------------------------------------------------------------ */

/* From here on this handle knows what is on disk. */
static int adopt(struct vd_qcow2 *s, struct vd_error *e)
{
	struct vd_io *io = vd_set_io(s->set, 0);
	uint64_t size = 0;
	int r = vd_io_size(io, &size, e);

	free(vd_steal(&s->backing_file));
	free(vd_steal(&s->backing_format));
	free(vd_steal(&s->key_notes));
	s->key_notes_len = 0;
	s->key_area_off = s->key_area_len = s->key_area_at = 0;
	/* Its first page may be in the cache, where a refcount table once moved. */
	vd_meta_forget_all(s->meta);
	if (r == 0)
		r = vd_qcow2_header_read(s, io, size, e);
	return r < 0 ? r : vd_qcow2_judge_tables(s, size, e);
}

int vd_qcow2_head_switch(struct vd_qcow2 *s, const struct vd_qcow2_head *h, struct vd_error *e)
{
	bool begun = false;
	int r = change(s, h, &begun, e);

	if (r == 0)
		r = adopt(s, e);
	return r < 0 && begun ? vd_qcow2_unsure(s, e) : r;
}

int vd_qcow2_keep_notes(void *st, const char *text, struct vd_error *e)
{
	struct vd_qcow2 *s = st;
	vd_auto_head struct vd_qcow2_head h = { 0 };
	int r = vd_qcow2_head_read(s, &h, e);

	if (r == 0)
		r = vd_qcow2_head_put(&h, QCOW2_EXT_KEY_NOTES, text, strlen(text), e);
	return r < 0 ? r : vd_qcow2_head_switch(s, &h, e);
}
