/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ext2, ext3, ext4 by libext2fs, over an io_manager that reads the volume and writes nothing. A journal is not replayed: that is
 * told. Folders are read block by block, so that one of any size can be gone through in pieces.
 */
#include <ext2fs/ext2fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fsview/reader/reader.h"

#define INODE_MAX 1024          /* bytes of one that are looked at */
#define DELETED_AT_ONCE 4096    /* which there is room for in an answer */
#define RUN_MAX ((uint64_t)1 << 20)     /* blocks that a cursor may cross at a time without an answer */

static const struct device *dev;
static ext2_filsys fs;
static ext2_inode_scan scan;
static struct struct_io_manager door;

/* ---- the door to the volume ------------------------------------------------------------------------------- */

static errcode_t io_open(const char *name, int flags, io_channel *out)
{
	static struct struct_io_channel channel;
	static char called[] = "volume";

	(void)name;
	(void)flags;
	channel.magic = EXT2_ET_MAGIC_IO_CHANNEL;
	channel.manager = &door;
	channel.name = called;
	channel.block_size = 1024;
	channel.refcount = 1;
	*out = &channel;
	return 0;
}

static errcode_t io_close(io_channel c)
{
	(void)c;
	return 0;
}

static errcode_t io_set_blksize(io_channel c, int size)
{
	c->block_size = size;
	return 0;
}

/* A negative count is of bytes. */
static errcode_t io_read(io_channel c, unsigned long long block, int count, void *buf)
{
	size_t len = count < 0 ? (size_t)-(long)count : (size_t)count * (size_t)c->block_size;
	struct vd_error ignored;

	if (block > UINT64_MAX / (unsigned)c->block_size)
		return EXT2_ET_SHORT_READ;
	return device_read(dev, buf, len, block * (unsigned)c->block_size, &ignored) < 0 ? EXT2_ET_SHORT_READ : 0;
}

static errcode_t io_read_old(io_channel c, unsigned long block, int count, void *buf)
{
	return io_read(c, block, count, buf);
}

static errcode_t io_write(io_channel c, unsigned long long block, int count, const void *buf)
{
	(void)c;
	(void)block;
	(void)count;
	(void)buf;
	return EXT2_ET_RO_FILSYS;
}

static errcode_t io_write_old(io_channel c, unsigned long block, int count, const void *buf)
{
	return io_write(c, block, count, buf);
}

static errcode_t io_flush(io_channel c)
{
	(void)c;
	return 0;
}

/* ---- words ------------------------------------------------------------------------------------------------ */

static int words(errcode_t err, const char *what, struct vd_error *e)
{
	switch (err) {
	case 0: return 0;
	case EXT2_ET_NO_MEMORY: return fail(e, VD_ENOMEM, "%s: not enough memory", what);
	case EXT2_ET_FILE_NOT_FOUND: case EXT2_ET_NO_DIRECTORY: return fail(e, VD_ENOENT, "%s: there is no such file", what);
	case EXT2_ET_UNSUPP_FEATURE: case EXT2_ET_RO_UNSUPP_FEATURE:
		return fail(e, VD_EUNSUPPORTED, "%s: has features that are not known", what);
	case EXT2_ET_SHORT_READ: return fail(e, VD_ECORRUPT, "%s: what it refers to cannot be read, or lies past the end", what);
	default: return fail(e, VD_ECORRUPT, "%s: breaks a rule of its format (%ld)", what, (long)err);
	}
}

static int open_ext(const struct device *d, struct wire_opened *o, struct vd_error *e)
{
	errcode_t err;
	int r;

	door = (struct struct_io_manager){
		.magic = EXT2_ET_MAGIC_IO_MANAGER, .name = "volume", .open = io_open, .close = io_close,
		.set_blksize = io_set_blksize, .read_blk = io_read_old, .write_blk = io_write_old, .flush = io_flush,
		.read_blk64 = io_read, .write_blk64 = io_write,
	};
	dev = d;
	err = ext2fs_open2("volume", NULL, EXT2_FLAG_64BITS | EXT2_FLAG_SOFTSUPP_FEATURES, 0, 0, &door, &fs);
	r = words(err, "the file system", e);
	if (r < 0)
		return r;
	if (ext2fs_has_feature_journal_dev(fs->super))
		return fail(e, VD_EUNSUPPORTED, "this is the journal of a file system elsewhere");
	o->block_size = fs->blocksize;
	/* Without a journal the state alone tells; and what is known to have errors is not what its bitmaps say. */
	o->is_dirty = ext2fs_has_feature_journal_needs_recovery(fs->super) || !(fs->super->s_state & EXT2_VALID_FS) ||
		      fs->super->s_state & EXT2_ERROR_FS;
	return 0;
}

