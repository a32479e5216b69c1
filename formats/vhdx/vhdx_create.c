/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Lays out an empty image. Writes the file directly: there is nothing yet that a crash could harm. */
#include "formats/vhdx/vhdx.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/base/utf16.h"

#define CREATOR "vdisk"
#define SECTOR_SIZE 512u                /* of new disks without a parent, if nothing is said; what is below is 4096 today */
#define PHYSICAL_SECTOR_SIZE 4096u
#define LOG_BYTES VHDX_MIB
#define CHUNK 65536u

struct plan {
	const struct vd_create *c;
	struct vd_vhdx s;               /* what an open would find */
	uint8_t locator[VHDX_ITEM_MAX];
	size_t locator_len;
	uint64_t blocks_off, end;
};

/* ---- options -------------------------------------------------------------------------------------------- */

static int choose_type(struct plan *p, struct vd_error *e)
{
	const struct vd_create_opts *o = p->c->opts;
	const char *kind = o->subformat ? o->subformat : o->backing_file ? "differencing" : "dynamic";

	p->s.has_parent = !strcmp(kind, "differencing");
	p->s.leaves_allocated = !strcmp(kind, "fixed");
	if (!p->s.has_parent && !p->s.leaves_allocated && strcmp(kind, "dynamic"))
		return vd_fail(e, VD_EARG, "VHDX has no subformat '%s': fixed, dynamic and differencing are known", kind);
	if (p->s.has_parent != !!o->backing_file)
		return vd_fail(e, VD_EARG, o->backing_file ? "a VHDX with a backing file is differencing, not %s" :
			       "a %s VHDX needs a backing file", kind);
	if (p->s.has_parent && !p->c->parent)
		return vd_fail(e, VD_EUNSUPPORTED, "the parent of a differencing VHDX is a VHDX, not %s", o->backing_format);
	return 0;
}

static int choose_units(struct plan *p, struct vd_error *e)
{
	const struct vd_vhdx *parent = p->c->parent;
	uint32_t size = p->c->opts->cluster_size, wanted = p->c->opts->logical_sector_size;

	p->s.sector_size = parent ? parent->sector_size : SECTOR_SIZE;
	if (wanted && parent && wanted != parent->sector_size)
		return vd_fail(e, VD_EARG, "a child has sectors like its parent, of %" PRIu32 " bytes", parent->sector_size);
	if (wanted && wanted != 512 && wanted != 4096)
		return vd_fail(e, VD_EARG, "sectors of %" PRIu32 " bytes are not possible: 512 and 4096 are", wanted);
	if (wanted)
		p->s.sector_size = wanted;
	p->s.physical_sector_size = PHYSICAL_SECTOR_SIZE;
	if (!size)
		size = parent ? parent->block_size : VHDX_BLOCK_DEFAULT;
	if (!vd_is_pow2(size) || size < VHDX_MIB || size > VHDX_BLOCK_MAX)
		return vd_fail(e, VD_EARG, "a block size of %" PRIu32 " is not possible: a power of two from 1 MiB to 256 MiB", size);
	p->s.block_size = size;
	p->s.chunk_ratio = VHDX_CHUNK_SECTORS * p->s.sector_size / size;
	return 0;
}

static int judge_size(struct plan *p, struct vd_error *e)
{
	p->s.size = p->c->size;
	if (p->s.size > VHDX_SIZE_MAX)
		return vd_fail(e, VD_EARG, "a disk of %" PRIu64 " bytes is too large: a VHDX has at most 64 TiB", p->s.size);
	if (!p->s.size || p->s.size % p->s.sector_size)
		return vd_fail(e, VD_EARG, "a disk of %" PRIu64 " bytes: a VHDX has whole sectors of %" PRIu32 ", at least one", p->s.size,
			       p->s.sector_size);
	return 0;
}

/* ---- layout --------------------------------------------------------------------------------------------- */

static int build_locator(struct plan *p, struct vd_error *e)
{
	const struct vd_vhdx *parent = p->c->parent;
	const struct vd_vhdx_locator_next next = {
		.linkage = &parent->h.data_write, .n_linkages = 1, .name = p->c->opts->backing_file,
	};

	return vd_vhdx_locator_build(&next, p->locator, sizeof(p->locator), &p->locator_len, e);
}

static int lay_out(struct plan *p, struct vd_error *e)
{
	struct vd_vhdx *s = &p->s;
	uint64_t n_blocks = vd_vhdx_n_blocks(s, s->size);
	int r = 0;

	s->log = (struct vd_vhdx_area){ "log", VHDX_MIB, LOG_BYTES };
	s->metadata = (struct vd_vhdx_area){ "metadata region", s->log.off + s->log.len, VHDX_MIB };
	s->bat = (struct vd_vhdx_area){ "bat", s->metadata.off + s->metadata.len,
					vd_round_up(vd_vhdx_n_entries(s, s->size) * 8, VHDX_MIB) };
	p->blocks_off = p->end = s->bat.off + s->bat.len;
	if (s->leaves_allocated)
		p->end += n_blocks * s->block_size;
	s->h = (struct vd_vhdx_header){ .version = 1, .log_length = s->log.len, .log_offset = s->log.off };
	r = vd_guid_make(s->h.file_write, true, e);
	if (r == 0)
		r = vd_guid_make(s->h.data_write, true, e);
	return r < 0 || !s->has_parent ? r : build_locator(p, e);
}

