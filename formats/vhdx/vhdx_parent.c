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

int vd_vhdx_check_parent(const void *st, const void *parent, struct vd_error *e)
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
	unsigned n, n_pairs;
};

/* Key and value behind all that was put before. */
static bool put_pair(struct locator *l, const char *key, const char *value)
{
	uint8_t *pair = l->raw + HEAD_BYTES + l->n * PAIR_BYTES;
	size_t key_len, value_len;

	if (!vd_utf16_encode(key, VD_UTF16_LE, l->raw + l->used, l->cap - l->used, &key_len))
		return false;
	vd_put_le32(pair, l->used);
	vd_put_le16(pair + 8, key_len);
	l->used += key_len;
	if (!vd_utf16_encode(value, VD_UTF16_LE, l->raw + l->used, l->cap - l->used, &value_len) || value_len > UINT16_MAX)
		return false;
	vd_put_le32(pair + 4, l->used);
	vd_put_le16(pair + 10, value_len);
	l->used += value_len;
	vd_put_le16(l->raw + 18, ++l->n);
	return true;
}

/* A relative name for Windows; an absolute one is of this machine, and written as it is. */
int vd_vhdx_locator_build(const struct vd_vhdx *parent, const char *name, uint8_t *raw, size_t cap, size_t *len,
			  struct vd_error *e)
{
	struct locator l = { .raw = raw, .cap = cap, .used = HEAD_BYTES + 2 * PAIR_BYTES };
	bool is_absolute = vd_parent_name_is_absolute(name);
	char text[VD_PARENT_NAME_MAX], linkage[VD_GUID_TEXT_LEN + 2];
	int r = is_absolute ? 0 : vd_parent_name_for_windows(name, text, sizeof(text), e);

	if (r < 0)
		return r;
	memset(raw, 0, l.used);
	memcpy(raw, type_vhdx, VD_GUID_LEN);
	snprintf(linkage, sizeof(linkage), "{%s}", parent->id);
	if (!put_pair(&l, "parent_linkage", linkage) ||
	    !put_pair(&l, is_absolute ? "absolute_win32_path" : "relative_path", is_absolute ? name : text))
		return vd_fail(e, VD_EARG, "the name of the backing file is no UTF-8, or too long for a VHDX");
	*len = l.used;
	return 0;
}
