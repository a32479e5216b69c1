/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Lays out an empty disk. Writes the files directly: there is nothing yet that a crash could harm. */
#include "formats/vmdk/vmdk.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

#define N(table) (sizeof(table) / sizeof((table)[0]))
#define GRAIN_DEFAULT   65536u
#define GRAIN_MIN       4096u
#define GRAIN_NEW_MAX   (2u << 20)
#define GTES            512             /* what VMware writes always */
#define DESC_SECTOR     1               /* of an embedded descriptor, which has 20 sectors in every file of VMware's */
#define DESC_SECTORS    20
#define HEADS_IDE       16
#define HEADS_SCSI      255
#define TRACK_SECTORS   63
#define CYLINDERS_IDE_MAX 16383
#define HARDWARE_DEFAULT 4

static const struct kind {
	const char *name, *type, *suffix, *adapter;     /* suffix: of the extents' files; NULL: embedded */
	bool is_sparse, is_split, is_stream, is_cowd, is_thin;  /* thin: ESX says so elsewhere than in the type */
} kinds[] = {
	{ .name = "monolithicSparse", .type = "SPARSE", .adapter = "ide", .is_sparse = true },
	{ .name = "monolithicFlat", .type = "FLAT", .suffix = "-flat", .adapter = "ide" },
	{ .name = "twoGbMaxExtentSparse", .type = "SPARSE", .suffix = "-s", .adapter = "ide", .is_sparse = true, .is_split = true },
	{ .name = "twoGbMaxExtentFlat", .type = "FLAT", .suffix = "-f", .adapter = "ide", .is_split = true },
	{ .name = "vmfs", .type = "VMFS", .suffix = "-flat", .adapter = "lsilogic" },
	{ .name = "vmfsThin", .type = "VMFS", .suffix = "-flat", .adapter = "lsilogic", .is_thin = true },
	{ .name = "vmfsSparse", .type = "VMFSSPARSE", .suffix = "-delta", .adapter = "lsilogic", .is_sparse = true, .is_cowd = true },
	{ .name = "streamOptimized", .type = "SPARSE", .adapter = "lsilogic", .is_sparse = true, .is_stream = true },
};
static const char *const adapters[] = { "ide", "lsilogic", "buslogic", "legacyESX", "pvscsi" };

struct plan {
	const struct vd_create *c;
	const struct vd_create_opts *o;
	const struct kind *kind;
	const struct vd_vmdk *parent;
	const char *adapter;
	uint64_t grain;
	char *text;                     /* the descriptor */
	size_t text_len, text_room;
};

/* ---- options --------------------------------------------------------------------------------------------- */

static int choose_kind(struct plan *p, struct vd_error *e)
{
	const char *name = p->o->subformat ? p->o->subformat : kinds[0].name;

	for (size_t i = 0; i < N(kinds) && !p->kind; i++)
		if (!strcmp(kinds[i].name, name))
			p->kind = &kinds[i];
	if (p->kind)
		return 0;
	vd_fail(e, VD_EARG, "VMDK has no subformat '%s' that is written", name);
	return vd_hint(e, VD_EARG, "monolithicSparse, monolithicFlat, twoGbMaxExtentSparse, twoGbMaxExtentFlat, vmfs, vmfsThin, "
		       "vmfsSparse and streamOptimized are");
}

static int choose_adapter(struct plan *p, struct vd_error *e)
{
	p->adapter = p->o->adapter_type ? p->o->adapter_type : p->kind->adapter;
	for (size_t i = 0; i < N(adapters); i++)
		if (!strcmp(adapters[i], p->adapter))
			return 0;
	vd_fail(e, VD_EARG, "there is no adapter type '%s'", p->adapter);
	return vd_hint(e, VD_EARG, "ide, lsilogic, buslogic, legacyESX and pvscsi are known");
}

static int judge_parent(struct plan *p, struct vd_error *e)
{
	if (!p->o->backing_file)
		return 0;
	if (!p->kind->is_sparse || p->kind->is_stream)
		return vd_fail(e, VD_EUNSUPPORTED, "%s has no parent: only sparse disks are children", p->kind->name);
	if (!p->c->parent)
		return vd_fail(e, VD_EUNSUPPORTED, "the parent of a VMDK is a VMDK, not %s", p->o->backing_format);
	p->parent = p->c->parent;
	if (p->parent->d.has_cid)
		return 0;
	return vd_fail(e, VD_EUNSUPPORTED, "the parent %s has no CID, by which a child would know it", p->o->backing_file);
}

