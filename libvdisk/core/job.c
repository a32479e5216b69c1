/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Starts, watches and ends the workers of a long job; the caller's callback runs in the caller's own thread. */
#include "libvdisk/core/job.h"

#include <errno.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/base/workers.h"

#define TICK_NS 100000000       /* ten reports a second (vdisk.h, struct vd_job) */

int vd_job_check(const struct vd_job *job, struct vd_error *e)
{
	if (!job || job->struct_size == sizeof(*job))
		return 0;
	return vd_fail(e, VD_EARG, "struct vd_job: struct_size is %zu, want %zu", job->struct_size, sizeof(*job));
}

int vd_job_clear_outcome(struct vd_outcome *o, struct vd_error *e)
{
	if (o && o->struct_size != sizeof(*o))
		return vd_fail(e, VD_EARG, "struct vd_outcome: struct_size is %zu, want %zu", o->struct_size, sizeof(*o));
	if (o)
		*o = (struct vd_outcome){ .struct_size = sizeof(*o) };
	return 0;
}

/* The cores that this process may use: fewer than the machine has inside a cpuset. */
static unsigned n_cores(void)
{
	cpu_set_t set;
	long n;

	if (!sched_getaffinity(0, sizeof(set), &set))
		return (unsigned)CPU_COUNT(&set);
	n = sysconf(_SC_NPROCESSORS_ONLN);
	return n > 0 ? (unsigned)n : 1;
}

unsigned vd_job_threads(const struct vd_job *job)
{
	return job && job->n_threads ? job->n_threads : n_cores();
}

bool vd_crew_is_stopped(const struct vd_crew *c)
{
	return atomic_load_explicit(&c->stopped, memory_order_relaxed);
}

/* Under the lock: the first failure counts. */
static void fail_locked(struct vd_crew *c, int r, const struct vd_error *e)
{
	if (c->result < 0)
		return;
	c->result = r;
	c->error = *e;
	atomic_store(&c->stopped, true);
}

static void *worker(void *arg)
{
	struct vd_crew *c = arg;
	struct vd_error e = { 0 };
	int r = c->work(c->ctx, &e);

	pthread_mutex_lock(&c->lock);
	if (r < 0)
		fail_locked(c, r, &e);
	c->n_running--;
	pthread_cond_signal(&c->ended);
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

static void start(struct vd_crew *c, pthread_t *threads, unsigned n, unsigned *started)
{
	int err = 0;

	c->n_running = n;
	for (*started = 0; *started < n && !err; *started += !err)
		err = vd_thread_start(&threads[*started], worker, c);
	pthread_mutex_lock(&c->lock);
	c->n_running -= n - *started;
	/* With fewer threads than asked for the work is slower; with none there is nobody to do it. */
	if (!*started) {
		struct vd_error e;
		int r = vd_fail_errno(&e, err, "starting a thread failed");

		fail_locked(c, r, &e);
	}
	pthread_mutex_unlock(&c->lock);
}

/* Without the lock, since the callback may take its time. */
static void report(struct vd_crew *c, const struct vd_job *job)
{
	struct vd_progress p = { .phase = c->phase, .done = atomic_load(&c->done), .total = c->total };
	struct vd_error e;
	int r;

	if (!job || !job->progress || !job->progress(job->ctx, &p))
		return;
	r = vd_fail(&e, VD_ECANCELLED, "cancelled");
	pthread_mutex_lock(&c->lock);
	fail_locked(c, r, &e);
	pthread_mutex_unlock(&c->lock);
}

static void wait_a_tick(struct vd_crew *c)
{
	struct timespec until;
	int err = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += TICK_NS;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	while (c->n_running && err != ETIMEDOUT)
		err = pthread_cond_timedwait(&c->ended, &c->lock, &until);
}

static void watch(struct vd_crew *c, const struct vd_job *job)
{
	pthread_mutex_lock(&c->lock);
	while (c->n_running) {
		wait_a_tick(c);
		if (!c->n_running || vd_crew_is_stopped(c))
			continue;
		pthread_mutex_unlock(&c->lock);
		report(c, job);
		pthread_mutex_lock(&c->lock);
	}
	pthread_mutex_unlock(&c->lock);
}

static void crew_init(struct vd_crew *c)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&c->ended, &attr);
	pthread_condattr_destroy(&attr);
	pthread_mutex_init(&c->lock, NULL);
}

int vd_crew_run(struct vd_crew *c, unsigned n, const struct vd_job *job, struct vd_error *e)
{
	vd_auto_free pthread_t *threads = NULL;
	unsigned started;
	int r = vd_alloc(n, sizeof(*threads), &threads, e);

	if (r < 0)
		return r;
	crew_init(c);
	start(c, threads, n, &started);
	watch(c, job);
	for (unsigned i = 0; i < started; i++)
		pthread_join(threads[i], NULL);
	/* The last report says that all is done. */
	if (c->result == 0)
		report(c, job);
	pthread_cond_destroy(&c->ended);
	pthread_mutex_destroy(&c->lock);
	if (c->result < 0 && e)
		*e = c->error;
	return c->result;
}
