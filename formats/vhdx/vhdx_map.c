/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Answers where guest bytes are: entries of the bat in batches, then the chunk's bitmap. Runs beside a writer. */
#include "formats/vhdx/vhdx.h"

#include "formats/runs.h"

#define BATCH 4096u                     /* entries read at once */
#define ENTRIES_MAX (1u << 22)          /* looked at in one call, some ten milliseconds: who asks for more calls again */
#define BITMAP_PART 512u

/* ---- entries -------------------------------------------------------------------------------------------- */

static int judge_place(const struct vd_vhdx *s, uint64_t entry, uint64_t off, uint64_t len, struct vd_error *e)
{
	uint64_t at = vd_vhdx_entry_off(s, entry);
	const char *what;

	/* Its last bytes may be missing with those that the file lost at its end: they read as zeros. */
	if (!off || off >= atomic_load(&s->host_end) || off > INT64_MAX - len)
		return vd_corrupt(s->name, e, at, "the block of entry %" PRIu64 " at %" PRIu64 " lies outside the file", entry, off);
	what = vd_vhdx_overlaps(s, off, len);
	return what ? vd_corrupt(s->name, e, at, "the block of entry %" PRIu64 " at %" PRIu64 " lies on the %s", entry, off, what) : 0;
}

static int judge_bitmap(const struct vd_vhdx *s, uint64_t entry, uint32_t state, uint64_t *host_off, struct vd_error *e)
{
	if (state == VHDX_FULL)
		return judge_place(s, entry, *host_off, VHDX_MIB, e);
	*host_off = 0;
	return state == VHDX_NOT_PRESENT ? 0 :
	       vd_corrupt(s->name, e, vd_vhdx_entry_off(s, entry), "a sector bitmap of state %" PRIu32, state);
}

int vd_vhdx_judge_entry(const struct vd_vhdx *s, uint64_t entry, uint64_t raw, uint32_t *state, uint64_t *host_off,
			struct vd_error *e)
{
	bool is_bitmap = vd_vhdx_is_bitmap_entry(s, entry);

	*state = raw & VHDX_STATE_MASK;
	*host_off = raw & ~(VHDX_MIB - 1);
	if (raw & VHDX_RESERVED_MASK)
		return vd_corrupt(s->name, e, vd_vhdx_entry_off(s, entry), "entry %" PRIu64 " has reserved bits set", entry);
	if (is_bitmap)
		return judge_bitmap(s, entry, *state, host_off, e);
	switch (*state) {
	case VHDX_NOT_PRESENT:
		*host_off = 0;
		return 0;
	case VHDX_UNDEFINED:
	case VHDX_ZERO:
	case VHDX_UNMAPPED:
	case VHDX_UNMAPPED_095:
		return *host_off ? judge_place(s, entry, *host_off, s->block_size, e) : 0;
	case VHDX_PARTIAL:
		if (s->has_parent)
			return judge_place(s, entry, *host_off, s->block_size, e);
		return vd_corrupt(s->name, e, vd_vhdx_entry_off(s, entry), "block of entry %" PRIu64 " is partially present, and there is no parent", entry);
	case VHDX_FULL:
		return judge_place(s, entry, *host_off, s->block_size, e);
	default:
		return vd_corrupt(s->name, e, vd_vhdx_entry_off(s, entry), "entry %" PRIu64 " has the unknown state %" PRIu32, entry, *state);
	}
}

int vd_vhdx_entry(const struct vd_vhdx *s, uint64_t entry, unsigned meta_flags, uint32_t *state, uint64_t *host_off,
		  struct vd_error *e)
{
	uint8_t raw[8];
	int r = vd_meta_read(s->meta, 0, vd_vhdx_entry_off(s, entry), raw, sizeof(raw), meta_flags, e);

	return r < 0 ? r : vd_vhdx_judge_entry(s, entry, vd_get_le64(raw), state, host_off, e);
}

/* ---- sectors -------------------------------------------------------------------------------------------- */

