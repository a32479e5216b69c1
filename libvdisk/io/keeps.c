/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Finds out whether what lies below a file keeps blocks that were overwritten: file system, shared extents, journal, devices. What
 * to make of it is the caller's. What cannot be looked at is told as unknown, or not at all: nothing here fails for it.
 */
#include "libvdisk/io/keeps.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#define DEPTH_MAX 8             /* a stack deeper than this is somebody's experiment */
#define EXTENTS 128             /* asked for at once */
#define EXTENTS_MAX 1048576     /* looked at: 128 GiB of a file that is all in pieces of 128 KiB */

/* linux/magic.h; ZFS and bcachefs are not in it. */
enum keeping { IN_PLACE, COPIES, LOGS, OVERLAYS, REMOTE, FUSE };
static const struct { unsigned long type; enum keeping how; const char *name; } types[] = {
	{ 0xef53, IN_PLACE, "ext4" }, { 0x58465342, IN_PLACE, "XFS" }, { 0x01021994, IN_PLACE, "tmpfs" },
	{ 0x858458f6, IN_PLACE, "ramfs" }, { 0x958458f6, IN_PLACE, "hugetlbfs" }, { 0x4d44, IN_PLACE, "FAT" },
	{ 0x2011bab0, IN_PLACE, "exFAT" }, { 0x7366746e, IN_PLACE, "NTFS" }, { 0x3153464a, IN_PLACE, "JFS" },
	{ 0x9123683e, COPIES, "btrfs" }, { 0x2fc12fc1, COPIES, "ZFS" }, { 0xca451a4e, COPIES, "bcachefs" },
	{ 0xf2f52010, LOGS, "F2FS" }, { 0x3434, LOGS, "NILFS2" }, { 0x24051905, LOGS, "UBIFS" }, { 0x72b6, LOGS, "JFFS2" },
	{ 0x794c7630, OVERLAYS, "overlayfs" },
	{ 0x6969, REMOTE, "NFS" }, { 0xff534d42, REMOTE, "CIFS" }, { 0xfe534d42, REMOTE, "SMB" }, { 0x517b, REMOTE, "SMB" },
	{ 0x00c36400, REMOTE, "Ceph" }, { 0x01021997, REMOTE, "9P" }, { 0x5346414f, REMOTE, "AFS" },
	{ 0x6a656a63, FUSE, "virtiofs" }, { 0x65735546, FUSE, "FUSE" },
};

VD_PUBLIC const char *vd_keeps_name(enum vd_keeps_kind kind)
{
	static const char *const names[] = {
#define NAME(sym, value, name, text) [value] = name,
		VD_KEEPS_TABLE(NAME)
#undef NAME
	};

	return kind > 0 && kind < sizeof(names) / sizeof(names[0]) ? names[kind] : "unknown";
}

static void add(struct vd_keeps_list *l, enum vd_keeps_kind kind, bool is_certain, const char *what)
{
	static const char *const texts[] = {
#define TEXT(sym, value, name, text) [value] = text,
		VD_KEEPS_TABLE(TEXT)
#undef TEXT
	};

	if (l->n < l->room) {
		struct vd_keeps *k = &l->buf[l->n];

		k->kind = kind;
		k->is_certain = is_certain;
		snprintf(k->text, sizeof(k->text), "%s%s%s%s", l->via, what, *what ? ": " : "", texts[kind]);
	}
	l->n++;
}

/* ---- file systems --------------------------------------------------------------------------------------- */

void vd_keeps_of_type(struct vd_keeps_list *l, long type, bool in_place)
{
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		/* Some fields of some systems are 32 bits wide, and signed. */
		if (types[i].type != ((unsigned long)type & 0xffffffff))
			continue;
		switch (types[i].how) {
		case COPIES:
			if (!in_place)
				add(l, VD_KEEPS_COPY_ON_WRITE, true, types[i].name);
			return;
		case LOGS:
			add(l, VD_KEEPS_LOG, true, types[i].name);
			return;
		case OVERLAYS:
			add(l, VD_KEEPS_OVERLAY, false, types[i].name);
			return;
		case REMOTE:
			add(l, VD_KEEPS_REMOTE, false, types[i].name);
			return;
		case FUSE:
			add(l, VD_KEEPS_FUSE, false, types[i].name);
			return;
		case IN_PLACE:
			return;
		}
	}
	add(l, VD_KEEPS_UNKNOWN, false, "");
}

