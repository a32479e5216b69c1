/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The header of a container that is converted in place: the last of it that changes before the veil is lifted. It lies at the
 * beginning of the disk, or in a file of its own that the caller names. A format's own key area is its driver's, and has been
 * set in the step before.
 *
 * A header file is as it was until all data are converted; what it is to become, the journal has until then. So it is whole at
 * every instant, and who turns back finds it untouched. It is never taken for granted that the name leads to the same file as at
 * the beginning: what is neither the header of before nor that of after is left alone.
 */
#include "libvdisk/core/inplace.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/core/inplace_steps.h"
#include "libvdisk/io/atomic.h"

#define PIECE (1u << 20)

struct vd_bytes vd_inplace_header(const struct vd_inplace *p, int i)
{
	return (struct vd_bytes){ p->j->header[i], p->j->state.header_len[i] };
}

bool vd_inplace_is_detached(const struct vd_journal_state *s)
{
	return s->is_container && !s->payload_off;
}

/* ---- in a file of its own -------------------------------------------------------------------------------- */

/* Of before (0), of after (1), or another (-1). */
static int whose(const struct vd_inplace *p, struct vd_bytes file)
{
	for (int i = 1; i >= 0; i--) {
		struct vd_bytes header = vd_inplace_header(p, i);

		if (header.len && file.len >= header.len && !memcmp(file.p, header.p, header.len))
			return i;
	}
	return -1;
}

static int judge_content(struct vd_inplace *p, struct vd_io *io, int *which, struct vd_error *e)
{
	uint64_t len = vd_max_u64(p->j->state.header_len[0], p->j->state.header_len[1]), size = 0;
	vd_auto_free uint8_t *bytes = NULL;
	int r = vd_io_size(io, &size, e);

	size = vd_min_u64(size, len);
	if (r == 0)
		r = vd_alloc(1, size ? size : 1, &bytes, e);
	if (r == 0)
		r = vd_io_pread(io, bytes, size, 0, e);
	if (r < 0)
		return r;
	*which = whose(p, (struct vd_bytes){ bytes, size });
	if (*which >= 0)
		return 0;
	vd_fail(e, VD_EEXIST, "%s: what is in it is not the header of this disk", io->name);
	return vd_hint(e, VD_EEXIST, "give the file that it was begun with; a name that is free gets the header, if that file is lost or was changed");
}

/* What is in the file: as above; *which is -2 if there is none. */
static int look_at_file(struct vd_inplace *p, int *which, struct vd_error *e)
{
	struct vd_io *io = NULL;
	int r;

	*which = -2;
	if (!p->inner->exists(p->inner, p->opts->header))
		return 0;
	r = p->inner->open(p->inner, p->opts->header, 0, &io, e);
	if (r == 0)
		r = judge_content(p, io, which, e);
	vd_io_abort(io);
	return r;
}

int vd_inplace_judge_header(struct vd_inplace *p, bool is_back, struct vd_error *e)
{
	const struct vd_journal_state *s = &p->j->state;
	int ignored;

	if (s->phase >= VD_PHASE_UNVEIL || !vd_inplace_is_detached(s) || !s->header_len[!is_back])
		return 0;
	if (p->opts->header)
		return look_at_file(p, &ignored, e);
	vd_fail(e, VD_EARG, "%s has its LUKS header in a file of its own, which is not named", p->path);
	return vd_hint(e, VD_EARG, "name it: --header FILE");
}

static int write_file(struct vd_inplace *p, struct vd_bytes header, struct vd_error *e)
{
	int which, r = look_at_file(p, &which, e);

	if (r < 0 || which == 1)
		return r;
	return vd_output_put(p->inner, p->opts->header, which == 0, header.p, header.len, header.len, e);
}

/* ---- in the disk ----------------------------------------------------------------------------------------- */

/* Another header may have been here. What is zeros already is left, so that a large unit takes no more room than the header. */
static int clear_behind(struct vd_inplace *p, uint64_t from, struct vd_error *e)
{
	vd_auto_free uint8_t *seen = NULL;
	uint64_t end = p->j->state.payload_off;
	int r = vd_alloc_buffer(PIECE, &seen, e);

	for (uint64_t at = from, n; at < end && r == 0; at += n) {
		n = vd_min_u64(end - at, PIECE);
		r = vd_read(p->img, seen, n, at, e);
		if (r < 0 || vd_is_zero(seen, n))
			continue;
		memset(seen, 0, n);
		r = vd_write(p->img, seen, n, at, e);
	}
	return r;
}

static int write_beginning(struct vd_inplace *p, struct vd_bytes header, struct vd_error *e)
{
	/* Whole units, so that an overlay needs nothing of its parent. */
	uint64_t len = vd_min_u64(vd_round_up(header.len, p->img->info.fill_unit), p->j->state.payload_off);
	vd_auto_free uint8_t *bytes = NULL;
	int r = vd_alloc(1, len, &bytes, e);

	if (r < 0)
		return r;
	memcpy(bytes, header.p, header.len);
	r = vd_write(p->img, bytes, len, 0, e);
	/* An overlay's room was made new. */
	if (r == 0 && !p->img->info.backing_file)
		r = clear_behind(p, len, e);
	return r < 0 ? r : vd_image_commit_tables(p->img, e);
}

int vd_inplace_write_header(struct vd_inplace *p, struct vd_error *e)
{
	const struct vd_journal_state *s = &p->j->state;
	struct vd_bytes header = vd_inplace_header(p, !s->is_back);
	int r = 0;

	if (!header.len || (s->is_back && !s->moves))
		return 0;
	if (s->is_container)
		r = vd_inplace_is_detached(s) ? write_file(p, header, e) : write_beginning(p, header, e);
	/*
	 * Tables of before, and what a crash cut off from this step or the one before, lie about in clear, and have become
	 * nobody's. Last, since even this step leaves something: a VHD that grows leaves the footer that it had.
	 */
	return r < 0 || s->moves || s->is_back ? r : vd_inplace_scrub(p, e);
}