static int judge_size(const struct plan *p, struct vd_error *e)
{
	/* Sectors of one sparse file are counted in 32 bits. */
	uint64_t max = p->kind->is_sparse && !p->kind->is_split ? VMDK_SPARSE_MAX : INT64_MAX;

	if (!p->c->size)
		return vd_fail(e, VD_EARG, "a VMDK has at least one sector");
	if (p->c->size > max)
		return vd_fail(e, VD_EARG, "a disk of %" PRIu64 " bytes is too large for %s: at most %" PRIu64, p->c->size,
			       p->kind->name, max);
	if (p->kind->is_split && (p->c->size - 1) / VMDK_PART_BYTES >= VMDK_EXTENTS_MAX)
		return vd_fail(e, VD_EARG, "a disk of %" PRIu64 " bytes has too many extents", p->c->size);
	return 0;
}

static int choose_grain(struct plan *p, struct vd_error *e)
{
	uint32_t least = p->kind->is_cowd ? VMDK_SECTOR : GRAIN_MIN;

	p->grain = p->o->cluster_size ? p->o->cluster_size : p->kind->is_cowd ? VMDK_SECTOR : GRAIN_DEFAULT;
	if (vd_is_pow2(p->grain) && p->grain >= least && p->grain <= GRAIN_NEW_MAX)
		return 0;
	return vd_fail(e, VD_EARG, "grains of %" PRIu64 " bytes are not possible: a power of two from %u to %u", p->grain,
		       least, GRAIN_NEW_MAX);
}

/* ---- the descriptor -------------------------------------------------------------------------------------- */

/* Numbers that stand for "none" and "elsewhere" are left out. */
static int new_cid(uint32_t *cid, struct vd_error *e)
{
	do
		if (getrandom(cid, sizeof(*cid), 0) != sizeof(*cid))
			return vd_fail(e, VD_EIO, "no random numbers are to be had");
	while (*cid >= VMDK_CID_LONG);
	return 0;
}

static int add(struct plan *p, struct vd_error *e, const char *fmt, ...) VD_PRINTF(3, 4);
static int add(struct plan *p, struct vd_error *e, const char *fmt, ...)
{
	va_list ap;
	int n, r = 0;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (p->text_len + n + 1 > p->text_room) {
		p->text_room = (p->text_len + n + 1) * 2;
		r = vd_realloc(&p->text, p->text_room, 1, e);
	}
	if (r < 0)
		return r;
	va_start(ap, fmt);
	vsnprintf(p->text + p->text_len, n + 1, fmt, ap);
	va_end(ap);
	p->text_len += n;
	return 0;
}

static int judge_name(const char *name, struct vd_error *e)
{
	if (!strpbrk(name, "\"\n\r"))
		return 0;
	return vd_fail(e, VD_EARG, "a name with quotes or line ends has no place in a descriptor: '%s'", name);
}

/* "disk.vmdk" and "-s", 1: "disk-s001.vmdk". The caller frees it. */
static int part_name(const struct plan *p, uint64_t number, char **out, struct vd_error *e)
{
	const char *name = p->c->name, *dot = strrchr(name, '.');
	size_t stem = dot && dot != name ? (size_t)(dot - name) : strlen(name), room = strlen(name) + 24;
	char digits[16] = "";
	int r = vd_alloc(room, 1, out, e);

	if (r < 0)
		return r;
	if (p->kind->is_split)
		snprintf(digits, sizeof(digits), "%03u", (unsigned)number);
	snprintf(*out, room, "%.*s%s%s%s", (int)stem, name, p->kind->suffix, digits, name + stem);
	return 0;
}

