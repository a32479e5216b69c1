/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The frame of a long job: N worker threads, progress from the thread that called, one failure or a cancel that stops
 * them all. What the work is, and how it is divided, is the job's own.
 */
#ifndef VD_CORE_JOB_H
#define VD_CORE_JOB_H

#include <pthread.h>
#include <stdatomic.h>

#include "libvdisk/base/error.h"

struct vd_crew {
	/* Set by the job; the rest zero. */
	const char *phase;
	uint64_t total;
	/* One thread's whole work. Returns when nothing is left, when it fails, or soon after vd_crew_is_stopped() says so. */
	int (*work)(void *ctx, struct vd_error *e);
	void *ctx;

	atomic_uint_fast64_t done;      /* workers add to it */
	/* Of job.c. */
	atomic_bool stopped;
	pthread_mutex_t lock;
	pthread_cond_t ended;
	unsigned n_running;             /* under lock, as are the next two */
	int result;
	struct vd_error error;
};

/* job NULL: the defaults. Fails for a struct of another size. */
int vd_job_check(const struct vd_job *job, struct vd_error *e) VD_MUST_CHECK;
/* All zero; NULL is allowed. Fails for a struct of another size. */
int vd_job_clear_outcome(struct vd_outcome *o, struct vd_error *e) VD_MUST_CHECK;
/* How many workers the job wants. */
unsigned vd_job_threads(const struct vd_job *job);

/* Runs the work on n threads to its end. The first failure in time is the result. */
int vd_crew_run(struct vd_crew *c, unsigned n, const struct vd_job *job, struct vd_error *e) VD_MUST_CHECK;
bool vd_crew_is_stopped(const struct vd_crew *c);

#endif
