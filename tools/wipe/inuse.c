/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Asks in four ways, since no one of them sees all: a lease (any other open descriptor, loop devices too), qemu's byte locks,
 * VMware's lock files, and O_EXCL on devices (mounts, swap, what is stacked on them). Other hosts are not seen on a shared file system but by their locks.
 */
#include "wipe/inuse.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "exit.h"
#include "fail.h"

/* qemu: RAW_LOCK_PERM_BASE and RAW_LOCK_SHARED_BASE; libvirt's virtlockd has byte 0. */
static const struct {
	off_t off, len;
} lock_bytes[] = { { 0, 1 }, { 100, 5 }, { 200, 5 } };
#define N_LOCK_BYTES (sizeof(lock_bytes) / sizeof(lock_bytes[0]))

/* ---- who ------------------------------------------------------------------------------------------------ */

static bool has_open(const char *pid, const struct stat *st)
{
	char folder[64], path[PATH_MAX];
	const struct dirent *d;
	bool found = false;
	struct stat other;
	DIR *dir;

	snprintf(folder, sizeof(folder), "/proc/%.20s/fd", pid);
	dir = opendir(folder);
	while (dir && !found && (d = readdir(dir))) {
		snprintf(path, sizeof(path), "%s/%s", folder, d->d_name);
		found = isdigit((unsigned char)d->d_name[0]) && stat(path, &other) == 0 && other.st_dev == st->st_dev &&
			other.st_ino == st->st_ino;
	}
	if (dir)
		closedir(dir);
	return found;
}

/* " (process 4711, qemu-system-x86)", or "". */
static void name_holder(const struct stat *st, char *who, size_t size)
{
	DIR *proc = opendir("/proc");
	const struct dirent *d;
	char path[64], name[64] = "";
	long self = getpid();

	who[0] = '\0';
	while (proc && !who[0] && (d = readdir(proc))) {
		FILE *f;

		if (!isdigit((unsigned char)d->d_name[0]) || strtol(d->d_name, NULL, 10) == self || !has_open(d->d_name, st))
			continue;
		snprintf(path, sizeof(path), "/proc/%.20s/comm", d->d_name);
		f = fopen(path, "re");
		if (f && fgets(name, sizeof(name), f))
			name[strcspn(name, "\n")] = '\0';
		if (f)
			fclose(f);
		snprintf(who, size, " (process %.20s, %s)", d->d_name, name);
	}
	if (proc)
		closedir(proc);
}

static int busy(int fd, const char *path, const char *how, struct vd_error *e)
{
	char who[128] = "";
	struct stat st;

	if (fstat(fd, &st) == 0)
		name_holder(&st, who, sizeof(who));
	fail(e, VD_EBUSY, "%s: %s%s", path, how, who);
	return fail_hint(e, VD_EBUSY, "stop the machine, detach the device, or close the program that has it open");
}

/* ---- how ------------------------------------------------------------------------------------------------ */

static int judge_lease(int fd, const char *path, struct vd_error *e)
{
	if (fcntl(fd, F_SETLEASE, F_WRLCK) == 0)
		return fcntl(fd, F_SETLEASE, F_UNLCK) ? fail_errno(e, errno, "%s: its lease cannot be given back", path) : 0;
	/* What else is said is of file systems without leases, and of files of others. */
	return errno == EAGAIN || errno == EBUSY ? busy(fd, path, "it is open elsewhere", e) : 0;
}

static int judge_locks(int fd, const char *path, struct vd_error *e)
{
	for (size_t i = 0; i < N_LOCK_BYTES; i++) {
		struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = lock_bytes[i].off, .l_len = lock_bytes[i].len };

		if (fcntl(fd, F_OFD_GETLK, &fl) == 0 && fl.l_type != F_UNLCK)
			return busy(fd, path, "a virtual machine, or a program, has locked it", e);
	}
	return 0;
}

