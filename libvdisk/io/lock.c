/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Byte-range locks as qemu's file-posix driver takes them, so that a running machine and this library keep out of
 * each other's images. Opening files is file.c's business; what to do about a busy image is the user's.
 *
 * qemu's protocol (observed with 7.2): a program takes a shared OFD lock on byte 100+p for every permission p that it
 * uses and on byte 200+p for every one that it does not grant to others. Then it looks whether another holds 200+p
 * for a permission that it uses, or 100+p for one that it does not grant. All locks are shared ones, so that a
 * descriptor open for reading is enough; the conflict is in the second step.
 */
#include "libvdisk/io/lock.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "libvdisk/base/cleanup.h"
#include "libvdisk/io/io.h"

/* qemu's BLK_PERM_* by bit number. The fifth of older versions, graph changes, never concerns another program. */
#define CONSISTENT_READ 0x1u
#define WRITE           0x2u
#define RESIZE          0x8u
#define N_PERMS         4

#define USES_BASE       100
#define WITHHOLDS_BASE  200

/*
 * Tries before giving up. Two programs that start at once may each see the other's first step and both step back, and
 * management tools look into images for a few milliseconds at a time: one short wait more is cheaper than a failed job.
 */
#define N_TRIES         4
#define WAIT_MS         15

struct need {
	unsigned uses, withholds;
};

/* What qemu's qcow2 driver asks of its file, as reader and as writer. */
static struct need need_of(unsigned flags)
{
	if (flags & VD_IO_WRITE)
		return (struct need){ CONSISTENT_READ | WRITE | RESIZE, WRITE | RESIZE };
	if (flags & VD_IO_FORCE_SHARE)
		return (struct need){ CONSISTENT_READ, 0 };
	return (struct need){ CONSISTENT_READ, WRITE | RESIZE };
}

static int ofd_lock(int fd, int cmd, short type, off_t start, off_t len, struct flock *fl)
{
	*fl = (struct flock){ .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len };
	return fcntl(fd, cmd, fl) < 0 ? -errno : 0;
}

/* Takes all bytes of a mask; 0 or -errno. */
static int claim(int fd, off_t base, unsigned mask)
{
	struct flock fl;
	int err = 0;

	for (int p = 0; p < N_PERMS && !err; p++)
		if (mask & (1u << p))
			err = ofd_lock(fd, F_OFD_SETLK, F_RDLCK, base + p, 1, &fl);
	return err;
}

static void unclaim(int fd)
{
	struct flock fl;

	(void)ofd_lock(fd, F_OFD_SETLK, F_UNLCK, USES_BASE, N_PERMS, &fl);
	(void)ofd_lock(fd, F_OFD_SETLK, F_UNLCK, WITHHOLDS_BASE, N_PERMS, &fl);
}

/* The first byte of a mask that somebody else holds; 0: none. */
static off_t contested(int fd, off_t base, unsigned mask)
{
	struct flock fl;

	for (int p = 0; p < N_PERMS; p++)
		if ((mask & (1u << p)) && !ofd_lock(fd, F_OFD_GETLK, F_WRLCK, base + p, 1, &fl) &&
		    fl.l_type != F_UNLCK)
			return base + p;
	return 0;
}

/* 0: locked; a byte number: contested; negative: -errno. */
static off_t try_lock(int fd, const struct need *need)
{
	off_t byte;
	int err = claim(fd, USES_BASE, need->uses);

	if (!err)
		err = claim(fd, WITHHOLDS_BASE, need->withholds);
	/* Somebody holds one of the bytes exclusively: not qemu's protocol, but a lock. */
	if (err == -EAGAIN || err == -EACCES)
		byte = USES_BASE;
	else if (err)
		byte = err;
	else if (!(byte = contested(fd, WITHHOLDS_BASE, need->uses)))
		byte = contested(fd, USES_BASE, need->withholds);
	if (byte)
		unclaim(fd);
	return byte;
}

/* Waits are of different length for each program, so that two that meet do not meet again. */
static void wait_a_little(int fd, int attempt)
{
	long ms = WAIT_MS + (long)((unsigned)(getpid() * 7 + fd * 5 + attempt * 3) % WAIT_MS);
	struct timespec ts = { .tv_nsec = ms * 1000000 };

	nanosleep(&ts, NULL);
}

struct holder {
	long pid;
	char name[64];
};

