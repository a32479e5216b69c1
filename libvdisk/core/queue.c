/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests beside the caller: keeps them, decides who does them, hands their results out. What a request does is
 * read.c's, write.c's and flush.c's; only a read whose tables are in memory and whose bytes lie in plain files is taken
 * apart here, for io_uring.
 *
 * K1  An item is in one place: free, with its submitter, in the ring, with the workers, or done. Who has it owns its fields.
 * K2  A read in the ring holds a ticket of the quarantine and a share of the control lock until the host I/O has
 *     ended. The ring's thread gives both back without a lock of the image, whoever may be waiting for them: so a
 *     flush or a change of shape never waits for somebody to reap.
 * K3  Whatever is not as simple as hoped, on the way or in the result, goes to a thread and begins anew there as a
 *     plain call, with nothing held.
 */
#include "libvdisk/core/queue.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <time.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/base/workers.h"
#include "libvdisk/core/image.h"
#include "libvdisk/io/uring.h"

#define THREADS 16              /* as many as a disk serves well at once */
#define PARTS_MAX 4             /* host ranges that the ring reads for one request */
/* Longer ones are read and decrypted in pieces that stay in the caches, each by a thread: more than one core then. */
#define RING_READ_MAX (64u << 10)

struct part {
	struct vd_uring_read read;      /* first: the ring gives it back */
	struct item *item;
	uint64_t guest_off;
};

struct item {
	struct vd_work work;            /* first: the workers give it back */
	struct vd_queue *queue;
	struct vd_request req;
	int result;
	struct vd_error error;
	struct item *next;              /* free or done */

	unsigned ticket;
	unsigned n_parts, n_left;
	bool is_short;                  /* a part ended otherwise than hoped */
	struct part parts[PARTS_MAX];
};

struct list {
	struct item *first, **end;
	size_t n;
};

struct vd_queue {
	struct vd_image *img;
	struct vd_workers *workers;
	struct vd_uring *ring;          /* NULL: threads alone */
	atomic_uint_fast64_t n_ring_reads;
	int poll_fd;
	unsigned depth;

	pthread_mutex_t lock;           /* of all below */
	pthread_cond_t ended;
	struct item *free;
	size_t n_free;
	struct list done;
	size_t wake_at;                 /* the fewest done that somebody waits for */
	struct item items[];
};

static void list_init(struct list *l)
{
	*l = (struct list){ .end = &l->first };
}

static void list_add(struct list *l, struct item *it)
{
	it->next = NULL;
	*l->end = it;
	l->end = &it->next;
	l->n++;
}

/* ---- what has ended ------------------------------------------------------------------------------------- */

static size_t n_under_way(const struct vd_queue *q)
{
	return q->depth - q->n_free - q->done.n;
}

static void set_readable(struct vd_queue *q)
{
	static const uint64_t one = 1;
	ssize_t n = write(q->poll_fd, &one, sizeof(one));

	/* Counts from 0 to 1: it cannot fail. */
	(void)n;
}

static void set_unreadable(struct vd_queue *q)
{
	uint64_t count;
	ssize_t n = read(q->poll_fd, &count, sizeof(count));

	(void)n;
}

/* Under the lock: those who wait look again. */
static void wake_reapers(struct vd_queue *q)
{
	if (q->done.n < q->wake_at && n_under_way(q))
		return;
	q->wake_at = SIZE_MAX;
	pthread_cond_broadcast(&q->ended);
}

static void hand_out(struct vd_queue *q, struct list *l)
{
	vd_auto_unlock pthread_mutex_t *held = NULL;

	if (!l->n)
		return;
	held = vd_locked(&q->lock);
	if (!q->done.n)
		set_readable(q);
	*q->done.end = l->first;
	q->done.end = l->end;
	q->done.n += l->n;
	wake_reapers(q);
}

/* ---- by a thread ---------------------------------------------------------------------------------------- */

