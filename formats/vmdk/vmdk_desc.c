/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changes a descriptor so that a crash leaves the old text or the new one. What the text is to say is the caller's.
 *
 *   embedded   the new text in spare room; the header's sector, which says so, and whatever else of the extent changes; then
 *              the text in its old place, where some readers look for it always; the header
 *   alone      one sector of the file is written, so the change lies in one. Where that has no room for it, comments go, and
 *              lines that mean the same anywhere: first they are added at the end of the file, each sector durable before
 *              the next, which makes them stand there twice; then the one write makes the change and takes the first away
 *   exchanged  a new file of the whole text takes the name
 */
#include "formats/vmdk/vmdk_shape.h"

#include <ctype.h>
#include <stdlib.h>
#include <strings.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

#define AT_CAPACITY     12
#define AT_DESC_OFF     28

int vd_vmdk_write_durably(struct vd_vmdk *s, uint32_t file, const void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	int r = vd_set_pwrite(s->set, file, buf, len, off, e);

	return r < 0 ? r : vd_set_flush(s->set, e);
}

int vd_vmdk_unsure(const struct vd_vmdk *s, struct vd_error *e)
{
	vd_fail(e, VD_EPOISONED, "%s: the change of its shape may or may not have come into force", s->name);
	return vd_hint(e, VD_EPOISONED, "close the image and look at it again: it is the old disk or the new one");
}

int vd_vmdk_header_write(struct vd_vmdk *s, uint32_t file, const struct vd_vmdk_header_change *h, struct vd_error *e)
{
	const struct { size_t at; uint64_t value; } fields[] = {
		{ AT_CAPACITY, h->capacity }, { AT_DESC_OFF, h->desc_off }, { VMDK_AT_RGD, h->rgd_off },
		{ VMDK_AT_GD, h->gd_off }, { VMDK_AT_OVERHEAD, h->overhead },
	};
	uint8_t raw[VMDK_HEADER_LEN];
	int r = vd_set_pread(s->set, file, raw, sizeof(raw), 0, e);

	if (r < 0)
		return r;
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		if (fields[i].value)
			vd_put_le64(raw + fields[i].at, fields[i].value / VMDK_SECTOR);
	return vd_vmdk_write_durably(s, file, raw, sizeof(raw), 0, e);
}

/* ---- edits ----------------------------------------------------------------------------------------------- */

struct buffer {
	char *p;
	size_t len;
};

static void put(struct buffer *b, const char *p, size_t len)
{
	memcpy(b->p + b->len, p, len);
	b->len += len;
}

static void fill(struct buffer *b, size_t to)
{
	memset(b->p + b->len, '\n', to - b->len);
	b->len = to;
}

/* The text from `from` to `to` with the edits, all of which lie there. More is allocated than is used. */
static int apply(const char *text, size_t from, size_t to, const struct vd_vmdk_edit *edits, size_t n, struct buffer *out,
		 struct vd_error *e)
{
	size_t room = to - from + VMDK_SECTOR;
	int r;

	for (size_t i = 0; i < n; i++)
		room += strlen(edits[i].text);
	r = vd_alloc(room, 1, &out->p, e);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		put(out, text + from, edits[i].where.at - from);
		put(out, edits[i].text, strlen(edits[i].text));
		from = edits[i].where.at + edits[i].where.len;
	}
	put(out, text + from, to - from);
	return 0;
}

/* ---- room in a sector ------------------------------------------------------------------------------------ */

static bool is_comment(const char *line, size_t len)
{
	while (len && isspace((unsigned char)*line)) {
		line++;
		len--;
	}
	return !len || *line == '#';
}

/* A key that means the same wherever it stands. Some writers replace all that stands between the CIDs. */
static bool is_movable(const char *line, size_t len)
{
	static const char *const kept[] = { "version", "CID", "parentCID" };
	size_t n = 0;

	while (n < len && (isalnum((unsigned char)line[n]) || line[n] == '.' || line[n] == '_'))
		n++;
	for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++)
		if (n == strlen(kept[i]) && !strncasecmp(line, kept[i], n))
			return false;
	while (n < len && isblank((unsigned char)line[n]))
		n++;
	return n && n < len && line[n] == '=';
}