/* ---- writing -------------------------------------------------------------------------------------------- */

static int write_head(struct plan *p, struct vd_io *io, struct vd_error *e)
{
	vd_auto_free uint8_t *raw = NULL;
	size_t ignored;
	int r = vd_alloc(1, VHDX_REGIONS_BYTES, &raw, e);

	if (r < 0)
		return r;
	memcpy(raw, "vhdxfile", 8);
	if (!vd_utf16_encode(CREATOR, VD_UTF16_LE, raw + 8, 512, &ignored))
		memset(raw + 8, 0, 512);
	r = vd_io_pwrite(io, raw, 8 + 512, 0, e);
	for (unsigned i = 0; i < 2 && r == 0; i++) {
		p->s.h.sequence = i;
		vd_vhdx_header_build(&p->s.h, raw);
		r = vd_io_pwrite(io, raw, VHDX_HEADER_BYTES, VHDX_HEADER_OFF << i, e);
	}
	vd_vhdx_regions_build(&p->s, raw);
	for (unsigned i = 0; i < 2 && r == 0; i++)
		r = vd_io_pwrite(io, raw, VHDX_REGIONS_BYTES, VHDX_REGIONS_OFF + i * VHDX_REGIONS_BYTES, e);
	return r;
}

static int write_metadata(struct plan *p, struct vd_io *io, struct vd_error *e)
{
	vd_auto_free uint8_t *raw = NULL;
	int r = vd_alloc(1, VHDX_METADATA_BYTES, &raw, e);

	if (r == 0)
		r = vd_vhdx_metadata_build(&p->s, (struct vd_bytes){ p->locator, p->locator_len }, raw, e);
	return r < 0 ? r : vd_io_pwrite(io, raw, VHDX_METADATA_BYTES, p->s.metadata.off, e);
}

/* Of a fixed disk: every block is there, in order; bitmaps are not. */
static int write_bat(const struct plan *p, struct vd_io *io, struct vd_error *e)
{
	const struct vd_vhdx *s = &p->s;
	uint64_t n = vd_vhdx_n_entries(s, s->size), host_off = p->blocks_off;
	vd_auto_free uint8_t *raw = NULL;
	int r = vd_alloc(1, CHUNK, &raw, e);

	for (uint64_t first = 0, part; first < n && r == 0; first += part) {
		part = vd_min_u64(n - first, CHUNK / 8);
		for (uint64_t i = 0; i < part; i++) {
			bool is_bitmap = vd_vhdx_is_bitmap_entry(s, first + i);

			vd_put_le64(raw + i * 8, is_bitmap ? 0 : host_off | VHDX_FULL);
			host_off += is_bitmap ? 0 : s->block_size;
		}
		r = vd_io_pwrite(io, raw, part * 8, vd_vhdx_entry_off(s, first), e);
	}
	return r;
}

static int make_plan(struct plan *p, struct vd_error *e)
{
	int r = choose_type(p, e);

	if (r == 0)
		r = choose_units(p, e);
	if (r == 0)
		r = judge_size(p, e);
	return r < 0 ? r : lay_out(p, e);
}

int vd_vhdx_forecast(const struct vd_create *c, struct vd_forecast *f, struct vd_error *e)
{
	vd_auto_free struct plan *p = NULL;
	int r = vd_alloc(1, sizeof(*p), &p, e);

	if (r < 0)
		return r;
	p->c = c;
	r = make_plan(p, e);
	f->unit = vd_max_u64(p->s.block_size, 1);
	f->is_full = p->s.leaves_allocated;
	f->overhead = p->blocks_off;
	return r;
}

int vd_vhdx_create(const struct vd_create *c, struct vd_error *e)
{
	vd_auto_free struct plan *p = NULL;
	struct vd_io *io = vd_set_io(c->set, 0);
	int r = vd_alloc(1, sizeof(*p), &p, e);

	if (r == 0 && io->is_device)
		r = vd_fail(e, VD_EUNSUPPORTED, "%s is a device: a VHDX is made in a file", io->name);
	if (r < 0)
		return r;
	p->c = c;
	r = make_plan(p, e);
	if (r == 0)
		r = vd_io_truncate(io, p->end, e);
	if (r == 0)
		r = write_head(p, io, e);
	if (r == 0)
		r = write_metadata(p, io, e);
	return r < 0 || !p->s.leaves_allocated ? r : write_bat(p, io, e);
}
