/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Holds released host ranges back, and knows when the readers that may have mapped them are gone. When the
 * unlinking is durable is core/meta's to say; what becomes of the ranges afterwards is the driver's.
 *
 * I1  Each reader is counted in one of two phases, in the counter of one slot; leave() takes off where enter() added,
 *     so no counter falls below zero and one that is seen at zero has no reader of before in it.
 * I2  wait_readers() sees every counter of both phases at zero once. A reader that chose its phase before a turn but was
 *     counted after it sits in the "new" phase: that is why one turn and one phase are not enough.
 * I3  Readers that come later are counted in the other phase, so they cannot keep a waiter waiting.
 */
#include "libvdisk/core/space.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

/* Threads share a slot without harm; with more slots than threads they seldom bounce a cache line. */
#define SLOTS 64

struct slot {
	_Alignas(64) atomic_uint readers[2];
};

struct vd_space {
	struct vd_range *released;
	size_t n_released, n_room;
	bool to_host;
	int (*drain)(void *ctx, struct vd_error *e);
	void *drain_ctx;
	atomic_uint phase;
	atomic_bool is_waiting;
	pthread_mutex_t wait_lock;      /* one wait_readers() at a time */
	pthread_mutex_t left_lock;
	pthread_cond_t left;
	struct slot slots[SLOTS];
};

int vd_space_new(struct vd_space **out, struct vd_error *e)
{
	struct vd_space *s;
	int r = vd_alloc_buffer(sizeof(*s), &s, e);     /* vd_alloc() does not align to cache lines */

	if (r < 0)
		return r;
	memset(s, 0, sizeof(*s));
	pthread_mutex_init(&s->wait_lock, NULL);
	pthread_mutex_init(&s->left_lock, NULL);
	pthread_cond_init(&s->left, NULL);
	*out = s;
	return 0;
}

void vd_space_free(struct vd_space *s)
{
	if (!s)
		return;
	pthread_cond_destroy(&s->left);
	pthread_mutex_destroy(&s->left_lock);
	pthread_mutex_destroy(&s->wait_lock);
	free(s->released);
	free(s);
}

/* ---- the quarantine ----------------------------------------------------------------------------------- */

/* Ranges stay as they were released: a driver counts its owners down once for each. */
void vd_space_release(struct vd_space *s, struct vd_range range)
{
	size_t room = s->n_room ? s->n_room * 2 : 16;

	if (s->n_released == s->n_room) {
		if (vd_realloc(&s->released, room, sizeof(range), NULL) < 0)
			return;
		s->n_room = room;
	}
	range.to_host |= s->to_host;
	s->released[s->n_released++] = range;
}

void vd_space_set_to_host(struct vd_space *s, bool yes)
{
	s->to_host = yes;
}

int vd_space_batch_add(struct vd_space_batch *b, struct vd_range range, struct vd_error *e)
{
	struct vd_range *last = b->n ? &b->ranges[b->n - 1] : NULL;
	int r = 0;

	if (last && last->file == range.file && last->host_off + last->len == range.host_off &&
	    last->to_host == range.to_host && last->in_clear == range.in_clear) {
		last->len += range.len;
		return 0;
	}
	/* Room for the next power of two. */
	if (!(b->n & (b->n - 1)))
		r = vd_realloc(&b->ranges, b->n ? b->n * 2 : 1, sizeof(range), e);
	if (r == 0)
		b->ranges[b->n++] = range;
	return r;
}

void vd_space_set_drain(struct vd_space *s, int (*drain)(void *ctx, struct vd_error *e), void *ctx)
{
	s->drain = drain;
	s->drain_ctx = ctx;
}

int vd_space_drain(struct vd_space *s, struct vd_error *e)
{
	return s->drain(s->drain_ctx, e);
}

struct vd_space_batch vd_space_take(struct vd_space *s)
{
	struct vd_space_batch b = { .ranges = vd_steal(&s->released), .n = s->n_released };

	s->n_released = s->n_room = 0;
	return b;
}

void vd_space_put_back(struct vd_space *s, struct vd_space_batch b)
{
	for (size_t i = 0; i < b.n; i++)
		vd_space_release(s, b.ranges[i]);
	free(b.ranges);
}

/* ---- readers ------------------------------------------------------------------------------------------ */

/* Stacks lie at multiples of a large power of two: the product's high bits spread them. */
static unsigned own_slot(void)
{
	return ((uint64_t)pthread_self() >> 8) * UINT64_C(0x9e3779b97f4a7c15) >> 58;
}
_Static_assert(SLOTS == 1 << (64 - 58), "own_slot() yields six bits");

unsigned vd_space_enter(struct vd_space *s)
{
	unsigned slot = own_slot();
	unsigned phase = atomic_load(&s->phase) & 1;

	atomic_fetch_add(&s->slots[slot].readers[phase], 1);
	return slot * 2 + phase;
}

/* Sequentially consistent: either the waiter sees the counter fall, or this thread sees that somebody waits. */
void vd_space_leave(struct vd_space *s, unsigned ticket)
{
	if (atomic_fetch_sub(&s->slots[ticket / 2].readers[ticket & 1], 1) != 1 || !atomic_load(&s->is_waiting))
		return;
	pthread_mutex_lock(&s->left_lock);
	pthread_cond_broadcast(&s->left);
	pthread_mutex_unlock(&s->left_lock);
}

static void wait_phase(struct vd_space *s, unsigned phase)
{
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&s->left_lock);

	for (unsigned i = 0; i < SLOTS; i++)
		while (atomic_load(&s->slots[i].readers[phase]))
			pthread_cond_wait(&s->left, &s->left_lock);
}

void vd_space_wait_readers(struct vd_space *s)
{
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&s->wait_lock);

	atomic_store(&s->is_waiting, true);
	for (int turn = 0; turn < 2; turn++)
		wait_phase(s, atomic_fetch_add(&s->phase, 1) & 1);
	atomic_store(&s->is_waiting, false);
}