/*
 * The last whole line in the piece that can be spared: a comment, or a movable one as it was before the edits. The first
 * line of a file stays: it says what the file is.
 */
static bool find_spare(const struct buffer *piece, const char *was, bool comments, struct vd_vmdk_span *line)
{
	size_t end = piece->len, start;

	while (end && piece->p[end - 1] != '\n')
		end--;
	for (; end; end = start) {
		start = end - 1;
		while (start && piece->p[start - 1] != '\n')
			start--;
		/* The first line of the file, or the rest of one that begins in the sector before. */
		if (!start)
			return false;
		*line = (struct vd_vmdk_span){ start, end - start };
		if (comments ? is_comment(piece->p + start, end - start) :
		    is_movable(piece->p + start, end - start) && memmem(was, VMDK_SECTOR, piece->p + start, end - start))
			return true;
	}
	return false;
}

static void cut(struct buffer *piece, struct vd_vmdk_span line)
{
	memmove(piece->p + line.at, piece->p + line.at + line.len, piece->len - line.at - line.len);
	piece->len -= line.len;
}

/* No added line lies in two sectors: half of one would say something else. */
static void add_line(struct buffer *text, const char *line, size_t len)
{
	if (text->len % VMDK_SECTOR + len > VMDK_SECTOR)
		fill(text, vd_round_up(text->len, VMDK_SECTOR));
	put(text, line, len);
}

static int no_room(const struct vd_vmdk *s, struct vd_error *e)
{
	vd_fail(e, VD_EUNSUPPORTED, "%s: the change of its descriptor has no room in one sector, and no other way is safe", s->name);
	return vd_hint(e, VD_EUNSUPPORTED, "convert the disk: vdisk convert -O vmdk");
}

/* Takes lines out of the piece until it fits, onto the end of the text. */
static int make_room(const struct vd_vmdk *s, struct vd_vmdk_rewrite *w, struct buffer *piece, struct buffer *text,
		     struct vd_error *e)
{
	struct vd_vmdk_span line;

	while (piece->len > VMDK_SECTOR) {
		if (find_spare(piece, w->was, true, &line)) {
			cut(piece, line);
			continue;
		}
		if (!find_spare(piece, w->was, false, &line))
			return no_room(s, e);
		if (w->tail_at == SIZE_MAX) {
			w->tail_at = text->len;
			if (text->p[text->len - 1] != '\n')
				fill(text, text->len + 1);
		}
		add_line(text, piece->p + line.at, line.len);
		cut(piece, line);
	}
	return 0;
}

/* Blank lines before the one that goes on in the next sector. */
static bool pad(struct buffer *piece, size_t to)
{
	size_t at = piece->len, n = to - piece->len;

	while (at && piece->p[at - 1] != '\n')
		at--;
	if (!at)
		return !n;
	memmove(piece->p + at + n, piece->p + at, piece->len - at);
	memset(piece->p + at, '\n', n);
	piece->len = to;
	return true;
}

/* The new text of a file of its own. `text` has the old one, and room for a sector's lines twice. */
static int fit(struct vd_vmdk *s, struct vd_vmdk_rewrite *w, struct buffer *piece, struct buffer *text, struct vd_error *e)
{
	size_t from = w->sector * VMDK_SECTOR, was = vd_min_u64(text->len - from, VMDK_SECTOR);
	bool is_last = text->len - from <= VMDK_SECTOR, has_room;
	int r;

	if (is_last && piece->len <= VMDK_SECTOR) {
		if (piece->len < was)
			fill(piece, was);
		text->len = from + piece->len;
		memcpy(text->p + from, piece->p, piece->len);
		return 0;
	}
	if (is_last)
		fill(text, from + VMDK_SECTOR);
	r = make_room(s, w, piece, text, e);
	if (r < 0)
		return r;
	has_room = is_last || pad(piece, VMDK_SECTOR);
	if (!has_room)
		return no_room(s, e);
	if (is_last)
		fill(piece, VMDK_SECTOR);
	memcpy(text->p + from, piece->p, VMDK_SECTOR);
	return 0;
}

