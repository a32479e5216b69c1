/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Answers where guest bytes are: table entries in batches, then the bitmap of each block. Runs beside a writer. */
#include "formats/vhd/vhd.h"

#include "formats/runs.h"

#define BATCH 1024u                     /* table entries read at once */
#define ENTRIES_MAX (1u << 18)          /* looked at in one call, some milliseconds: who asks for more calls again */
#define BITMAP_PART 512u

static bool overlaps(uint64_t off, uint64_t len, uint64_t other, uint64_t other_len)
{
	return off < other + other_len && other < off + len;
}

int vd_vhd_judge_entry(const struct vd_vhd *s, uint64_t block, uint32_t entry, uint64_t *host_off, struct vd_error *e)
{
	uint64_t entry_off = s->h.table_offset + block * 4, off = (uint64_t)entry * VHD_SECTOR;
	uint64_t len = (uint64_t)s->bitmap_size + s->h.block_size;

	*host_off = 0;
	if (entry == VHD_ABSENT)
		return 0;
	/* Its last sectors may be missing with those that the file lost at its end: they read as zeros. */
	if (!vd_range_inside(off, s->bitmap_size, atomic_load(&s->host_end)))
		return vd_corrupt(s->name, e, entry_off, "block %" PRIu64 " at %" PRIu64 " lies outside the file", block, off);
	if (off < VHD_FOOTER_BYTES || overlaps(off, len, s->f.data_offset, VHD_HEADER_BYTES) ||
	    overlaps(off, len, s->h.table_offset, (uint64_t)s->h.max_entries * 4))
		return vd_corrupt(s->name, e, entry_off, "block %" PRIu64 " at %" PRIu64 " overlaps the image's own tables", block, off);
	*host_off = off;
	return 0;
}

int vd_vhd_block(const struct vd_vhd *s, uint64_t block, unsigned meta_flags, uint64_t *host_off, struct vd_error *e)
{
	uint8_t raw[4];
	int r = vd_meta_read(s->meta, 0, s->h.table_offset + block * 4, raw, sizeof(raw), meta_flags, e);

	return r < 0 ? r : vd_vhd_judge_entry(s, block, vd_get_be32(raw), host_off, e);
}

static bool bit_is_set(const struct vd_vhd *s, const uint8_t *bits, uint32_t i)
{
	return bits[i / 8] & (s->bits_from_low ? 1u << i % 8 : 0x80u >> i % 8);
}

/* From bit i on, below end: where the first that is not `wanted` is. */
static uint32_t skip_alike(const struct vd_vhd *s, const uint8_t *bits, uint32_t i, uint32_t end, bool wanted)
{
	while (i < end) {
		if (i % 8 == 0 && end - i >= 8 && bits[i / 8] == (wanted ? 0xff : 0))
			i += 8;
		else if (bit_is_set(s, bits, i) == wanted)
			i++;
		else
			break;
	}
	return i;
}

int vd_vhd_sectors_alike(const struct vd_vhd *s, uint64_t host_off, uint32_t sector, uint32_t n, unsigned meta_flags,
			 bool *are_set, uint32_t *n_alike, struct vd_error *e)
{
	uint32_t at = sector, end = sector + n;
	uint8_t bits[BITMAP_PART];

	while (at < end) {
		uint32_t first = vd_round_down(at, 8), part = vd_min_u64(end - first, sizeof(bits) * 8), stop;
		int r = vd_meta_read(s->meta, 0, host_off + first / 8, bits, vd_round_up(part, 8) / 8, meta_flags, e);

		if (r < 0)
			return r;
		if (at == sector)
			*are_set = bit_is_set(s, bits, at - first);
		stop = first + skip_alike(s, bits, at - first, part, *are_set);
		at = stop;
		if (stop < first + part)
			break;
	}
	*n_alike = at - sector;
	return 0;
}

struct walk {
	const struct vd_vhd *s;
	unsigned meta_flags;
	struct vd_runs out;
};

/* From out.at up to `end` in one block. */
static int add_block(struct walk *w, uint64_t block, uint64_t host_off, uint64_t end, struct vd_error *e)
{
	uint64_t start = block * w->s->h.block_size;

	while (w->out.at < end && !w->out.is_full) {
		uint32_t sector = (w->out.at - start) / VHD_SECTOR, n;
		uint64_t to;
		bool are_set;
		int r = vd_vhd_sectors_alike(w->s, host_off, sector, vd_round_up(end - start, VHD_SECTOR) / VHD_SECTOR - sector,
					     w->meta_flags, &are_set, &n, e);

		if (r < 0)
			return r;
		to = vd_min_u64(start + (uint64_t)(sector + n) * VHD_SECTOR, end);
		vd_runs_add(&w->out, to, are_set ? VD_DATA : VD_HOLE, host_off + w->s->bitmap_size + (w->out.at - start));
	}
	return 0;
}

static int map_dynamic(struct walk *w, struct vd_error *e)
{
	const struct vd_vhd *s = w->s;
	uint8_t raw[BATCH * 4];
	int r = 0;

	for (uint64_t looked = 0; w->out.at < w->out.end && !w->out.is_full && looked < ENTRIES_MAX && r == 0;) {
		uint64_t first = w->out.at / s->h.block_size;
		uint64_t n = vd_min_u64((w->out.end - 1) / s->h.block_size - first + 1, BATCH);

		r = vd_meta_read(s->meta, 0, s->h.table_offset + first * 4, raw, n * 4, w->meta_flags, e);
		for (uint64_t i = 0; i < n && r == 0 && !w->out.is_full; i++) {
			uint64_t end = vd_min_u64(w->out.end, (first + i + 1) * s->h.block_size), host_off;

			r = vd_vhd_judge_entry(s, first + i, vd_get_be32(raw + i * 4), &host_off, e);
			if (r == 0 && host_off)
				r = add_block(w, first + i, host_off, end, e);
			else if (r == 0)
				vd_runs_add(&w->out, end, VD_HOLE, 0);
		}
		looked += n;
	}
	return r;
}

/* As a raw disk: holes of the file are holes of the disk. */
static int map_fixed(struct walk *w, unsigned flags, struct vd_error *e)
{
	if (flags & VD_MAP_TO_READ)
		vd_runs_add(&w->out, w->out.end, VD_DATA, w->out.at);
	while (w->out.at < w->out.end && !w->out.is_full) {
		bool is_data;
		uint64_t len;
		int r = vd_io_extent(vd_set_io(w->s->set, 0), w->out.at, &is_data, &len, e);

		if (r < 0)
			return r;
		vd_runs_add(&w->out, vd_min_u64(w->out.end, w->out.at + len), is_data ? VD_DATA : VD_HOLE, w->out.at);
	}
	return 0;
}

int vd_vhd_map(void *st, uint64_t off, uint64_t len, unsigned flags, struct vd_run *runs, size_t *n, struct vd_error *e)
{
	struct vd_vhd *s = st;
	struct walk w = {
		.s = s, .meta_flags = flags & VD_MAP_NOWAIT ? VD_META_NOWAIT : 0,
		.out = { .at = off, .end = off + len, .runs = runs, .cap = *n },
	};
	int r = vd_vhd_is_fixed(s) ? map_fixed(&w, flags, e) : map_dynamic(&w, e);

	/* What was found before a table was missing in memory is an answer. */
	if (r < 0 && !(r == VD_EAGAIN && w.out.n))
		return r;
	*n = w.out.n;
	return 0;
}