/* Shared locks, as qemu's are: it steps back when it finds one on the bytes of what it needs. */
int wipe_lock(const char *path, int *fd, struct vd_error *e)
{
	*fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (*fd < 0)
		return fail_errno(e, errno, "%s cannot be opened", path);
	for (size_t i = 0; i < N_LOCK_BYTES; i++) {
		struct flock fl = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = lock_bytes[i].off, .l_len = lock_bytes[i].len };

		if (fcntl(*fd, F_OFD_SETLK, &fl) && (errno == EAGAIN || errno == EACCES))
			return busy(*fd, path, "a virtual machine, or a program, has locked it", e);
	}
	return judge_locks(*fd, path, e);
}

static int judge_lock_file(const char *path, struct vd_error *e)
{
	char lock[PATH_MAX + 8];

	snprintf(lock, sizeof(lock), "%s.lck", path);
	if (access(lock, F_OK))
		return 0;
	fail(e, VD_EBUSY, "%s: a machine has locked it: %s is there", path, lock);
	return fail_hint(e, VD_EBUSY, "stop the machine; if it crashed, remove the lock");
}

static int judge_attributes(int fd, const char *path, struct vd_error *e)
{
	int flags = 0;

	if (ioctl(fd, FS_IOC_GETFLAGS, &flags) || !(flags & (FS_IMMUTABLE_FL | FS_APPEND_FL)))
		return 0;
	fail(e, EXIT_EREFUSED, "%s is marked so that it cannot be changed", path);
	return fail_hint(e, EXIT_EREFUSED, "chattr -i -a takes the mark off");
}

static int judge_device(const struct wipe_member *m, struct vd_error *e)
{
	int fd = open(m->path, O_RDWR | O_EXCL | O_CLOEXEC);

	if (fd < 0 && errno == EBUSY) {
		fail(e, VD_EBUSY, "%s is mounted, or something is stacked on it", m->path);
		return fail_hint(e, VD_EBUSY, "lsblk shows what; unmount or detach it first");
	}
	if (fd < 0)
		return fail_errno(e, errno, "%s cannot be opened for writing", m->path);
	close(fd);
	return 0;
}

/* By a descriptor for reading: opened for writing, a file of an overlay's lower layer would be copied up. */
static int judge_file(const struct wipe_member *m, struct vd_error *e)
{
	int fd = open(m->path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC), r;

	if (fd < 0)
		return fail_errno(e, errno, "%s cannot be opened", m->path);
	r = judge_attributes(fd, m->path, e);
	if (r == 0 && access(m->path, W_OK))
		r = fail_errno(e, errno, "%s cannot be written", m->path);
	if (r == 0)
		r = judge_locks(fd, m->path, e);
	if (r == 0)
		r = judge_lease(fd, m->path, e);
	close(fd);
	return r;
}

static int judge_links(const struct settings *s, struct wipe_set *set, const struct wipe_member *m, struct vd_error *e)
{
	if (m->is_device || m->nlink < 2)
		return 0;
	if (s->force) {
		wipe_set_note(set, "%s has %llu names: what was reached by the others is gone, too", m->path,
			      (unsigned long long)m->nlink);
		return 0;
	}
	fail(e, EXIT_EREFUSED, "%s has %llu names (hard links, inode %llu): somebody may need it under another", m->path,
	     (unsigned long long)m->nlink, (unsigned long long)m->ino);
	return fail_hint(e, EXIT_EREFUSED, "find -inum tells which; --force wipes it under all of them");
}

int wipe_judge_use(const struct settings *s, struct wipe_set *set, struct vd_error *e)
{
	int r = 0;

	for (size_t i = 0; i < set->n && r == 0; i++) {
		const struct wipe_member *m = &set->at[i];

		r = m->is_device ? 0 : judge_lock_file(m->path, e);
		if (r == 0)
			r = judge_links(s, set, m, e);
		if (r == 0)
			r = m->is_device ? judge_device(m, e) : judge_file(m, e);
	}
	return r;
}