static int prepare_alone(struct vd_vmdk *s, const char *old, const struct vd_vmdk_edit *edits, size_t n,
			 struct vd_vmdk_rewrite *w, struct vd_error *e)
{
	const struct vd_vmdk_edit *last = &edits[n - 1];
	size_t from = vd_round_down(edits[0].where.at, VMDK_SECTOR), to = vd_min_u64(from + VMDK_SECTOR, s->text_len);
	struct buffer piece = { 0 }, text = { .len = s->text_len };
	int r;

	w->sector = from / VMDK_SECTOR;
	if (last->where.at + last->where.len > to)
		return no_room(s, e);
	r = vd_alloc(text.len + 4 * VMDK_SECTOR, 1, &text.p, e);
	if (r < 0)
		return r;
	w->text = text.p;
	memcpy(text.p, old, text.len);
	memset(w->was, '\n', VMDK_SECTOR);
	memcpy(w->was, old + from, to - from);
	r = apply(old, from, to, edits, n, &piece, e);
	if (r == 0)
		r = fit(s, w, &piece, &text, e);
	w->len = text.len;
	free(piece.p);
	return r;
}

static int prepare_embedded(struct vd_vmdk *s, const char *old, const struct vd_vmdk_edit *edits, size_t n,
			    struct vd_vmdk_rewrite *w, struct vd_error *e)
{
	struct buffer text = { 0 };
	int r = apply(old, 0, s->text_len, edits, n, &text, e);

	w->text = text.p;
	w->len = text.len;
	if (r < 0 || w->len <= s->extents[0].sp.desc_len)
		return r;
	vd_fail(e, VD_EUNSUPPORTED, "%s: the descriptor has no room for what it is to say", s->name);
	return vd_hint(e, VD_EUNSUPPORTED, "convert the disk: vdisk convert -O vmdk");
}

int vd_vmdk_rewrite_prepare(struct vd_vmdk *s, const struct vd_vmdk_edit *edits, size_t n, struct vd_vmdk_rewrite *w,
			    struct vd_error *e)
{
	vd_auto_free char *old = NULL;
	int r = vd_alloc(s->text_len, 1, &old, e);

	*w = (struct vd_vmdk_rewrite){ .tail_at = SIZE_MAX };
	if (r == 0)
		r = vd_set_pread(s->set, 0, old, s->text_len, s->desc_off, e);
	if (r == 0)
		r = s->is_embedded ? prepare_embedded(s, old, edits, n, w, e) : prepare_alone(s, old, edits, n, w, e);
	/* It must be readable before it is written. */
	return r < 0 ? r : vd_vmdk_descriptor_parse((struct vd_bytes){ (uint8_t *)w->text, w->len }, &w->d, e);
}

int vd_vmdk_rewrite_prepare_whole(struct vd_vmdk *s, const struct vd_vmdk_edit *edits, size_t n, struct vd_vmdk_rewrite *w,
				  struct vd_error *e)
{
	vd_auto_free char *old = NULL;
	struct buffer text = { 0 };
	int r = vd_alloc(s->text_len, 1, &old, e);

	*w = (struct vd_vmdk_rewrite){ .exchanges = true };
	if (r == 0)
		r = vd_set_pread(s->set, 0, old, s->text_len, s->desc_off, e);
	if (r == 0)
		r = apply(old, 0, s->text_len, edits, n, &text, e);
	w->text = text.p;
	w->len = text.len;
	if (r == 0 && w->len > VMDK_DESCRIPTOR_MAX)
		r = vd_fail(e, VD_EUNSUPPORTED, "%s: its descriptor becomes too long", s->name);
	return r < 0 ? r : vd_vmdk_descriptor_parse((struct vd_bytes){ (uint8_t *)w->text, w->len }, &w->d, e);
}