/* "lock:\t1: OFDLCK ADVISORY  READ -1 00:1b:13 100 101" (proc(5)): a lock on this inode that contains the byte. */
static bool is_lock_on(const char *line, unsigned long long ino, off_t byte)
{
	unsigned long long at_ino, from, to;
	char end[24];

	if (sscanf(line, "lock: %*d: OFDLCK %*s %*s %*d %*x:%*x:%llu %llu %23s", &at_ino, &from, end) != 3)
		return false;
	to = isdigit((unsigned char)end[0]) ? strtoull(end, NULL, 10) : UINT64_MAX;
	return at_ino == ino && from <= (unsigned long long)byte && (unsigned long long)byte <= to;
}

static bool has_lock(const char *pid, const char *fd, const struct stat *file, off_t byte)
{
	char path[96], line[256];
	bool found = false;
	struct stat st;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%.20s/fdinfo/%.20s", pid, fd);
	f = fopen(path, "re");
	if (!f)
		return false;
	while (!found && fgets(line, sizeof(line), f))
		found = is_lock_on(line, file->st_ino, byte);
	fclose(f);
	if (!found)
		return false;
	/* The inode number alone may be another file system's. */
	snprintf(path, sizeof(path), "/proc/%.20s/fd/%.20s", pid, fd);
	return !stat(path, &st) && st.st_dev == file->st_dev && st.st_ino == file->st_ino;
}

static void close_dir(DIR **d)
{
	if (*d)
		closedir(*d);
}
#define auto_dir __attribute__((cleanup(close_dir)))

static bool process_holds(const char *pid, const struct stat *file, off_t byte, int own_fd)
{
	bool is_self = strtol(pid, NULL, 10) == getpid();
	char path[64];
	auto_dir DIR *d = NULL;
	struct dirent *entry;

	snprintf(path, sizeof(path), "/proc/%.20s/fdinfo", pid);
	d = opendir(path);
	while (d && (entry = readdir(d)))
		if (isdigit((unsigned char)entry->d_name[0]) &&
		    !(is_self && strtol(entry->d_name, NULL, 10) == own_fd) &&
		    has_lock(pid, entry->d_name, file, byte))
			return true;
	return false;
}

static void name_process(const char *pid, struct holder *h)
{
	char path[64];
	FILE *f;

	h->pid = strtol(pid, NULL, 10);
	snprintf(path, sizeof(path), "/proc/%.20s/comm", pid);
	f = fopen(path, "re");
	if (!f || !fgets(h->name, sizeof(h->name), f))
		snprintf(h->name, sizeof(h->name), "a process");
	if (f)
		fclose(f);
	h->name[strcspn(h->name, "\n")] = '\0';
}

/* OFD locks have no owner that fcntl() could name; what each process has open tells, as far as we may look. */
static bool find_holder(int fd, off_t byte, struct holder *h)
{
	auto_dir DIR *proc = NULL;
	struct dirent *entry;
	struct stat st;

	if (fstat(fd, &st) < 0)
		return false;
	proc = opendir("/proc");
	while (proc && (entry = readdir(proc)))
		if (isdigit((unsigned char)entry->d_name[0]) && process_holds(entry->d_name, &st, byte, fd)) {
			name_process(entry->d_name, h);
			return true;
		}
	return false;
}

static int busy(int fd, off_t byte, const char *path, unsigned flags, struct vd_error *e)
{
	const char *does = byte < WITHHOLDS_BASE && !(flags & VD_IO_WRITE) ? "writes to it" : "uses it";
	struct holder h;
	int r;

	if (!find_holder(fd, byte, &h))
		r = vd_fail(e, VD_EBUSY, "%s: in use: another process, which this user cannot see, %s", path, does);
	else if (h.pid == getpid())
		r = vd_fail(e, VD_EBUSY, "%s: in use: this process itself (%ld) %s already", path, h.pid, does);
	else
		r = vd_fail(e, VD_EBUSY, "%s: in use: %s (process %ld) %s", path, h.name, h.pid, does);
	if (flags & VD_IO_WRITE)
		return vd_hint(e, r, "stop what uses the image, then try again");
	return vd_hint(e, r, "stop what uses the image, or read it anyway with -U (--force-share): what is read may then be inconsistent");
}

int vd_lock_file(int fd, const char *path, unsigned flags, struct vd_error *e)
{
	struct need need = need_of(flags);
	off_t byte = 0;

	for (int attempt = 0; attempt < N_TRIES; attempt++) {
		if (attempt)
			wait_a_little(fd, attempt);
		byte = try_lock(fd, &need);
		/* Negative: the file system has no such locks (ENOLCK, EINVAL, EOPNOTSUPP); qemu carries on too. */
		if (byte <= 0)
			return 0;
	}
	return busy(fd, byte, path, flags, e);
}
