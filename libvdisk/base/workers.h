/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads that do work which is handed to them, first come, first served. They grow with what waits, up to their
 * bound; how many of them may block, and on what, is the business of those who hand in work.
 */
#ifndef VD_BASE_WORKERS_H
#define VD_BASE_WORKERS_H

#include <pthread.h>

#include "libvdisk/base/error.h"

/* Starts a thread in which none of the caller's signal handlers runs. Returns 0 or an errno. */
int vd_thread_start(pthread_t *thread, void *(*run)(void *), void *arg) VD_MUST_CHECK;

/* Embedded in what the work is about; belongs to the workers until run() is called. */
struct vd_work {
	void (*run)(struct vd_work *w);
	struct vd_work *next;
};

struct vd_workers;

int vd_workers_new(unsigned n_threads_max, struct vd_workers **out, struct vd_error *e) VD_MUST_CHECK;
/* Never fails and never waits for work: with fewer threads than wanted the work takes longer. */
void vd_workers_add(struct vd_workers *t, struct vd_work *w);
/* Does all that was added, then ends the threads. NULL is allowed. */
void vd_workers_free(struct vd_workers *t);

#endif