static int do_request(struct vd_image *img, const struct vd_request *q, struct vd_error *e)
{
	switch (q->kind) {
	case VD_REQUEST_READ:
		return vd_image_pread(img, q->buf, q->len, q->off, e);
	case VD_REQUEST_WRITE:
		return vd_image_pwrite(img, q->buf, q->len, q->off, e);
	case VD_REQUEST_ZEROES:
		return vd_image_write_zeroes(img, q->off, q->len, q->flags, e);
	case VD_REQUEST_DISCARD:
		return vd_image_discard(img, q->off, q->len, e);
	case VD_REQUEST_FLUSH:
		return vd_image_flush(img, e);
	}
	return vd_fail(e, VD_EARG, "there is no request of kind %d", q->kind);
}

static void run_item(struct vd_work *w)
{
	struct item *it = (struct item *)w;
	struct list done;

	it->result = do_request(it->queue->img, &it->req, &it->error);
	list_init(&done);
	list_add(&done, it);
	hand_out(it->queue, &done);
}

/* ---- by the ring ---------------------------------------------------------------------------------------- */

static bool is_whole_sectors(const struct vd_layer *l, const struct vd_request *q)
{
	uint64_t s = l->encryption ? l->sector_size : 1;

	return q->off % s == 0 && q->len % s == 0 && (!l->encryption || l->cipher);
}

/* Zeros are made at once; else a part is added. false: too much for the ring. */
static bool lay_out_run(struct item *it, const struct vd_run *run, uint64_t at, uint8_t *buf, size_t len)
{
	struct vd_image *img = it->queue->img;
	struct vd_io *io;
	struct part *p;
	int fd;

	if (run->where == VD_ZERO || (run->where == VD_HOLE && !img->parent && !img->parent_missing)) {
		memset(buf, 0, len);
		return !img->layer.is_container;
	}
	io = run->where == VD_DATA ? vd_set_io(img->set, run->file) : NULL;
	fd = io ? vd_io_descriptor(io) : -1;
	if (fd < 0 || it->n_parts == PARTS_MAX)
		return false;
	p = &it->parts[it->n_parts++];
	p->item = it;
	p->guest_off = at - img->layer.payload_off;
	p->read = (struct vd_uring_read){
		.fd = fd, .buf = buf, .len = len, .off = run->host_off + (at - run->guest_off),
	};
	return true;
}

/* From what is in memory of the tables. */
static bool lay_out(struct item *it)
{
	struct vd_image *img = it->queue->img;
	const struct vd_request *q = &it->req;
	uint64_t at = q->off + img->layer.payload_off, end = at + q->len;
	struct vd_run runs[PARTS_MAX];
	size_t n = PARTS_MAX;
	bool is_good = img->format->map(img->state, at, q->len, VD_MAP_NOWAIT | VD_MAP_TO_READ, runs, &n, NULL) == 0;

	it->n_parts = 0;
	it->is_short = false;
	for (size_t i = 0; is_good && i < n && at < end; i++) {
		uint64_t run_end = vd_min_u64(end, runs[i].guest_off + runs[i].len);

		is_good = lay_out_run(it, &runs[i], at, (uint8_t *)q->buf + (at - img->layer.payload_off - q->off),
				      run_end - at);
		at = run_end;
	}
	it->n_left = it->n_parts;
	return is_good && at == end;
}

/* Whether the read is taken apart, or done already (no parts); else nothing is held (K3). */
static bool begin_read(struct item *it)
{
	struct vd_image *img = it->queue->img;
	const struct vd_request *q = &it->req;
	bool is_begun = false;

	if (!it->queue->ring || q->kind != VD_REQUEST_READ || !q->len || q->len > RING_READ_MAX ||
	    pthread_rwlock_tryrdlock(&img->control))
		return false;
	if (is_whole_sectors(&img->layer, q) && vd_range_inside(q->off, q->len, img->size)) {
		it->ticket = vd_space_enter(img->space);
		is_begun = lay_out(it);
		if (is_begun && it->n_parts)
			vd_control_lend(img);
		else
			vd_space_leave(img->space, it->ticket);
	}
	pthread_rwlock_unlock(&img->control);
	it->result = 0;
	return is_begun;
}

static int decrypt(struct item *it)
{
	const struct vd_layer *l = &it->queue->img->layer;
	int r = 0;

	for (unsigned i = 0; i < it->n_parts && r == 0; i++) {
		const struct part *p = &it->parts[i];

		r = vd_layer_decrypt(l, p->read.buf, p->read.len, p->guest_off, p->read.off, &it->error);
	}
	return r;
}

