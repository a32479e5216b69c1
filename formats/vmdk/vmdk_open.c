/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Puts a disk together: finds the descriptor, in the file or as the file, and the extents that it lists. Names go
 * through the set, and so through the gate; the text is vmdk_text.c's, headers are vmdk_sparse.c's.
 */
#include "formats/vmdk/vmdk.h"

#include <stdio.h>
#include <stdlib.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

/* ---- the descriptor -------------------------------------------------------------------------------------- */

static int read_text(struct vd_vmdk *s, struct vd_io *io, uint64_t off, uint64_t len, struct vd_bytes *text,
		     struct vd_error *e)
{
	vd_auto_free uint8_t *buf = NULL;
	int r = vd_alloc(len, 1, &buf, e);

	if (r == 0)
		r = vd_io_pread_exact(io, buf, len, off, e);
	if (r < 0)
		return r;
	s->desc_off = off;
	*text = (struct vd_bytes){ vd_steal(&buf), len };
	return 0;
}

/*
 * What follows a NUL would be left out, extents among it. When qemu gives a CID fewer digits, the text's last bytes stay
 * behind the NUL: up to seven, in which there is room for no extent.
 */
static int judge_end(struct vd_bytes text, struct vd_error *e)
{
	const uint8_t *nul = memchr(text.p, 0, text.len);
	size_t len = nul ? text.p + text.len - nul : 0, left = vd_min_u64(len, 8);

	if (!nul || vd_is_zero(nul + left, len - left))
		return 0;
	return vd_fail_at(e, VD_ECORRUPT, nul - text.p, "the descriptor is not text throughout");
}

static int parse_at(struct vd_vmdk *s, struct vd_io *io, uint64_t off, uint64_t len, bool is_whole_file,
		    struct vd_error *e)
{
	struct vd_bytes text = { 0 };
	int r = read_text(s, io, off, len, &text, e);

	s->is_utf16 = r == 0 && is_whole_file && vd_vmdk_utf16(text);
	if (r == 0 && is_whole_file && !s->is_utf16)
		r = judge_end(text, e);
	if (r == 0)
		s->text_len = s->is_utf16 ? text.len : strnlen((const char *)text.p, text.len);
	if (r == 0 && s->is_utf16)
		r = vd_vmdk_from_utf16(&text, e);
	if (r == 0)
		r = vd_vmdk_descriptor_parse(text, &s->d, e);
	free((void *)text.p);
	return r;
}

/* ---- extents --------------------------------------------------------------------------------------------- */

/* Gives the next extent its place on the disk. */
static int place_extent(struct vd_vmdk *s, struct vd_vmdk_extent *x, uint64_t sectors, struct vd_error *e)
{
	uint64_t end;

	if (!vd_add_u64(s->size, sectors * VMDK_SECTOR, &end) || end > INT64_MAX)
		return vd_fail(e, VD_ECORRUPT, "the extents together are larger than any disk");
	x->start = s->size;
	x->end = s->size = end;
	s->n_extents++;
	return 0;
}

/* Many flat extents may lie in one file, such as the partitions of a device. */
static int add_file(struct vd_vmdk *s, const struct vd_vmdk_line *line, uint32_t *file, struct vd_error *e)
{
	/* Of a new disk the core has the files already, in the order of the lines. */
	if (s->is_fresh) {
		*file = line - s->d.lines + 1;
		return 0;
	}
	for (size_t i = 0; line->kind == VMDK_FLAT && s->d.lines + i < line; i++) {
		const struct vd_vmdk_line *other = &s->d.lines[i];

		if (other->kind == VMDK_FLAT && other->access != VMDK_NOACCESS && !strcmp(other->file, line->file)) {
			*file = s->extents[i].file;
			return 0;
		}
	}
	return vd_set_add(s->set, VD_REF_EXTENT, line->file, NULL, file, e);
}

static int check_flat(struct vd_vmdk *s, const struct vd_vmdk_extent *x, struct vd_error *e)
{
	struct vd_io *io = vd_set_io(s->set, x->file);
	uint64_t size = 0;
	int r = io ? vd_io_size(io, &size, e) : 0;

	if (r < 0 || !io || vd_range_inside(x->host_off, x->end - x->start, size))
		return r;
	return vd_fail(e, VD_ECORRUPT, "%s has %" PRIu64 " bytes, the extent in it needs %" PRIu64, io->name, size,
		       x->host_off + (x->end - x->start));
}

