/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reads and makes the parent locator, and tells the parent from another disk. */
#include "formats/vhdx/vhdx.h"

#include <stdio.h>

#include "libvdisk/base/utf16.h"

#define HEAD_BYTES 20u
#define PAIR_BYTES 12u
#define PAIRS_MAX 64u
#define KEY_MAX 64

static const uint8_t type_vhdx[VD_GUID_LEN] = {
	0xb7, 0xef, 0x4a, 0xb0, 0x9e, 0xd1, 0x81, 0x4a, 0xb7, 0x89, 0x25, 0xb8, 0xe9, 0x44, 0x59, 0x13,
};
/* In the order in which they are to be tried (MS-VHDX 2.6.2.6.3). */
static const char *const paths[] = { "relative_path", "volume_path", "absolute_win32_path" };
#define N_PATHS (sizeof(paths) / sizeof(paths[0]))

/* ---- reading -------------------------------------------------------------------------------------------- */

/* False: outside the item, no text, or too long. */
static bool text_at(struct vd_bytes item, uint32_t off, uint16_t len, char *out, size_t cap)
{
	return vd_range_inside(off, len, item.len) &&
	       vd_utf16_decode((struct vd_bytes){ item.p + off, len }, VD_UTF16_LE, out, cap);
}

/* The value of a key; *out is empty where it has none. */
static int value_of(const struct vd_vhdx *s, struct vd_bytes item, const char *key, uint64_t at, char out[VD_PARENT_NAME_MAX],
		    struct vd_error *e)
{
	uint32_t n = vd_get_le16(item.p + 18);

	out[0] = '\0';
	for (uint32_t i = 0; i < n; i++) {
		const uint8_t *pair = item.p + HEAD_BYTES + i * PAIR_BYTES;
		char name[KEY_MAX];

		if (!text_at(item, vd_get_le32(pair), vd_get_le16(pair + 8), name, sizeof(name)) || strcmp(name, key))
			continue;
		if (!text_at(item, vd_get_le32(pair + 4), vd_get_le16(pair + 10), out, VD_PARENT_NAME_MAX))
			return vd_corrupt(s->name, e, at, "the parent locator's %s is no text", key);
		return 0;
	}
	return 0;
}

static int read_linkage(struct vd_vhdx *s, struct vd_bytes item, const char *key, uint64_t at, struct vd_error *e)
{
	char text[VD_PARENT_NAME_MAX];
	int r = value_of(s, item, key, at, text, e);

	if (r == 0 && text[0] && !vd_guid_parse(text, s->linkage[s->n_linkages]))
		return vd_corrupt(s->name, e, at, "the parent locator's %s is no identifier", key);
	if (r == 0 && text[0])
		s->n_linkages++;
	return r;
}

static int judge_item(const struct vd_vhdx *s, struct vd_bytes item, uint64_t at, struct vd_error *e)
{
	char guid[VD_GUID_TEXT_LEN];

	if (item.len < HEAD_BYTES || vd_get_le16(item.p + 18) > PAIRS_MAX ||
	    item.len < HEAD_BYTES + vd_get_le16(item.p + 18) * PAIR_BYTES)
		return vd_corrupt(s->name, e, at, "the parent locator of %zu bytes is too short for what it says to hold", item.len);
	if (!memcmp(item.p, type_vhdx, VD_GUID_LEN))
		return 0;
	vd_guid_show(item.p, true, guid);
	return vd_fail_at(e, VD_EUNSUPPORTED, at, "a parent locator of type %s is not known", guid);
}

int vd_vhdx_locator_read(struct vd_vhdx *s, struct vd_bytes item, uint64_t at, struct vd_error *e)
{
	char text[VD_PARENT_NAME_MAX];
	int r = judge_item(s, item, at, e);

	if (r == 0)
		r = read_linkage(s, item, "parent_linkage", at, e);
	if (r == 0 && !s->n_linkages)
		r = vd_corrupt(s->name, e, at, "the parent locator has no parent_linkage");
	if (r == 0)
		r = read_linkage(s, item, "parent_linkage2", at, e);
	for (size_t i = 0; i < N_PATHS && r == 0; i++) {
		r = value_of(s, item, paths[i], at, text, e);
		if (r == 0)
			r = vd_parent_names_add(&s->parent, text, e);
	}
	if (r == 0 && !s->parent.n)
		r = vd_corrupt(s->name, e, at, "the parent locator names no file");
	if (r == 0)
		vd_guid_show(s->linkage[0], true, s->parent_id);
	return r;
}

