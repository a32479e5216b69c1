/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bytes that come once and in their order, such as by a pipe. One thread at a time. */
#ifndef VD_IO_FEED_H
#define VD_IO_FEED_H

#include <stdatomic.h>

#include "libvdisk/base/bytes.h"
#include "libvdisk/base/error.h"

#define VD_FEED_PEEK 65536      /* as far as one can look ahead */

struct vd_feed;

/* The descriptor stays the caller's. Until vd_feed_obey() a signal that interrupts a read ends it with VD_ECANCELLED. */
int vd_feed_new(int fd, const char *name, struct vd_feed **out, struct vd_error *e) VD_MUST_CHECK;
/* From memory, which stays the caller's. */
int vd_feed_new_bytes(struct vd_bytes bytes, const char *name, struct vd_feed **out, struct vd_error *e) VD_MUST_CHECK;
/* NULL is allowed. */
void vd_feed_free(struct vd_feed *f);
/* Who waits for the writer gives up once *stop is true, with VD_ECANCELLED. NULL: as at first. */
void vd_feed_obey(struct vd_feed *f, const atomic_bool *stop);

const char *vd_feed_name(const struct vd_feed *f);
/* How many bytes were taken. */
uint64_t vd_feed_at(const struct vd_feed *f);
/* How many bytes there are in all, where that can be known before they have come: of a regular file. */
bool vd_feed_size(const struct vd_feed *f, uint64_t *size);
/* The next len bytes, at most VD_FEED_PEEK, without taking them; fewer only at the end. Valid until the next call. */
int vd_feed_peek(struct vd_feed *f, size_t len, struct vd_bytes *next, struct vd_error *e) VD_MUST_CHECK;
/* Takes len bytes; *got is less only at the end. buf NULL: they are dropped. */
int vd_feed_take(struct vd_feed *f, void *buf, uint64_t len, uint64_t *got, struct vd_error *e) VD_MUST_CHECK;

#endif
