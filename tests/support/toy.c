/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The toy driver: block table and sector maps through core/meta, given-up blocks through core/space. Payload is
 * the core's, as with every driver.
 *
 * T1  A map is durable before the table entry that shows it (ranks INDEX and LEAF), so no block shows up with the map
 *     that it had in an earlier life.
 * T2  A block that was reserved and not published stays with its guest block (`pending`): writers of different
 *     sectors share it, and one that cancels leaves it to the others.
 */
#include "tests/support/toy.h"

#include <stdlib.h>
#include <string.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"

#define SECTOR 512

enum { ENTRY_HOLE = 0, ENTRY_ZERO = 1, ENTRY_FIRST_BLOCK = 2 };
enum { SECTOR_PARENT = 0, SECTOR_DATA = 1, SECTOR_ZERO = 2 };

struct toy_state {
	struct vd_set *set;
	struct vd_meta *meta;
	struct vd_space *space;
	struct toy_header header;
	uint32_t map_size, n_blocks;
	uint64_t end;                   /* of the file: where the next new block goes */
	uint64_t *pending;              /* by guest block: host offset, 0: none (keeps T2) */
	uint64_t *spare;                /* n_spare blocks that may be used again; room for n_blocks, more are leaked */
	size_t n_spare;
};

static int toy_create(const struct vd_create *c, struct vd_error *e)
{
	const struct vd_create_opts *o = c->opts;
	struct toy_header h = {
		.magic = TOY_MAGIC, .size = c->size, .block_size = o->cluster_size ? o->cluster_size : TOY_BLOCK,
	};
	uint64_t table = vd_round_up(c->size, h.block_size) / h.block_size * 4;
	int r;

	strncpy(h.backing_file, o->backing_file ? o->backing_file : "", sizeof(h.backing_file) - 1);
	strncpy(h.backing_format, o->backing_format ? o->backing_format : "", sizeof(h.backing_format) - 1);
	r = vd_set_pwrite(c->set, 0, &h, sizeof(h), 0, e);
	return r < 0 ? r : vd_io_truncate(vd_set_io(c->set, 0), TOY_TABLE_OFF + vd_round_up(table, SECTOR), e);
}

static void toy_close(void *st)
{
	struct toy_state *s = st;

	free(s->pending);
	free(s->spare);
}

static void toy_describe(const void *st, struct vd_format_info *i)
{
	const struct toy_state *s = st;

	i->size = s->header.size;
	i->unit = s->header.block_size;
	i->fill_unit = SECTOR;
	i->backing_file = s->header.backing_file[0] ? s->header.backing_file : NULL;
	i->backing_format = s->header.backing_format[0] ? s->header.backing_format : NULL;
}

static int set_dirty(struct toy_state *s, uint8_t is_dirty, struct vd_error *e)
{
	return vd_set_pwrite(s->set, 0, &is_dirty, 1, offsetof(struct toy_header, is_dirty), e);
}

static int toy_begin_write(void *st, struct vd_error *e)
{
	struct toy_state *s = st;
	int r = set_dirty(s, true, e);

	return r < 0 ? r : vd_set_flush(s->set, e);
}

static int toy_end_write(void *st, struct vd_error *e)
{
	return set_dirty(st, false, e);
}

/* ---- tables ------------------------------------------------------------------------------------------- */

/* *host_off: of the block, or one of the two entries that are none. */
static int read_entry(struct toy_state *s, uint64_t block, unsigned flags, uint64_t *host_off, struct vd_error *e)
{
	uint8_t raw[4];
	int r = vd_meta_read(s->meta, 0, TOY_TABLE_OFF + block * 4, raw, sizeof(raw), flags, e);
	uint32_t entry;

	if (r < 0)
		return r;
	entry = vd_get_be32(raw);
	*host_off = entry < ENTRY_FIRST_BLOCK ? entry : (uint64_t)entry * SECTOR;
	return 0;
}