/* ---- inodes ----------------------------------------------------------------------------------------------- */

union inode {
	struct ext2_inode_large large;
	struct ext2_inode small;
	uint8_t bytes[INODE_MAX];
};

static int read_inode(ext2_ino_t ino, union inode *out, const char *what, struct vd_error *e)
{
	int size = (int)EXT2_INODE_SIZE(fs->super);

	memset(out, 0, sizeof(*out));
	return words(ext2fs_read_inode_full(fs, ino, &out->small, size < INODE_MAX ? size : INODE_MAX), what, e);
}

static bool has_xattrs(const union inode *n)
{
	size_t at = 128 + (size_t)n->large.i_extra_isize, size = EXT2_INODE_SIZE(fs->super);

	if (ext2fs_file_acl_block(fs, &n->small))
		return true;
	return size > 128 && at + 4 <= size && at + 4 <= INODE_MAX && read_le32(n->bytes + at) == EXT2_EXT_ATTR_MAGIC;
}

static void take_stat(ext2_ino_t ino, const union inode *n, struct fsview_stat *st)
{
	const struct ext2_inode *s = &n->small;

	*st = (struct fsview_stat){
		.ino = ino, .size = EXT2_I_SIZE(s), .mtime = (int32_t)s->i_mtime, .ctime = (int32_t)s->i_ctime, .mode = s->i_mode,
		.uid = inode_uid(*s), .gid = inode_gid(*s), .nlink = s->i_links_count,
		.flags = (has_xattrs(n) ? FSVIEW_HAS_XATTRS : 0) | (s->i_flags & EXT2_IMMUTABLE_FL ? FSVIEW_IMMUTABLE : 0),
	};
	if (!S_ISREG(st->mode) && !S_ISDIR(st->mode) && !S_ISLNK(st->mode))
		st->size = 0;
	if (S_ISCHR(st->mode) || S_ISBLK(st->mode)) {
		uint32_t d = s->i_block[0] ? s->i_block[0] : s->i_block[1];

		st->rdev_major = s->i_block[0] ? d >> 8 & 0xff : d >> 8 & 0xfff;
		st->rdev_minor = s->i_block[0] ? d & 0xff : (d & 0xff) | (d >> 12 & 0xfff00);
	}
}

/* The blocks of a file from `block` on that lie side by side, at most max: *at is 0 for a hole. */
static int find_run(ext2_ino_t ino, union inode *n, uint64_t block, uint64_t max, uint64_t *at, uint64_t *count, const char *what,
		    struct vd_error *e)
{
	*count = 0;
	while (*count < max) {
		blk64_t b = 0;
		int flags = 0, r = words(ext2fs_bmap2(fs, ino, &n->small, NULL, 0, block + *count, &flags, &b), what, e);

		if (r < 0)
			return r;
		if (flags & BMAP_RET_UNINIT)
			b = 0;
		if (b >= ext2fs_blocks_count(fs->super))
			return fail(e, VD_ECORRUPT, "%s: lies past the end of the file system", what);
		if (*count == 0)
			*at = b;
		else if (b != (*at ? *at + *count : 0))
			break;
		++*count;
	}
	return 0;
}

/* ---- paths ------------------------------------------------------------------------------------------------ */

/* Goes as far as no link is in the way. The last folder is remembered: files of one are asked for together. */
static int go(const char *path, size_t *used, ext2_ino_t *ino, union inode *n, struct vd_error *e)
{
	size_t at = 0, len;
	int r;

	*ino = EXT2_ROOT_INO;
	r = read_inode(*ino, n, "/", e);
	while (r == 0 && path[at] && !S_ISLNK(n->small.i_mode)) {
		ext2_ino_t next;

		len = strcspn(path + at, "/");
		if (!S_ISDIR(n->small.i_mode))
			return fail(e, VD_ENOENT, "%s: a part of the path is no folder", path);
		if (n->small.i_flags & EXT4_ENCRYPT_FL)
			return fail(e, VD_EUNSUPPORTED, "%s: is in an encrypted folder", path);
		if (len > EXT2_NAME_LEN)
			return fail(e, VD_ENOENT, "%s: there is no such file", path);
		r = words(ext2fs_lookup(fs, *ino, path + at, (int)len, NULL, &next), path, e);
		if (r == 0)
			r = read_inode(*ino = next, n, path, e);
		at += len;
		*used = at;
		at += path[at] == '/';
	}
	return r;
}