/* From bit i on, below end: where the first that is not `wanted` is. */
static uint32_t skip_alike(const uint8_t *bits, uint32_t i, uint32_t end, bool wanted)
{
	while (i < end) {
		if (i % 8 == 0 && end - i >= 8 && bits[i / 8] == (wanted ? 0xff : 0))
			i += 8;
		else if ((bits[i / 8] >> i % 8 & 1) == wanted)
			i++;
		else
			break;
	}
	return i;
}

static int find_bitmap(const struct vd_vhdx *s, uint64_t chunk, unsigned meta_flags, uint64_t *host_off, struct vd_error *e)
{
	uint64_t entry = vd_vhdx_bitmap_entry(s, chunk);
	uint32_t state;
	int r = vd_vhdx_entry(s, entry, meta_flags, &state, host_off, e);

	if (r == 0 && !*host_off)
		r = vd_corrupt(s->name, e, vd_vhdx_entry_off(s, entry), "a block of chunk %" PRIu64 " is partially present, and the chunk has no sector bitmap",
			       chunk);
	return r;
}

int vd_vhdx_sectors_alike(const struct vd_vhdx *s, uint64_t guest_off, uint64_t end, unsigned meta_flags, bool *are_set,
			  uint64_t *len, struct vd_error *e)
{
	uint64_t chunk_size = VHDX_CHUNK_SECTORS * s->sector_size, chunk = guest_off / chunk_size, bitmap;
	uint32_t sector = (guest_off - chunk * chunk_size) / s->sector_size, at = sector;
	uint32_t stop = sector + (end - 1) / s->sector_size - guest_off / s->sector_size + 1;
	uint8_t bits[BITMAP_PART];
	int r = find_bitmap(s, chunk, meta_flags, &bitmap, e);

	while (r == 0 && at < stop) {
		uint32_t first = vd_round_down(at, 8), part = vd_min_u64(stop - first, sizeof(bits) * 8), i;

		r = vd_meta_read(s->meta, 0, bitmap + first / 8, bits, vd_round_up(part, 8) / 8, meta_flags, e);
		if (r < 0)
			return r;
		if (at == sector)
			*are_set = bits[(at - first) / 8] >> at % 8 & 1;
		i = first + skip_alike(bits, at - first, part, *are_set);
		at = i;
		if (i < first + part)
			break;
	}
	*len = vd_min_u64((guest_off / s->sector_size + (at - sector)) * s->sector_size, end) - guest_off;
	return r;
}

/* ---- the map -------------------------------------------------------------------------------------------- */

struct walk {
	const struct vd_vhdx *s;
	unsigned meta_flags;
	struct vd_runs out;
};

static int add_data(struct walk *w, uint64_t to, uint64_t host_off, struct vd_error *e)
{
	/* What else reads payload knows nothing of the log. */
	if (w->s->n_replayed && vd_vhdx_is_replayed(w->s, host_off, to - w->out.at))
		return vd_fail_at(e, VD_EUNSUPPORTED, host_off, "%s: its log changes payload, which is not read from a log", w->s->name);
	vd_runs_add(&w->out, to, VD_DATA, host_off);
	return 0;
}

static int add_partial(struct walk *w, uint64_t start, uint64_t host_off, uint64_t end, struct vd_error *e)
{
	while (w->out.at < end && !w->out.is_full) {
		uint64_t len;
		bool are_set;
		int r = vd_vhdx_sectors_alike(w->s, w->out.at, end, w->meta_flags, &are_set, &len, e);

		if (r == 0 && are_set)
			r = add_data(w, w->out.at + len, host_off + (w->out.at - start), e);
		else if (r == 0)
			vd_runs_add(&w->out, w->out.at + len, VD_HOLE, 0);
		if (r < 0)
			return r;
	}
	return 0;
}

/* From out.at up to `end` in one block. */
static int add_block(struct walk *w, uint64_t block, uint64_t raw, uint64_t end, struct vd_error *e)
{
	uint64_t start = block * w->s->block_size, host_off;
	uint32_t state;
	int r = vd_vhdx_judge_entry(w->s, vd_vhdx_block_entry(w->s, block), raw, &state, &host_off, e);

	if (r < 0)
		return r;
	if (state == VHDX_FULL)
		return add_data(w, end, host_off + (w->out.at - start), e);
	if (state == VHDX_PARTIAL)
		return add_partial(w, start, host_off, end, e);
	/* Undefined and unmapped blocks hold nothing that counts, nor does the parent there. */
	vd_runs_add(&w->out, end, state == VHDX_NOT_PRESENT ? VD_HOLE : VD_ZERO, 0);
	return 0;
}