/* Extents that another file, or a snapshot, has too. Not asked to write anything out first: the caller only reads. */
static void find_shared(struct vd_keeps_list *l, int fd)
{
	union {
		struct fiemap map;
		char room[sizeof(struct fiemap) + EXTENTS * sizeof(struct fiemap_extent)];
	} m;
	uint64_t at = 0;

	for (unsigned n = 0; n < EXTENTS_MAX; n += EXTENTS) {
		const struct fiemap_extent *last;

		memset(&m, 0, sizeof(m));
		m.map.fm_start = at;
		m.map.fm_length = FIEMAP_MAX_OFFSET - at;
		m.map.fm_extent_count = EXTENTS;
		if (ioctl(fd, FS_IOC_FIEMAP, &m.map) || !m.map.fm_mapped_extents)
			return;
		for (unsigned i = 0; i < m.map.fm_mapped_extents; i++)
			if (m.map.fm_extents[i].fe_flags & FIEMAP_EXTENT_SHARED) {
				add(l, VD_KEEPS_SHARED, true, "");
				return;
			}
		last = &m.map.fm_extents[m.map.fm_mapped_extents - 1];
		if (last->fe_flags & FIEMAP_EXTENT_LAST)
			return;
		at = last->fe_logical + last->fe_length;
	}
}

/* Reads the first line of a small file; "" when there is none. */
static void read_line(char *buf, size_t size, const char *path)
{
	FILE *f = fopen(path, "re");

	buf[0] = '\0';
	if (!f)
		return;
	if (!fgets(buf, (int)size, f))
		buf[0] = '\0';
	fclose(f);
	buf[strcspn(buf, "\n")] = '\0';
}

/* The folder of the device in sysfs; false: there is none, as for file systems without a device. */
static bool find_device(const struct vd_keeps_list *l, dev_t dev, char folder[PATH_MAX])
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/dev/block/%u:%u", l->sys, major(dev), minor(dev));
	return realpath(path, folder);
}

void vd_keeps_of_options(struct vd_keeps_list *l, dev_t dev)
{
	char folder[PATH_MAX], path[PATH_MAX + 64], line[256];
	bool is_journaled = false;
	FILE *f;

	if (!find_device(l, dev, folder))
		return;
	snprintf(path, sizeof(path), "%s/fs/ext4/%s/options", l->proc, strrchr(folder, '/') + 1);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		is_journaled |= !strncmp(line, "data=journal", 12);
	if (f)
		fclose(f);
	if (is_journaled)
		add(l, VD_KEEPS_DATA_JOURNAL, true, "ext4, mounted with data=journal");
}

/* ---- devices -------------------------------------------------------------------------------------------- */

static void look_below(struct vd_keeps_list *l, const char *folder, const char *name);

static void attribute(char *buf, size_t size, const char *folder, const char *name)
{
	char path[PATH_MAX + 64];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	read_line(buf, size, path);
}

static void look_at_medium(struct vd_keeps_list *l, const char *folder, const char *name)
{
	char rotational[16], discard[32];
	bool is_virtual = !strncmp(name, "vd", 2) || !strncmp(name, "xvd", 3);

	attribute(rotational, sizeof(rotational), folder, "queue/rotational");
	attribute(discard, sizeof(discard), folder, "queue/discard_max_bytes");
	/* What a virtual disk says of itself says nothing of what is behind it. */
	if (is_virtual || !*rotational)
		add(l, VD_KEEPS_UNKNOWN_MEDIUM, false, name);
	else if (rotational[0] == '0')
		add(l, VD_KEEPS_FLASH, false, name);
	else if (*discard && strcmp(discard, "0"))
		add(l, VD_KEEPS_THIN, false, name);
}

