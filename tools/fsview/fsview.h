/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The one view of the file systems inside an image, or of a plain directory: volumes, one tree of files, and what lies outside
 * of files. It only reads. Whoever uses it does not see which implementation answers: the sandboxed reader (native.c), a
 * directory (directory.c), or another.
 *
 *  - Everything that comes out is hostile: names hold any bytes but '/' and NUL, sizes and times are whatever was written.
 *    Lengths are bounded and texts end with a NUL; nothing else is promised. Print names through ui_line() or json_text().
 *  - What the view cannot read it does not pass over in silence: each shortfall is recorded (fsview_shortfalls()), and a
 *    scan with any is incomplete. VD_ENOENT is an answer, and no shortfall.
 *  - Paths are absolute and begin at the root of the tree. Symbolic links are resolved inside it, never outside.
 *  - One thread at a time. Callbacks may call the view; a nonzero return of theirs ends the call, which returns that value.
 *  - Windows: the tree is that of the system's volume, with '/' for '\', and names match in any case.
 */
#ifndef TOOLS_FSVIEW_FSVIEW_H
#define TOOLS_FSVIEW_FSVIEW_H

#include <vdisk.h>

struct fsview;

#define FSVIEW_NAME_MAX 1024            /* of one name, NUL and all: 255 UTF-16 units of NTFS are 765 bytes */
#define FSVIEW_PATH_MAX 8192            /* of a path in the tree, NUL and all; what is longer is a shortfall */
#define FSVIEW_DEPTH_MAX 256            /* of folders below each other; what is deeper is a shortfall */
#define FSVIEW_VOLUMES_MAX 256

struct fsview_opts {
	size_t struct_size;
	const char *reader;             /* program of the sandboxed reader; NULL: the one installed with this program */
	unsigned request_ms;            /* that one request may take before the reader is stopped; 0: 60 000 */
};

/*
 * The disk in an image: its partitions and volumes are found and mounted into one tree, by /etc/fstab where there is one.
 * Fails only when nothing at all can be looked at (no memory, no reader, the image cannot be read); what is wrong
 * with the content is a shortfall. The image is borrowed until fsview_close().
 */
int fsview_open(struct vd_image *img, const struct fsview_opts *opts, struct fsview **out, struct vd_error *e);
/* A directory as the root of the tree, as unpacked or in a chroot: one volume, of which only the files can be seen. */
int fsview_open_directory(const char *path, struct fsview **out, struct vd_error *e);
void fsview_close(struct fsview *v);

/* ---- what cannot be seen ---------------------------------------------------------------------------------- */

/* Symbol, stable name, text. */
#define FSVIEW_SHORTFALL_TABLE(X)                                                                         \
	X(FSVIEW_UNSUPPORTED, "unsupported",   "no view reads this")                                      \
	X(FSVIEW_LOCKED,      "locked",        "is encrypted inside the image")                           \
	X(FSVIEW_DAMAGED,     "damaged",       "breaks a rule of its format")                             \
	X(FSVIEW_LIMIT,       "limit",         "is more than the view goes through")                      \
	X(FSVIEW_STOPPED,     "stopped",       "the reader took too long, too much memory, or died")      \
	X(FSVIEW_NO_SYSTEM,   "no-system",     "no operating system was found")                           \
	X(FSVIEW_SECOND,      "second-system", "another system is there, and the tree is of the first")   \
	X(FSVIEW_ACCESS,      "access",        "may not be read")                                         \
	X(FSVIEW_MISSING,     "missing",       "is named, and is not there")                              \
	X(FSVIEW_NOT_NATIVE,  "not-seen",      "this view cannot tell")
enum fsview_lack {
#define FSVIEW_LACK_ENUM(sym, name, text) sym,
	FSVIEW_SHORTFALL_TABLE(FSVIEW_LACK_ENUM)
#undef FSVIEW_LACK_ENUM
	FSVIEW_N_LACKS
};
struct fsview_shortfall {
	enum fsview_lack lack;
	char where[256];                /* a volume's name or a path, shortened at its front; "" for the disk */
	char text[320];                 /* one line for people; control characters are escaped */
};
/* What was recorded so far, at most 256 of them; *total is how many there were. Valid until the next call. */
const struct fsview_shortfall *fsview_shortfalls(const struct fsview *v, size_t *n, uint64_t *total);
/* For what is read through the view and found wanting by others: a package database that breaks off, say. */
void fsview_fall_short(struct fsview *v, enum fsview_lack lack, const char *where, const char *fmt, ...) VD_PRINTF(4, 5);
const char *fsview_lack_name(enum fsview_lack lack);
/* The i-th thing that is good to know and makes nothing incomplete, such as a journal that was not replayed; NULL past the last. */
const char *fsview_note(const struct fsview *v, size_t i);

