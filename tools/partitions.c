/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads partition tables (UEFI specification 2.10, section 5: GPT and MBR). The disk is the guest's and hostile: sizes are
 * bounded before anything is read by them, chains have an end, and no partition reaches past the disk.
 */
#include "partitions.h"

#include <stdlib.h>
#include <string.h>

#include "fail.h"

#define SECTOR 512u
#define GPT_TABLE_MAX (1u << 20)        /* 128 entries of 128 bytes are usual */
#define GPT_ENTRY_MIN 128u
#define GPT_HEADER_MIN 92u
#define MBR_TABLE 446u
#define MBR_ENTRY 16u
#define MBR_LOGICAL 5u                  /* number of the first logical partition */

static uint32_t le32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t le64(const uint8_t *p)
{
	return le32(p) | (uint64_t)le32(p + 4) << 32;
}

static void add(struct partitions *p, unsigned number, uint64_t first, uint64_t count, uint32_t sector, uint64_t size)
{
	uint64_t n_sectors = size / sector;

	if (first >= n_sectors || !count || count > n_sectors - first || p->n == PARTITIONS_MAX) {
		p->n_refused++;
		return;
	}
	p->at[p->n++] = (struct partition){ number, first * sector, count * sector };
}

/* ---- GPT --------------------------------------------------------------------------------------------------- */

