/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * NTFS by libntfs-3g, over device operations that read the volume and write nothing. Names match in any case. Junctions and
 * symbolic links are links without a text, and so lead nowhere: what they stand for is found where it is. The library's own
 * files are left out.
 */
#include "fsview/reader/reader.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>

/* These name what they need from the system, and do not include it. */
#define HAVE_TIME_H 1
#define HAVE_SYS_TYPES_H 1
#define HAVE_SYS_STAT_H 1
#define HAVE_STDARG_H 1
#include <ntfs-3g/attrib.h>
#include <ntfs-3g/device.h>
#include <ntfs-3g/dir.h>
#include <ntfs-3g/inode.h>
#include <ntfs-3g/logfile.h>
#include <ntfs-3g/logging.h>
#include <ntfs-3g/mft.h>
#include <ntfs-3g/ntfstime.h>
#include <ntfs-3g/runlist.h>
#include <ntfs-3g/unistr.h>
#include <ntfs-3g/volume.h>

#define ENTRIES_AT_ONCE 256
#define RECORDS_AT_ONCE 16384
#define TAG_MOUNT_POINT 0xa0000003U
#define TAG_SYMLINK 0xa000000cU
#define SPECIAL_READ (FILE_ATTR_REPARSE_POINT | FILE_ATTR_ENCRYPTED)

static const struct device *dev;
static ntfs_volume *vol;
static s64 position;

/* ---- the door to the volume ------------------------------------------------------------------------------- */

static int dev_open(struct ntfs_device *d, int flags)
{
	(void)flags;
	NDevSetOpen(d);
	NDevSetReadOnly(d);
	return 0;
}

static int dev_nothing(struct ntfs_device *d)
{
	(void)d;
	return 0;
}

static s64 dev_seek(struct ntfs_device *d, s64 offset, int whence)
{
	(void)d;
	position = whence == SEEK_SET ? offset : whence == SEEK_CUR ? position + offset : (s64)dev->size + offset;
	return position;
}

static s64 dev_pread(struct ntfs_device *d, void *buf, s64 count, s64 offset)
{
	struct vd_error ignored;

	(void)d;
	if (count < 0 || offset < 0 || device_read(dev, buf, (size_t)count, (uint64_t)offset, &ignored) < 0) {
		errno = EIO;
		return -1;
	}
	return count;
}

static s64 dev_read(struct ntfs_device *d, void *buf, s64 count)
{
	s64 n = dev_pread(d, buf, count, position);

	position += n > 0 ? n : 0;
	return n;
}

static s64 dev_write(struct ntfs_device *d, const void *buf, s64 count)
{
	(void)d;
	(void)buf;
	(void)count;
	errno = EROFS;
	return -1;
}

static s64 dev_pwrite(struct ntfs_device *d, const void *buf, s64 count, s64 offset)
{
	(void)offset;
	return dev_write(d, buf, count);
}

static int dev_stat(struct ntfs_device *d, struct stat *st)
{
	(void)d;
	memset(st, 0, sizeof(*st));
	st->st_mode = S_IFREG;
	st->st_size = (off_t)dev->size;
	return 0;
}

static int dev_ioctl(struct ntfs_device *d, unsigned long request, void *arg)
{
	(void)d;
	(void)request;
	(void)arg;
	errno = EOPNOTSUPP;
	return -1;
}

static struct ntfs_device_operations door = {
	dev_open, dev_nothing, dev_seek, dev_read, dev_write, dev_pread, dev_pwrite, dev_nothing, dev_stat, dev_ioctl,
};

static int words(const char *path, struct vd_error *e)
{
	if (errno == ENOENT || errno == ENOTDIR)
		return fail(e, VD_ENOENT, "/%s: there is no such file", path);
	if (errno == ENOMEM)
		return fail(e, VD_ENOMEM, "/%s: not enough memory", path);
	if (errno == EOPNOTSUPP)
		return fail(e, VD_EUNSUPPORTED, "/%s: has features that are not known", path);
	return fail(e, VD_ECORRUPT, "/%s: breaks a rule of NTFS: %s", path, strerror(errno));
}

/* Changes that only the log has. */
static bool is_logfile_clean(void)
{
	ntfs_inode *ni = ntfs_inode_open(vol, FILE_LogFile);
	ntfs_attr *na = ni ? ntfs_attr_open(ni, AT_DATA, AT_UNNAMED, 0) : NULL;
	RESTART_PAGE_HEADER *page = NULL;
	bool is_clean = na && (!na->data_size || (ntfs_check_logfile(na, &page) && ntfs_is_logfile_clean(na, page)));

	free(page);
	if (na)
		ntfs_attr_close(na);
	if (ni)
		ntfs_inode_close(ni);
	return is_clean;
}