static int write_entry(struct toy_state *s, uint64_t block, uint64_t host_off, struct vd_error *e)
{
	uint8_t raw[4];

	vd_put_be32(raw, host_off < ENTRY_FIRST_BLOCK ? host_off : host_off / SECTOR);
	return vd_meta_write(s->meta, 0, TOY_TABLE_OFF + block * 4, raw, sizeof(raw), VD_RANK_LEAF, e);
}

/* Sets n bytes of a block's map from sector `first` on. */
static int write_map(struct toy_state *s, uint64_t host_off, uint64_t first, uint64_t n, uint8_t value,
		     struct vd_error *e)
{
	int r = 0;

	for (uint64_t i = first; i < first + n && r == 0; i++)
		r = vd_meta_write(s->meta, 0, host_off + i, &value, 1, VD_RANK_INDEX, e);
	return r;
}

/* False when there is no room for one more run. */
static bool add_run(struct vd_run *runs, size_t *n, size_t room, struct vd_run piece)
{
	struct vd_run *last = *n ? &runs[*n - 1] : NULL;

	if (last && last->where == piece.where &&
	    (piece.where != VD_DATA || last->host_off + last->len == piece.host_off)) {
		last->len += piece.len;
		last->host_len += piece.host_len;
		return true;
	}
	if (*n == room)
		return false;
	runs[(*n)++] = piece;
	return true;
}

/* A block may reach past the end of the file (zeros were skipped), its map may not. The next goes behind the last. */
static int find_end(struct toy_state *s, struct vd_error *e)
{
	uint64_t size, host_off;
	int r = vd_io_size(vd_set_io(s->set, 0), &size, e);

	s->end = vd_round_up(size, SECTOR);
	if (r == 0 && !vd_range_inside(TOY_TABLE_OFF, (uint64_t)s->n_blocks * 4, size))
		return vd_fail_at(e, VD_ECORRUPT, TOY_TABLE_OFF, "the block table is longer than the file");
	for (uint32_t i = 0; i < s->n_blocks && r == 0; i++) {
		r = read_entry(s, i, 0, &host_off, e);
		if (r < 0 || host_off < ENTRY_FIRST_BLOCK)
			continue;
		if (!vd_range_inside(host_off, s->map_size, size))
			r = vd_fail_at(e, VD_ECORRUPT, TOY_TABLE_OFF + i * 4, "block %u lies outside the file", i);
		s->end = vd_max_u64(s->end, host_off + s->map_size + s->header.block_size);
	}
	return r;
}

static int toy_open(void *st, const struct vd_open *o, struct vd_error *e)
{
	struct toy_state *s = st;
	struct toy_header *h = &s->header;
	int r = vd_io_pread_exact(vd_set_io(o->set, 0), h, sizeof(*h), 0, e);

	if (r < 0)
		return r;
	if (memcmp(h->magic, TOY_MAGIC, 8) || !vd_is_pow2(h->block_size) || h->block_size < SECTOR ||
	    h->size > TOY_SIZE_MAX)
		return vd_fail_at(e, VD_ECORRUPT, 0, "no header of a toy disk");
	s->set = o->set;
	s->meta = o->meta;
	s->space = o->space;
	s->map_size = vd_round_up(h->block_size / SECTOR, SECTOR);
	s->n_blocks = vd_round_up(h->size, h->block_size) / h->block_size;
	r = find_end(s, e);
	if (r == 0)
		r = vd_alloc(s->n_blocks, sizeof(*s->pending), &s->pending, e);
	return r < 0 ? r : vd_alloc(s->n_blocks, sizeof(*s->spare), &s->spare, e);
}

/* What the longest piece at off inside one block is, if its table says so as a whole, else inside one sector. */
static int map_piece(struct toy_state *s, uint64_t off, uint64_t len, unsigned flags, struct vd_run *piece,
		     struct vd_error *e)
{
	static const uint8_t where[] = { [SECTOR_PARENT] = VD_HOLE, [SECTOR_DATA] = VD_DATA, [SECTOR_ZERO] = VD_ZERO };
	uint64_t in_block = off % s->header.block_size, host_off = ENTRY_HOLE;
	uint8_t state;
	int r = read_entry(s, off / s->header.block_size, flags, &host_off, e);