/* All parts are there, in the ring's thread. */
static void end_read(struct item *it, struct list *done)
{
	struct vd_image *img = it->queue->img;

	vd_space_leave(img->space, it->ticket);
	if (!it->is_short)
		it->result = decrypt(it);
	vd_control_give_back(img);
	if (it->is_short)
		vd_workers_add(it->queue->workers, &it->work);
	else
		list_add(done, it);
}

static void take_from_ring(void *ctx, struct vd_uring_read *list)
{
	struct list done;

	list_init(&done);
	while (list) {
		struct vd_uring_read *read = list;
		struct item *it = ((struct part *)read)->item;

		list = read->next;
		if (read->result < 0 || (size_t)read->result != read->len)
			it->is_short = true;
		if (--it->n_left == 0)
			end_read(it, &done);
	}
	hand_out(ctx, &done);
}

/* ---- submitting ----------------------------------------------------------------------------------------- */

static int judge(const struct vd_request *reqs, size_t n, struct vd_error *e)
{
	for (size_t i = 0; i < n; i++)
		if (reqs[i].kind < VD_REQUEST_READ || reqs[i].kind > VD_REQUEST_FLUSH)
			return vd_fail(e, VD_EARG, "request %zu: there is no request of kind %d", i, reqs[i].kind);
	return 0;
}

static int take_items(struct vd_queue *q, size_t n, struct item **out, struct vd_error *e)
{
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&q->lock);

	if (n > q->n_free)
		return vd_fail(e, VD_EAGAIN, "the queue has room for %zu requests, not for %zu: reap first", q->n_free, n);
	q->n_free -= n;
	for (*out = NULL; n; n--) {
		struct item *it = q->free;

		q->free = it->next;
		it->next = *out;
		*out = it;
	}
	return 0;
}

/* Every part goes into one list, so that the ring is told once. */
static void add_parts(struct item *it, struct vd_uring_read ***end)
{
	atomic_fetch_add_explicit(&it->queue->n_ring_reads, 1, memory_order_relaxed);
	for (unsigned i = 0; i < it->n_parts; i++) {
		**end = &it->parts[i].read;
		*end = &it->parts[i].read.next;
	}
}

VD_PUBLIC int vd_queue_submit(struct vd_queue *q, const struct vd_request *reqs, size_t n, struct vd_error *e)
{
	struct vd_uring_read *reads = NULL, **end = &reads;
	struct item *it = NULL, *next;
	struct list done;
	int r = judge(reqs, n, e);

	if (r == 0)
		r = take_items(q, n, &it, e);
	if (r < 0)
		return r;
	list_init(&done);
	for (; it; it = next, reqs++) {
		next = it->next;
		it->req = *reqs;
		if (!begin_read(it))
			vd_workers_add(q->workers, &it->work);
		else if (!it->n_parts)
			list_add(&done, it);
		else
			add_parts(it, &end);
	}
	if (reads)
		vd_uring_read(q->ring, reads);
	hand_out(q, &done);
	return 0;
}

/* ---- reaping -------------------------------------------------------------------------------------------- */

VD_PUBLIC int vd_queue_poll_fd(struct vd_queue *q)
{
	return q->poll_fd;
}

static struct timespec deadline(int timeout_ms)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += timeout_ms / 1000;
	t.tv_nsec += timeout_ms % 1000 * 1000000L;
	t.tv_sec += t.tv_nsec / 1000000000;
	t.tv_nsec %= 1000000000;
	return t;
}

/* Under the lock. */
static void wait_done(struct vd_queue *q, size_t min, int timeout_ms)
{
	struct timespec until = deadline(timeout_ms > 0 ? timeout_ms : 0);
	int err = timeout_ms ? 0 : ETIMEDOUT;

	while (q->done.n < min && n_under_way(q) && err != ETIMEDOUT) {
		q->wake_at = min < q->wake_at ? min : q->wake_at;
		if (timeout_ms < 0)
			pthread_cond_wait(&q->ended, &q->lock);
		else
			err = pthread_cond_timedwait(&q->ended, &q->lock, &until);
	}
}