static int open_ntfs(const struct device *d, struct wire_opened *o, struct vd_error *e)
{
	static char called[] = "volume";
	struct ntfs_device *device;

	dev = d;
	ntfs_log_set_handler(ntfs_log_handler_null);
	ntfs_set_char_encoding("utf8");
	device = ntfs_device_alloc(called, 0, &door, NULL);
	vol = device ? ntfs_device_mount(device, NTFS_MNT_RDONLY) : NULL;
	if (!vol)
		return words("", e);
	ntfs_set_ignore_case(vol);
	o->block_size = vol->cluster_size;
	o->is_dirty = vol->flags & VOLUME_IS_DIRTY || ntfs_volume_check_hiberfile(vol, 0) < 0 || !is_logfile_clean();
	snprintf(o->label, sizeof(o->label), "%s", vol->vol_name ? vol->vol_name : "");
	return 0;
}

/* ---- files ------------------------------------------------------------------------------------------------ */

static uint32_t reparse_tag(ntfs_inode *ni)
{
	s64 size = 0;
	uint8_t *value = ntfs_attr_readall(ni, AT_REPARSE_POINT, NULL, 0, &size);
	uint32_t tag = value && size >= 4 ? read_le32(value) : 0;

	free(value);
	return tag;
}

static void take_stat(ntfs_inode *ni, struct fsview_stat *st)
{
	uint32_t tag = ni->flags & FILE_ATTR_REPARSE_POINT ? reparse_tag(ni) : 0;
	bool is_dir = ni->mrec->flags & MFT_RECORD_IS_DIRECTORY;

	*st = (struct fsview_stat){
		.ino = ni->mft_no, .size = is_dir || ni->data_size < 0 ? 0 : (uint64_t)ni->data_size,
		.mtime = ntfs2timespec(ni->last_data_change_time).tv_sec, .ctime = ntfs2timespec(ni->last_mft_change_time).tv_sec,
		.mode = tag == TAG_MOUNT_POINT || tag == TAG_SYMLINK ? S_IFLNK | 0777 : is_dir ? S_IFDIR | 0755 : S_IFREG | 0644,
		.nlink = le16_to_cpu(ni->mrec->link_count),
	};
}

/* Goes as far as no link is in the way; the inode is the caller's to close. */
static int go(const char *path, size_t *used, ntfs_inode **out, struct vd_error *e)
{
	ntfs_inode *ni = ntfs_inode_open(vol, FILE_root);
	size_t at = 0;

	*used = 0;
	while (ni && path[at]) {
		size_t len = strcspn(path + at, "/");
		char name[FSVIEW_NAME_MAX];
		struct fsview_stat st;
		u64 mref = (u64)-1;

		take_stat(ni, &st);
		if (!S_ISDIR(st.mode))
			break;
		snprintf(name, sizeof(name), "%.*s", (int)len, path + at);
		errno = ENOENT;
		/* For whom it lists names it writes them in lower case then. */
		NVolClearCaseSensitive(vol);
		if (len < sizeof(name))
			mref = ntfs_inode_lookup_by_mbsname(ni, name);
		NVolSetCaseSensitive(vol);
		if (mref == (u64)-1) {
			int err = errno;

			ntfs_inode_close(ni);
			errno = err;
			return words(path, e);
		}
		ntfs_inode_close(ni);
		ni = ntfs_inode_open(vol, MREF(mref));
		at += len;
		*used = at;
		at += path[at] == '/';
	}
	*out = ni;
	return ni ? 0 : words(path, e);
}

static int lookup(struct request *q, struct fsview_stat *st, struct vd_error *e)
{
	ntfs_inode *ni;
	size_t used;
	int r = go(q->path, &used, &ni, e);

	if (r < 0)
		return r;
	take_stat(ni, st);
	ntfs_inode_close(ni);
	q->a = used;
	return q->path[used] && !S_ISLNK(st->mode) ? fail(e, VD_ENOENT, "/%s: a part of the path is no folder", q->path) : 0;
}

static int go_all(const char *path, ntfs_inode **ni, struct vd_error *e)
{
	size_t used;
	int r = go(path, &used, ni, e);

	if (r == 0 && path[used]) {
		ntfs_inode_close(*ni);
		return fail(e, VD_ENOENT, "/%s: a part of the path is no folder", path);
	}
	return r;
}

