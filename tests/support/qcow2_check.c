/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Walks the tables of a qcow2 file in memory (qemu's docs/interop/qcow2). */
#include "tests/support/qcow2_check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "libvdisk/base/bytes.h"
#include "libvdisk/base/checked.h"

#define OFFSET UINT64_C(0x00fffffffffffe00)
#define COPIED (UINT64_C(1) << 63)
#define COMPRESSED (UINT64_C(1) << 62)
#define HAS_DATA_FILE 4
#define EXTENDED_L2 16
#define EXT_LUKS 0x0537be77
#define EXT_BITMAPS 0x23852875

struct file {
	uint8_t *bytes;
	uint64_t size, cluster, n_clusters, incompat;
	uint32_t bits, order, n_entries, entry_size;    /* the latter two of an L2 table */
	uint32_t *owners;               /* by cluster */
	struct qcow2_verdict v;
};

static void complain(struct file *f, const char *fmt, ...) VD_PRINTF(2, 3);
static void complain(struct file *f, const char *fmt, ...)
{
	va_list ap;

	if (f->v.n_errors++)
		return;
	va_start(ap, fmt);
	vsnprintf(f->v.first, sizeof(f->v.first), fmt, ap);
	va_end(ap);
}

/* Zeros past the end. */
static uint64_t be(const struct file *f, uint64_t off, size_t len)
{
	uint64_t v = 0;

	for (size_t i = 0; i < len; i++)
		v = v << 8 | (off + i < f->size ? f->bytes[off + i] : 0);
	return v;
}

/* One owner more for all that the range touches; false: it is not in the file. */
static bool own(struct file *f, const char *what, uint64_t off, uint64_t len)
{
	uint64_t end;

	if (!len)
		return true;
	if (!vd_add_u64(off, len, &end) || (end - 1) / f->cluster >= f->n_clusters) {
		complain(f, "%s at %llu lies outside the file of %llu bytes", what, (unsigned long long)off,
			 (unsigned long long)f->size);
		return false;
	}
	for (uint64_t c = off / f->cluster; c <= (end - 1) / f->cluster; c++)
		f->owners[c]++;
	return true;
}

static bool own_table(struct file *f, const char *what, uint64_t off, uint64_t len)
{
	if (off % f->cluster == 0)
		return own(f, what, off, len);
	complain(f, "%s at %llu is not at a cluster", what, (unsigned long long)off);
	return false;
}

static uint64_t refcount(const struct file *f, uint64_t cluster)
{
	uint64_t per_block = f->cluster * 8 >> f->order, bit = cluster % per_block << f->order;
	uint64_t entry = cluster / per_block * 8;
	uint64_t block = entry < be(f, 56, 4) * f->cluster ? be(f, be(f, 48, 8) + entry, 8) : 0;

	if (!block)
		return 0;
	if (f->order >= 3)
		return be(f, block + bit / 8, 1u << (f->order - 3));
	return be(f, block + bit / 8, 1) >> bit % 8 & ((1u << (1u << f->order)) - 1);
}

/* The flag says that the one owner may write in place: it has to be right in both directions. */
static void check_copied(struct file *f, const char *what, uint64_t entry, uint64_t off)
{
	bool is_single = refcount(f, off / f->cluster) == 1;

	if (!(entry & COPIED) == is_single)
		complain(f, "%s at %llu: copied flag %d, refcount %llu", what, (unsigned long long)off,
			 !!(entry & COPIED),
			 (unsigned long long)refcount(f, off / f->cluster));
}

static void walk_entry(struct file *f, uint64_t entry, bool is_active)
{
	uint64_t off = entry & OFFSET;

	if (entry & COMPRESSED) {
		uint32_t shift = 62 - (f->bits - 8);
		uint64_t at = entry & ((UINT64_C(1) << shift) - 1);
		uint64_t sectors = (entry & ~(COPIED | COMPRESSED)) >> shift;

		/* The last sector may end past the end of the file. */
		own(f, "compressed cluster", at,
		    vd_min_u64((sectors + 1) * 512 - at % 512, vd_max_u64(f->size, at + 1) - at));
		return;
	}
	if (!off || f->incompat & HAS_DATA_FILE)
		return;
	if (own_table(f, "cluster", off, f->cluster) && is_active)
		check_copied(f, "cluster", entry, off);
}

static void walk_l1(struct file *f, uint64_t l1_off, uint32_t l1_size, bool is_active)
{
	if (!own_table(f, "L1 table", l1_off, (uint64_t)l1_size * 8))
		return;
	for (uint32_t i = 0; i < l1_size; i++) {
		uint64_t entry = be(f, l1_off + i * 8, 8), l2_off = entry & OFFSET;

		if (!l2_off || !own_table(f, "L2 table", l2_off, f->cluster))
			continue;
		if (is_active)
			check_copied(f, "L2 table", entry, l2_off);
		for (uint32_t k = 0; k < f->n_entries; k++)
			walk_entry(f, be(f, l2_off + k * f->entry_size, 8), is_active);
	}
}

static void walk_snapshots(struct file *f)
{
	uint64_t start = be(f, 64, 8), at = start;

	for (uint32_t n = be(f, 60, 4); n; n--) {
		uint64_t names = be(f, at + 12, 2) + be(f, at + 14, 2), extra = be(f, at + 36, 4);

		walk_l1(f, be(f, at, 8), be(f, at + 8, 4), false);
		at = vd_round_up(at + 40 + extra + names, 8);
	}
	own(f, "snapshot table", start, at - start);
}

static void walk_refcounts(struct file *f)
{
	uint64_t table = be(f, 48, 8), len = be(f, 56, 4) * f->cluster;

	if (!own_table(f, "refcount table", table, len))
		return;
	for (uint64_t i = 0; i < len; i += 8)
		if (be(f, table + i, 8))
			own_table(f, "refcount block", be(f, table + i, 8), f->cluster);
}

/* One entry's table and clusters; how long the entry is. */
static uint64_t walk_bitmap(struct file *f, uint64_t at)
{
	uint64_t table = be(f, at, 8), n = be(f, at + 8, 4);

	if (own_table(f, "bitmap table", table, n * 8))
		for (uint64_t i = 0; i < n; i++)
			if (be(f, table + i * 8, 8) & OFFSET)
				own_table(f, "bitmap data", be(f, table + i * 8, 8) & OFFSET, f->cluster);
	return vd_round_up(24 + be(f, at + 20, 4) + be(f, at + 18, 2), 8);
}

/* Without the autoclear bit, what they name may be another's by now. */
static void walk_bitmaps(struct file *f, uint64_t ext)
{
	uint64_t n = be(f, ext, 4), len = be(f, ext + 8, 8), dir = be(f, ext + 16, 8), at = dir;

	if (!(be(f, 88, 8) & 1))
		return;
	if (!own_table(f, "bitmap directory", dir, len))
		return;
	while (n-- && at < dir + len)
		at += walk_bitmap(f, at);
	if (at != dir + len)
		complain(f, "the bitmap directory has %llu bytes, its entries %llu", (unsigned long long)len,
			 (unsigned long long)(at - dir));
}

static void walk_extensions(struct file *f)
{
	uint64_t at = be(f, 4, 4) > 2 ? be(f, 100, 4) : 72;

	while (at + 8 <= f->cluster && be(f, at, 4)) {
		if (be(f, at, 4) == EXT_LUKS)
			own_table(f, "key area", be(f, at + 8, 8), be(f, at + 16, 8));
		if (be(f, at, 4) == EXT_BITMAPS)
			walk_bitmaps(f, at + 8);
		at += 8 + vd_round_up(be(f, at + 4, 4), 8);
	}
}

static void compare(struct file *f)
{
	for (uint64_t i = 0; i < f->n_clusters; i++) {
		uint64_t count = refcount(f, i);

		if (count < f->owners[i])
			complain(f, "cluster at %llu has %u owners, its refcount is %llu",
				 (unsigned long long)(i * f->cluster),
				 f->owners[i], (unsigned long long)count);
		f->v.n_leaks += count > f->owners[i];
	}
}

static bool load(struct file *f, struct vd_host *host, const char *name)
{
	struct vd_io *io;
	bool ok;

	if (host->open(host, name, VD_IO_FORCE_SHARE, &io, NULL) < 0)
		return false;
	ok = vd_io_size(io, &f->size, NULL) == 0;
	f->bytes = malloc(f->size + 1);
	ok = ok && f->bytes && vd_io_pread(io, f->bytes, f->size, 0, NULL) == 0;
	vd_io_abort(io);
	return ok && f->size >= 104 && be(f, 0, 4) == 0x514649fb;
}

static void check(struct file *f)
{
	bool is_v3 = be(f, 4, 4) > 2;

	f->bits = be(f, 20, 4);
	f->order = is_v3 ? be(f, 96, 4) : 4;
	f->incompat = is_v3 ? be(f, 72, 8) : 0;
	f->cluster = UINT64_C(1) << f->bits;
	f->entry_size = f->incompat & EXTENDED_L2 ? 16 : 8;
	f->n_entries = f->cluster / f->entry_size;
	f->n_clusters = vd_round_up(f->size, f->cluster) / f->cluster;
	f->owners = calloc(f->n_clusters, sizeof(*f->owners));
	own(f, "header", 0, 1);
	walk_extensions(f);
	walk_refcounts(f);
	walk_l1(f, be(f, 40, 8), be(f, 36, 4), true);
	walk_snapshots(f);
	compare(f);
}

struct qcow2_verdict qcow2_check(struct vd_host *host, const char *name)
{
	struct file f = { 0 };

	if (load(&f, host, name))
		check(&f);
	else
		complain(&f, "%s is no qcow2 file", name);
	free(f.bytes);
	free(f.owners);
	return f.v;
}
