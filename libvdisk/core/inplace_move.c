/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A flat disk whose data move: from the end towards the front where a container's header needs room, and back where it goes.
 * The cursor is the same both ways: bytes of the disk at or behind it lie payload_off further on, and are in the container.
 */
#include "libvdisk/core/inplace.h"

#include "libvdisk/base/checked.h"

#define UNIT 512

/* The disk's bytes without the container's header. */
static uint64_t plain_size(const struct vd_journal_state *s)
{
	return s->from_sector ? s->size - s->payload_off : s->size;
}

/* Into the container: downwards, so that the source of each piece is still there. */
static int into(struct vd_inplace *p, struct vd_mover *m, struct vd_error *e)
{
	const struct vd_journal_state *s = &p->j->state;
	uint64_t piece = vd_mover_piece(m);
	int r = 0;

	for (uint64_t end = s->cursor, from; end && r == 0; end = from) {
		from = end - vd_min_u64(end, (end - 1) % piece + 1);
		r = vd_mover_add(m, &(struct vd_chunk){
			.len = (uint32_t)(end - from), .src = from, .dst = from + s->payload_off, .unit = from / UNIT,
		}, from, e);
	}
	return r;
}

static int out_of(struct vd_inplace *p, struct vd_mover *m, struct vd_error *e)
{
	const struct vd_journal_state *s = &p->j->state;
	uint64_t size = plain_size(s), piece = vd_mover_piece(m), n;
	int r = 0;

	for (uint64_t at = s->cursor; at < size && r == 0; at += n) {
		n = vd_min_u64(size - at, piece - at % piece);
		r = vd_mover_add(m, &(struct vd_chunk){
			.len = (uint32_t)n, .src = at + s->payload_off, .dst = at, .unit = at / UNIT,
		}, at + n, e);
	}
	return r;
}

int vd_inplace_move(struct vd_inplace *p, struct vd_error *e)
{
	struct vd_journal_state *s = &p->j->state;
	struct vd_mover *m;
	int r = vd_mover_new(p, &m, e);

	if (r < 0)
		return r;
	r = (s->from_sector != 0) == s->is_back ? into(p, m, e) : out_of(p, m, e);
	if (r == 0)
		r = vd_mover_end(m, e);
	if (r == 0)
		s->cursor = p->at;
	if (r == VD_ECANCELLED)
		r = vd_mover_stop(m, r, e);
	vd_mover_free(m);
	return r;
}
