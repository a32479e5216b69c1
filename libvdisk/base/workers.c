/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Starts, feeds and ends worker threads; knows nothing of the work. */
#include "libvdisk/base/workers.h"

#include <signal.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

struct vd_workers {
	pthread_mutex_t lock;
	pthread_cond_t added;
	struct vd_work *first, **end;
	unsigned n_waiting;             /* works that no thread has taken */
	unsigned n_idle;                /* threads that wait for work, or are about to wake */
	unsigned n_threads, n_threads_max;
	bool is_ending;
	pthread_t threads[];
};

int vd_thread_start(pthread_t *thread, void *(*run)(void *), void *arg)
{
	sigset_t all, before;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	err = pthread_create(thread, NULL, run, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return err;
}

/* Under the lock; NULL: the end. */
static struct vd_work *take(struct vd_workers *t)
{
	struct vd_work *w;

	while (!t->first && !t->is_ending) {
		t->n_idle++;
		pthread_cond_wait(&t->added, &t->lock);
		t->n_idle--;
	}
	w = t->first;
	if (!w)
		return NULL;
	t->first = w->next;
	if (!t->first)
		t->end = &t->first;
	t->n_waiting--;
	return w;
}

static void *worker(void *arg)
{
	struct vd_workers *t = arg;
	struct vd_work *w;

	pthread_mutex_lock(&t->lock);
	while ((w = take(t))) {
		pthread_mutex_unlock(&t->lock);
		w->run(w);
		pthread_mutex_lock(&t->lock);
	}
	pthread_mutex_unlock(&t->lock);
	return NULL;
}

/* Under the lock. */
static int start_one(struct vd_workers *t)
{
	int err = vd_thread_start(&t->threads[t->n_threads], worker, t);

	t->n_threads += !err;
	return err;
}

int vd_workers_new(unsigned n_threads_max, struct vd_workers **out, struct vd_error *e)
{
	vd_auto_free struct vd_workers *t = NULL;
	int r = vd_alloc(1, sizeof(*t) + n_threads_max * sizeof(t->threads[0]), &t, e), err;

	if (r < 0)
		return r;
	t->n_threads_max = n_threads_max;
	t->end = &t->first;
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->added, NULL);
	/* The one without which nothing would ever be done. */
	pthread_mutex_lock(&t->lock);
	err = start_one(t);
	pthread_mutex_unlock(&t->lock);
	if (err) {
		pthread_cond_destroy(&t->added);
		pthread_mutex_destroy(&t->lock);
		return vd_fail_errno(e, err, "starting a thread failed");
	}
	*out = vd_steal(&t);
	return 0;
}

void vd_workers_add(struct vd_workers *t, struct vd_work *w)
{
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&t->lock);

	w->next = NULL;
	*t->end = w;
	t->end = &w->next;
	t->n_waiting++;
	if (t->n_waiting <= t->n_idle || t->n_threads == t->n_threads_max || start_one(t))
		pthread_cond_signal(&t->added);
}

void vd_workers_free(struct vd_workers *t)
{
	if (!t)
		return;
	pthread_mutex_lock(&t->lock);
	t->is_ending = true;
	pthread_cond_broadcast(&t->added);
	pthread_mutex_unlock(&t->lock);
	for (unsigned i = 0; i < t->n_threads; i++)
		pthread_join(t->threads[i], NULL);
	pthread_cond_destroy(&t->added);
	pthread_mutex_destroy(&t->lock);
	free(t);
}
