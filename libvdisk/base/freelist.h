/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A stack of idle handles, for libraries whose handles serve one thread at a time: a caller takes one or makes
 * one, and gives it back. Thread-safe; get never waits for another holder.
 */
#ifndef VD_BASE_FREELIST_H
#define VD_BASE_FREELIST_H

#include <pthread.h>
#include <stddef.h>

struct vd_freelist {
	pthread_mutex_t lock;
	void *idle[64];         /* more than this many at once idle: the surplus is destroyed */
	size_t n;
	void (*destroy)(void *handle);
};

void vd_freelist_init(struct vd_freelist *f, void (*destroy)(void *handle));
/* An idle handle, or NULL: then the caller makes one. */
void *vd_freelist_get(struct vd_freelist *f);
void vd_freelist_put(struct vd_freelist *f, void *handle);
/* Destroys all that are idle; none may be out. */
void vd_freelist_fini(struct vd_freelist *f);

#endif