/* ---- volumes ---------------------------------------------------------------------------------------------- */

/* Symbol, stable name, whether it holds files. */
#define FSVIEW_FS_TABLE(X)                                                                                \
	X(FSVIEW_FS_UNKNOWN,  "unknown",  true)                                                           \
	X(FSVIEW_FS_EMPTY,    "empty",    false)       /* nothing but zeros where a file system would begin */ \
	X(FSVIEW_FS_DIR,      "directory", true)                                                          \
	X(FSVIEW_FS_EXT,      "ext",      true)                                                           \
	X(FSVIEW_FS_NTFS,     "ntfs",     true)                                                           \
	X(FSVIEW_FS_FAT,      "fat",      true)                                                           \
	X(FSVIEW_FS_XFS,      "xfs",      true)                                                           \
	X(FSVIEW_FS_BTRFS,    "btrfs",    true)                                                           \
	X(FSVIEW_FS_EXFAT,    "exfat",    true)                                                           \
	X(FSVIEW_FS_ISO,      "iso9660",  true)                                                           \
	X(FSVIEW_FS_SQUASHFS, "squashfs", true)                                                           \
	X(FSVIEW_FS_F2FS,     "f2fs",     true)                                                           \
	X(FSVIEW_FS_REFS,     "refs",     true)                                                           \
	X(FSVIEW_FS_ZFS,      "zfs",      true)                                                           \
	X(FSVIEW_FS_SWAP,     "swap",     false)                                                          \
	X(FSVIEW_FS_LUKS,     "luks",     true)                                                           \
	X(FSVIEW_FS_BITLOCKER, "bitlocker", true)                                                         \
	X(FSVIEW_FS_LVM,      "lvm",      false)       /* a physical volume: its logical volumes are told by themselves */ \
	X(FSVIEW_FS_RAID,     "raid",     true)                                                           \
	X(FSVIEW_FS_BOOT,     "boot",     false)       /* BIOS boot and reserved partitions: code or nothing, never files */
enum fsview_fs {
#define FSVIEW_FS_ENUM(sym, name, has_files) sym,
	FSVIEW_FS_TABLE(FSVIEW_FS_ENUM)
#undef FSVIEW_FS_ENUM
	FSVIEW_N_FS
};
const char *fsview_fs_name(enum fsview_fs fs);

struct fsview_volume {
	char name[160];                 /* "disk", "partition 1", "lvm VG/LV": how reports call it; escaped */
	enum fsview_fs fs;
	uint64_t size;                  /* bytes of the volume; 0 for a directory */
	uint32_t block_size;            /* of its file system; 0: not read */
	uint32_t partition;             /* its number; 0: none */
	uint64_t disk_off;              /* where it begins on the disk, of one in one piece */
	char label[64], uuid[40];       /* of the file system; "" */
	char part_label[120], part_uuid[40], part_type[40];     /* GPT; an MBR's type is "0x83" */
	bool is_readable;               /* its files can be read by this view */
	bool is_dirty;                  /* was not unmounted cleanly: what only its journal has is not seen */
	char mounted_at[256];           /* in the tree; "" */
};
/* NULL past the last. Belongs to the view. */
const struct fsview_volume *fsview_volume(const struct fsview *v, size_t i);
/* "mbr", "gpt", "none" (the file system begins at byte 0), "directory". */
const char *fsview_table(const struct fsview *v);
/* Bytes of a volume as they lie there. VD_EUNSUPPORTED for a directory, VD_ERANGE past the end. */
int fsview_volume_read(struct fsview *v, size_t volume, void *buf, size_t len, uint64_t off, struct vd_error *e);

struct fsview_range {
	uint64_t off, len;
};
/* Where the range of a volume is on the disk, piece by piece. */
int fsview_volume_place(struct fsview *v, size_t volume, struct fsview_range where,
			int (*each)(void *ctx, const struct fsview_range *r), void *ctx, struct vd_error *e);