static int go_all(const char *path, ext2_ino_t *ino, union inode *n, struct vd_error *e)
{
	size_t used = 0;
	int r = go(path, &used, ino, n, e);

	return r == 0 && path[used] ? fail(e, VD_ENOENT, "%s: a part of the path is no folder", path) : r;
}

static int lookup(struct request *q, struct fsview_stat *st, struct vd_error *e)
{
	union inode n;
	ext2_ino_t ino;
	size_t used = 0;
	int r = go(q->path, &used, &ino, &n, e);

	if (r == 0)
		take_stat(ino, &n, st);
	q->a = used;
	return r;
}

/* The first `len` bytes of a file by the library's own reader, which knows data in inodes. */
static int read_small(ext2_ino_t ino, void *buf, size_t len, uint64_t off, size_t *got, const char *what, struct vd_error *e)
{
	ext2_file_t f;
	unsigned n = 0;
	errcode_t err = ext2fs_file_open(fs, ino, 0, &f);
	int r;

	if (err)
		return words(err, what, e);
	err = ext2fs_file_llseek(f, off, EXT2_SEEK_SET, NULL);
	if (!err)
		err = ext2fs_file_read(f, buf, (unsigned)len, &n);
	ext2fs_file_close(f);
	r = words(err, what, e);
	*got = n;
	return r;
}

static int read_link(struct request *q, struct vd_error *e)
{
	union inode n;
	ext2_ino_t ino;
	int r = go_all(q->path, &ino, &n, e);
	uint64_t size = EXT2_I_SIZE(&n.small);
	size_t got = (size_t)size;
	char *to;

	if (r < 0)
		return r;
	if (!S_ISLNK(n.small.i_mode) || size >= FSVIEW_PATH_MAX || (n.small.i_flags & EXT4_ENCRYPT_FL))
		return fail(e, VD_ECORRUPT, "%s: the link has %llu bytes, or is encrypted", q->path, (unsigned long long)size);
	to = answer_room(FSVIEW_PATH_MAX);
	if (size < sizeof(n.small.i_block) && !(n.small.i_flags & EXT4_INLINE_DATA_FL))
		memcpy(to, n.small.i_block, (size_t)size);
	else
		r = read_small(ino, to, (size_t)size, 0, &got, q->path, e);
	q->a = got;
	return r;
}

/* ---- folders ---------------------------------------------------------------------------------------------- */

/* False: the answer is full. */
static bool answer_child(ext2_ino_t child, const char *name, size_t len, int *r, const char *path, struct vd_error *e)
{
	struct fsview_stat st;
	union inode n;

	if (len <= 2 && !strncmp(name, "..", len))
		return true;
	if (!len || memchr(name, '/', len) || memchr(name, 0, len)) {
		*r = fail(e, VD_ECORRUPT, "/%s: has a name in it that no file can have", path);
		return false;
	}
	*r = read_inode(child, &n, path, e);
	if (*r < 0)
		return false;
	take_stat(child, &n, &st);
	return answer_entry(name, len, &st);
}

/* The entries of one block from `at` on; *at: where the first one is that had no room. */
static int read_block(const char *block, uint32_t *at, const char *path, struct vd_error *e)
{
	int r = 0;

	while (*at < fs->blocksize) {
		struct ext2_dir_entry *d = (void *)(uintptr_t)(block + *at);
		unsigned len = 0, name_len;

		if (*at + 8 > fs->blocksize || ext2fs_get_rec_len(fs, d, &len) || len < 8 || len % 4 || len > fs->blocksize - *at)
			return fail(e, VD_ECORRUPT, "/%s: the folder's entries are damaged", path);
		name_len = (unsigned)ext2fs_dirent_name_len(d);
		if (d->inode && name_len + 8 > len)
			return fail(e, VD_ECORRUPT, "/%s: the folder's entries are damaged", path);
		if (d->inode && !answer_child(d->inode, d->name, name_len, &r, path, e))
			return r;
		*at += len;
	}
	return 0;
}

struct inline_dir {
	const char *path;
	struct vd_error *e;
	int r;
};