/* Those of which it consists; false: none. */
static bool look_at_slaves(struct vd_keeps_list *l, const char *folder)
{
	char path[PATH_MAX + 64], below[PATH_MAX];
	const struct dirent *d;
	bool any = false;
	DIR *dir;

	snprintf(path, sizeof(path), "%s/slaves", folder);
	dir = opendir(path);
	while (dir && (d = readdir(dir))) {
		char slave[PATH_MAX + 512];

		snprintf(slave, sizeof(slave), "%s/%s", path, d->d_name);
		if (d->d_name[0] == '.' || !realpath(slave, below))
			continue;
		any = true;
		look_below(l, below, d->d_name);
	}
	if (dir)
		closedir(dir);
	return any;
}

static int find_all(struct vd_keeps_list *l, const char *path, struct vd_error *e);

/* A loop device's file lies on a file system of its own. */
static bool look_at_loop(struct vd_keeps_list *l, const char *folder)
{
	char file[PATH_MAX], via[PATH_MAX + 64];
	const char *outer = l->via;
	int r;

	attribute(file, sizeof(file), folder, "loop/backing_file");
	if (!*file)
		return false;
	snprintf(via, sizeof(via), "%s%.100s, below: ", outer, file);
	l->via = via;
	r = find_all(l, file, NULL);
	l->via = outer;
	if (r < 0)
		add(l, VD_KEEPS_UNKNOWN, false, file);
	return true;
}

static void look_at_disk(struct vd_keeps_list *l, const char *folder, const char *name)
{
	char uuid[160];

	attribute(uuid, sizeof(uuid), folder, "dm/uuid");
	if (*uuid && strncmp(uuid, "CRYPT-", 6))
		add(l, VD_KEEPS_VOLUME, false, name);
	if (!look_at_loop(l, folder) && !look_at_slaves(l, folder))
		look_at_medium(l, folder, name);
}

/* A partition is a folder in its disk's. */
static void look_below(struct vd_keeps_list *l, const char *folder, const char *name)
{
	char disk[PATH_MAX], number[16];
	char *slash;

	if (l->depth >= DEPTH_MAX)
		return;
	l->depth++;
	snprintf(disk, sizeof(disk), "%s", folder);
	attribute(number, sizeof(number), folder, "partition");
	slash = strrchr(disk, '/');
	if (*number && slash) {
		*slash = '\0';
		name = strrchr(disk, '/') ? strrchr(disk, '/') + 1 : name;
	}
	look_at_disk(l, disk, name);
	l->depth--;
}

void vd_keeps_of_device(struct vd_keeps_list *l, dev_t dev)
{
	char folder[PATH_MAX];

	if (find_device(l, dev, folder))
		look_below(l, folder, strrchr(folder, '/') + 1);
}

/* ---- the whole ------------------------------------------------------------------------------------------ */

static int look_at_file(struct vd_keeps_list *l, int fd, const char *path, struct vd_error *e)
{
	struct statfs fs;
	struct stat st;
	int flags = 0;

	if (fstat(fd, &st) || fstatfs(fd, &fs))
		return vd_fail_errno(e, errno, "%s: asking for its file system failed", path);
	if (S_ISBLK(st.st_mode)) {
		vd_keeps_of_device(l, st.st_rdev);
		return 0;
	}
	if (ioctl(fd, FS_IOC_GETFLAGS, &flags))
		flags = 0;
	vd_keeps_of_type(l, fs.f_type, flags & FS_NOCOW_FL);
	vd_keeps_of_options(l, st.st_dev);
	if (flags & FS_JOURNAL_DATA_FL)
		add(l, VD_KEEPS_DATA_JOURNAL, true, "the file is marked for it");
	if (S_ISREG(st.st_mode))
		find_shared(l, fd);
	vd_keeps_of_device(l, st.st_dev);
	return 0;
}

/* Without waiting for the other end of a pipe, and without a lock: nothing of the file is read. */
static int find_all(struct vd_keeps_list *l, const char *path, struct vd_error *e)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), r;

	if (fd < 0)
		return vd_fail_errno(e, errno, "%s: opening it failed", path);
	r = look_at_file(l, fd, path, e);
	close(fd);
	return r;
}

VD_PUBLIC int vd_host_keeps(const char *path, struct vd_keeps *buf, size_t n, size_t *got, struct vd_error *e)
{
	struct vd_keeps_list l = { .sys = "/sys", .proc = "/proc", .buf = buf, .room = n, .via = "" };
	int r = find_all(&l, path, e);

	*got = l.n;
	return r;
}