static int describe_disk(struct plan *p, struct vd_error *e)
{
	uint64_t sectors = p->c->size / VMDK_SECTOR;
	unsigned heads = strcmp(p->adapter, "ide") ? HEADS_SCSI : HEADS_IDE;
	uint64_t cylinders = sectors / (heads * TRACK_SECTORS);

	if (heads == HEADS_IDE)
		cylinders = vd_min_u64(cylinders, CYLINDERS_IDE_MAX);
	return add(p, e, "\n# The Disk Data Base\n#DDB\n\nddb.virtualHWVersion = \"%u\"\nddb.geometry.cylinders = \"%" PRIu64
		   "\"\nddb.geometry.heads = \"%u\"\nddb.geometry.sectors = \"%u\"\nddb.adapterType = \"%s\"\n%s",
		   p->o->hw_version ? p->o->hw_version : HARDWARE_DEFAULT, cylinders, heads, TRACK_SECTORS, p->adapter,
		   p->kind->is_thin ? "ddb.thinProvisioned = \"1\"\n" : "");
}

static int describe_head(struct plan *p, struct vd_error *e)
{
	uint32_t cid, parent = p->parent ? p->parent->d.cid : VMDK_CID_NONE;
	int r = new_cid(&cid, e);

	if (r == 0 && p->parent)
		r = judge_name(p->o->backing_file, e);
	if (r == 0)
		r = add(p, e, "# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID=%08" PRIx32 "\nparentCID=%08" PRIx32
			"\ncreateType=\"%s\"\n", cid, parent, p->kind->is_thin ? "vmfs" : p->kind->name);
	if (r == 0 && p->parent)
		r = add(p, e, "parentFileNameHint=\"%s\"\n", p->o->backing_file);
	return r < 0 ? r : add(p, e, "\n# Extent description\n");
}

/* ---- sparse extents -------------------------------------------------------------------------------------- */

/* In sectors: header, descriptor, redundant directory and its tables, directory and its tables, grains. */
struct layout {
	uint64_t capacity, grain, n_tables, table_sectors;
	uint64_t desc_off, desc_len, rgd, rgts, gd, gts, overhead;
	uint32_t version, flags;
};

static struct layout lay_out(const struct plan *p, uint64_t size)
{
	struct layout l = {
		.capacity = size / VMDK_SECTOR, .grain = p->grain / VMDK_SECTOR, .table_sectors = GTES * 4 / VMDK_SECTOR,
		.version = 1, .flags = VMDK_FLAG_NEWLINE | VMDK_FLAG_REDUNDANT,
	};
	uint64_t gd_sectors;

	l.n_tables = vd_round_up(size, GTES * p->grain) / (GTES * p->grain);
	gd_sectors = vd_round_up(l.n_tables * 4, VMDK_SECTOR) / VMDK_SECTOR;
	l.rgd = 1;
	if (!p->kind->suffix) {
		l.desc_off = DESC_SECTOR;
		l.desc_len = vd_max_u64(DESC_SECTORS, vd_round_up(p->text_len, VMDK_SECTOR) / VMDK_SECTOR);
		l.rgd = l.desc_off + l.desc_len;
	}
	l.rgts = l.rgd + gd_sectors;
	l.gd = l.rgts + l.n_tables * l.table_sectors;
	l.gts = l.gd + gd_sectors;
	l.overhead = vd_round_up(l.gts + l.n_tables * l.table_sectors, l.grain);
	if (p->o->flags & VD_CREATE_ZEROED_GRAINS) {
		l.version = 2;
		l.flags |= VMDK_FLAG_ZEROED;
	}
	return l;
}

void vd_vmdk_header_put(uint8_t *raw, const struct vd_vmdk_header *h)
{
	memset(raw, 0, VMDK_HEADER_LEN);
	vd_put_le32(raw, VMDK_MAGIC);
	vd_put_le32(raw + 4, h->version);
	vd_put_le32(raw + 8, h->flags);
	vd_put_le64(raw + 12, h->capacity);
	vd_put_le64(raw + 20, h->grain);
	vd_put_le64(raw + 28, h->desc_off);
	vd_put_le64(raw + 36, h->desc_len);
	vd_put_le32(raw + 44, h->entries);
	vd_put_le64(raw + 48, h->rgd_off);
	vd_put_le64(raw + 56, h->gd_off);
	vd_put_le64(raw + 64, h->overhead);
	raw[VMDK_AT_UNCLEAN] = h->unclean;
	memcpy(raw + 73, "\n \r\n", 4);
	vd_put_le16(raw + 77, h->compression);
}