static int each_inline(struct ext2_dir_entry *d, int offset, int blocksize, char *buf, void *ctx)
{
	struct inline_dir *x = ctx;

	(void)offset;
	(void)blocksize;
	(void)buf;
	if (d->inode && !answer_child(d->inode, d->name, (size_t)ext2fs_dirent_name_len(d), &x->r, x->path, x->e))
		return DIRENT_ABORT;
	return 0;
}

/* At most a few hundred bytes of entries. */
static int read_inline(struct request *q, ext2_ino_t ino, struct vd_error *e)
{
	struct inline_dir x = { q->path, e, 0 };
	errcode_t err = ext2fs_dir_iterate(fs, ino, 0, NULL, each_inline, &x);

	q->a = FSVIEW_CURSOR_END;
	return x.r < 0 ? x.r : words(err, q->path, e);
}

/* A cursor is a block of the folder and a place in it; there is room in 17 bits for the largest block's size. */
static int read_dir(struct request *q, struct vd_error *e)
{
	static char block[65536];
	union inode n;
	ext2_ino_t ino;
	uint64_t i = q->a >> 17, blocks, count, at;
	uint32_t within = (uint32_t)(q->a & 0x1ffff);
	int r = go_all(q->path, &ino, &n, e);

	if (r < 0)
		return r;
	if (!S_ISDIR(n.small.i_mode) || (n.small.i_flags & EXT4_ENCRYPT_FL))
		return fail(e, n.small.i_flags & EXT4_ENCRYPT_FL ? VD_EUNSUPPORTED : VD_ENOENT, "/%s: is no folder, or encrypted", q->path);
	if (n.small.i_flags & EXT4_INLINE_DATA_FL)
		return read_inline(q, ino, e);
	blocks = EXT2_I_SIZE(&n.small) / fs->blocksize;
	if (i < blocks) {
		r = find_run(ino, &n, i, 1, &at, &count, q->path, e);
		if (r == 0 && !at)
			r = fail(e, VD_ECORRUPT, "/%s: the folder has a hole", q->path);
		if (r == 0)
			r = words(ext2fs_read_dir_block4(fs, at, block, 0, ino), q->path, e);
		if (r == 0)
			r = read_block(block, &within, q->path, e);
		if (r < 0)
			return r;
		i += within == fs->blocksize;
		within %= fs->blocksize;
	}
	q->a = i < blocks ? i << 17 | within : FSVIEW_CURSOR_END;
	return 0;
}

/* ---- bytes ------------------------------------------------------------------------------------------------ */

static int read_runs(struct request *q, ext2_ino_t ino, union inode *n, uint8_t *to, size_t len, struct vd_error *e)
{
	uint64_t off = q->a;

	while (len) {
		uint64_t within = off % fs->blocksize, at, count;
		int r = find_run(ino, n, off / fs->blocksize, (within + len + fs->blocksize - 1) / fs->blocksize, &at, &count, q->path, e);
		size_t some;

		if (r < 0)
			return r;
		some = count * fs->blocksize - within < len ? (size_t)(count * fs->blocksize - within) : len;
		if (at)
			r = device_read(dev, to, some, at * fs->blocksize + within, e);
		else
			memset(to, 0, some);
		if (r < 0)
			return r;
		to += some;
		off += some;
		len -= some;
	}
	return 0;
}

static int read_file(struct request *q, struct vd_error *e)
{
	union inode n;
	ext2_ino_t ino;
	uint64_t size;
	size_t len = (size_t)q->b, got = 0;
	uint8_t *to;
	int r = q->b > WIRE_HALF ? VD_EARG : go_all(q->path, &ino, &n, e);

	if (r < 0)
		return r;
	size = EXT2_I_SIZE(&n.small);
	if (!S_ISREG(n.small.i_mode) || (n.small.i_flags & EXT4_ENCRYPT_FL))
		return fail(e, VD_EUNSUPPORTED, "/%s: is no regular file, or encrypted", q->path);
	len = q->a >= size ? 0 : size - q->a < len ? (size_t)(size - q->a) : len;
	to = answer_room(len);
	if (n.small.i_flags & EXT4_INLINE_DATA_FL) {
		r = read_small(ino, to, len, q->a, &got, q->path, e);
	} else {
		r = read_runs(q, ino, &n, to, len, e);
		got = len;
	}
	q->a = got;
	return r;
}

