/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writes table pages to the host: takes the snapshot, keeps the order of the ranks (I1, I2, I3), poisons the cache
 * when the host fails (I5). The pages themselves are meta.c's.
 */
#include <stdlib.h>
#include <string.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/core/meta_page.h"

/* Adjacent pages go out in one write of at most this many bytes: past it a write gains nothing. */
#define RUN_BYTES_MAX (1u << 20)

/* Its pages are FLYING, or GONE when they were superseded since. */
struct vd_meta_batch {
	uint8_t *staging;               /* where the pages of one write are put together; NULL: no two pages */
	struct vd_meta_change *changes; /* for the journal; NULL: there is none */
	size_t n;
	struct vd_page *pages[];
};

int vd_meta_check_writable(const struct vd_meta *m, struct vd_error *e)
{
	if (!m->poisoned)
		return 0;
	vd_fail(e, VD_EPOISONED, "an earlier write to the tables of %s failed; nothing more is written to it",
		vd_set_name(m->set, 0));
	return vd_hint(e, VD_EPOISONED, "close the image, make sure that its disk works and has room, and check the image");
}

static void batch_free(struct vd_meta_batch *b)
{
	free(b->staging);
	free(b->changes);
	free(b);
}
VD_DEFINE_CLEANUP(struct vd_meta_batch, batch_cleanup, batch_free)

/* All memory that the commit needs, so that want of it leaves the pages as they are. */
static int batch_new(const struct vd_meta *m, size_t n, struct vd_meta_batch **out, struct vd_error *e)
{
	__attribute__((cleanup(batch_cleanup))) struct vd_meta_batch *b = NULL;
	int r = vd_alloc(1, sizeof(*b) + n * sizeof(*b->pages), &b, e);

	if (r == 0 && m->journal.log)
		r = vd_alloc(vd_min_u64(n, m->journal.max_pages), sizeof(*b->changes), &b->changes, e);
	if (r == 0 && n > 1)
		r = vd_alloc_buffer(vd_min_u64((uint64_t)n * m->page_size, RUN_BYTES_MAX), &b->staging, e);
	if (r < 0)
		return r;
	*out = vd_steal(&b);
	return 0;
}

void vd_meta_set_journal(struct vd_meta *m, const struct vd_meta_journal *journal)
{
	m->journal = *journal;
}

int vd_meta_snapshot(struct vd_meta *m, struct vd_meta_batch **out, struct vd_error *e)
{
	size_t n = m->n_dirty;
	struct vd_meta_batch *b = NULL;
	int r = vd_meta_check_writable(m, e);

	if (r == 0)
		r = batch_new(m, n, &b, e);
	if (r < 0)
		return r;
	/* The caller's allocation lock keeps writers out. More than n are dirty only if a commit fails right now: none is written. */
	for (size_t i = 0; i < VD_META_SHARDS; i++) {
		struct vd_meta_shard *s = &m->shards[i];
		struct vd_page *p;

		pthread_rwlock_wrlock(&s->lock);
		while (b->n < n && (p = TAILQ_FIRST(&s->dirty))) {
			vd_page_set_state(m, s, p, VD_PAGE_FLYING);
			b->pages[b->n++] = p;
		}
		pthread_rwlock_unlock(&s->lock);
	}
	m->n_snapshots++;
	*out = b;
	return 0;
}

uint64_t vd_meta_n_snapshots(const struct vd_meta *m)
{
	return m->n_snapshots;
}

static int compare(uint64_t a, uint64_t b)
{
	return (a > b) - (a < b);
}

static int by_place(const void *a, const void *b)
{
	const struct vd_page *pa = *(struct vd_page *const *)a, *pb = *(struct vd_page *const *)b;
	int file = compare(pa->key.file, pb->key.file);

	return file ? file : compare(pa->key.off, pb->key.off);
}

static int by_rank(const void *a, const void *b)
{
	const struct vd_page *pa = *(struct vd_page *const *)a, *pb = *(struct vd_page *const *)b;
	int rank = compare(pa->rank, pb->rank);

	return rank ? rank : by_place(a, b);
}