static int write_directory(struct vd_io *io, uint64_t at, uint64_t first_table, const struct layout *l, struct vd_error *e)
{
	vd_auto_free uint8_t *raw = NULL;
	int r = vd_alloc(l->n_tables, 4, &raw, e);

	for (uint64_t i = 0; i < l->n_tables && r == 0; i++)
		vd_put_le32(raw + 4 * i, first_table + i * l->table_sectors);
	return r < 0 ? r : vd_io_pwrite(io, raw, l->n_tables * 4, at * VMDK_SECTOR, e);
}

static int make_sparse(const struct plan *p, struct vd_io *io, uint64_t size, struct vd_error *e)
{
	struct layout l = lay_out(p, size);
	struct vd_vmdk_header h = {
		.version = l.version, .flags = l.flags, .capacity = l.capacity, .grain = l.grain, .desc_off = l.desc_off,
		.desc_len = l.desc_len, .entries = GTES, .rgd_off = l.rgd, .gd_off = l.gd, .overhead = l.overhead,
	};
	uint8_t raw[VMDK_HEADER_LEN];
	int r = vd_io_truncate(io, l.overhead * VMDK_SECTOR, e);

	vd_vmdk_header_put(raw, &h);
	if (r == 0)
		r = vd_io_pwrite(io, raw, sizeof(raw), 0, e);
	if (r == 0 && l.desc_len)
		r = vd_io_pwrite(io, p->text, p->text_len, l.desc_off * VMDK_SECTOR, e);
	if (r == 0)
		r = write_directory(io, l.rgd, l.rgts, &l, e);
	return r < 0 ? r : write_directory(io, l.gd, l.gts, &l, e);
}

/* ---- COWD extents ---------------------------------------------------------------------------------------- */

#define COWD_GD_AT (VMDK_COWD_HEADER_LEN / VMDK_SECTOR)

static uint64_t cowd_tables(const struct plan *p, uint64_t size)
{
	return vd_round_up(size, VMDK_COWD_GTES * p->grain) / (VMDK_COWD_GTES * p->grain);
}

/* Header and an empty directory; tables come with what is written. */
static int make_cowd(const struct plan *p, struct vd_io *io, uint64_t size, struct vd_error *e)
{
	uint64_t n = cowd_tables(p, size), free_at = COWD_GD_AT + vd_round_up(n * 4, VMDK_SECTOR) / VMDK_SECTOR;
	const uint32_t fields[] = {
		VMDK_COWD_MAGIC, 1, 3, size / VMDK_SECTOR, p->grain / VMDK_SECTOR, COWD_GD_AT, n, free_at,
		size / VMDK_SECTOR / (HEADS_SCSI * TRACK_SECTORS), HEADS_SCSI, TRACK_SECTORS,
	};
	uint8_t raw[VMDK_COWD_HEADER_LEN] = { 0 };
	int r = vd_io_truncate(io, free_at * VMDK_SECTOR, e);

	for (size_t i = 0; i < N(fields); i++)
		vd_put_le32(raw + 4 * i, fields[i]);
	return r < 0 ? r : vd_io_pwrite(io, raw, sizeof(raw), 0, e);
}

int vd_vmdk_extent_make(struct vd_io *io, uint64_t size, const struct vd_vmdk_sparse *like, struct vd_error *e)
{
	const struct vd_create_opts o = { .flags = like->flags & VMDK_FLAG_ZEROED ? VD_CREATE_ZEROED_GRAINS : 0 };
	const struct kind beside = { .suffix = "", .is_sparse = true };
	const struct plan p = { .o = &o, .kind = &beside, .grain = like->grain };

	return make_sparse(&p, io, size, e);
}

/* ---- files ----------------------------------------------------------------------------------------------- */

static int make_part(struct plan *p, uint64_t number, uint64_t size, struct vd_error *e)
{
	vd_auto_free char *name = NULL;
	struct vd_io *io;
	int r = part_name(p, number, &name, e);

	if (r == 0)
		r = p->c->add_part(p->c->ctx, name, e);
	if (r < 0)
		return r;
	io = vd_set_io(p->c->set, vd_set_count(p->c->set) - 1);
	if (p->kind->is_cowd)
		r = make_cowd(p, io, size, e);
	else
		r = p->kind->is_sparse ? make_sparse(p, io, size, e) : vd_io_truncate(io, size, e);
	if (r < 0)
		return r;
	return add(p, e, "RW %" PRIu64 " %s \"%s\"%s\n", size / VMDK_SECTOR, p->kind->type, name,
		   p->kind->is_sparse || !strcmp(p->kind->type, "VMFS") ? "" : " 0");
}