/* The disk is larger than the tables reach. */
static int too_small(const struct vd_vmdk_extent *x, const char *name, struct vd_error *e)
{
	return vd_fail(e, VD_ECORRUPT, "%s holds %" PRIu64 " bytes of disk, the descriptor says %" PRIu64, name,
		       x->sp.capacity, x->end - x->start);
}

static int check_sparse(struct vd_vmdk *s, struct vd_vmdk_extent *x, struct vd_error *e)
{
	struct vd_io *io = vd_set_io(s->set, x->file);
	int r;

	if (!io)
		return 0;
	r = vd_vmdk_sparse_read(io, &x->kind, &x->sp, e);
	if (r < 0)
		return vd_error_prefix(e, r, "%s: ", io->name);
	return x->sp.capacity < x->end - x->start ? too_small(x, io->name, e) : 0;
}

static int add_line(struct vd_vmdk *s, const struct vd_vmdk_line *line, struct vd_error *e)
{
	struct vd_vmdk_extent *x = &s->extents[s->n_extents];
	int r = place_extent(s, x, line->sectors, e);

	if (r < 0)
		return r;
	x->access = line->access;
	x->kind = line->kind;
	x->host_off = line->first_sector * VMDK_SECTOR;
	/* A file that may not be read is not opened. */
	if (x->kind == VMDK_ZERO || x->access == VMDK_NOACCESS)
		return 0;
	r = add_file(s, line, &x->file, e);
	if (r < 0)
		return r;
	return x->kind == VMDK_FLAT ? check_flat(s, x, e) : check_sparse(s, x, e);
}

static int add_lines(struct vd_vmdk *s, struct vd_error *e)
{
	int r = vd_alloc(s->d.n_lines, sizeof(*s->extents), &s->extents, e);

	if (r == 0 && !s->d.n_lines)
		r = vd_fail(e, VD_ECORRUPT, "the descriptor lists no extents");
	for (size_t i = 0; i < s->d.n_lines && r == 0; i++)
		r = add_line(s, &s->d.lines[i], e);
	return r;
}

/* The descriptor inside an extent is that extent's: its name there may be an old one. */
int vd_vmdk_judge_embedded(const struct vd_vmdk_descriptor *d, struct vd_error *e)
{
	if (d->n_lines > 1)
		return vd_fail(e, VD_EUNSUPPORTED, "the descriptor inside the extent lists %zu extents", d->n_lines);
	if (d->n_lines && d->lines[0].kind != VMDK_SPARSE)
		return vd_fail(e, VD_ECORRUPT, "the descriptor inside the extent does not describe it");
	return 0;
}

static int open_sparse(struct vd_vmdk *s, struct vd_io *io, struct vd_error *e)
{
	struct vd_vmdk_extent *x;
	int r = vd_alloc(1, sizeof(*s->extents), &s->extents, e);

	if (r < 0)
		return r;
	x = &s->extents[0];
	r = vd_vmdk_sparse_read(io, &x->kind, &x->sp, e);
	if (r == 0)
		r = place_extent(s, x, x->sp.capacity / VMDK_SECTOR, e);
	if (r < 0)
		return r;
	s->is_lone_extent = !x->sp.desc_len;
	s->d.parent_cid = VMDK_CID_NONE;
	if (s->is_lone_extent)
		return 0;
	s->is_embedded = true;
	r = parse_at(s, io, x->sp.desc_off, x->sp.desc_len, false, e);
	if (r == 0)
		r = vd_vmdk_judge_embedded(&s->d, e);
	if (r == 0 && s->d.n_lines)
		x->access = s->d.lines[0].access;
	return r;
}

static int open_descriptor(struct vd_vmdk *s, struct vd_io *io, struct vd_error *e)
{
	uint64_t size = 0;
	int r = vd_io_size(io, &size, e);

	if (r == 0 && size > VMDK_DESCRIPTOR_MAX)
		r = vd_fail(e, VD_ECORRUPT, "a descriptor of %" PRIu64 " bytes is too long", size);
	if (r == 0)
		r = parse_at(s, io, 0, size, true, e);
	return r < 0 ? r : add_lines(s, e);
}

/* ---- the whole ------------------------------------------------------------------------------------------- */

