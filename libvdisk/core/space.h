/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * core/space: the quarantine between "no table points here any more" and "may be used again". Drivers release
 * host ranges here and never reuse at once.
 *
 *   released --(a) the commit that unlinked it is durable, (b) every reader that may have mapped it has left--> freed()
 *
 * Without (a) a crash shows another guest block's bytes; without (b) a reader gets them in flight. What is done to the
 * bytes before freed() is core/freeing.c's.
 */
#ifndef VD_CORE_SPACE_H
#define VD_CORE_SPACE_H

#include "libvdisk/base/error.h"

struct vd_range {
	uint32_t file;
	uint64_t host_off, len;
	uint32_t owners;                /* so many give it up at once; 0: one */
	bool to_host;                   /* was discarded: the host gets the space back */
	bool in_clear;                  /* a table of an encrypted image, which is overwritten first */
};

struct vd_space;

int vd_space_new(struct vd_space **out, struct vd_error *e) VD_MUST_CHECK;
void vd_space_free(struct vd_space *s);

/* Under the allocation lock. Never fails: for want of memory the range is leaked on the host, which check finds. */
void vd_space_release(struct vd_space *s, struct vd_range range);

/* Under the allocation lock: what is released from here on is (not) to_host. */
void vd_space_set_to_host(struct vd_space *s, bool yes);

/* Around map and the host I/O that uses its answer. Returns the ticket for leave. Never blocks. */
unsigned vd_space_enter(struct vd_space *s);
void vd_space_leave(struct vd_space *s, unsigned ticket);

struct vd_space_batch { struct vd_range *ranges; size_t n; };
/* Neighbours become one. The ranges are malloc'ed. */
int vd_space_batch_add(struct vd_space_batch *b, struct vd_range range, struct vd_error *e) VD_MUST_CHECK;
/* Under the allocation lock, together with vd_meta_snapshot(): takes all that was released so far. */
struct vd_space_batch vd_space_take(struct vd_space *s);
/* Without any lock, after the commit: returns when every reader that entered before the call has left. */
void vd_space_wait_readers(struct vd_space *s);
/*
 * Alone on the handle, with no lock but the control lock: all that was released so far goes through the whole pipeline
 * now, durably. What does that, the core says once.
 */
int vd_space_drain(struct vd_space *s, struct vd_error *e) VD_MUST_CHECK;
void vd_space_set_drain(struct vd_space *s, int (*drain)(void *ctx, struct vd_error *e), void *ctx);
/* When the commit failed: puts the batch back under the allocation lock (nothing of it may be reused). */
void vd_space_put_back(struct vd_space *s, struct vd_space_batch b);

#endif