/* How many entries from the first on name nothing. */
static uint64_t count_empty(const uint8_t *raw, uint64_t n)
{
	uint64_t i = 0;

	while (i < n && !vd_get_le64(raw + i * 8))
		i++;
	return i;
}

/* Up to where the entries [entry, entry + n) of the bat describe the disk. */
static uint64_t guest_end(const struct vd_vhdx *s, uint64_t entry, uint64_t n)
{
	uint64_t end = entry + n;

	return (end - end / (s->chunk_ratio + 1)) * s->block_size;
}

/* Those of bitmaps lie between. */
static int walk_batch(struct walk *w, uint64_t *looked, struct vd_error *e)
{
	const struct vd_vhdx *s = w->s;
	uint64_t first = vd_vhdx_block_entry(s, w->out.at / s->block_size);
	uint64_t n = vd_min_u64(vd_vhdx_block_entry(s, (w->out.end - 1) / s->block_size) - first + 1, BATCH), empty;
	uint8_t raw[BATCH * 8];
	int r = vd_meta_read(s->meta, 0, vd_vhdx_entry_off(s, first), raw, n * 8, w->meta_flags, e);

	for (uint64_t i = 0; i < n && r == 0 && !w->out.is_full; i += vd_max_u64(empty, 1)) {
		empty = count_empty(raw + i * 8, n - i);
		if (empty && guest_end(s, first + i, empty) > w->out.at)
			vd_runs_add(&w->out, vd_min_u64(w->out.end, guest_end(s, first + i, empty)), VD_HOLE, 0);
		else if (!empty && !vd_vhdx_is_bitmap_entry(s, first + i))
			r = add_block(w, guest_end(s, first + i, 0) / s->block_size, vd_get_le64(raw + i * 8),
				      vd_min_u64(w->out.end, guest_end(s, first + i, 1)), e);
	}
	/* Each is held against what the log changed. */
	*looked += n * (s->n_replayed + 1);
	return r;
}

/*
 * Of a handle that never writes the file is the truth: where the host holds nothing of the bat, no block is there. So a huge
 * empty disk costs no reading.
 */
static int skip_hole(struct walk *w, struct vd_error *e)
{
	const struct vd_vhdx *s = w->s;
	uint64_t first = vd_vhdx_block_entry(s, w->out.at / s->block_size), end, len;
	bool is_data;
	int r;

	if (s->writes || s->log_is_open || s->n_replayed || (w->out.end - w->out.at) / s->block_size < BATCH)
		return 0;
	r = vd_io_extent(vd_set_io(s->set, 0), vd_vhdx_entry_off(s, first), &is_data, &len, e);
	if (r < 0 || is_data)
		return r;
	end = vd_min_u64(guest_end(s, first, vd_min_u64(len, s->bat.len) / 8), w->out.end);
	if (end > w->out.at)
		vd_runs_add(&w->out, end, VD_HOLE, 0);
	return 0;
}

int vd_vhdx_map(void *st, uint64_t off, uint64_t len, unsigned flags, struct vd_run *runs, size_t *n, struct vd_error *e)
{
	struct walk w = {
		.s = st, .meta_flags = flags & VD_MAP_NOWAIT ? VD_META_NOWAIT : 0,
		.out = { .at = off, .end = off + len, .runs = runs, .cap = *n },
	};
	uint64_t looked = 0;
	int r = 0;

	while (r == 0 && w.out.at < w.out.end && !w.out.is_full && looked < ENTRIES_MAX) {
		r = skip_hole(&w, e);
		if (r == 0 && w.out.at < w.out.end && !w.out.is_full)
			r = walk_batch(&w, &looked, e);
	}
	/* What was found before a table was missing in memory is an answer. */
	if (r < 0 && !(r == VD_EAGAIN && w.out.n))
		return r;
	*n = w.out.n;
	return 0;
}