static void take_done(struct vd_queue *q, struct vd_completion *c)
{
	struct item *it = q->done.first;

	q->done.first = it->next;
	q->done.n--;
	c->user = it->req.user;
	c->result = it->result;
	if (it->result < 0)
		c->error = it->error;
	it->next = q->free;
	q->free = it;
	q->n_free++;
}

VD_PUBLIC size_t vd_queue_reap(struct vd_queue *q, struct vd_completion *done, size_t max, size_t min, int timeout_ms)
{
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&q->lock);
	size_t n = 0;

	wait_done(q, min < max ? min : max, timeout_ms);
	if (!q->done.n)
		return 0;
	for (; n < max && q->done.n; n++)
		take_done(q, &done[n]);
	if (!q->done.n) {
		q->done.end = &q->done.first;
		set_unreadable(q);
	}
	return n;
}

/* ---- coming and going ----------------------------------------------------------------------------------- */

static int judge_new(unsigned depth, const struct vd_queue_opts *opts, struct vd_error *e)
{
	if (!depth || depth > VD_QUEUE_DEPTH_MAX)
		return vd_fail(e, VD_EARG, "a queue holds 1 to %d requests, not %u", VD_QUEUE_DEPTH_MAX, depth);
	if (opts && opts->struct_size != sizeof(*opts))
		return vd_fail(e, VD_EARG, "struct vd_queue_opts: struct_size is %zu, want %zu", opts->struct_size, sizeof(*opts));
	return 0;
}

static void init(struct vd_queue *q, struct vd_image *img, unsigned depth)
{
	pthread_condattr_t attr;

	q->img = img;
	q->depth = depth;
	q->poll_fd = -1;
	q->wake_at = SIZE_MAX;
	list_init(&q->done);
	pthread_mutex_init(&q->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&q->ended, &attr);
	pthread_condattr_destroy(&attr);
	for (unsigned i = 0; i < depth; i++) {
		struct item *it = &q->items[i];

		it->queue = q;
		it->work.run = run_item;
		it->next = q->free;
		q->free = it;
	}
	q->n_free = depth;
}

/* Without a ring all is as it is with one, by threads. */
static int start(struct vd_queue *q, const struct vd_queue_opts *opts, struct vd_error *e)
{
	unsigned n = opts && opts->n_threads ? opts->n_threads : THREADS;
	int r;

	q->poll_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (q->poll_fd < 0)
		return vd_fail_errno(e, errno, "making an event descriptor failed");
	r = vd_workers_new(vd_min_u64(n, q->depth), &q->workers, e);
	if (r == 0 && !(opts && opts->flags & VD_QUEUE_NO_URING) &&
	    vd_uring_new(vd_min_u64(q->depth, 1024), take_from_ring, q, &q->ring, NULL) < 0)
		q->ring = NULL;
	return r;
}

VD_PUBLIC int vd_queue_new(struct vd_image *img, unsigned depth, const struct vd_queue_opts *opts, struct vd_queue **out,
			   struct vd_error *e)
{
	struct vd_queue *q;
	int r = judge_new(depth, opts, e);

	if (r == 0)
		r = vd_alloc(1, sizeof(*q) + depth * sizeof(q->items[0]), &q, e);
	if (r < 0)
		return r;
	init(q, img, depth);
	r = start(q, opts, e);
	if (r < 0)
		vd_queue_free(q);
	else
		*out = q;
	return r;
}

/* The ring first: what it gives back may go to the workers, who do all that they have. */
VD_PUBLIC void vd_queue_free(struct vd_queue *q)
{
	if (!q)
		return;
	pthread_mutex_lock(&q->lock);
	wait_done(q, q->depth, -1);
	pthread_mutex_unlock(&q->lock);
	vd_uring_free(q->ring);
	vd_workers_free(q->workers);
	if (q->poll_fd >= 0)
		close(q->poll_fd);
	pthread_cond_destroy(&q->ended);
	pthread_mutex_destroy(&q->lock);
	free(q);
}

bool vd_queue_has_ring(const struct vd_queue *q)
{
	return q->ring;
}

uint64_t vd_queue_n_ring_reads(const struct vd_queue *q)
{
	return atomic_load(&q->n_ring_reads);
}