static int read_link(struct request *q, struct vd_error *e)
{
	return fail(e, VD_ENOENT, "/%s: is a junction, which is not followed", q->path);
}

/* ---- folders ---------------------------------------------------------------------------------------------- */

struct filling {
	s64 from;                       /* entries before it were told */
	s64 next;                       /* where the first entry lies that had no room; -1: all had */
	unsigned n;
	int failed;                     /* errno */
};

static int fill(void *ctx, const ntfschar *name, const int len, const int type, const s64 pos, const MFT_REF mref, const unsigned dt)
{
	struct filling *f = ctx;
	struct fsview_stat st;
	ntfs_inode *ni;
	char *text = NULL;
	int n;

	(void)dt;
	if (type == FILE_NAME_DOS || MREF(mref) < FILE_first_user || pos < 2 || pos < f->from)
		return 0;
	if (f->n == ENTRIES_AT_ONCE) {
		f->next = pos;
		return -1;
	}
	n = ntfs_ucstombs(name, len, &text, 0);
	ni = n > 0 ? ntfs_inode_open(vol, MREF(mref)) : NULL;
	if (!ni || memchr(text, '/', (size_t)n) || !answer_entry(text, (size_t)n, (take_stat(ni, &st), &st)))
		f->failed = errno ? errno : EIO;
	if (ni)
		ntfs_inode_close(ni);
	free(text);
	f->n++;
	return f->failed ? -1 : 0;
}

/*
 * Where the library can be made to begin so that it meets `pos`: it takes the bits of blocks in use from the first of a byte on,
 * whichever block it begins with.
 */
static s64 start_before(ntfs_inode *ni, s64 pos)
{
	s64 size = 0, block = 0, in_root = vol->mft_record_size;
	INDEX_ROOT *root = ntfs_attr_readall(ni, AT_INDEX_ROOT, NTFS_INDEX_I30, 4, &size);

	if (root && size >= (s64)sizeof(*root))
		block = le32_to_cpu(root->index_block_size);
	free(root);
	return pos < in_root || block <= 0 ? pos : in_root + (pos - in_root) / (8 * block) * (8 * block);
}

static int read_dir(struct request *q, struct vd_error *e)
{
	struct filling f = { .from = (s64)q->a, .next = -1 };
	s64 pos;
	ntfs_inode *ni;
	int r = go_all(q->path, &ni, e), err;

	if (r < 0)
		return r;
	pos = start_before(ni, f.from);
	r = ntfs_readdir(ni, &pos, &f, fill);
	err = f.failed ? f.failed : errno;
	ntfs_inode_close(ni);
	errno = err;
	if (f.failed || (r < 0 && f.next < 0))
		return words(q->path, e);
	if (f.next >= 0 && (uint64_t)f.next <= q->a)
		return fail(e, VD_ECORRUPT, "/%s: the folder's entries go round", q->path);
	q->a = f.next >= 0 ? (uint64_t)f.next : FSVIEW_CURSOR_END;
	return 0;
}

/* ---- bytes ------------------------------------------------------------------------------------------------ */

static int read_file(struct request *q, struct vd_error *e)
{
	ntfs_inode *ni;
	ntfs_attr *na = NULL;
	s64 n = -1;
	uint8_t *to = q->b <= WIRE_HALF ? answer_room((size_t)q->b) : NULL;
	int r = to ? go_all(q->path, &ni, e) : fail(e, VD_ERANGE, "too much at once");

	if (r < 0)
		return r;
	if (ni->flags & SPECIAL_READ) {
		ntfs_inode_close(ni);
		return fail(e, VD_EUNSUPPORTED, "/%s: is encrypted, compressed by the system, or kept elsewhere", q->path);
	}
	na = ntfs_attr_open(ni, AT_DATA, AT_UNNAMED, 0);
	if (na)
		n = (s64)q->a >= na->data_size ? 0 : ntfs_attr_pread(na, (s64)q->a, (s64)q->b, to);
	if (na)
		ntfs_attr_close(na);
	ntfs_inode_close(ni);
	q->a = n > 0 ? (uint64_t)n : 0;
	return n < 0 ? words(q->path, e) : 0;
}