	*piece = (struct vd_run){ .guest_off = off, .len = vd_min_u64(len, s->header.block_size - in_block) };
	if (r < 0)
		return r;
	if (host_off < ENTRY_FIRST_BLOCK) {
		piece->where = host_off == ENTRY_HOLE ? VD_HOLE : VD_ZERO;
		return 0;
	}
	r = vd_meta_read(s->meta, 0, host_off + in_block / SECTOR, &state, 1, flags, e);
	if (r < 0)
		return r;
	if (state > SECTOR_ZERO)
		return vd_fail_at(e, VD_ECORRUPT, host_off + in_block / SECTOR, "a sector of no known kind");
	piece->len = vd_min_u64(len, SECTOR - off % SECTOR);
	piece->where = where[state];
	if (state == SECTOR_DATA) {
		piece->host_off = host_off + s->map_size + in_block;
		piece->host_len = piece->len;
	}
	return 0;
}

static int toy_map(void *st, uint64_t off, uint64_t len, unsigned flags, struct vd_run *runs, size_t *n,
		   struct vd_error *e)
{
	size_t room = *n;

	*n = 0;
	while (len) {
		struct vd_run piece;
		int r = map_piece(st, off, len, flags, &piece, e);

		if (r < 0)
			return r;
		if (!add_run(runs, n, room, piece))
			return 0;
		off += piece.len;
		len -= piece.len;
	}
	return 0;
}

/* ---- writing ------------------------------------------------------------------------------------------ */

static int new_block(struct toy_state *s, uint64_t block, bool *fresh, struct vd_error *e)
{
	uint64_t at = s->n_spare ? s->spare[s->n_spare - 1] : s->end, end;
	int r;

	*fresh = !s->n_spare;
	end = at + s->map_size + s->header.block_size;
	if (end / SECTOR > UINT32_MAX)
		return vd_fail(e, VD_ENOSPC, "a toy disk addresses no more than %u sectors", UINT32_MAX);
	r = vd_meta_zero(s->meta, 0, at, s->map_size, VD_RANK_OWNER, e);
	if (r < 0)
		return r;
	s->pending[block] = at;
	if (*fresh)
		s->end = end;
	else
		s->n_spare--;
	return 0;
}

/* How far from v->off all sectors are data already, or none is: a cancelled write then leaves what was there. */
static int reserve_uniform(struct toy_state *s, struct vd_resv *v, struct vd_error *e)
{
	uint64_t end = v->off + v->len;
	struct vd_run first, next;
	int r = map_piece(s, v->off, v->len, 0, &first, e);

	for (v->covered = first.len; r == 0 && v->off + v->covered < end; v->covered += next.len) {
		r = map_piece(s, v->off + v->covered, end - v->off - v->covered, 0, &next, e);
		if (r == 0 && (next.where == VD_DATA) != (first.where == VD_DATA))
			break;
	}
	v->in_place = first.where == VD_DATA;
	return r;
}

static int toy_reserve(void *st, struct vd_resv *v, struct vd_error *e)
{
	struct toy_state *s = st;
	uint64_t block = v->off / s->header.block_size, host_off;
	int r = read_entry(s, block, 0, &host_off, e);

	v->len = vd_min_u64(v->len, s->header.block_size - v->off % s->header.block_size);
	if (r == 0)
		r = reserve_uniform(s, v, e);
	if (r == 0 && host_off < ENTRY_FIRST_BLOCK && !s->pending[block])
		r = new_block(s, block, &v->fresh, e);
	if (r < 0)
		return r;
	if (host_off < ENTRY_FIRST_BLOCK)
		host_off = s->pending[block];
	v->fill_off = v->in_place ? v->off : vd_round_down(v->off, SECTOR);
	v->fill_len = (v->in_place ? v->off + v->covered : vd_round_up(v->off + v->covered, SECTOR)) - v->fill_off;
	v->host_off = host_off + s->map_size + v->fill_off % s->header.block_size;
	v->cookie[0] = host_off;
	return 0;
}

