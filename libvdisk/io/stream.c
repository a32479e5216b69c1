/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Starts to store what is finished, some megabytes at a time, and once that is done takes it out of the page cache. What
 * flush promises is not touched by it.
 *
 * Why: the storage is at work from the start and the flush at the end is short; a copy of any size holds a constant
 * part of the machine's memory, and evicts nobody else's; and a virtual machine whose host has to find memory for each
 * page that it touches for the first time writes in pages that it has: five times as fast.
 */
#include "libvdisk/io/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>

/*
 * Raw to qcow2, 1 GiB on ext4 over NVMe, flushed, two writers: 1 x 4 MiB 0.60 s, 2 x 4 MiB 0.55 s, 4 x 4 MiB 0.50 s,
 * and no more gain beyond. More writers need more of them.
 */
#define SPAN (4u << 20)

void vd_stream_init(struct vd_stream *s)
{
	*s = (struct vd_stream){ 0 };
	pthread_mutex_init(&s->lock, NULL);
}

void vd_stream_fini(struct vd_stream *s)
{
	pthread_mutex_destroy(&s->lock);
}

static struct vd_span join(struct vd_span a, struct vd_span b)
{
	if (!a.to)
		return b;
	return (struct vd_span){ a.from < b.from ? a.from : b.from, a.to > b.to ? a.to : b.to };
}

/* True when a span is complete: it, and the one whose place it takes. */
static bool grow(struct vd_stream *s, struct vd_span add, struct vd_span *full, struct vd_span *oldest)
{
	bool is_full;

	pthread_mutex_lock(&s->lock);
	s->growing = join(s->growing, add);
	s->n_bytes += add.to - add.from;
	is_full = s->n_bytes >= SPAN;
	if (is_full) {
		*full = s->growing;
		*oldest = s->started[s->next];
		s->started[s->next] = s->growing;
		s->next = (s->next + 1) % VD_STREAM_DEPTH;
		s->growing = (struct vd_span){ 0 };
		s->n_bytes = 0;
	}
	pthread_mutex_unlock(&s->lock);
	return is_full;
}

/* A file system that knows no such call (ENOSYS, EINVAL, ESPIPE) does without; what it failed to store is another matter. */
static int start(int fd, struct vd_span x, unsigned wait)
{
	if (!sync_file_range(fd, (off_t)x.from, (off_t)(x.to - x.from), SYNC_FILE_RANGE_WRITE | wait))
		return 0;
	return errno == EIO || errno == ENOSPC || errno == EDQUOT ? errno : 0;
}

int vd_stream_add(struct vd_stream *s, int fd, uint64_t off, uint64_t len)
{
	struct vd_span full, oldest;
	int err;

	if (!grow(s, (struct vd_span){ off, off + len }, &full, &oldest))
		return 0;
	err = start(fd, full, 0);
	if (!oldest.to || err)
		return err;
	err = start(fd, oldest, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WAIT_AFTER);
	if (!err)
		posix_fadvise(fd, (off_t)oldest.from, (off_t)(oldest.to - oldest.from), POSIX_FADV_DONTNEED);
	return err;
}
