/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads of descriptors that the kernel does meanwhile (io_uring). A ring has a thread of its own, which hands reads in
 * and takes results out: a ring that its users entered would have the kernel interrupt their system calls.
 */
#ifndef VD_IO_URING_H
#define VD_IO_URING_H

#include <stddef.h>
#include <sys/types.h>

#include "libvdisk/base/error.h"

/* Embedded in what the read is for; belongs to the ring from vd_uring_read() until `done`. */
struct vd_uring_read {
	int fd;
	void *buf;
	size_t len;
	uint64_t off;
	ssize_t result;                 /* bytes read, short at the end of the file or for no reason, or -errno */
	struct vd_uring_read *next;
};

struct vd_uring;
/* Called from the ring's thread with a list of reads that have ended, in no order. */
typedef void (*vd_uring_done_fn)(void *ctx, struct vd_uring_read *list);

#ifdef VD_HAVE_URING
/* For up to n_max reads at once; more wait. VD_EUNSUPPORTED: the kernel has no io_uring, or does not let this process. */
int vd_uring_new(unsigned n_max, vd_uring_done_fn done, void *ctx, struct vd_uring **out, struct vd_error *e) VD_MUST_CHECK;
/* From any thread. Takes a list; never fails, never waits. */
void vd_uring_read(struct vd_uring *u, struct vd_uring_read *list);
/* When no read is under way. NULL is allowed. */
void vd_uring_free(struct vd_uring *u);
#else
static inline int vd_uring_new(unsigned n_max, vd_uring_done_fn done, void *ctx, struct vd_uring **out, struct vd_error *e)
{
	(void)n_max;
	(void)done;
	(void)ctx;
	(void)out;
	return vd_fail(e, VD_EUNSUPPORTED, "this library was built without liburing");
}
static inline void vd_uring_read(struct vd_uring *u, struct vd_uring_read *list)
{
	(void)u;
	(void)list;
}
static inline void vd_uring_free(struct vd_uring *u)
{
	(void)u;
}
#endif

#endif
