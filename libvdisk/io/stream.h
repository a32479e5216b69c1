/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Long outputs on their way through the page cache: to storage while they grow, and then out of memory. */
#ifndef VD_IO_STREAM_H
#define VD_IO_STREAM_H

#include <pthread.h>
#include <stdint.h>

#define VD_STREAM_DEPTH 8

struct vd_span {
	uint64_t from, to;      /* to 0: none */
};

struct vd_stream {
	pthread_mutex_t lock;
	struct vd_span growing;
	uint64_t n_bytes;               /* written of it; it may have gaps */
	struct vd_span started[VD_STREAM_DEPTH];
	unsigned next;                  /* the oldest of them */
};

void vd_stream_init(struct vd_stream *s);
void vd_stream_fini(struct vd_stream *s);
/*
 * This range of the file is written and will not be touched for now. Any thread. Returns 0, or the errno of a failure to
 * store some earlier range, which the kernel may not tell fsync again.
 */
int vd_stream_add(struct vd_stream *s, int fd, uint64_t off, uint64_t len);

#endif