static int blocks_of(struct request *q, struct vd_error *e)
{
	ntfs_inode *ni;
	ntfs_attr *na;
	int r = go_all(q->path, &ni, e);

	if (r < 0)
		return r;
	na = ntfs_attr_open(ni, AT_DATA, AT_UNNAMED, 0);
	if (na && NAttrNonResident(na) && ntfs_attr_map_whole_runlist(na) == 0)
		for (const runlist_element *x = na->rl; x && x->length; x++)
			if (x->lcn >= 0 && !answer_block((uint64_t)x->vcn * vol->cluster_size, (uint64_t)x->lcn * vol->cluster_size,
							 (uint64_t)x->length * vol->cluster_size))
				r = fail(e, VD_ENOSPC, "/%s: is in more pieces than are told", q->path);
	if (na)
		ntfs_attr_close(na);
	ntfs_inode_close(ni);
	q->a = FSVIEW_CURSOR_END;
	return r;
}

/* ---- what is nobody's ------------------------------------------------------------------------------------- */

static int free_ranges(struct request *q, struct vd_error *e)
{
	uint64_t end = (uint64_t)vol->nr_clusters, from = 0, at = q->a;
	static uint8_t bits[65536];
	bool in_free = false;

	while (at < end) {
		uint64_t n = (end - at + 7) / 8 < sizeof(bits) ? (end - at + 7) / 8 : sizeof(bits);

		if (ntfs_attr_pread(vol->lcnbmp_na, (s64)(at / 8), (s64)n, bits) != (s64)n)
			return words("$Bitmap", e);
		for (uint64_t i = at % 8, first = at - i; i < n * 8 && at < end; i++, at = first + i) {
			bool is_free = !(bits[i / 8] >> (i % 8) & 1);

			if (is_free && !in_free)
				from = at;
			if (!is_free && in_free && !answer_range(from * vol->cluster_size, (at - from) * vol->cluster_size)) {
				q->a = from;
				return 0;
			}
			in_free = is_free;
		}
	}
	if (in_free && !answer_range(from * vol->cluster_size, (end - from) * vol->cluster_size)) {
		q->a = from;
		return 0;
	}
	q->a = FSVIEW_CURSOR_END;
	return 0;
}

/* The first name of a record that is not in use any more, its size, and when it was last changed. */
static bool take_deleted(const uint8_t *rec, uint32_t size, struct wire_deleted *d, char name[FSVIEW_NAME_MAX])
{
	uint32_t at = read_le16(rec + 20), used = read_le32(rec + 24);
	bool found = false;

	if (used > size)
		used = size;
	while (at + 16 <= used && read_le32(rec + at) != 0xffffffffU) {
		uint32_t type = read_le32(rec + at), len = read_le32(rec + at + 4), value;
		char *text = NULL;

		if (len < 24 || len % 8 || len > used - at)
			break;
		value = read_le16(rec + at + 20);
		if (type == 0x30 && !rec[at + 8] && value + 66 <= len && value + 66 + 2U * rec[at + value + 64] <= len) {
			const uint8_t *fn = rec + at + value;
			ntfschar units[256];

			memcpy(units, fn + 66, 2U * fn[64]);
			if (ntfs_ucstombs(units, fn[64], &text, 0) > 0)
				snprintf(name, FSVIEW_NAME_MAX, "%s", text);
			free(text);
			d->time = (int64_t)(read_le64(fn + 16) / 10000000) - 11644473600;
			found = true;
		}
		if (type == 0x80 && !rec[at + 9])
			d->size = rec[at + 8] && len >= 56 ? read_le64(rec + at + 48) : read_le32(rec + at + 16);
		at += len;
	}
	return found;
}

static int deleted(struct request *q, struct vd_error *e)
{
	uint32_t size = vol->mft_record_size;
	uint64_t end = (uint64_t)(vol->mft_na->initialized_size / size), i = q->a < FILE_first_user ? FILE_first_user : q->a, n = 0;
	static uint8_t rec[65536];
	char name[FSVIEW_NAME_MAX];

	for (; size <= sizeof(rec) && i < end && n < RECORDS_AT_ONCE; i++, n++) {
		struct wire_deleted d = { .ino = i };

		if (ntfs_attr_pread(vol->mft_na, (s64)(i * size), size, rec) != (s64)size)
			return words("$MFT", e);
		if (memcmp(rec, "FILE", 4) != 0 || read_le16(rec + 22) & 1)
			continue;
		name[0] = '\0';
		d.mode = read_le16(rec + 22) & 2 ? S_IFDIR : S_IFREG;
		if (take_deleted(rec, size, &d, name) && !answer_deleted(&d, name))
			break;
	}
	q->a = i < end ? i : FSVIEW_CURSOR_END;
	return 0;
}

const struct filesystem filesystem_ntfs = {
	.open = open_ntfs, .lookup = lookup, .readlink = read_link, .readdir = read_dir, .read = read_file,
	.blocks = blocks_of, .free = free_ranges, .deleted = deleted,
};