int vd_vhdx_check_parent(void *st, const void *parent, struct vd_error *e)
{
	const struct vd_vhdx *s = st, *p = parent;

	for (unsigned i = 0; i < s->n_linkages; i++)
		if (!memcmp(s->linkage[i], p->h.data_write, VD_GUID_LEN))
			return 0;
	vd_fail(e, VD_EREFERENCE, "its parent's content has the identifier %s, but that of %s has %s", s->parent_id, p->name, p->id);
	return vd_hint(e, VD_EREFERENCE, "it is another disk, or was written since: restore the parent as it was, on another one the disk is garbage");
}

/* ---- making --------------------------------------------------------------------------------------------- */

struct locator {
	uint8_t *raw;
	size_t cap, used;
	unsigned n;
};

static bool put_text(struct locator *l, const char *text, uint32_t *off, uint16_t *len)
{
	size_t n;

	if (!vd_utf16_encode(text, VD_UTF16_LE, l->raw + l->used, l->cap - l->used, &n) || n > UINT16_MAX)
		return false;
	*off = l->used;
	*len = n;
	l->used += n;
	return true;
}

/* Key and value behind all that was put before. */
static bool put_pair(struct locator *l, const char *key, const char *value)
{
	uint8_t *pair = l->raw + HEAD_BYTES + l->n * PAIR_BYTES;
	uint32_t key_off, value_off;
	uint16_t key_len, value_len;

	if (!put_text(l, key, &key_off, &key_len) || !put_text(l, value, &value_off, &value_len))
		return false;
	vd_put_le32(pair, key_off);
	vd_put_le32(pair + 4, value_off);
	vd_put_le16(pair + 8, key_len);
	vd_put_le16(pair + 10, value_len);
	vd_put_le16(l->raw + 18, ++l->n);
	return true;
}

static bool put_linkage(struct locator *l, const char *key, const uint8_t id[VD_GUID_LEN])
{
	char text[VD_GUID_TEXT_LEN], value[VD_GUID_TEXT_LEN + 2];

	vd_guid_show(id, true, text);
	snprintf(value, sizeof(value), "{%s}", text);
	return put_pair(l, key, value);
}

/* Of what is no text here nothing was ever found. */
static bool keep_names(struct locator *l, struct vd_bytes old)
{
	uint32_t n = vd_get_le16(old.p + 18);
	bool fits = true;

	for (uint32_t i = 0; i < n && fits; i++) {
		const uint8_t *pair = old.p + HEAD_BYTES + i * PAIR_BYTES;
		char key[KEY_MAX], value[VD_PARENT_NAME_MAX];

		if (text_at(old, vd_get_le32(pair), vd_get_le16(pair + 8), key, sizeof(key)) &&
		    text_at(old, vd_get_le32(pair + 4), vd_get_le16(pair + 10), value, sizeof(value)) &&
		    strncmp(key, "parent_linkage", strlen("parent_linkage")))
			fits = put_pair(l, key, value);
	}
	return fits;
}

/* A relative name for Windows; an absolute one is of this machine, and written as it is. */
int vd_vhdx_locator_build(const struct vd_vhdx_locator_next *next, uint8_t *raw, size_t cap, size_t *len, struct vd_error *e)
{
	size_t n_pairs = next->n_linkages + (next->name ? 1 : vd_get_le16(next->old.p + 18));
	struct locator l = { .raw = raw, .cap = cap, .used = HEAD_BYTES + n_pairs * PAIR_BYTES };
	bool is_absolute = next->name && vd_parent_name_is_absolute(next->name), fits;
	char text[VD_PARENT_NAME_MAX];
	int r = is_absolute || !next->name ? 0 : vd_parent_name_for_windows(next->name, text, sizeof(text), e);

	if (r < 0)
		return r;
	memset(raw, 0, l.used);
	memcpy(raw, type_vhdx, VD_GUID_LEN);
	fits = put_linkage(&l, "parent_linkage", next->linkage[0]) &&
	       (next->n_linkages < 2 || put_linkage(&l, "parent_linkage2", next->linkage[1]));
	if (fits && next->name)
		fits = put_pair(&l, is_absolute ? "absolute_win32_path" : "relative_path", is_absolute ? next->name : text);
	else if (fits)
		fits = keep_names(&l, next->old);
	if (!fits)
		return vd_fail(e, VD_EARG, "the name of the backing file is no UTF-8, or too long for a VHDX");
	*len = l.used;
	return 0;
}
