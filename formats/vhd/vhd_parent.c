/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reads and makes the names by which a differencing disk knows its parent, and tells the parent from another disk. */
#include "formats/vhd/vhd.h"

#include "libvdisk/base/cursor.h"
#include "libvdisk/base/utf16.h"

#define URL "file://"

/* A locator's text; *out is empty when it is of no kind known here, or no text. */
static int locator_text(const struct vd_vhd_locator *l, struct vd_io *io, uint64_t file_size,
			char out[VD_PARENT_NAME_MAX], struct vd_error *e)
{
	uint8_t raw[VHD_LOCATOR_BYTES_MAX];
	int r;

	out[0] = '\0';
	if (!l->length || l->length > sizeof(raw) || !vd_range_inside(l->offset, l->length, file_size))
		return 0;
	r = vd_io_pread(io, raw, l->length, l->offset, e);
	if (r < 0)
		return r;
	if (l->code == VHD_MACX) {
		size_t skip = l->length > strlen(URL) && !memcmp(raw, URL, strlen(URL)) ? strlen(URL) : 0;
		size_t len = strnlen((char *)raw + skip, l->length - skip);

		if (len < VD_PARENT_NAME_MAX) {
			memcpy(out, raw + skip, len);
			out[len] = '\0';
		}
	} else if (!vd_utf16_decode((struct vd_bytes){ raw, l->length }, VD_UTF16_LE, out, VD_PARENT_NAME_MAX)) {
		out[0] = '\0';
	}
	return 0;
}

static int add_locators(struct vd_vhd *s, uint32_t code, struct vd_io *io, uint64_t file_size, struct vd_error *e)
{
	char text[VD_PARENT_NAME_MAX];
	int r = 0;

	for (int i = 0; i < VHD_LOCATORS && r == 0; i++) {
		if (s->h.locators[i].code != code)
			continue;
		r = locator_text(&s->h.locators[i], io, file_size, text, e);
		if (r == 0)
			r = vd_parent_names_add(&s->parent, text, e);
	}
	return r;
}

int vd_vhd_parent_read(struct vd_vhd *s, struct vd_io *io, uint64_t file_size, struct vd_error *e)
{
	const struct vd_bytes in_header = { s->h.parent_name, VHD_NAME_BYTES };
	char text[VD_PARENT_NAME_MAX];
	int r = add_locators(s, VHD_W2RU, io, file_size, e);

	vd_guid_show(s->h.parent_id, false, s->parent_id);
	if (r == 0)
		r = add_locators(s, VHD_W2KU, io, file_size, e);
	if (r == 0 && vd_utf16_decode(in_header, VD_UTF16_BE, text, sizeof(text)))
		r = vd_parent_names_add(&s->parent, text, e);
	if (r == 0)
		r = add_locators(s, VHD_MACX, io, file_size, e);
	if (r == 0 && !s->parent.n)
		r = vd_corrupt(s->name, e, s->f.data_offset, "a differencing disk that names no parent");
	return r;
}

/*
 * The identifier tells another disk. The time tells the same disk written since: a writer that keeps to the rules
 * stamps the footer at its first write, and nothing of the child holds any more then. An older stamp is the rule for
 * children made by Windows, which note the time of the parent's file instead.
 */
int vd_vhd_check_parent(void *st, const void *parent, struct vd_error *e)
{
	const struct vd_vhd *s = st, *p = parent;

	if (memcmp(s->h.parent_id, p->f.id, VD_GUID_LEN)) {
		vd_fail(e, VD_EREFERENCE, "its parent is the disk %s, but %s is the disk %s", s->parent_id, p->name, p->id);
		return vd_hint(e, VD_EREFERENCE, "put the right parent in its place: with another one below the disk is garbage");
	}
	if (p->f.time > s->h.parent_time) {
		vd_fail(e, VD_EREFERENCE, "its parent %s was written after the image was made on it", p->name);
		return vd_hint(e, VD_EREFERENCE, "restore the parent as it was: on the changed one the disk is garbage");
	}
	return 0;
}

/* ---- making --------------------------------------------------------------------------------------------- */

/* A relative name for Windows; an absolute one is of this machine, and written as it is. */
int vd_vhd_locator_build(const char *name, struct vd_vhd_locator_text *out, struct vd_error *e)
{
	char text[VD_PARENT_NAME_MAX];
	int r;

	out->code = vd_parent_name_is_absolute(name) ? VHD_W2KU : VHD_W2RU;
	if (out->code == VHD_W2RU) {
		r = vd_parent_name_for_windows(name, text, sizeof(text), e);
		if (r < 0)
			return r;
		name = text;
	}
	if (vd_utf16_encode(name, VD_UTF16_LE, out->raw, sizeof(out->raw), &out->len))
		return 0;
	return vd_fail(e, VD_EARG, "the name of the backing file is no UTF-8, or too long for a VHD");
}

/* The last part of the parent's name; what does not fit, or is no text, is left out: the locator counts. */
static void put_name(struct vd_writer *w, const char *name)
{
	const char *slash = strrchr(name, '/');
	uint8_t raw[VHD_NAME_BYTES] = { 0 };
	size_t len;

	if (!vd_utf16_encode(slash ? slash + 1 : name, VD_UTF16_BE, raw, sizeof(raw) - 2, &len))
		memset(raw, 0, sizeof(raw));
	vd_write_bytes(w, raw, sizeof(raw));
}

void vd_vhd_header_seal(uint8_t raw[VHD_HEADER_BYTES])
{
	vd_put_be32(raw + VHD_AT_HEADER_CHECKSUM, vd_vhd_checksum(raw, VHD_HEADER_BYTES, VHD_AT_HEADER_CHECKSUM));
}

void vd_vhd_header_set_parent(uint8_t raw[VHD_HEADER_BYTES], const uint8_t id[VD_GUID_LEN], uint32_t time, const char *name,
			      const struct vd_vhd_locator_text *l, uint64_t locator_off)
{
	struct vd_writer w = vd_writer_of(raw + VHD_AT_PARENT_ID, VHD_AT_PARENT_END - VHD_AT_PARENT_ID);

	memset(raw + VHD_AT_PARENT_ID, 0, VHD_AT_PARENT_END - VHD_AT_PARENT_ID);
	if (name) {
		vd_write_bytes(&w, id, VD_GUID_LEN);
		vd_write_be32(&w, time);
		vd_write_be32(&w, 0);
		put_name(&w, name);
		vd_write_be32(&w, l->code);
		vd_write_be32(&w, vd_round_up(l->len, VHD_SECTOR));
		vd_write_be32(&w, l->len);
		vd_write_be32(&w, 0);
		vd_write_be64(&w, locator_off);
	}
	vd_vhd_header_seal(raw);
}
