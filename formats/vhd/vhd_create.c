/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Lays out an empty image. Writes the file directly: there is nothing yet that a crash could harm. */
#include "formats/vhd/vhd.h"

#include "libvdisk/base/cursor.h"

#define CREATOR_VERSION 0x000a0000u
#define HOST_WINDOWS 0x5769326bu        /* "Wi2k" */
#define TABLE_OFF (VHD_FOOTER_BYTES + VHD_HEADER_BYTES)
#define AZURE_ALIGN (UINT64_C(1) << 20)

struct plan {
	const struct vd_create *c;
	uint32_t type, block_size, n_entries;
	uint64_t locator_off, end;      /* end: where the footer at the end goes */
	uint8_t footer[VHD_FOOTER_BYTES], header[VHD_HEADER_BYTES];
	struct vd_vhd_locator_text locator;
};

/* ---- options -------------------------------------------------------------------------------------------- */

static int choose_type(struct plan *p, struct vd_error *e)
{
	const struct vd_create_opts *o = p->c->opts;
	bool is_azure = o->flags & VD_CREATE_AZURE;
	const char *kind = o->subformat ? o->subformat : is_azure ? "fixed" : o->backing_file ? "differencing" : "dynamic";

	if (!strcmp(kind, "fixed"))
		p->type = VHD_FIXED;
	else if (!strcmp(kind, "dynamic"))
		p->type = VHD_DYNAMIC;
	else if (!strcmp(kind, "differencing"))
		p->type = VHD_DIFFERENCING;
	else
		return vd_fail(e, VD_EARG, "VHD has no subformat '%s': fixed, dynamic and differencing are known", kind);
	if ((p->type == VHD_DIFFERENCING) != !!o->backing_file)
		return vd_fail(e, VD_EARG, o->backing_file ? "a VHD with a backing file is differencing, not %s" :
			       "a %s VHD needs a backing file", kind);
	if (is_azure && p->type != VHD_FIXED)
		return vd_fail(e, VD_EARG, "Azure takes fixed VHDs only, not %s ones", kind);
	if (p->type == VHD_DIFFERENCING && !p->c->parent)
		return vd_fail(e, VD_EUNSUPPORTED, "the parent of a differencing VHD is a VHD, not %s", o->backing_format);
	return 0;
}

static int judge_size(const struct plan *p, struct vd_error *e)
{
	uint64_t size = p->c->size;

	if (size > VHD_SIZE_MAX)
		return vd_fail(e, VD_EARG, "a disk of %" PRIu64 " bytes is too large: a VHD has at most 2040 GiB", size);
	if (!size)
		return vd_fail(e, VD_EARG, "a VHD has at least one sector");
	if (p->c->opts->flags & VD_CREATE_AZURE && size % AZURE_ALIGN)
		return vd_fail(e, VD_EARG, "Azure takes disks of whole MiB only, not of %" PRIu64 " bytes", size);
	return 0;
}

static int choose_blocks(struct plan *p, struct vd_error *e)
{
	const struct vd_vhd *parent = p->c->parent;
	uint32_t size = p->c->opts->cluster_size;

	if (p->type == VHD_FIXED)
		return 0;
	if (!size)
		size = p->type == VHD_DIFFERENCING && !vd_vhd_is_fixed(parent) ? parent->h.block_size : VHD_BLOCK_DEFAULT;
	if (!vd_is_pow2(size) || size < VHD_BLOCK_MIN || size > VHD_BLOCK_MAX)
		return vd_fail(e, VD_EARG, "a block size of %" PRIu32 " is not possible: a power of two from %u to %u", size,
			       VHD_BLOCK_MIN, VHD_BLOCK_MAX);
	p->block_size = size;
	p->n_entries = p->c->size / size + (p->c->size % size != 0);
	return 0;
}

/* ---- structures ----------------------------------------------------------------------------------------- */

static int build_footer(struct plan *p, struct vd_error *e)
{
	struct vd_writer w = vd_writer_of(p->footer, sizeof(p->footer));
	uint8_t geometry[4], id[VD_GUID_LEN];
	int r = vd_guid_make(id, false, e);

	if (r < 0)
		return r;
	vd_vhd_geometry(p->c->size, geometry);
	vd_write_bytes(&w, "conectix", 8);
	vd_write_be32(&w, VHD_FEATURE_RESERVED);
	vd_write_be32(&w, VHD_VERSION);
	vd_write_be64(&w, p->type == VHD_FIXED ? VHD_NO_OFFSET : VHD_FOOTER_BYTES);
	vd_write_be32(&w, vd_vhd_now());
	vd_write_bytes(&w, VHD_CREATOR, 4);
	vd_write_be32(&w, CREATOR_VERSION);
	vd_write_be32(&w, HOST_WINDOWS);
	vd_write_be64(&w, p->c->size);
	vd_write_be64(&w, p->c->size);
	vd_write_bytes(&w, geometry, sizeof(geometry));
	vd_write_be32(&w, p->type);
	vd_write_be32(&w, 0);
	vd_write_bytes(&w, id, sizeof(id));
	vd_put_be32(p->footer + VHD_AT_CHECKSUM, vd_vhd_checksum(p->footer, sizeof(p->footer), VHD_AT_CHECKSUM));
	return 0;
}