static char *base_name(char *path)
{
	char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* "dir/name" of "/some/where/dir/name" as "../dir/name": the folder beside the child's. */
static int sibling_name(char *path, char **out, struct vd_error *e)
{
	char *name = base_name(path), *dir;
	char text[1024];

	if (name - path < 2)
		return 0;
	name[-1] = 0;
	dir = base_name(path);
	if (snprintf(text, sizeof(text), "../%s/%s", dir, name) >= (int)sizeof(text))
		return 0;
	return vd_strdup(text, out, e);
}

/*
 * The hint is where the parent was when the child was made, perhaps on another machine, perhaps on Windows. VMware
 * looks there, then beside the child, then in the folder of that name beside the child's own.
 */
static int find_parent_names(struct vd_vmdk *s, struct vd_error *e)
{
	vd_auto_free char *hint = NULL;
	bool is_absolute;
	size_t n = 0;
	int r = vd_strdup(s->d.parent_hint, &hint, e);

	if (r < 0)
		return r;
	for (char *p = hint; *p; p++)
		if (*p == '\\')
			*p = '/';
	is_absolute = hint[0] == '/' || (hint[0] && hint[1] == ':');
	if (!is_absolute && strcmp(hint, s->d.parent_hint))
		r = vd_strdup(hint, &s->parent_names[n++], e);
	if (r == 0 && strcmp(base_name(hint), s->d.parent_hint))
		r = vd_strdup(base_name(hint), &s->parent_names[n++], e);
	return r == 0 && is_absolute ? sibling_name(hint, &s->parent_names[n], e) : r;
}

int vd_vmdk_learn_parent(struct vd_vmdk *s, struct vd_error *e)
{
	for (size_t i = 0; i < sizeof(s->parent_names) / sizeof(s->parent_names[0]); i++) {
		free(s->parent_names[i]);
		s->parent_names[i] = NULL;
	}
	s->parent_cid[0] = 0;
	if (s->d.has_cid)
		snprintf(s->cid, sizeof(s->cid), "%08" PRIx32, s->d.cid);
	if (s->d.parent_cid != VMDK_CID_NONE)
		snprintf(s->parent_cid, sizeof(s->parent_cid), "%08" PRIx32, s->d.parent_cid);
	s->has_parent = s->d.parent_cid != VMDK_CID_NONE;
	if (!s->has_parent)
		return 0;
	if (s->d.parent_hint && s->d.parent_hint[0])
		return find_parent_names(s, e);
	return vd_fail(e, VD_ECORRUPT, "the disk is a child, but its descriptor does not say of which file");
}

static void derive(struct vd_vmdk *s)
{
	s->unit = 1;
	for (size_t i = 0; i < s->n_extents; i++) {
		const struct vd_vmdk_extent *x = &s->extents[i];

		if (!x->sp.grain)
			continue;
		s->unit = vd_max_u64(s->unit, x->sp.grain);
		s->is_packed |= (x->sp.flags & VMDK_FLAG_COMPRESSED) != 0;
		s->is_misaligned |= x->start % x->sp.grain != 0;
	}
}

int vd_vmdk_open(void *st, const struct vd_open *o, struct vd_error *e)
{
	struct vd_vmdk *s = st;
	struct vd_io *io = vd_set_io(o->set, 0);
	uint8_t head[VMDK_HEADER_LEN];
	int r = vd_io_pread(io, head, sizeof(head), 0, e);

	if (r < 0)
		return r;
	s->set = o->set;
	s->meta = o->meta;
	s->space = o->space;
	s->appends = o->appends;
	s->scrubs = o->scrubs;
	s->is_fresh = o->fresh;
	if (vd_get_le32(head) == VMDK_CTK_MAGIC)
		return vd_fail(e, VD_EUNSUPPORTED, "this is the record of changed blocks of another disk, and no disk itself");
	if (vd_get_le32(head) == VMDK_MAGIC || vd_get_le32(head) == VMDK_COWD_MAGIC || vd_get_le64(head) == VMDK_SE_MAGIC)
		r = open_sparse(s, io, e);
	else
		r = open_descriptor(s, io, e);
	if (r == 0)
		r = vd_vmdk_learn_parent(s, e);
	if (r < 0)
		return r;
	derive(s);
	if (o->fresh && s->is_packed)
		r = vd_vmdk_stream_new(s, e);
	else if (o->write && !s->is_packed)
		r = vd_vmdk_prepare_write(s, e);
	/* From here on messages name the file; those of open are the core's to complete. */
	s->name = vd_set_name(s->set, 0);
	return r;
}