/* That of IEEE 802.3. */
static uint32_t crc32_of(const uint8_t *p, size_t len)
{
	uint32_t crc = ~0u;

	while (len--) {
		crc ^= *p++;
		for (int i = 0; i < 8; i++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
	}
	return ~crc;
}

struct gpt {
	uint32_t sector;
	uint64_t table_off;
	uint32_t n, entry_size, table_crc;
};

static bool header_holds(uint8_t *h, uint64_t lba, uint32_t sector, uint64_t size, struct gpt *g)
{
	uint32_t len = le32(h + 12), crc = le32(h + 16);
	uint64_t table = le64(h + 72), bytes;

	if (memcmp(h, "EFI PART", 8) != 0 || len < GPT_HEADER_MIN || len > sector || le64(h + 24) != lba)
		return false;
	memset(h + 16, 0, 4);
	*g = (struct gpt){ .sector = sector, .n = le32(h + 80), .entry_size = le32(h + 84), .table_crc = le32(h + 88) };
	if (crc32_of(h, len) != crc || g->entry_size < GPT_ENTRY_MIN || g->entry_size > GPT_TABLE_MAX ||
	    !g->n || g->n > GPT_TABLE_MAX / g->entry_size)
		return false;
	bytes = (uint64_t)g->n * g->entry_size;
	if (table >= size / sector || bytes > size - table * sector)
		return false;
	g->table_off = table * sector;
	return true;
}

static int read_table(struct vd_image *img, const struct gpt *g, struct partitions *p, struct vd_error *e)
{
	static const uint8_t unused[16];
	size_t bytes = (size_t)g->n * g->entry_size;
	uint8_t *table = malloc(bytes);
	int r;

	if (!table)
		return fail(e, VD_ENOMEM, "not enough memory for the partition table");
	r = vd_image_pread(img, table, bytes, g->table_off, e);
	if (r == 0 && crc32_of(table, bytes) == g->table_crc) {
		p->scheme = "gpt";
		for (uint32_t i = 0; i < g->n; i++) {
			const uint8_t *entry = table + (size_t)i * g->entry_size;
			uint64_t first = le64(entry + 32), last = le64(entry + 40);

			if (memcmp(entry, unused, sizeof(unused)) != 0)
				add(p, i + 1, first, last < first ? 0 : last - first + 1, g->sector, vd_image_size(img));
		}
	}
	free(table);
	return r;
}

static int read_gpt_at(struct vd_image *img, uint64_t lba, uint32_t sector, struct partitions *p, struct vd_error *e)
{
	uint8_t header[4096];
	struct gpt g;
	int r = vd_image_pread(img, header, sector, lba * sector, e);

	if (r < 0 || !header_holds(header, lba, sector, vd_image_size(img), &g))
		return r;
	return read_table(img, &g, p, e);
}

static int read_gpt(struct vd_image *img, struct partitions *p, struct vd_error *e)
{
	static const uint32_t sectors[] = { 512, 4096 };
	uint64_t size = vd_image_size(img);
	int r = 0;

	for (size_t i = 0; i < 4 && r == 0 && !p->scheme; i++) {
		uint32_t sector = sectors[i % 2];

		if (size / sector < 3)
			continue;
		r = read_gpt_at(img, i >= 2 ? size / sector - 1 : 1, sector, p, e);
		p->is_backup = p->scheme && i >= 2;
	}
	return r;
}

/* ---- MBR --------------------------------------------------------------------------------------------------- */

struct mbr_entry {
	uint8_t flag, type;
	uint32_t first, count;
};

static struct mbr_entry mbr_entry(const uint8_t *sector, unsigned i)
{
	const uint8_t *at = sector + MBR_TABLE + i * MBR_ENTRY;

	return (struct mbr_entry){ at[0], at[4], le32(at + 8), le32(at + 12) };
}

static bool is_extended(const struct mbr_entry *m)
{
	return m->type == 0x05 || m->type == 0x0f || m->type == 0x85;
}

static bool has_signature(const uint8_t *sector)
{
	return sector[510] == 0x55 && sector[511] == 0xaa;
}

/* A boot sector of a file system has code where a table would be. */
static bool is_table(const uint8_t *sector)
{
	bool has_any = false;

	for (unsigned i = 0; i < 4; i++) {
		struct mbr_entry m = mbr_entry(sector, i);

		if (m.flag != 0 && m.flag != 0x80)
			return false;
		has_any |= m.type && m.count;
	}
	return has_signature(sector) && has_any;
}

/* The one entry of an MBR that stands before a GPT (section 5.2.3), for programs that do not know it. */
static bool is_protective(const uint8_t *sector)
{
	for (unsigned i = 0; i < 4; i++)
		if (mbr_entry(sector, i).type == 0xee)
			return true;
	return false;
}

/* A chain of sectors, each with one partition, as far as it goes from there, and where the next is, as far from the first. */
static int read_logical(struct vd_image *img, const struct mbr_entry *all, struct partitions *p, struct vd_error *e)
{
	uint64_t size = vd_image_size(img), at = all->first;
	uint8_t sector[SECTOR];
	int r = 0;

	for (unsigned i = 0; i < PARTITIONS_MAX && at < size / SECTOR; i++) {
		struct mbr_entry one, next;

		r = vd_image_pread(img, sector, SECTOR, at * SECTOR, e);
		if (r < 0 || !has_signature(sector))
			break;
		one = mbr_entry(sector, 0);
		next = mbr_entry(sector, 1);
		if (one.type && one.count)
			add(p, MBR_LOGICAL + i, at + one.first, one.count, SECTOR, size);
		/* Forward only: what leads back would lead round. */
		if (!is_extended(&next) || (uint64_t)all->first + next.first <= at)
			break;
		at = (uint64_t)all->first + next.first;
	}
	return r;
}

static int read_mbr(struct vd_image *img, const uint8_t *sector, struct partitions *p, struct vd_error *e)
{
	int r = 0;

	p->scheme = "mbr";
	for (unsigned i = 0; i < 4 && r == 0; i++) {
		struct mbr_entry m = mbr_entry(sector, i);

		if (!m.type || !m.count)
			continue;
		if (is_extended(&m))
			r = read_logical(img, &m, p, e);
		else
			add(p, i + 1, m.first, m.count, SECTOR, vd_image_size(img));
	}
	return r;
}

int partitions_read(struct vd_image *img, struct partitions *p, struct vd_error *e)
{
	uint8_t sector[SECTOR];
	int r;

	*p = (struct partitions){ 0 };
	if (vd_image_size(img) < SECTOR)
		return 0;
	r = vd_image_pread(img, sector, SECTOR, 0, e);
	if (r < 0 || !is_table(sector))
		return r;
	/* What a GPT that was given up has left at the end of the disk must not count. */
	if (is_protective(sector))
		r = read_gpt(img, p, e);
	if (r < 0 || p->scheme)
		return r;
	return read_mbr(img, sector, p, e);
}
