/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Makes the files of further extents of a disk in parts, and takes them away again. Which extents the disk has, the
 * descriptor says: its change is the caller's, after the files are made and before they go.
 */
#include "formats/vmdk/vmdk_shape.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/io/atomic.h"
#include "libvdisk/io/path.h"

#define CHUNK 65536

bool vd_vmdk_is_split(const struct vd_vmdk *s)
{
	const char *type = s->d.create_type ? s->d.create_type : "";

	return !strncasecmp(type, "twoGbMaxExtent", 14) || !strncasecmp(type, "2GbMaxExtent", 12);
}

/* ---- names ----------------------------------------------------------------------------------------------- */

/* "disk-s003.vmdk": the number before the dot goes on. */
int vd_vmdk_part_name(const struct vd_vmdk *s, size_t index, char **out, struct vd_error *e)
{
	size_t last = vd_vmdk_n_listed(s) - 1, end, start, room;
	const char *name = s->d.lines[last].file, *dot = strrchr(name, '.');
	int r;

	end = dot ? (size_t)(dot - name) : strlen(name);
	for (start = end; start && isdigit((unsigned char)name[start - 1]); start--)
		;
	if (end == start || end - start > 9) {
		vd_fail(e, VD_EUNSUPPORTED, "%s: how the extent after '%s' is called is not known", s->name, name);
		return vd_hint(e, VD_EUNSUPPORTED, "convert the disk: vdisk convert -O vmdk");
	}
	room = strlen(name) + 16;
	r = vd_alloc(room, 1, out, e);
	if (r == 0)
		snprintf(*out, room, "%.*s%0*lu%s", (int)start, name, (int)(end - start),
			 strtoul(name + start, NULL, 10) + (unsigned long)(index - last), name + end);
	return r;
}

/* ---- files ----------------------------------------------------------------------------------------------- */

/* What a try that was killed left behind: the same bytes. Others' files stay. */
static bool is_same(struct vd_host *host, const char *path, struct vd_io *made)
{
	uint8_t a[CHUNK], b[CHUNK];
	uint64_t size, there, n;
	struct vd_io *io;
	bool same;

	if (host->open(host, path, VD_IO_NO_SYMLINK, &io, NULL) < 0)
		return false;
	same = vd_io_size(io, &there, NULL) == 0 && vd_io_size(made, &size, NULL) == 0 && size == there;
	for (uint64_t at = 0; same && at < size; at += n) {
		n = vd_min_u64(size - at, CHUNK);
		same = vd_io_pread(io, a, n, at, NULL) == 0 && vd_io_pread(made, b, n, at, NULL) == 0 && !memcmp(a, b, n);
	}
	vd_io_abort(io);
	return same;
}

static int fill_file(const struct vd_vmdk_extent *like, struct vd_io *io, uint64_t size, struct vd_error *e)
{
	int r = like->kind == VMDK_SPARSE ? vd_vmdk_extent_make(io, size, &like->sp, e) : vd_io_truncate(io, size, e);

	return r < 0 ? r : vd_io_flush(io, e);
}

static int make_file(struct vd_vmdk *s, const struct vd_vmdk_extent *like, const char *path, uint64_t size, struct vd_error *e)
{
	struct vd_host *host = vd_set_host(s->set);
	struct vd_output out = { 0 };
	struct vd_io *io = NULL;
	int r = vd_output_open(host, path, true, &out, &io, e), c;

	if (r < 0)
		return r;
	if (io->is_device)
		r = vd_fail(e, VD_EEXIST, "%s is a device", path);
	if (r == 0)
		r = fill_file(like, io, size, e);
	if (r == 0 && host->exists(host, path) && !is_same(host, path, io)) {
		vd_fail(e, VD_EEXIST, "%s: the name is needed for a new extent of the disk", path);
		r = vd_hint(e, VD_EEXIST, "move that file away");
	}
	if (r == 0)
		r = vd_output_commit(&out, e);
	if (r < 0)
		vd_output_abandon(&out);
	c = vd_io_close(io, r < 0 ? NULL : e);
	return r < 0 ? r : c;
}

/* The new extent is like the last one that is listed. */
int vd_vmdk_part_add(struct vd_vmdk *s, uint64_t size, struct vd_error *e)
{
	const struct vd_vmdk_extent *last = &s->extents[s->n_extents - 1];
	struct vd_vmdk_extent x = { .access = VMDK_RW, .kind = last->kind, .start = last->end, .end = last->end + size };
	vd_auto_free char *name = NULL, *path = NULL;
	int r = vd_vmdk_part_name(s, s->n_extents, &name, e);

	if (r == 0)
		r = vd_path_beside(s->name, name, &path, e);
	if (r == 0)
		r = make_file(s, last, path, size, e);
	if (r == 0)
		r = vd_set_add(s->set, VD_REF_EXTENT, name, NULL, &x.file, e);
	if (r == 0 && x.kind == VMDK_SPARSE)
		r = vd_vmdk_sparse_read(vd_set_io(s->set, x.file), &x.kind, &x.sp, e);
	if (r == 0)
		r = vd_realloc(&s->extents, s->n_extents + 1, sizeof(x), e);
	if (r < 0)
		return r;
	s->extents[s->n_extents++] = x;
	return 0;
}

/* ---- away ------------------------------------------------------------------------------------------------ */

bool vd_vmdk_shares_file(const struct vd_vmdk *s, uint32_t file, const struct vd_vmdk_extent *but)
{
	for (size_t i = 0; i < s->n_extents; i++)
		if (&s->extents[i] != but && s->extents[i].kind != VMDK_ZERO && s->extents[i].file == file)
			return true;
	return false;
}

int vd_vmdk_overwrite(struct vd_vmdk *s, uint32_t file, uint64_t off, uint64_t len, struct vd_error *e)
{
	static const uint8_t zeros[CHUNK];
	int r = 0;

	for (uint64_t n; len && r == 0; off += n, len -= n) {
		n = vd_min_u64(len, sizeof(zeros));
		r = vd_set_pwrite(s->set, file, zeros, n, off, e);
	}
	return r < 0 ? r : vd_set_flush(s->set, e);
}

int vd_vmdk_part_dispose(struct vd_vmdk *s, const struct vd_vmdk_extent *x, struct vd_error *e)
{
	struct vd_host *host = vd_set_host(s->set);
	struct vd_io *io = x->kind == VMDK_ZERO ? NULL : vd_set_io(s->set, x->file);
	uint64_t size = 0;
	int r = io ? vd_io_size(io, &size, e) : 0;

	if (r < 0 || !io || io->is_device || x->access != VMDK_RW || vd_vmdk_shares_file(s, x->file, NULL))
		return r;
	if (x->kind == VMDK_FLAT && (x->host_off || size != x->end - x->start))
		return 0;
	if (s->scrubs)
		r = vd_vmdk_overwrite(s, x->file, 0, size, e);
	return r < 0 ? r : host->unlink(host, io->name, e);
}