static int make_parts(struct plan *p, struct vd_error *e)
{
	uint64_t left = p->c->size, size;
	int r = 0;

	for (uint64_t i = 1; left && r == 0; i++, left -= size) {
		size = p->kind->is_split ? vd_min_u64(left, VMDK_PART_BYTES) : left;
		r = make_part(p, i, size, e);
	}
	return r;
}

static int make_whole(struct plan *p, struct vd_error *e)
{
	struct vd_io *io = vd_set_io(p->c->set, 0);
	uint64_t sectors = p->c->size / VMDK_SECTOR;
	int r = 0;

	if (p->kind->is_stream)
		r = add(p, e, "RDONLY %" PRIu64 " SPARSE \"generated-stream.vmdk\"\n", sectors);
	else
		r = add(p, e, "RW %" PRIu64 " SPARSE \"%s\"\n", sectors, p->c->name);
	if (r == 0)
		r = describe_disk(p, e);
	if (r < 0)
		return r;
	if (p->kind->is_stream)
		return vd_vmdk_stream_create(io, p->c->size, p->grain, (struct vd_bytes){ (uint8_t *)p->text, p->text_len }, e);
	return make_sparse(p, io, p->c->size, e);
}

static int make(struct plan *p, struct vd_error *e)
{
	struct vd_io *io = vd_set_io(p->c->set, 0);
	int r = judge_name(p->c->name, e);

	if (r == 0 && io->is_device)
		r = vd_fail(e, VD_EUNSUPPORTED, "%s is a device: a VMDK is one or more files", io->name);
	if (r == 0)
		r = describe_head(p, e);
	if (r < 0 || !p->kind->suffix)
		return r < 0 ? r : make_whole(p, e);
	r = make_parts(p, e);
	if (r == 0)
		r = describe_disk(p, e);
	return r < 0 ? r : vd_io_pwrite(io, p->text, p->text_len, 0, e);
}

static int judge_options(struct plan *p, struct vd_error *e)
{
	int r = choose_kind(p, e);

	if (r == 0)
		r = choose_adapter(p, e);
	if (r == 0)
		r = judge_size(p, e);
	return r < 0 ? r : choose_grain(p, e);
}

/* Of a stream: with grains that do not compress. */
int vd_vmdk_forecast(const struct vd_create *c, struct vd_forecast *f, struct vd_error *e)
{
	struct plan p = { .c = c, .o = c->opts };
	uint64_t part, descriptor = DESC_SECTORS * VMDK_SECTOR;
	int r = judge_options(&p, e);

	if (r < 0)
		return r;
	f->is_full = !p.kind->is_sparse;
	f->unit = p.kind->is_sparse ? p.grain : VMDK_SECTOR;
	f->overhead = p.kind->suffix ? descriptor : 0;
	if (p.kind->is_stream)
		f->overhead = vd_vmdk_stream_overhead(c->size, p.grain);
	if (p.kind->is_cowd)
		f->overhead += VMDK_COWD_HEADER_LEN + vd_round_up(cowd_tables(&p, c->size) * 4, VMDK_SECTOR) +
			       cowd_tables(&p, c->size) * VMDK_COWD_GTES * 4;
	for (uint64_t left = c->size; left && p.kind->is_sparse && !p.kind->is_stream && !p.kind->is_cowd; left -= part) {
		part = p.kind->is_split ? vd_min_u64(left, VMDK_PART_BYTES) : left;
		f->overhead += lay_out(&p, part).overhead * VMDK_SECTOR;
	}
	return 0;
}

int vd_vmdk_create(const struct vd_create *c, struct vd_error *e)
{
	struct plan p = { .c = c, .o = c->opts };
	int r = judge_options(&p, e);

	if (r == 0)
		r = judge_parent(&p, e);
	if (r == 0)
		r = make(&p, e);
	free(p.text);
	return r;
}
