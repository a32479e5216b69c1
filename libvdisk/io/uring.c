/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Hands reads to the kernel and their results back. What is read, and what becomes of it, is the callers'; so is what
 * to do about a read that came back short or failed.
 *
 * U1  Only the ring's thread touches the ring. Others leave their reads in a list and wake it if it sleeps.
 * U2  Of the completion queue's places one is the wake-up's; n_max bounds the reads in the ring, so it never overflows.
 */
#include "libvdisk/io/uring.h"

#include <errno.h>
#include <liburing.h>
#include <sched.h>
#include <sys/eventfd.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/base/workers.h"

struct vd_uring {
	struct io_uring ring;
	vd_uring_done_fn done;
	void *ctx;
	unsigned n_max;
	pthread_t thread;
	int wake_fd;

	pthread_mutex_t lock;
	struct vd_uring_read *first, **end;     /* under lock: left by others */
	bool is_asleep, is_ending;              /* under lock */

	/* The thread's own. */
	struct vd_uring_read *next;             /* taken from the list, not in the ring yet */
	unsigned n_in_ring;
	bool is_listening;                      /* a read of wake_fd is in the ring */
	uint64_t wakes;                         /* what that reads; of no use */
};

/* ---- the thread ----------------------------------------------------------------------------------------- */

/* The wake-up is told from reads by having no data. */
static void listen_for_wake(struct vd_uring *u)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);

	if (!sqe)
		return;
	io_uring_prep_read(sqe, u->wake_fd, &u->wakes, sizeof(u->wakes), 0);
	io_uring_sqe_set_data(sqe, NULL);
	u->is_listening = true;
}

static void fill_ring(struct vd_uring *u)
{
	while (u->next && u->n_in_ring < u->n_max) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);

		if (!sqe)
			return;
		io_uring_prep_read(sqe, u->next->fd, u->next->buf, (unsigned)u->next->len, u->next->off);
		io_uring_sqe_set_data(sqe, u->next);
		u->next = u->next->next;
		u->n_in_ring++;
	}
}

/* Takes what others left. With nothing to hand in the thread will sleep, and says so while nobody can add anything. */
static void take_list(struct vd_uring *u, bool *is_asleep, bool *is_ending)
{
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&u->lock);

	if (!u->next) {
		u->next = u->first;
		u->first = NULL;
		u->end = &u->first;
	}
	u->is_asleep = *is_asleep = !u->next;
	*is_ending = u->is_ending;
}

static struct vd_uring_read *collect(struct vd_uring *u)
{
	struct vd_uring_read *list = NULL;
	struct io_uring_cqe *cqe;
	unsigned head, n = 0;

	io_uring_for_each_cqe(&u->ring, head, cqe) {
		struct vd_uring_read *r = io_uring_cqe_get_data(cqe);

		n++;
		if (!r) {
			u->is_listening = false;
			continue;
		}
		r->result = cqe->res;
		r->next = list;
		list = r;
		u->n_in_ring--;
	}
	io_uring_cq_advance(&u->ring, n);
	return list;
}

static void *serve(void *arg)
{
	struct vd_uring *u = arg;

	for (;;) {
		bool is_asleep, is_ending;
		struct vd_uring_read *ended;
		int n;

		take_list(u, &is_asleep, &is_ending);
		if (!u->is_listening && is_ending)
			return NULL;
		if (!u->is_listening)
			listen_for_wake(u);
		fill_ring(u);
		/* A full ring has something to wait for, too. */
		n = io_uring_submit_and_wait(&u->ring, is_asleep || u->n_in_ring == u->n_max);
		/* The kernel is short of memory for now; what was not taken is handed in again. */
		if (n < 0 && n != -EINTR)
			sched_yield();
		ended = collect(u);
		if (ended)
			u->done(u->ctx, ended);
	}
}

static void wake(struct vd_uring *u)
{
	static const uint64_t one = 1;
	ssize_t n = write(u->wake_fd, &one, sizeof(one));

	/* It fails only when 2^64 - 2 wake-ups wait already. */
	(void)n;
}

void vd_uring_read(struct vd_uring *u, struct vd_uring_read *list)
{
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&u->lock);

	*u->end = list;
	while (*u->end)
		u->end = &(*u->end)->next;
	if (u->is_asleep)
		wake(u);
	u->is_asleep = false;
}

/* ---- coming and going ----------------------------------------------------------------------------------- */

static int refused(int err, struct vd_error *e)
{
	vd_fail_errno(e, err, "setting up io_uring failed");
	if (e)
		e->code = VD_EUNSUPPORTED;
	return VD_EUNSUPPORTED;
}

/* Kernels before 5.6 have rings, but not this kind of read. */
static bool knows_reads(struct io_uring *ring)
{
	struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
	bool yes = probe && io_uring_opcode_supported(probe, IORING_OP_READ);

	io_uring_free_probe(probe);
	return yes;
}

static int open_ring(struct vd_uring *u, struct vd_error *e)
{
	int err = -io_uring_queue_init(u->n_max + 1, &u->ring, 0);

	if (err)
		return refused(err, e);
	u->wake_fd = eventfd(0, EFD_CLOEXEC);
	if (u->wake_fd >= 0 && knows_reads(&u->ring))
		return 0;
	err = u->wake_fd < 0 ? errno : ENOSYS;
	if (u->wake_fd >= 0)
		close(u->wake_fd);
	io_uring_queue_exit(&u->ring);
	return refused(err, e);
}

static void close_ring(struct vd_uring *u)
{
	io_uring_queue_exit(&u->ring);
	close(u->wake_fd);
	pthread_mutex_destroy(&u->lock);
	free(u);
}

int vd_uring_new(unsigned n_max, vd_uring_done_fn done, void *ctx, struct vd_uring **out, struct vd_error *e)
{
	vd_auto_free struct vd_uring *u = NULL;
	int r = vd_alloc(1, sizeof(*u), &u, e), err;

	if (r < 0)
		return r;
	u->n_max = n_max;
	u->done = done;
	u->ctx = ctx;
	u->end = &u->first;
	r = open_ring(u, e);
	if (r < 0)
		return r;
	pthread_mutex_init(&u->lock, NULL);
	err = vd_thread_start(&u->thread, serve, u);
	if (err) {
		close_ring(vd_steal(&u));
		return vd_fail_errno(e, err, "starting a thread failed");
	}
	*out = vd_steal(&u);
	return 0;
}

void vd_uring_free(struct vd_uring *u)
{
	if (!u)
		return;
	pthread_mutex_lock(&u->lock);
	u->is_ending = true;
	wake(u);
	pthread_mutex_unlock(&u->lock);
	pthread_join(u->thread, NULL);
	close_ring(u);
}