static int read_xattr(struct request *q, struct vd_error *e)
{
	struct ext2_xattr_handle *h;
	union inode n;
	ext2_ino_t ino;
	size_t len = 0;
	void *value = NULL, *to;
	int r = go_all(q->path, &ino, &n, e);
	errcode_t err;

	if (r < 0)
		return r;
	err = ext2fs_xattrs_open(fs, ino, &h);
	if (err)
		return words(err, q->path, e);
	err = ext2fs_xattrs_read(h);
	if (!err)
		err = ext2fs_xattr_get(h, q->name, &value, &len);
	ext2fs_xattrs_close(&h);
	if (err == EXT2_ET_EA_KEY_NOT_FOUND)
		return fail(e, VD_ENOENT, "/%s: has no attribute %s", q->path, q->name);
	r = words(err, q->path, e);
	to = r == 0 ? answer_room(len) : NULL;
	if (to)
		memcpy(to, value, len);
	q->a = to ? len : 0;
	if (value)
		ext2fs_free_mem(&value);
	return r;
}

static int blocks_of(struct request *q, struct vd_error *e)
{
	union inode n;
	ext2_ino_t ino;
	uint64_t i = q->a, end, at, count, crossed = 0;
	int r = go_all(q->path, &ino, &n, e);

	if (r < 0)
		return r;
	end = (EXT2_I_SIZE(&n.small) + fs->blocksize - 1) / fs->blocksize;
	if (n.small.i_flags & EXT4_INLINE_DATA_FL)
		end = 0;
	for (; i < end && crossed < RUN_MAX; i += count, crossed += count) {
		r = find_run(ino, &n, i, end - i < 65536 ? end - i : 65536, &at, &count, q->path, e);
		if (r < 0)
			return r;
		if (at && !answer_block(i * fs->blocksize, at * fs->blocksize, count * fs->blocksize))
			break;
	}
	q->a = i < end ? i : FSVIEW_CURSOR_END;
	return 0;
}

/* ---- what is nobody's ------------------------------------------------------------------------------------- */

static int free_ranges(struct request *q, struct vd_error *e)
{
	blk64_t end = ext2fs_blocks_count(fs->super), at = q->a, first, used;
	int r = fs->block_map ? 0 : words(ext2fs_read_block_bitmap(fs), "the map of free blocks", e);

	if (r < 0)
		return r;
	if (at < fs->super->s_first_data_block)
		at = fs->super->s_first_data_block;
	while (at < end && ext2fs_find_first_zero_block_bitmap2(fs->block_map, at, end - 1, &first) == 0) {
		if (ext2fs_find_first_set_block_bitmap2(fs->block_map, first, end - 1, &used))
			used = end;
		if (!answer_range(first * fs->blocksize, (used - first) * fs->blocksize)) {
			q->a = first;
			return 0;
		}
		at = used;
	}
	q->a = FSVIEW_CURSOR_END;
	return 0;
}

/* From the first inode on; the scan goes on where the last request ended. */
static int deleted(struct request *q, struct vd_error *e)
{
	int size = (int)EXT2_INODE_SIZE(fs->super);
	static union inode n;
	ext2_ino_t ino;
	unsigned n_found = 0;
	int r = 0;

	if (!q->a && scan)
		ext2fs_close_inode_scan(scan);
	if (!q->a)
		r = words(ext2fs_open_inode_scan(fs, 0, &scan), "the inodes", e);
	for (;;) {
		struct wire_deleted d = { 0 };

		if (r == 0)
			r = words(ext2fs_get_next_inode_full(scan, &ino, &n.small, size < INODE_MAX ? size : INODE_MAX), "the inodes", e);
		if (r < 0)
			return r;
		q->a = ino ? ino : FSVIEW_CURSOR_END;
		if (!ino)
			return 0;
		if (n.small.i_links_count || !n.small.i_dtime || !n.small.i_mode || ino < EXT2_FIRST_INODE(fs->super))
			continue;
		d = (struct wire_deleted){ .ino = ino, .size = EXT2_I_SIZE(&n.small), .time = n.small.i_dtime, .mode = n.small.i_mode };
		answer_deleted(&d, "");
		if (++n_found == DELETED_AT_ONCE)
			return 0;
	}
}

const struct filesystem filesystem_ext = {
	open_ext, lookup, read_link, read_dir, read_file, read_xattr, blocks_of, free_ranges, deleted,
};