static int toy_publish(void *st, struct vd_resv *v, struct vd_error *e)
{
	struct toy_state *s = st;
	uint64_t block = v->off / s->header.block_size, host_off;
	int r = read_entry(s, block, 0, &host_off, e);

	if (r == 0 && host_off == ENTRY_ZERO)
		r = write_map(s, v->cookie[0], 0, s->header.block_size / SECTOR, SECTOR_ZERO, e);
	if (r == 0)
		r = write_map(s, v->cookie[0], v->fill_off % s->header.block_size / SECTOR, v->fill_len / SECTOR,
			      SECTOR_DATA, e);
	if (r < 0 || host_off >= ENTRY_FIRST_BLOCK)
		return r;
	s->pending[block] = 0;
	return write_entry(s, block, v->cookie[0], e);
}

static void toy_cancel(void *st, struct vd_resv *v)
{
	(void)st;
	(void)v;
}

/* Whole blocks by their entry, whole sectors of a block by its map. */
static int toy_punch(void *st, uint64_t off, uint64_t len, enum vd_punch_mode mode, uint64_t *done, struct vd_error *e)
{
	struct toy_state *s = st;
	uint64_t block = off / s->header.block_size, in_block = off % s->header.block_size, host_off;
	uint64_t rest = vd_min_u64(s->header.block_size - in_block, s->header.size - off);
	int r = read_entry(s, block, 0, &host_off, e);

	(void)mode;
	*done = 0;
	if (r < 0)
		return r;
	if (!in_block && len >= rest) {
		*done = rest;
		if (host_off >= ENTRY_FIRST_BLOCK)
			vd_space_release(s->space, (struct vd_range){ .host_off = host_off,
								      .len = s->map_size + s->header.block_size });
		return write_entry(s, block, ENTRY_ZERO, e);
	}
	if (host_off < ENTRY_FIRST_BLOCK || off % SECTOR || len < vd_min_u64(rest, SECTOR))
		return 0;
	*done = len >= rest ? rest : vd_round_down(len, SECTOR);
	return write_map(s, host_off, in_block / SECTOR, vd_round_up(*done, SECTOR) / SECTOR, SECTOR_ZERO, e);
}

static int toy_freed(void *st, const struct vd_range *range, struct vd_error *e)
{
	struct toy_state *s = st;

	(void)e;
	vd_meta_forget(s->meta, 0, range->host_off, s->map_size);
	if (s->n_spare < s->n_blocks)
		s->spare[s->n_spare++] = range->host_off;
	return 0;
}

/* ---- claiming ------------------------------------------------------------------------------------------- */

static int claim(struct vd_window *w, uint64_t off, uint64_t end, struct vd_claim like, struct vd_error *e)
{
	like.host_off = off;
	like.len = end - off;
	like.refs = 1;
	return off < end ? vd_window_claim(w, &like, e) : 0;
}

static int claim_head(struct toy_state *s, struct vd_window *w, struct vd_error *e)
{
	struct vd_claim like = { .guest_off = VD_HOST_NOWHERE, .parent_off = VD_HOST_NOWHERE };
	uint64_t table_end = TOY_TABLE_OFF + (uint64_t)s->n_blocks * 4;
	int r;

	like.owner = VD_OWNER_HEADER;
	r = claim(w, 0, sizeof(struct toy_header), like, e);
	like.owner = VD_OWNER_SLACK;
	like.why = VD_SLACK_HEADER;
	if (r == 0)
		r = claim(w, sizeof(struct toy_header), TOY_TABLE_OFF, like, e);
	like.why = VD_SLACK_TABLE;
	if (r == 0)
		r = claim(w, table_end, vd_round_up(table_end, SECTOR), like, e);
	like.owner = VD_OWNER_TABLE;
	like.why = VD_TABLE_ROOT;
	return r < 0 ? r : claim(w, TOY_TABLE_OFF, table_end, like, e);
}