/* Ranges of the disk that belong to no partition, tables of partitions left out, in order. */
int fsview_gaps(struct fsview *v, int (*each)(void *ctx, const struct fsview_range *r), void *ctx, struct vd_error *e);
/* Ranges of the volume that its file system says are free, in order. VD_EUNSUPPORTED: this view cannot tell. */
int fsview_free_ranges(struct fsview *v, size_t volume, int (*each)(void *ctx, const struct fsview_range *r), void *ctx,
		       struct vd_error *e);

/* A file that was deleted, and of which the file system still says something. */
struct fsview_deleted {
	uint64_t ino;                   /* 0: only its name was found */
	uint64_t size;                  /* of what can be found of it */
	int64_t time;                   /* seconds since 1970; 0: not known */
	uint32_t mode;
	char name[FSVIEW_NAME_MAX];     /* ""; without the folder that it was in */
};
int fsview_deleted(struct fsview *v, size_t volume, int (*each)(void *ctx, const struct fsview_deleted *d), void *ctx,
		   struct vd_error *e);

/* ---- files ------------------------------------------------------------------------------------------------ */

struct fsview_stat {
	uint64_t ino, size;
	int64_t mtime, ctime;           /* seconds since 1970 */
	uint32_t mode, uid, gid, nlink; /* mode as in stat(2): type and permissions */
	uint32_t rdev_major, rdev_minor;
	uint32_t volume;                /* index of fsview_volume() */
	uint32_t flags;                 /* enum fsview_flag */
};
enum fsview_flag {
	FSVIEW_HAS_XATTRS = 1,          /* may have some: without it there are none */
	FSVIEW_IMMUTABLE = 2,
};

/* VD_ENOENT: no such file, or a part of the path is no folder, or its links go round. */
int fsview_stat(struct fsview *v, const char *path, struct fsview_stat *st, struct vd_error *e);
/* Of the link itself. */
int fsview_lstat(struct fsview *v, const char *path, struct fsview_stat *st, struct vd_error *e);
bool fsview_exists(struct fsview *v, const char *path);
/* The text of a link, whole or VD_ERANGE. */
int fsview_readlink(struct fsview *v, const char *path, char *buf, size_t size, struct vd_error *e);
/* Where the path leads with all its links resolved; the last part has not to be there. */
int fsview_resolve(struct fsview *v, const char *path, char *buf, size_t size, struct vd_error *e);

/* Fills at most len bytes from off on; *got is less at the end of the file. Links are followed. VD_EARG: no regular file. */
int fsview_read(struct fsview *v, const char *path, void *buf, size_t len, uint64_t off, size_t *got, struct vd_error *e);
/* The whole file, malloc'ed, with a NUL behind it; VD_ERANGE when it is larger than max. */
int fsview_load(struct fsview *v, const char *path, size_t max, char **text, size_t *len, struct vd_error *e);

struct fsview_entry {
	const char *name;               /* "." and ".." are left out */
	struct fsview_stat st;          /* as by lstat */
};
/* In no order; any number of entries in fixed memory. */
int fsview_readdir(struct fsview *v, const char *path, int (*each)(void *ctx, const struct fsview_entry *entry), void *ctx,
		   struct vd_error *e);
/*
 * All below path, without itself, folders before what is in them, links not followed, in fixed memory; goes into what is
 * mounted below. A folder that cannot be read is a shortfall, and the walk goes on.
 */
int fsview_walk(struct fsview *v, const char *path, int (*each)(void *ctx, const char *path, const struct fsview_stat *st),
		void *ctx, struct vd_error *e);
/* FSVIEW_SKIP from the callback of a walk: not into this folder. */
#define FSVIEW_SKIP 0x5c1b
/*
 * All that a pattern matches, in the order of names: * ? and [...] within one part of the path, ** for any number of folders. Links
 * are followed but by **. At most max of them, else a shortfall. None is no error.
 */
int fsview_glob(struct fsview *v, const char *pattern, size_t max, int (*each)(void *ctx, const char *path), void *ctx,
		struct vd_error *e);

/* Value of one extended attribute of the file itself ("security.capability"); VD_ENOENT: it has none of that name. */
int fsview_xattr(struct fsview *v, const char *path, const char *name, void *buf, size_t size, size_t *got, struct vd_error *e);

/* Where the bytes of a file are on its volume. */
struct fsview_block {
	uint64_t file_off;
	struct fsview_range at;         /* the last one goes on behind the end of the file: what is there is its slack */
};
int fsview_blocks(struct fsview *v, const char *path, int (*each)(void *ctx, const struct fsview_block *b), void *ctx,
		  struct vd_error *e);

#endif