/* How many pages from b->pages[first] on lie side by side and may be written together. */
static size_t run_length(const struct vd_meta *m, const struct vd_meta_batch *b, size_t first)
{
	const struct vd_page *head = b->pages[first];
	size_t n = 1;

	for (; first + n < b->n && (n + 1) * m->page_size <= RUN_BYTES_MAX; n++) {
		const struct vd_page *p = b->pages[first + n];

		if (p->key.file != head->key.file || p->key.off != head->key.off + n * m->page_size)
			break;
		if (!m->fresh && p->rank != head->rank)
			break;
	}
	return n;
}

static int write_run(struct vd_meta *m, struct vd_meta_batch *b, size_t first, size_t n, struct vd_error *e)
{
	const struct vd_page *head = b->pages[first];

	if (n == 1)
		return vd_set_pwrite(m->set, head->key.file, head->data, m->page_size, head->key.off, e);
	for (size_t i = 0; i < n; i++)
		memcpy(b->staging + i * m->page_size, b->pages[first + i]->data, m->page_size);
	return vd_set_pwrite(m->set, head->key.file, b->staging, n * m->page_size, head->key.off, e);
}

/* A flush before each rank above 0 makes durable what its pages point at: the ranks below, and all payload so far. */
static bool needs_flush_before(const struct vd_meta *m, const struct vd_meta_batch *b, size_t i)
{
	return !m->fresh && b->pages[i]->rank > VD_RANK_OWNER && (i == 0 || b->pages[i - 1]->rank != b->pages[i]->rank);
}

static int log_pages(struct vd_meta *m, struct vd_meta_batch *b, size_t first, size_t n, struct vd_error *e)
{
	for (size_t i = 0; i < n; i++) {
		const struct vd_page *p = b->pages[first + i];

		b->changes[i] = (struct vd_meta_change){ p->key.off, p->key.file, p->data };
	}
	return m->journal.log(m->journal.ctx, b->changes, n, e);
}

/* Where a batch takes several entries, the order of the ranks makes what has been written of it sound. */
static int write_logged(struct vd_meta *m, struct vd_meta_batch *b, struct vd_error *e)
{
	int r = 0;

	qsort(b->pages, b->n, sizeof(b->pages[0]), by_rank);
	for (size_t first = 0, n; first < b->n && r == 0; first += n) {
		n = vd_min_u64(b->n - first, m->journal.max_pages);
		r = vd_set_flush(m->set, e);
		if (r == 0)
			r = log_pages(m, b, first, n, e);
		for (size_t i = first, run; i < first + n && r == 0; i += run) {
			run = vd_min_u64(run_length(m, b, i), first + n - i);
			r = write_run(m, b, i, run, e);
		}
	}
	return r < 0 ? r : vd_set_flush(m->set, e);
}

static int write_batch(struct vd_meta *m, struct vd_meta_batch *b, struct vd_error *e)
{
	int r = 0;

	if (b->changes)
		return write_logged(m, b, e);

	qsort(b->pages, b->n, sizeof(b->pages[0]), m->fresh ? by_place : by_rank);
	for (size_t i = 0, n; i < b->n; i += n) {
		n = run_length(m, b, i);
		if (needs_flush_before(m, b, i))
			r = vd_set_flush(m->set, e);
		if (r == 0)
			r = write_run(m, b, i, n, e);
		if (r < 0)
			return r;
	}
	return vd_set_flush(m->set, e);
}

/* Pages of a failed batch turn dirty again: they stay readable, and the poison keeps them off the disk. */
static void batch_end(struct vd_meta *m, struct vd_meta_batch *b, bool ok)
{
	for (size_t i = 0; i < b->n; i++) {
		struct vd_page *p = b->pages[i];
		struct vd_meta_shard *s = vd_meta_shard_of(m, p->key);

		pthread_rwlock_wrlock(&s->lock);
		if (p->state == VD_PAGE_FLYING)
			vd_page_set_state(m, s, p, ok ? VD_PAGE_CLEAN : VD_PAGE_DIRTY);
		else
			vd_page_free(m, p);
		pthread_rwlock_unlock(&s->lock);
	}
	batch_free(b);
	vd_meta_trim(m);
}

int vd_meta_commit(struct vd_meta *m, struct vd_meta_batch *batch, struct vd_error *e)
{
	int r = vd_meta_check_writable(m, e);

	if (r == 0)
		r = write_batch(m, batch, e);
	if (r < 0)
		m->poisoned = true;
	batch_end(m, batch, r == 0);
	return r;
}
