/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Queues those who want a range behind those who came before them and overlap, holding or still waiting: so a
 * large range is not starved by small ones. What a range protects is the caller's business.
 */
#include "libvdisk/core/rangelock.h"

#include <pthread.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"

struct vd_rangelock {
	pthread_mutex_t lock;
	pthread_cond_t released;
	struct vd_rangehold *first;     /* holders and waiters in the order of their coming */
	unsigned n_waiting;
};

int vd_rangelock_new(struct vd_rangelock **out, struct vd_error *e)
{
	struct vd_rangelock *l;
	int r = vd_alloc(1, sizeof(*l), &l, e);

	if (r < 0)
		return r;
	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->released, NULL);
	*out = l;
	return 0;
}

void vd_rangelock_free(struct vd_rangelock *l)
{
	if (!l)
		return;
	pthread_cond_destroy(&l->released);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

static bool must_wait(const struct vd_rangelock *l, const struct vd_rangehold *h)
{
	for (const struct vd_rangehold *earlier = l->first; earlier != h; earlier = earlier->next)
		if (earlier->off < h->end && h->off < earlier->end)
			return true;
	return false;
}

void vd_rangelock_acquire(struct vd_rangelock *l, struct vd_rangehold *h, uint64_t off, uint64_t len)
{
	struct vd_rangehold **end = &l->first;
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&l->lock);

	*h = (struct vd_rangehold){ .off = off, .end = UINT64_MAX, .of = l };
	vd_add_u64(off, len, &h->end);
	while (*end)
		end = &(*end)->next;
	*end = h;
	l->n_waiting++;
	while (must_wait(l, h))
		pthread_cond_wait(&l->released, &l->lock);
	l->n_waiting--;
}

void vd_rangelock_release(struct vd_rangehold *h)
{
	struct vd_rangelock *l = h->of;
	struct vd_rangehold **at = &l->first;
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&l->lock);

	while (*at != h)
		at = &(*at)->next;
	*at = h->next;
	if (l->n_waiting)
		pthread_cond_broadcast(&l->released);
}
