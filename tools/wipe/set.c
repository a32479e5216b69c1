/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Keeps the members of a wipe, and tells one file from another. Does not look into them. */
#include "wipe/set.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "fail.h"
#include "ui.h"
#include "wipe/cipher.h"

static const struct {
	const char *name;
	int rank;
} roles[] = {
#define ROLE(sym, name, rank) { name, rank },
	WIPE_ROLE_TABLE(ROLE)
#undef ROLE
};

const char *wipe_role_name(enum wipe_role role)
{
	return role < WIPE_N_ROLES ? roles[role].name : "file";
}

int wipe_role_rank(enum wipe_role role)
{
	return role < WIPE_N_ROLES ? roles[role].rank : 0;
}

enum wipe_role wipe_role_of(const char *name)
{
	enum wipe_role role = 0;

	while (role < WIPE_N_ROLES && strcmp(roles[role].name, name) != 0)
		role++;
	return role;
}

void wipe_set_free(struct wipe_set *set)
{
	for (size_t i = 0; i < set->n; i++) {
		free(set->at[i].path);
		free(set->at[i].key_areas);
	}
	for (size_t i = 0; i < set->n_notes; i++)
		free(set->notes[i]);
	free(set->at);
	*set = (struct wipe_set){ 0 };
}

void wipe_set_note(struct wipe_set *set, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	for (size_t i = 0; i < set->n_notes; i++)
		if (!strcmp(set->notes[i], text))
			return;
	if (set->n_notes == WIPE_NOTES_MAX)
		return;
	set->notes[set->n_notes] = strdup(text);
	if (!set->notes[set->n_notes++])
		ui_out_of_memory();
}

bool wipe_set_has(const struct wipe_set *set, uint64_t dev, uint64_t ino)
{
	for (size_t i = 0; i < set->n; i++)
		if (set->at[i].dev == dev && set->at[i].ino == ino)
			return true;
	return false;
}

static int look_at_device(struct wipe_member *m, uint64_t rdev, struct vd_error *e)
{
	int fd = open(m->path, O_RDONLY | O_CLOEXEC), r;

	if (fd < 0)
		return fail_errno(e, errno, "%s cannot be opened", m->path);
	r = ioctl(fd, BLKGETSIZE64, &m->size) ? fail_errno(e, errno, "%s: its size cannot be asked for", m->path) : 0;
	close(fd);
	m->is_device = true;
	m->allocated = m->size;
	/* The node in /dev may come and go: the device is what counts. */
	m->dev = UINT64_MAX;
	m->ino = rdev;
	return r;
}

static int64_t nanoseconds(const struct statx_timestamp *t)
{
	return t->tv_sec * INT64_C(1000000000) + t->tv_nsec;
}

int wipe_member_look(struct wipe_member *m, struct vd_error *e)
{
	struct statx st;

	if (statx(AT_FDCWD, m->path, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_BTIME, &st))
		return fail_errno(e, errno, "%s cannot be looked at", m->path);
	if (!S_ISREG(st.stx_mode) && !S_ISBLK(st.stx_mode))
		return fail(e, VD_EARG, "%s is neither a file nor a block device", m->path);
	m->dev = makedev(st.stx_dev_major, st.stx_dev_minor);
	m->ino = st.stx_ino;
	m->nlink = st.stx_nlink;
	m->size = st.stx_size;
	m->allocated = st.stx_blocks * 512;
	m->born = st.stx_mask & STATX_BTIME ? nanoseconds(&st.stx_btime) : 0;
	m->changed = nanoseconds(&st.stx_mtime);
	if (S_ISBLK(st.stx_mode))
		return look_at_device(m, makedev(st.stx_rdev_major, st.stx_rdev_minor), e);
	return 0;
}

static struct wipe_member *more_room(struct wipe_set *set)
{
	struct wipe_member *at = realloc(set->at, (set->n + 1) * sizeof(*at));

	if (!at)
		ui_out_of_memory();
	set->at = at;
	memset(&at[set->n], 0, sizeof(at[0]));
	return &at[set->n];
}

int wipe_set_add(struct wipe_set *set, const char *path, enum wipe_role role, size_t parent, size_t *index, struct vd_error *e)
{
	struct wipe_member *m;
	int r;

	if (set->n == WIPE_MEMBERS_MAX)
		return fail(e, VD_EUNSUPPORTED, "more than %d files belong to what is to be wiped", WIPE_MEMBERS_MAX);
	m = more_room(set);
	m->path = realpath(path, NULL);
	if (!m->path)
		return fail_errno(e, errno, "%s cannot be found", path);
	m->role = role;
	m->parent = parent == SIZE_MAX ? set->n : parent;
	r = wipe_member_look(m, e);
	*index = set->n;
	for (size_t i = 0; r == 0 && i < set->n; i++)
		if (set->at[i].dev == m->dev && set->at[i].ino == m->ino)
			*index = i;
	if (r < 0 || *index != set->n)
		free(m->path);
	else
		set->n++;
	return r;
}

void wipe_set_id(const struct wipe_set *set, char id[WIPE_ID_SIZE])
{
	struct wipe_hash *h = wipe_hash_new();
	uint8_t digest[32];

	for (size_t i = 0; i < set->n; i++) {
		const struct wipe_member *m = &set->at[i];
		char text[160];
		/* Not its space on the disk: a file that was just written gets that when the system comes to it. */
		int n = snprintf(text, sizeof(text), "%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRId64 " %" PRId64, m->dev, m->ino, m->size,
				 m->born, m->changed);

		wipe_hash_add(h, m->path, strlen(m->path) + 1);
		wipe_hash_add(h, text, (size_t)n + 1);
	}
	wipe_hash_end(h, digest);
	wipe_hex(digest, (WIPE_ID_SIZE - 1) / 2, id);
}
