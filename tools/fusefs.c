/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The file system of vdisk mount: a root folder with one file for the disk and one for each partition. The only file that
 * includes libfuse. When to mount and what becomes of the image is cmd_mount.c's.
 *
 * F1  Read-only: the kernel keeps what it has read. Writable: it keeps nothing, since the same bytes are in two files.
 * F2  Only the user who mounted gets in, the superuser not among others: FUSE's default, which is left as it is.
 */
#include "fusefs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"

#ifdef VD_HAVE_FUSE

#define FUSE_USE_VERSION 312
#include <fuse.h>
#include <linux/falloc.h>
#include <signal.h>
#include <stdio.h>
#include <syslog.h>
#include <unistd.h>

struct fusefs {
	struct fusefs_opts o;
	struct fuse *fuse;
	struct timespec since;
	char report_to[sizeof(((struct fusefs_farewell *)0)->report_to)];
};

/* ---- the files --------------------------------------------------------------------------------------------- */

static struct fusefs *this_fs(void)
{
	return fuse_get_context()->private_data;
}

/* False: there is no file of that name. */
static bool find(const struct fusefs *f, const char *path, struct partition *p)
{
	char name[16];

	if (!strcmp(path, "/disk")) {
		*p = (struct partition){ .len = vd_image_size(f->o.img) };
		return true;
	}
	for (size_t i = 0; i < f->o.parts->n; i++) {
		snprintf(name, sizeof(name), "/p%u", f->o.parts->at[i].number);
		if (!strcmp(path, name)) {
			*p = f->o.parts->at[i];
			return true;
		}
	}
	return false;
}

static int fs_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
	struct fusefs *f = this_fs();
	struct partition p;

	(void)fi;
	*st = (struct stat){ .st_uid = getuid(), .st_gid = getgid(), .st_nlink = 1,
			     .st_atim = f->since, .st_mtim = f->since, .st_ctim = f->since };
	if (!strcmp(path, "/")) {
		st->st_mode = S_IFDIR | 0500;
		st->st_nlink = 2;
		return 0;
	}
	if (!find(f, path, &p))
		return -ENOENT;
	st->st_mode = S_IFREG | (f->o.writes ? 0600 : 0400);
	st->st_size = (off_t)p.len;
	st->st_blocks = (blkcnt_t)((p.len + 511) / 512);
	return 0;
}

static int fs_readdir(const char *path, void *buf, fuse_fill_dir_t fill, off_t off, struct fuse_file_info *fi,
		      enum fuse_readdir_flags flags)
{
	struct fusefs *f = this_fs();
	char name[16];

	(void)path;
	(void)off;
	(void)fi;
	(void)flags;
	fill(buf, ".", NULL, 0, 0);
	fill(buf, "..", NULL, 0, 0);
	fill(buf, "disk", NULL, 0, 0);
	for (size_t i = 0; i < f->o.parts->n; i++) {
		snprintf(name, sizeof(name), "p%u", f->o.parts->at[i].number);
		fill(buf, name, NULL, 0, 0);
	}
	return 0;
}

static int fs_open(const char *path, struct fuse_file_info *fi)
{
	struct fusefs *f = this_fs();
	struct partition p;

	if (!find(f, path, &p))
		return -ENOENT;
	if ((fi->flags & O_ACCMODE) != O_RDONLY && !f->o.writes)
		return -EROFS;
	fi->direct_io = f->o.writes;    /* F1 */
	fi->keep_cache = !f->o.writes;
	return 0;
}

/* ---- requests ---------------------------------------------------------------------------------------------- */

/* Of the file, which a request may begin or reach past the end of; 0 bytes are left there. */
static uint64_t clip(const struct partition *p, uint64_t off, uint64_t len)
{
	if (off >= p->len)
		return 0;
	return len < p->len - off ? len : p->len - off;
}

/* The caller sees a number: the words go to the log. */
static int refuse(const struct vd_error *e)
{
	syslog(LOG_ERR, "%s", e->message);
	switch (e->code) {
	case VD_ENOMEM: return -ENOMEM;
	case VD_ENOSPC: return -ENOSPC;
	case VD_EREADONLY: return -EROFS;
	default: return -EIO;
	}
}

static int fs_read(const char *path, char *buf, size_t len, off_t off, struct fuse_file_info *fi)
{
	struct fusefs *f = this_fs();
	struct partition p;
	struct vd_error e;

	(void)fi;
	if (!find(f, path, &p))
		return -ENOENT;
	len = (size_t)clip(&p, (uint64_t)off, len);
	return vd_image_pread(f->o.img, buf, len, p.off + (uint64_t)off, &e) < 0 ? refuse(&e) : (int)len;
}

static int fs_write(const char *path, const char *buf, size_t len, off_t off, struct fuse_file_info *fi)
{
	struct fusefs *f = this_fs();
	struct partition p;
	struct vd_error e;

	(void)fi;
	if (!find(f, path, &p))
		return -ENOENT;
	if (clip(&p, (uint64_t)off, len) != len)
		return -ENOSPC;
	return vd_image_pwrite(f->o.img, buf, len, p.off + (uint64_t)off, &e) < 0 ? refuse(&e) : (int)len;
}

static int fs_fsync(const char *path, int only_data, struct fuse_file_info *fi)
{
	struct vd_error e;

	(void)path;
	(void)only_data;
	(void)fi;
	return vd_image_flush(this_fs()->o.img, &e) < 0 ? refuse(&e) : 0;
}

