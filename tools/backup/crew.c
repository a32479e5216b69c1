/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Starts threads and waits for them. What they do is the caller's. */
#include "backup/crew.h"

#include <pthread.h>
#include <sched.h>

struct crew {
	int (*work)(void *ctx, unsigned who, struct vd_error *e);
	void *ctx;
	bool *stop;
	pthread_mutex_t mutex;
	int failed;
	struct vd_error error;
};
struct member {
	struct crew *crew;
	unsigned who;
	pthread_t thread;
};

unsigned crew_size(unsigned wanted)
{
	cpu_set_t cpus;

	if (!wanted)
		wanted = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? (unsigned)CPU_COUNT(&cpus) : 1;
	return wanted > CREW_MAX ? CREW_MAX : wanted;
}

static void *run_member(void *arg)
{
	struct member *m = arg;
	struct crew *c = m->crew;
	struct vd_error e = { 0 };
	int r = c->work(c->ctx, m->who, &e);

	pthread_mutex_lock(&c->mutex);
	if (r < 0 && !c->failed) {
		c->failed = r;
		c->error = e;
		__atomic_store_n(c->stop, true, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&c->mutex);
	return NULL;
}

int crew_run(unsigned n, int (*work)(void *ctx, unsigned who, struct vd_error *e), void *ctx, bool *stop, struct vd_error *e)
{
	struct crew c = { .work = work, .ctx = ctx, .stop = stop };
	struct member members[CREW_MAX];
	unsigned started = 1;

	pthread_mutex_init(&c.mutex, NULL);
	members[0] = (struct member){ .crew = &c };
	/* Fewer than were asked for do the work, too. */
	while (started < n && started < CREW_MAX) {
		members[started] = (struct member){ .crew = &c, .who = started };
		if (pthread_create(&members[started].thread, NULL, run_member, &members[started]) != 0)
			break;
		started++;
	}
	run_member(&members[0]);
	for (unsigned i = 1; i < started; i++)
		pthread_join(members[i].thread, NULL);
	pthread_mutex_destroy(&c.mutex);
	if (c.failed && e)
		*e = c.error;
	return c.failed;
}