static int build_header(struct plan *p, struct vd_error *e)
{
	struct vd_writer w = vd_writer_of(p->header, sizeof(p->header));
	const struct vd_vhd *parent = p->c->parent;
	int r = p->type == VHD_DIFFERENCING ? vd_vhd_locator_build(p->c->opts->backing_file, &p->locator, e) : 0;

	if (r < 0)
		return r;
	p->locator_off = TABLE_OFF + vd_round_up((uint64_t)p->n_entries * 4, VHD_SECTOR);
	p->end = p->locator_off + vd_round_up(p->locator.len, VHD_SECTOR);
	vd_write_bytes(&w, "cxsparse", 8);
	vd_write_be64(&w, VHD_NO_OFFSET);
	vd_write_be64(&w, TABLE_OFF);
	vd_write_be32(&w, VHD_VERSION);
	vd_write_be32(&w, p->n_entries);
	vd_write_be32(&w, p->block_size);
	vd_write_be32(&w, 0);
	if (p->type == VHD_DIFFERENCING)
		vd_vhd_header_set_parent(p->header, parent->f.id, parent->f.time, p->c->opts->backing_file, &p->locator,
					 p->locator_off);
	vd_vhd_header_seal(p->header);
	return 0;
}

/* ---- writing -------------------------------------------------------------------------------------------- */

static int write_table(const struct plan *p, struct vd_io *io, struct vd_error *e)
{
	uint8_t absent[4096];
	int r = 0;

	memset(absent, 0xff, sizeof(absent));
	for (uint64_t at = TABLE_OFF, n; at < p->locator_off && r == 0; at += n) {
		n = vd_min_u64(sizeof(absent), p->locator_off - at);
		r = vd_io_pwrite(io, absent, n, at, e);
	}
	return r;
}

static int write_image(const struct plan *p, struct vd_io *io, struct vd_error *e)
{
	int r = vd_io_truncate(io, p->end + VHD_FOOTER_BYTES, e);

	if (r == 0 && p->type != VHD_FIXED)
		r = vd_io_pwrite(io, p->footer, sizeof(p->footer), 0, e);
	if (r == 0 && p->type != VHD_FIXED)
		r = vd_io_pwrite(io, p->header, sizeof(p->header), VHD_FOOTER_BYTES, e);
	if (r == 0 && p->type != VHD_FIXED)
		r = write_table(p, io, e);
	if (r == 0 && p->locator.len)
		r = vd_io_pwrite(io, p->locator.raw, p->locator.len, p->locator_off, e);
	return r < 0 ? r : vd_io_pwrite(io, p->footer, sizeof(p->footer), p->end, e);
}

int vd_vhd_create(const struct vd_create *c, struct vd_error *e)
{
	struct plan p = { .c = c, .end = c->size };
	struct vd_io *io = vd_set_io(c->set, 0);
	int r = choose_type(&p, e);

	if (r == 0 && io->is_device)
		r = vd_fail(e, VD_EUNSUPPORTED, "%s is a device: a VHD is made in a file", io->name);
	if (r == 0)
		r = judge_size(&p, e);
	if (r == 0)
		r = choose_blocks(&p, e);
	if (r == 0)
		r = build_footer(&p, e);
	if (r == 0 && p.type != VHD_FIXED)
		r = build_header(&p, e);
	return r < 0 ? r : write_image(&p, io, e);
}

int vd_vhd_forecast(const struct vd_create *c, struct vd_forecast *f, struct vd_error *e)
{
	struct plan p = { .c = c };
	int r = choose_type(&p, e);

	if (r == 0)
		r = judge_size(&p, e);
	if (r == 0)
		r = choose_blocks(&p, e);
	if (r < 0)
		return r;
	f->is_full = p.type == VHD_FIXED;
	f->unit = f->is_full ? 1 : p.block_size;
	f->overhead = VHD_FOOTER_BYTES;
	if (!f->is_full)
		f->overhead += TABLE_OFF + vd_round_up((uint64_t)p.n_entries * 4, VHD_SECTOR) +
			       p.n_entries * vd_round_up(p.block_size / VHD_SECTOR / 8, VHD_SECTOR);
	return 0;
}
