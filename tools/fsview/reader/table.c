/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Partition tables: MBR with its extended partitions, GPT (UEFI 2.10, chapter 5). What is in the partitions, probe.c tells. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fsview/reader/reader.h"

#define SECTOR 512              /* disks of 4096-byte sectors have GPT only where that is tried */
#define GPT_ENTRIES_MAX 1024
#define LOGICAL_MAX 128

struct part {
	uint64_t off, len;
	uint32_t number;
	char label[120], uuid[40], type[40];
};
struct table {
	struct part at[FSVIEW_VOLUMES_MAX];
	size_t n;
	uint64_t head;                  /* bytes at the beginning that the table itself takes */
	struct fsview_range backup;     /* the second GPT */
	uint64_t disk_size;
	bool is_cut;
	char why[160];                  /* the table is not sound */
};

void uuid_text(char out[40], const uint8_t *b, bool is_guid)
{
	static const uint8_t turned[16] = { 3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15 };
	char *p = out;

	for (int i = 0; i < 16; i++)
		p += snprintf(p, 4, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", b[is_guid ? turned[i] : i]);
}

static void add(struct table *t, uint64_t off, uint64_t len, uint32_t number, const struct part *what)
{
	struct part *p;

	if (t->n == FSVIEW_VOLUMES_MAX / 2) {
		t->is_cut = true;
		return;
	}
	p = &t->at[t->n++];
	*p = *what;
	p->off = off;
	p->len = len;
	p->number = number;
	if (off >= t->disk_size || len > t->disk_size - off) {
		snprintf(t->why, sizeof(t->why), "partition %u lies past the end of the disk", number);
		p->len = off >= t->disk_size ? 0 : t->disk_size - off;
	}
}

/* ---- GPT -------------------------------------------------------------------------------------------------- */

static uint32_t crc32_of(const uint8_t *p, size_t len, uint32_t crc)
{
	crc = ~crc;
	while (len--) {
		crc ^= *p++;
		for (int i = 0; i < 8; i++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320U : 0);
	}
	return ~crc;
}

/* UTF-16LE, of which partition names are made, to UTF-8. */
static void name_text(char *out, size_t size, const uint8_t *p, size_t units)
{
	size_t n = 0;

	for (size_t i = 0; i < units && n + 4 < size; i++) {
		uint16_t c = read_le16(p + 2 * i);

		if (!c)
			break;
		if (c < 0x80) {
			out[n++] = (char)(c < 0x20 || c == 0x7f ? '?' : c);
		} else if (c < 0x800) {
			out[n++] = (char)(0xc0 | c >> 6);
			out[n++] = (char)(0x80 | (c & 0x3f));
		} else {
			out[n++] = (char)(c >= 0xd800 && c < 0xe000 ? '?' : 0xe0 | c >> 12);
			if (c >= 0xd800 && c < 0xe000)
				continue;
			out[n++] = (char)(0x80 | (c >> 6 & 0x3f));
			out[n++] = (char)(0x80 | (c & 0x3f));
		}
	}
	out[n] = '\0';
}

static bool is_gpt_header(const uint8_t *h, size_t sector)
{
	uint8_t copy[SECTOR];
	uint32_t size = read_le32(h + 12);

	if (memcmp(h, "EFI PART", 8) != 0 || size < 92 || size > SECTOR || size > sector)
		return false;
	memcpy(copy, h, size);
	memset(copy + 16, 0, 4);
	return crc32_of(copy, size, 0) == read_le32(h + 16);
}

static int read_gpt_entries(const struct device *d, struct table *t, const uint8_t *h, size_t sector, struct vd_error *e)
{
	static const uint8_t unused[16];
	uint64_t lba = read_le64(h + 72);
	uint32_t n = read_le32(h + 80), size = read_le32(h + 84), crc = 0;
	uint8_t entry[4096];

	if (size < 128 || size > sizeof(entry) || size & (size - 1) || n > GPT_ENTRIES_MAX || lba > d->size / sector)
		return fail(e, VD_ECORRUPT, "the GPT has %u entries of %u bytes", n, size);
	for (uint32_t i = 0; i < n; i++) {
		struct part p = { 0 };
		uint64_t first, last;
		int r = device_read(d, entry, size, lba * sector + (uint64_t)i * size, e);

		if (r < 0)
			return r;
		crc = crc32_of(entry, size, crc);
		first = read_le64(entry + 32);
		last = read_le64(entry + 40);
		if (!memcmp(entry, unused, 16))
			continue;
		uuid_text(p.type, entry, true);
		uuid_text(p.uuid, entry + 16, true);
		name_text(p.label, sizeof(p.label), entry + 56, 36);
		if (last < first || last >= d->size / sector)
			snprintf(t->why, sizeof(t->why), "partition %u lies past the end of the disk", i + 1);
		else
			add(t, first * sector, (last - first + 1) * sector, i + 1, &p);
	}
	if (crc != read_le32(h + 88))
		snprintf(t->why, sizeof(t->why), "the checksum of the GPT's entries does not hold");
	if (lba * sector + (uint64_t)n * size > t->head)
		t->head = lba * sector + (uint64_t)n * size;
	return 0;
}

/* Where the second header and its entries lie, which is not the end of a disk that was grown. */
static struct fsview_range backup_of(const struct device *d, const uint8_t *h, size_t sector, uint64_t place)
{
	uint64_t lba = place > sector ? place / sector : read_le64(h + 32), len = (uint64_t)read_le32(h + 80) * read_le32(h + 84);

	len = (len + sector - 1) / sector * sector;
	if (len > (uint64_t)GPT_ENTRIES_MAX * 4096 || lba >= d->size / sector || lba * sector < len)
		return (struct fsview_range){ 0, 0 };
	return (struct fsview_range){ lba * sector - len, len + sector };
}

/* 1: there is one. */
static int read_gpt(const struct device *d, struct table *t, struct vd_error *e)
{
	uint8_t h[SECTOR];

	for (size_t sector = SECTOR; sector <= 4096; sector *= 8) {
		uint64_t places[2] = { sector, d->size / sector * sector - sector };

		for (int i = 0; i < 2; i++) {
			int r = d->size >= 4 * sector ? device_read(d, h, SECTOR, places[i], e) : VD_ERANGE;

			if (r == VD_EIO)
				return r;
			if (r < 0 || !is_gpt_header(h, sector))
				continue;
			t->head = 2 * sector;
			r = read_gpt_entries(d, t, h, sector, e);
			t->backup = backup_of(d, h, sector, places[i]);
			if (r < 0 && r != VD_EIO && i == 0)
				continue;
			if (r == 0 && i == 1) {
				t->head = 2 * sector + t->backup.len - sector;
				snprintf(t->why, sizeof(t->why), "the first GPT does not hold: the one at the end of the disk is read");
			}
			return r < 0 ? r : 1;
		}
	}
	return 0;
}

/* ---- MBR -------------------------------------------------------------------------------------------------- */

static bool is_extended(uint8_t type)
{
	return type == 0x05 || type == 0x0f || type == 0x85;
}

static void add_mbr(struct table *t, const uint8_t *entry, uint64_t base, uint32_t number)
{
	struct part p = { 0 };

	snprintf(p.type, sizeof(p.type), "0x%02x", entry[4]);
	add(t, base + (uint64_t)read_le32(entry + 8) * SECTOR, (uint64_t)read_le32(entry + 12) * SECTOR, number, &p);
}

/* The chain of tables in an extended partition. */
static int read_extended(const struct device *d, struct table *t, uint64_t start, struct vd_error *e)
{
	uint8_t b[SECTOR];
	uint64_t at = start;

	for (uint32_t i = 0; i < LOGICAL_MAX; i++) {
		int r = device_read(d, b, SECTOR, at, e);

		if (r == VD_EIO)
			return r;
		if (r < 0 || b[510] != 0x55 || b[511] != 0xaa) {
			snprintf(t->why, sizeof(t->why), "the chain of logical partitions breaks off");
			return 0;
		}
		if (b[446 + 4])
			add_mbr(t, b + 446, at, 5 + i);
		if (!is_extended(b[462 + 4]))
			return 0;
		at = start + (uint64_t)read_le32(b + 462 + 8) * SECTOR;
	}
	snprintf(t->why, sizeof(t->why), "the chain of logical partitions has no end");
	return 0;
}

/* A boot sector of FAT or NTFS has the same mark at its end, and no table. */
static bool is_mbr(const uint8_t *b, uint64_t disk_size)
{
	bool any = false;

	if (b[510] != 0x55 || b[511] != 0xaa)
		return false;
	for (const uint8_t *entry = b + 446; entry < b + 510; entry += 16) {
		if (entry[0] & 0x7f)
			return false;
		if (!entry[4])
			continue;
		if (!read_le32(entry + 12) || (uint64_t)read_le32(entry + 8) * SECTOR >= disk_size)
			return false;
		any = true;
	}
	return any;
}

static int read_mbr(const struct device *d, struct table *t, const uint8_t *b, struct vd_error *e)
{
	int r = 0;

	t->head = SECTOR;
	for (uint32_t i = 0; i < 4 && r == 0; i++) {
		const uint8_t *entry = b + 446 + 16 * i;

		if (is_extended(entry[4]))
			r = read_extended(d, t, (uint64_t)read_le32(entry + 8) * SECTOR, e);
		else if (entry[4])
			add_mbr(t, entry, 0, i + 1);
	}
	return r;
}

/* ---- all of the disk -------------------------------------------------------------------------------------- */

bool table_answer(struct fsview_volume *v, const struct fsview_range *pieces, size_t n, int lack, const char *why)
{
	struct wire_volume w;
	uint8_t *p = answer_room(sizeof(w) + n * sizeof(*pieces));

	if (!p)
		return false;
	memset(&w, 0, sizeof(w));
	w.v = *v;
	w.n_pieces = (uint32_t)n;
	w.lack = (uint32_t)lack;
	snprintf(w.why, sizeof(w.why), "%s", why ? why : "");
	memcpy(p, &w, sizeof(w));
	if (n)
		memcpy(p + sizeof(w), pieces, n * sizeof(*pieces));
	return true;
}

static bool is_boot(const char *type)
{
	static const char *const types[] = {
		"21686148-6449-6e6f-744e-656564454649",         /* BIOS boot */
		"e3c9e316-0b5c-4db8-817d-f92df00215ae",         /* Microsoft reserved */
		"9e1a2d38-c612-4316-aa26-8b49521e5a8b",         /* PReP */
		"0x41",
	};

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (!strcmp(types[i], type))
			return true;
	return false;
}

static int answer_part(const struct part *p, const char *name, struct vd_error *e)
{
	struct fsview_volume v = { .size = p->len, .partition = p->number, .disk_off = p->off };
	struct fsview_range piece = { p->off, p->len };
	struct device d = { p->len, 1, &piece };
	int r = probe(&d, &v, e);

	if (r == VD_EIO)
		return r;
	snprintf(v.name, sizeof(v.name), "%s", name);
	memcpy(v.part_label, p->label, sizeof(v.part_label));
	memcpy(v.part_uuid, p->uuid, sizeof(v.part_uuid));
	memcpy(v.part_type, p->type, sizeof(v.part_type));
	if (is_boot(p->type) && v.fs == FSVIEW_FS_UNKNOWN)
		v.fs = FSVIEW_FS_BOOT;
	if (v.fs == FSVIEW_FS_LVM) {
		r = lvm_add(&d, p->off, e);
		if (r < 0)
			return r;
	}
	table_answer(&v, &piece, 1, 0, NULL);
	return 0;
}

static int by_place(const void *a, const void *b)
{
	const struct fsview_range *x = a, *y = b;

	return x->off < y->off ? -1 : x->off > y->off;
}

/* What no partition has. Partitions may overlap. */
static void answer_gaps(const struct table *t)
{
	static struct fsview_range taken[FSVIEW_VOLUMES_MAX + 3];
	struct fsview_volume gap = { 0 };
	uint64_t at = 0;
	size_t n = 0;

	taken[n++] = (struct fsview_range){ 0, t->head };
	for (size_t i = 0; i < t->n; i++)
		taken[n++] = (struct fsview_range){ t->at[i].off, t->at[i].len };
	taken[n++] = t->backup;
	taken[n++] = (struct fsview_range){ t->disk_size, 0 };
	qsort(taken, n, sizeof(taken[0]), by_place);
	for (size_t i = 0; i < n; i++) {
		struct fsview_range r = { at, taken[i].off > at ? taken[i].off - at : 0 };

		if (r.len)
			table_answer(&gap, &r, 1, 0, NULL);
		if (taken[i].off + taken[i].len > at)
			at = taken[i].off + taken[i].len;
	}
}

static int answer_table(const struct table *t, const char *kind, struct vd_error *e)
{
	struct fsview_volume whole = { .size = t->disk_size };
	const char *why = t->is_cut ? "there are more partitions than are gone through" : t->why;
	char name[32];
	int r = 0;

	/* The first answer is about the table. */
	snprintf(whole.name, sizeof(whole.name), "%s", kind);
	table_answer(&whole, NULL, 0, why[0] ? (t->is_cut ? FSVIEW_LIMIT : FSVIEW_DAMAGED) + 1 : 0, why);
	for (size_t i = 0; i < t->n && r == 0; i++) {
		snprintf(name, sizeof(name), "partition %u", t->at[i].number);
		r = answer_part(&t->at[i], name, e);
	}
	if (r == 0)
		r = lvm_answer(e);
	if (r == 0)
		answer_gaps(t);
	return r;
}

/* A file system, or nothing, from byte 0 on. */
static int answer_bare(uint64_t size, struct vd_error *e)
{
	struct fsview_volume whole = { .name = "none", .size = size };
	struct part p = { .len = size };
	int r;

	table_answer(&whole, NULL, 0, 0, NULL);
	r = answer_part(&p, "disk", e);
	return r < 0 ? r : lvm_answer(e);
}

int table_list(uint64_t disk_size, struct vd_error *e)
{
	struct device d = { .size = disk_size };
	static struct table t;
	uint8_t first[SECTOR];
	int r = disk_size < SECTOR ? fail(e, VD_ECORRUPT, "the disk is smaller than a sector") : device_read(&d, first, SECTOR, 0, e);

	t.disk_size = disk_size;
	if (r == 0)
		r = read_gpt(&d, &t, e);
	if (r == 1)
		return answer_table(&t, "gpt", e);
	if (r < 0 || !is_mbr(first, disk_size))
		return r < 0 ? r : answer_bare(disk_size, e);
	r = read_mbr(&d, &t, first, e);
	return r < 0 ? r : answer_table(&t, "mbr", e);
}