void vd_vmdk_rewrite_fini(struct vd_vmdk_rewrite *w)
{
	free(w->text);
	vd_vmdk_descriptor_fini(&w->d);
}

/* ---- on disk --------------------------------------------------------------------------------------------- */

static int commit_embedded(struct vd_vmdk *s, const struct vd_vmdk_rewrite *w, struct vd_vmdk_header_change h,
			   struct vd_error *e)
{
	struct vd_vmdk_sparse *sp = &s->extents[0].sp;
	uint64_t spare = atomic_load(&sp->host_end);
	vd_auto_free uint8_t *padded = NULL;
	int r = vd_alloc(sp->desc_len, 1, &padded, e);

	if (r < 0)
		return r;
	memcpy(padded, w->text, w->len);
	r = vd_vmdk_write_durably(s, 0, padded, sp->desc_len, spare, e);
	if (r < 0)
		return r;
	h.desc_off = spare;
	if (vd_vmdk_header_write(s, 0, &h, NULL) < 0 ||
	    vd_vmdk_write_durably(s, 0, padded, sp->desc_len, sp->desc_off, NULL) < 0)
		return vd_vmdk_unsure(s, e);
	h.desc_off = sp->desc_off;
	if (vd_vmdk_header_write(s, 0, &h, NULL) < 0)
		return vd_vmdk_unsure(s, e);
	/* The spare place is nobody's again. */
	return vd_io_truncate(vd_set_io(s->set, 0), spare, e);
}

static int write_sector(struct vd_vmdk *s, const struct vd_vmdk_rewrite *w, size_t sector, struct vd_error *e)
{
	size_t at = sector * VMDK_SECTOR, len = vd_min_u64(w->len - at, VMDK_SECTOR);
	char raw[VMDK_SECTOR] = { 0 };
	uint64_t size;
	int r = vd_io_size(vd_set_io(s->set, 0), &size, e);

	if (r < 0)
		return r;
	/* What is behind the text may not become part of it. */
	memcpy(raw, w->text + at, len);
	return vd_vmdk_write_durably(s, 0, raw, size > at + len ? VMDK_SECTOR : len, at, e);
}

static int commit_alone(struct vd_vmdk *s, const struct vd_vmdk_rewrite *w, struct vd_error *e)
{
	size_t at = w->sector * VMDK_SECTOR;
	int r = 0;

	if (w->tail_at != SIZE_MAX && s->text_len < at + VMDK_SECTOR)
		r = vd_vmdk_write_durably(s, 0, w->was, VMDK_SECTOR, at, e);
	for (size_t i = w->tail_at / VMDK_SECTOR; w->tail_at != SIZE_MAX && i * VMDK_SECTOR < w->len && r == 0; i++)
		r = write_sector(s, w, i, e);
	if (r < 0)
		return r;
	return write_sector(s, w, w->sector, NULL) < 0 ? vd_vmdk_unsure(s, e) : 0;
}

int vd_vmdk_rewrite_commit(struct vd_vmdk *s, struct vd_vmdk_rewrite *w, const struct vd_vmdk_header_change *h,
			   struct vd_error *e)
{
	int r;

	if (w->exchanges)
		r = vd_set_exchange(s->set, 0, w->text, w->len, e);
	else
		r = s->is_embedded ? commit_embedded(s, w, h ? *h : (struct vd_vmdk_header_change){ 0 }, e) : commit_alone(s, w, e);
	if (r < 0)
		return r;
	vd_vmdk_descriptor_fini(&s->d);
	s->d = w->d;
	w->d = (struct vd_vmdk_descriptor){ 0 };
	s->text_len = w->len;
	return 0;
}