static int fs_fallocate(const char *path, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
	bool punches = mode == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
	struct fusefs *f = this_fs();
	struct partition p;
	struct vd_error e;
	uint64_t n;

	(void)fi;
	if (!find(f, path, &p))
		return -ENOENT;
	if (!punches && mode != FALLOC_FL_ZERO_RANGE && mode != (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE))
		return -EOPNOTSUPP;
	n = clip(&p, (uint64_t)off, (uint64_t)len);
	return vd_image_write_zeroes(f->o.img, p.off + (uint64_t)off, n, punches ? 0 : VD_ZERO_ALLOCATED, &e) < 0 ? refuse(&e) : 0;
}

/* A disk has the size it has; "> p1" is no wish for another. */
static int fs_truncate(const char *path, off_t size, struct fuse_file_info *fi)
{
	struct partition p;

	(void)fi;
	if (!find(this_fs(), path, &p))
		return -ENOENT;
	return (uint64_t)size == p.len || !size ? 0 : -EPERM;
}

static int fs_ioctl(const char *path, unsigned cmd, void *arg, struct fuse_file_info *fi, unsigned flags, void *data)
{
	struct fusefs *f = this_fs();
	struct fusefs_farewell *said = data;

	(void)path;
	(void)arg;
	(void)fi;
	if (cmd != FUSEFS_FAREWELL || flags & FUSE_IOCTL_COMPAT)
		return -ENOTTY;
	memcpy(f->report_to, said->report_to, sizeof(f->report_to));
	f->report_to[sizeof(f->report_to) - 1] = '\0';
	said->pid = getpid();
	return 0;
}

static void *fs_init(struct fuse_conn_info *conn, struct fuse_config *config)
{
	(void)conn;
	config->use_ino = 0;
	config->attr_timeout = config->entry_timeout = 3600;
	return this_fs();
}

static const struct fuse_operations operations = {
	.init = fs_init, .getattr = fs_getattr, .readdir = fs_readdir, .open = fs_open, .read = fs_read, .write = fs_write,
	.fsync = fs_fsync, .fallocate = fs_fallocate, .truncate = fs_truncate, .ioctl = fs_ioctl,
};

/* ---- mounting ---------------------------------------------------------------------------------------------- */

/* fuse's options are a list with commas, in which a backslash lets one stand in a name. */
static void name_option(char *to, size_t size, const char *name, const char *more)
{
	size_t n = (size_t)snprintf(to, size, "%s,subtype=vdisk,fsname=", more);

	for (; *name && n + 3 < size; name++) {
		if (*name == ',' || *name == '\\')
			to[n++] = '\\';
		to[n++] = *name;
	}
	to[n] = '\0';
}

int fusefs_mount(const struct fusefs_opts *o, struct fusefs **out, struct vd_error *e)
{
	struct fusefs *f = calloc(1, sizeof(*f));
	char options[8192];
	char *words[] = { (char *)"vdisk", (char *)"-o", options, NULL };
	struct fuse_args args = FUSE_ARGS_INIT(3, words);

	if (!f)
		return fail(e, VD_ENOMEM, "not enough memory to mount");
	f->o = *o;
	clock_gettime(CLOCK_REALTIME, &f->since);
	name_option(options, sizeof(options), o->image, o->writes ? "default_permissions,rw" : "default_permissions,ro");
	f->fuse = fuse_new(&args, &operations, sizeof(operations), f);
	if (f->fuse && fuse_mount(f->fuse, o->dir) == 0) {
		*out = f;
		return 0;
	}
	if (f->fuse)
		fuse_destroy(f->fuse);
	free(f);
	fail(e, VD_EFAILED, "%s: FUSE cannot mount there", o->dir);
	return fail_hint(e, VD_EFAILED, "it takes /dev/fuse, fusermount3, and a folder that is yours");
}

int fusefs_serve(struct fusefs *f, struct vd_error *e)
{
	static const int stops[] = { SIGINT, SIGTERM, SIGHUP };
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	struct fuse_session *session = fuse_get_session(f->fuse);
	int r;

	/* fuse takes over only what nobody else has. */
	for (size_t i = 0; i < sizeof(stops) / sizeof(stops[0]); i++)
		signal(stops[i], SIG_DFL);
	if (!config || fuse_set_signal_handlers(session) < 0)
		return fail(e, VD_ENOMEM, "not enough memory to serve");
	openlog("vdisk", LOG_PID, LOG_DAEMON);
	r = fuse_loop_mt(f->fuse, config);
	fuse_loop_cfg_destroy(config);
	fuse_unmount(f->fuse);
	fuse_remove_signal_handlers(session);
	return r < 0 ? fail_errno(e, -r, "%s: serving failed", f->o.dir) : 0;
}

const char *fusefs_report_to(const struct fusefs *f)
{
	return f->report_to[0] ? f->report_to : NULL;
}

void fusefs_free(struct fusefs *f)
{
	if (!f)
		return;
	fuse_destroy(f->fuse);
	free(f);
}

#else

int fusefs_mount(const struct fusefs_opts *o, struct fusefs **out, struct vd_error *e)
{
	(void)o;
	(void)out;
	return fail(e, VD_EUNSUPPORTED, "this vdisk was built without libfuse");
}

int fusefs_serve(struct fusefs *f, struct vd_error *e)
{
	(void)f;
	(void)e;
	return 0;
}

const char *fusefs_report_to(const struct fusefs *f)
{
	(void)f;
	return NULL;
}

void fusefs_free(struct fusefs *f)
{
	(void)f;
}

#endif