static int claim_sector(struct toy_state *s, struct vd_window *w, uint64_t host_off, uint64_t guest_off,
			uint64_t map_off, struct vd_error *e)
{
	static const uint8_t owner[] = {
		[SECTOR_PARENT] = VD_OWNER_SLACK, [SECTOR_DATA] = VD_OWNER_DATA, [SECTOR_ZERO] = VD_OWNER_ZEROED,
	};
	struct vd_claim like = { .guest_off = guest_off, .parent_off = map_off, .owner = VD_OWNER_DATA,
				 .is_sole = true, .unit_bits = 9, .entry_bytes = 1 };
	uint64_t used = guest_off < s->header.size ? vd_min_u64(s->header.size - guest_off, SECTOR) : 0;
	struct vd_error bad;
	uint8_t state;
	int r = vd_meta_read(s->meta, 0, map_off, &state, 1, 0, e);

	if (r == 0 && state > SECTOR_ZERO) {
		vd_fail_at(&bad, VD_ECORRUPT, map_off, "a sector of no known kind");
		vd_window_finding(w, &bad);
	} else if (r == 0) {
		like.owner = owner[state];
		like.why = state == SECTOR_PARENT ? VD_SLACK_ABSENT : VD_WHY_NONE;
	}
	if (r == 0)
		r = claim(w, host_off, host_off + used, like, e);
	like.owner = VD_OWNER_SLACK;
	like.why = VD_SLACK_PAST_END;
	like.guest_off += used;
	return r < 0 ? r : claim(w, host_off + used, host_off + SECTOR, like, e);
}

static int claim_block(struct toy_state *s, struct vd_window *w, uint64_t block, uint64_t host_off, struct vd_error *e)
{
	struct vd_claim like = { .guest_off = VD_HOST_NOWHERE, .parent_off = TOY_TABLE_OFF + block * 4 };
	uint64_t n = s->header.block_size / SECTOR, data = host_off + s->map_size;
	int r;

	like.owner = VD_OWNER_SLACK;
	like.why = VD_SLACK_TABLE;
	r = claim(w, host_off + n, data, like, e);
	like.owner = VD_OWNER_TABLE;
	like.why = VD_TABLE_SECTORS;
	if (r == 0)
		r = claim(w, host_off, host_off + n, like, e);
	for (uint64_t i = 0; i < n && r == 0; i++)
		r = claim_sector(s, w, data + i * SECTOR, block * s->header.block_size + i * SECTOR, host_off + i, e);
	return r;
}

static int toy_walk(void *st, struct vd_window *w, struct vd_error *e)
{
	struct toy_state *s = st;
	int r = claim_head(s, w, e);

	vd_window_set_units(w, SECTOR, s->end);
	for (uint32_t i = 0; i < s->n_blocks && r == 0; i++) {
		uint64_t host_off;

		r = read_entry(s, i, 0, &host_off, e);
		if (r == 0 && host_off >= ENTRY_FIRST_BLOCK &&
		    vd_window_meets(w, host_off, s->map_size + s->header.block_size))
			r = claim_block(s, w, i, host_off, e);
	}
	return r;
}

const struct vd_format vd_format_toy = {
	.name = "toy",
	.state_size = sizeof(struct toy_state),
	.writable = true,
	.open = toy_open,
	.create = toy_create,
	.close = toy_close,
	.describe = toy_describe,
	.begin_write = toy_begin_write,
	.end_write = toy_end_write,
	.map = toy_map,
	.reserve = toy_reserve,
	.publish = toy_publish,
	.cancel = toy_cancel,
	.punch = toy_punch,
	.freed = toy_freed,
	.walk = toy_walk,
};
