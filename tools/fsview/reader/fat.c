/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * FAT12, FAT16 and FAT32 with long names (Microsoft's FAT specification of 2000), which EFI partitions are. Names match in
 * any case of ASCII. An inode number is the place of a file's entry, or of a folder, on the volume; chains of clusters are
 * as long as the volume at most.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "fsview/reader/reader.h"

#define ROOT_INO 1
#define ENTRY 32
#define ENTRIES_AT_ONCE 128
#define FOLDER_MAX ((uint64_t)2 << 20)  /* bytes: 65536 entries, as the specification has it */
#define CLUSTER_END 0x0ffffff8U

static const struct device *dev;
static uint32_t bits, cluster_size, n_clusters, root_cluster;
static uint64_t fat_off, root_off, root_size, data_off;

struct node {
	struct fsview_stat st;
	uint32_t cluster;               /* the first; 0: none, or the root of FAT12 and FAT16 */
};

static bool is_cluster(uint32_t c)
{
	return c >= 2 && c - 2 < n_clusters;
}

/* What the table has of a cluster; ends of chains are CLUSTER_END and above, whatever the width. */
static int read_entry(uint32_t c, uint32_t *next, struct vd_error *e)
{
	uint8_t b[4] = { 0 };
	uint64_t at = fat_off + (bits == 12 ? (uint64_t)c + c / 2 : (uint64_t)c * bits / 8);
	int r = device_read(dev, b, bits == 32 ? 4 : 2, at, e);

	if (bits == 32)
		*next = read_le32(b) & 0x0fffffff;
	else if (bits == 16)
		*next = read_le16(b) >= 0xfff8 ? CLUSTER_END : read_le16(b);
	else
		*next = c & 1 ? (uint32_t)read_le16(b) >> 4 : (uint32_t)read_le16(b) & 0xfff;
	if (bits == 12 && *next >= 0xff8)
		*next = CLUSTER_END;
	return r;
}

static int open_fat(const struct device *d, struct wire_opened *o, struct vd_error *e)
{
	uint8_t b[512];
	uint32_t sector, reserved, n_fats, fat_sectors, sectors, root_entries, marks;
	int r = device_read(d, b, sizeof(b), 0, e);

	if (r < 0)
		return r;
	dev = d;
	sector = read_le16(b + 11);
	reserved = read_le16(b + 14);
	n_fats = b[16];
	root_entries = read_le16(b + 17);
	sectors = read_le16(b + 19) ? read_le16(b + 19) : read_le32(b + 32);
	fat_sectors = read_le16(b + 22) ? read_le16(b + 22) : read_le32(b + 36);
	cluster_size = sector * b[13];
	if (sector < 512 || sector > 4096 || sector & (sector - 1) || !b[13] || cluster_size > 262144 || !n_fats || n_fats > 4)
		return fail(e, VD_ECORRUPT, "the boot sector of FAT is damaged");
	fat_off = (uint64_t)reserved * sector;
	root_off = fat_off + (uint64_t)n_fats * fat_sectors * sector;
	root_size = (uint64_t)root_entries * ENTRY;
	data_off = root_off + (root_size + sector - 1) / sector * sector;
	if ((uint64_t)sectors * sector > d->size || data_off >= (uint64_t)sectors * sector)
		return fail(e, VD_ECORRUPT, "the boot sector of FAT says more than the volume has");
	n_clusters = (uint32_t)(((uint64_t)sectors * sector - data_off) / cluster_size);
	bits = n_clusters < 4085 ? 12 : n_clusters < 65525 ? 16 : 32;
	root_cluster = bits == 32 ? read_le32(b + 44) : 0;
	if ((uint64_t)(n_clusters + 2) * bits > (uint64_t)fat_sectors * sector * 8)
		return fail(e, VD_ECORRUPT, "the table of FAT is too small for its clusters");
	o->block_size = cluster_size;
	/* The second entry has bits for a clean end and for no errors; those of FAT12 are only in the boot sector. */
	r = read_entry(1, &marks, e);
	o->is_dirty = b[bits == 32 ? 65 : 37] & 3 || (bits == 32 && (~marks & 0x0c000000)) || (bits == 16 && marks != CLUSTER_END && (~marks & 0xc000));
	return r;
}

static uint64_t place_of(uint32_t cluster)
{
	return data_off + (uint64_t)(cluster - 2) * cluster_size;
}

/* The cluster that has byte `off` of a chain; *c is 0 when the chain ends before. */
static int walk_chain(uint32_t first, uint64_t off, uint32_t *c, const char *path, struct vd_error *e)
{
	int r = 0;

	*c = first;
	for (uint64_t n = off / cluster_size; n && r == 0 && *c; n--) {
		if (!is_cluster(*c))
			return fail(e, VD_ECORRUPT, "/%s: its chain of clusters is broken", path);
		r = read_entry(*c, c, e);
		if (*c >= CLUSTER_END)
			*c = 0;
	}
	if (r == 0 && *c && !is_cluster(*c))
		return fail(e, VD_ECORRUPT, "/%s: its chain of clusters is broken", path);
	return r;
}

/* ---- folders ---------------------------------------------------------------------------------------------- */

/* A folder that is read entry by entry, in one direction. */
struct folder {
	const char *path;
	bool is_flat;                   /* the root of FAT12 and FAT16 */
	uint32_t cluster;
	uint64_t at;                    /* byte of the folder */
	uint8_t entry[ENTRY];
	uint64_t place;                 /* of the entry on the volume */
	char name[FSVIEW_NAME_MAX];     /* of the last entry that has one */
	uint16_t units[260];            /* of a long name that is under way */
	unsigned n_parts;               /* that are still to come; 0: none */
	uint8_t sum;
	bool has_long;
};

static struct folder open_folder(const struct node *n, const char *path)
{
	return (struct folder){ .path = path, .is_flat = !n->cluster, .cluster = n->cluster };
}

/* 1: an entry was read. 0: there are no more. */
static int next_raw(struct folder *f, struct vd_error *e)
{
	int r;

	if (f->at >= (f->is_flat ? root_size : FOLDER_MAX))
		return f->is_flat ? 0 : fail(e, VD_ECORRUPT, "/%s: the folder has no end", f->path);
	if (!f->is_flat && f->at && f->at % cluster_size == 0) {
		r = walk_chain(f->cluster, cluster_size, &f->cluster, f->path, e);
		if (r < 0)
			return r;
	}
	if (!f->is_flat && !f->cluster)
		return 0;
	if (!f->is_flat && !is_cluster(f->cluster))
		return fail(e, VD_ECORRUPT, "/%s: its chain of clusters is broken", f->path);
	f->place = f->is_flat ? root_off + f->at : place_of(f->cluster) + f->at % cluster_size;
	r = device_read(dev, f->entry, ENTRY, f->place, e);
	f->at += ENTRY;
	return r < 0 ? r : f->entry[0] != 0;
}

static void take_long(struct folder *f)
{
	static const uint8_t places[13] = { 1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30 };
	unsigned order = f->entry[0] & 0x3f;

	if (f->entry[0] & 0x40) {
		memset(f->units, 0, sizeof(f->units));
		f->n_parts = order;
		f->sum = f->entry[13];
	} else if (order != f->n_parts || f->entry[13] != f->sum) {
		f->n_parts = 0;
	}
	if (!f->n_parts || order != f->n_parts || order > 20) {
		f->n_parts = 0;
		f->has_long = false;
		return;
	}
	for (unsigned i = 0; i < 13; i++)
		f->units[(order - 1) * 13 + i] = read_le16(f->entry + places[i]);
	f->n_parts--;
	f->has_long = !f->n_parts;
}

static size_t put_utf8(char *out, uint32_t c)
{
	if (c < 0x80)
		return out[0] = (char)c, 1;
	if (c < 0x800)
		return out[0] = (char)(0xc0 | c >> 6), out[1] = (char)(0x80 | (c & 0x3f)), 2;
	out[0] = (char)(0xe0 | c >> 12);
	out[1] = (char)(0x80 | (c >> 6 & 0x3f));
	out[2] = (char)(0x80 | (c & 0x3f));
	return 3;
}

static uint8_t sum_of(const uint8_t *name)
{
	uint8_t sum = 0;

	for (int i = 0; i < 11; i++)
		sum = (uint8_t)((sum << 7 | sum >> 1) + name[i]);
	return sum;
}

/* Long if one came before and belongs to it, else 8.3. */
static void take_name(struct folder *f)
{
	size_t n = 0;

	if (f->has_long && sum_of(f->entry) == f->sum) {
		for (size_t i = 0; i < 255 && f->units[i] && f->units[i] != 0xffff; i++)
			n += put_utf8(f->name + n, f->units[i]);
	} else {
		for (int i = 0; i < 11; i++) {
			uint8_t c = i == 0 && f->entry[0] == 0x05 ? 0xe5 : f->entry[i];
			bool is_low = f->entry[12] & (i < 8 ? 0x08 : 0x10) && c >= 'A' && c <= 'Z';

			if (i == 8 && memcmp(f->entry + 8, "   ", 3) != 0)
				f->name[n++] = '.';
			if (c != ' ')
				n += put_utf8(f->name + n, is_low ? (uint32_t)c + 32 : c);
		}
	}
	f->name[n] = '\0';
	f->has_long = false;
}

/* Of the proleptic Gregorian calendar; timegm(3) would open a file. */
static int64_t time_of(uint16_t date, uint16_t clock)
{
	int year = (date >> 9) + 1980, month = date >> 5 & 15, day = date & 31;
	int y = month < 3 ? year - 1 : year, m = month < 3 ? month + 9 : month - 3;
	int64_t days = 365 * (int64_t)y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719468;

	return date ? days * 86400 + (clock >> 11) * 3600 + (clock >> 5 & 63) * 60 + (clock & 31) * 2 : 0;
}

static void take_node(const struct folder *f, struct node *n)
{
	const uint8_t *x = f->entry;
	bool is_dir = x[11] & 0x10;

	n->cluster = (bits == 32 ? (uint32_t)read_le16(x + 20) << 16 : 0) | read_le16(x + 26);
	n->st = (struct fsview_stat){
		/* Of a folder its own place, so that one that several entries name is known to be one. */
		.ino = is_dir && is_cluster(n->cluster) ? place_of(n->cluster) : f->place, .size = is_dir ? 0 : read_le32(x + 28), .mode = is_dir ? S_IFDIR | 0755 : S_IFREG | 0755, .nlink = 1,
		.mtime = time_of(read_le16(x + 24), read_le16(x + 22)), .ctime = time_of(read_le16(x + 24), read_le16(x + 22)),
	};
}

/* The next file or folder: 1, and 0 at the end. */
static int next_node(struct folder *f, struct node *n, struct vd_error *e)
{
	int r;

	while ((r = next_raw(f, e)) == 1) {
		if (f->entry[0] == 0xe5) {
			f->has_long = false;
			f->n_parts = 0;
		} else if ((f->entry[11] & 0x3f) == 0x0f) {
			take_long(f);
		} else if (f->entry[11] & 0x08) {
			f->has_long = false;            /* the volume's label */
		} else {
			take_name(f);
			if (!strcmp(f->name, ".") || !strcmp(f->name, ".."))
				continue;
			if (!f->name[0] || strchr(f->name, '/'))
				return fail(e, VD_ECORRUPT, "/%s: has a name in it that no file can have", f->path);
			take_node(f, n);
			return 1;
		}
	}
	return r;
}

static struct node root_node(void)
{
	return (struct node){ .st = { .ino = ROOT_INO, .mode = S_IFDIR | 0755, .nlink = 1 }, .cluster = root_cluster };
}

static int find(const char *path, struct node *n, struct vd_error *e)
{
	*n = root_node();
	for (size_t at = 0, len; path[at]; at += len + (path[at + len] == '/')) {
		struct folder f = open_folder(n, path);
		bool found = false;
		int r = 1;

		len = strcspn(path + at, "/");
		if (!S_ISDIR(n->st.mode))
			return fail(e, VD_ENOENT, "/%s: a part of the path is no folder", path);
		if (at && !f.cluster)
			return fail(e, VD_ECORRUPT, "/%s: a folder in it has no cluster", path);
		while (!found && (r = next_node(&f, n, e)) == 1)
			found = strlen(f.name) == len && !strncasecmp(f.name, path + at, len);
		if (r < 0)
			return r;
		if (!found)
			return fail(e, VD_ENOENT, "/%s: there is no such file", path);
	}
	return 0;
}

/* ---- requests --------------------------------------------------------------------------------------------- */

static int lookup(struct request *q, struct fsview_stat *st, struct vd_error *e)
{
	struct node n;
	int r = find(q->path, &n, e);

	*st = n.st;
	q->a = strlen(q->path);
	return r;
}

/* A cursor is how many entries were told: the folder is read from its beginning each time, and is small. */
static int read_dir(struct request *q, struct vd_error *e)
{
	struct node n, child;
	struct folder f;
	uint64_t i = 0;
	int r = find(q->path, &n, e);

	if (r < 0)
		return r;
	f = open_folder(&n, q->path);
	if (!S_ISDIR(n.st.mode) || (q->path[0] && !n.cluster))
		return fail(e, VD_ECORRUPT, "/%s: is no folder, or has no cluster", q->path);
	while ((r = next_node(&f, &child, e)) == 1 && i < q->a + ENTRIES_AT_ONCE)
		if (i++ >= q->a)
			answer_entry(f.name, strlen(f.name), &child.st);
	if (r < 0)
		return r;
	q->a = r == 1 ? i : FSVIEW_CURSOR_END;
	return 0;
}

static int read_file(struct request *q, struct vd_error *e)
{
	struct node n;
	size_t done = 0, len = (size_t)q->b;
	uint8_t *to = q->b <= WIRE_HALF ? answer_room(len) : NULL;
	uint32_t c = 0;
	int r = to ? find(q->path, &n, e) : fail(e, VD_ERANGE, "too much at once");

	if (r < 0)
		return r;
	len = q->a >= n.st.size ? 0 : n.st.size - q->a < len ? (size_t)(n.st.size - q->a) : len;
	if (len)
		r = walk_chain(n.cluster, q->a, &c, q->path, e);
	while (done < len && r == 0) {
		size_t within = (size_t)((q->a + done) % cluster_size), some = cluster_size - within;

		if (!is_cluster(c))
			return fail(e, VD_ECORRUPT, "/%s: its chain of clusters is broken", q->path);
		some = some < len - done ? some : len - done;
		r = device_read(dev, to + done, some, place_of(c) + within, e);
		done += some;
		if (r == 0 && done < len)
			r = walk_chain(c, cluster_size, &c, q->path, e);
	}
	q->a = done;
	return r;
}

static int blocks_of(struct request *q, struct vd_error *e)
{
	struct node n;
	uint64_t at = q->a;
	uint32_t c = 0;
	int r = find(q->path, &n, e);

	if (r == 0 && at < n.st.size)
		r = walk_chain(n.cluster, at, &c, q->path, e);
	while (r == 0 && at < n.st.size) {
		if (!is_cluster(c))
			return fail(e, VD_ECORRUPT, "/%s: its chain of clusters is broken", q->path);
		if (!answer_block(at, place_of(c), cluster_size))
			break;
		at += cluster_size;
		r = walk_chain(c, cluster_size, &c, q->path, e);
	}
	q->a = r == 0 && at < n.st.size ? at : FSVIEW_CURSOR_END;
	return r;
}

static int free_ranges(struct request *q, struct vd_error *e)
{
	uint32_t c = q->a < 2 ? 2 : (uint32_t)q->a, from = 0, next;

	for (; c - 2 < n_clusters; c++) {
		int r = read_entry(c, &next, e);

		if (r < 0)
			return r;
		if (!next && !from)
			from = c;
		if (next && from && !answer_range(place_of(from), (uint64_t)(c - from) * cluster_size)) {
			q->a = from;
			return 0;
		}
		if (next)
			from = 0;
	}
	if (from)
		answer_range(place_of(from), (uint64_t)(c - from) * cluster_size);
	q->a = FSVIEW_CURSOR_END;
	return 0;
}

#define FOLDERS_MAX 4096
/* Entries that were given up, in all folders: their first letter is gone. */
static int deleted(struct request *q, struct vd_error *e)
{
	static uint32_t folders[FOLDERS_MAX];
	size_t n = 1;

	folders[0] = root_cluster;
	for (size_t i = 0; i < n; i++) {
		struct node folder = { .cluster = folders[i] }, x;
		struct folder f = open_folder(&folder, "");
		int r;

		while ((r = next_raw(&f, e)) == 1) {
			bool is_plain = (f.entry[11] & 0x3f) != 0x0f && !(f.entry[11] & 0x08) && f.entry[0] != '.';

			take_node(&f, &x);
			if (is_plain && f.entry[0] != 0xe5 && S_ISDIR(x.st.mode) && is_cluster(x.cluster) && n < FOLDERS_MAX)
				folders[n++] = x.cluster;
			if (!is_plain || f.entry[0] != 0xe5)
				continue;
			f.entry[0] = '_';
			take_name(&f);
			if (!answer_deleted(&(struct wire_deleted){ .ino = f.place, .size = x.st.size, .time = x.st.mtime, .mode = x.st.mode }, f.name))
				return fail(e, VD_ENOSPC, "there are more deleted files than are told");
		}
		if (r < 0)
			return r;
	}
	q->a = FSVIEW_CURSOR_END;
	return n == FOLDERS_MAX ? fail(e, VD_ENOSPC, "there are more folders than are looked through for deleted files") : 0;
}

const struct filesystem filesystem_fat = {
	.open = open_fat, .lookup = lookup, .readdir = read_dir, .read = read_file, .blocks = blocks_of, .free = free_ranges, .deleted = deleted,
};
