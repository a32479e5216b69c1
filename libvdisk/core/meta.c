/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Keeps table pages in memory: loads, copies out and in, evicts (keeps I4 and I6). Writing them to the host, in
 * order, is meta_commit.c's.
 */
#include "libvdisk/core/meta.h"

#include <string.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/core/meta_page.h"

#define PAGE_SIZE_MIN 512
/* A smaller cache would evict a page between its load and its first use. */
#define PAGES_MIN 16
#define BUCKETS_MIN 4           /* a shard */
#define BUCKETS_MAX 65536       /* a shard; beyond a cache of 2 GiB chains grow, lookups stay correct */

/* Fibonacci hashing: the high bits of the product depend on all bits of the key. */
static uint64_t hash(struct vd_page_key key)
{
	return (key.off + key.file * UINT64_C(0xd6e8feb86659fd93)) * UINT64_C(0x9e3779b97f4a7c15);
}

struct vd_meta_shard *vd_meta_shard_of(struct vd_meta *m, struct vd_page_key key)
{
	return &m->shards[hash(key) >> 58 & (VD_META_SHARDS - 1)];
}

static struct vd_page **bucket_of(const struct vd_meta *m, const struct vd_meta_shard *s, struct vd_page_key key)
{
	return &s->buckets[hash(key) >> 32 & m->bucket_mask];
}

static struct vd_page *find(const struct vd_meta *m, const struct vd_meta_shard *s, struct vd_page_key key)
{
	struct vd_page *p = *bucket_of(m, s, key);

	while (p && (p->key.off != key.off || p->key.file != key.file))
		p = p->chain;
	return p;
}

/* ---- a page's life ------------------------------------------------------------------------------------ */

void vd_page_set_state(struct vd_meta *m, struct vd_meta_shard *s, struct vd_page *p, enum vd_page_state state)
{
	if (p->state == VD_PAGE_CLEAN) {
		TAILQ_REMOVE(&s->clean, p, link);
		m->n_clean--;
	} else if (p->state == VD_PAGE_DIRTY) {
		TAILQ_REMOVE(&s->dirty, p, link);
		m->n_dirty--;
	}
	p->state = state;
	if (state == VD_PAGE_CLEAN) {
		TAILQ_INSERT_HEAD(&s->clean, p, link);
		m->n_clean++;
	} else if (state == VD_PAGE_DIRTY) {
		TAILQ_INSERT_HEAD(&s->dirty, p, link);
		m->n_dirty++;
	}
}

/* A LOADING page, counted but in no hash yet. */
static int page_new(struct vd_meta *m, struct vd_page_key key, struct vd_page **out, struct vd_error *e)
{
	struct vd_page *p;
	int r = vd_alloc(1, sizeof(*p) + m->page_size, &p, e);

	if (r < 0)
		return r;
	p->key = key;
	p->state = VD_PAGE_LOADING;
	m->n_pages++;
	*out = p;
	return 0;
}

void vd_page_free(struct vd_meta *m, struct vd_page *p)
{
	m->n_pages--;
	free(p);
}

static void insert(struct vd_meta *m, struct vd_meta_shard *s, struct vd_page *p)
{
	struct vd_page **bucket = bucket_of(m, s, p->key);

	p->chain = *bucket;
	*bucket = p;
}

/* Takes p out of the cache; a page that a loader or a batch still holds is left to that one to free. */
static void drop(struct vd_meta *m, struct vd_meta_shard *s, struct vd_page *p)
{
	bool is_held = p->state == VD_PAGE_LOADING || p->state == VD_PAGE_FLYING;
	struct vd_page **at = bucket_of(m, s, p->key);

	while (*at != p)
		at = &(*at)->chain;
	*at = p->chain;
	vd_page_set_state(m, s, p, VD_PAGE_GONE);
	if (!is_held)
		vd_page_free(m, p);
}

/* ---- eviction ----------------------------------------------------------------------------------------- */

/*
 * One look at one shard, as a clock's hand goes: a page that was used since the last look goes to the head once more.
 * Going on to the next shard in either case is what makes the clock one for all, however few pages a shard has.
 */
static void evict_step(struct vd_meta *m)
{
	struct vd_meta_shard *s = &m->shards[m->hand++ % VD_META_SHARDS];
	struct vd_page *p;

	pthread_rwlock_wrlock(&s->lock);
	p = TAILQ_LAST(&s->clean, vd_page_list);
	if (p && atomic_exchange_explicit(&p->touched, false, memory_order_relaxed)) {
		TAILQ_REMOVE(&s->clean, p, link);
		TAILQ_INSERT_HEAD(&s->clean, p, link);
	} else if (p) {
		drop(m, s, p);
	}
	pthread_rwlock_unlock(&s->lock);
}

void vd_meta_trim(struct vd_meta *m)
{
	while (m->n_pages > m->max_pages && m->n_clean)
		evict_step(m);
}

/* ---- loading ------------------------------------------------------------------------------------------ */

static void wait_loaded(struct vd_meta *m, struct vd_page_key key)
{
	struct vd_meta_shard *s = vd_meta_shard_of(m, key);
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&m->load_lock);

	for (;;) {
		struct vd_page *p;
		bool is_loading;

		pthread_rwlock_rdlock(&s->lock);
		p = find(m, s, key);
		is_loading = p && p->state == VD_PAGE_LOADING;
		pthread_rwlock_unlock(&s->lock);
		if (!is_loading)
			return;
		pthread_cond_wait(&m->load_done, &m->load_lock);
	}
}

/* The load's end. A page that was overwritten or forgotten meanwhile is newer than what was read, or of no use. */
static void finish_load(struct vd_meta *m, struct vd_page *p, bool ok)
{
	struct vd_meta_shard *s = vd_meta_shard_of(m, p->key);

	pthread_rwlock_wrlock(&s->lock);
	if (ok && p->state == VD_PAGE_LOADING) {
		vd_page_set_state(m, s, p, VD_PAGE_CLEAN);
	} else {
		if (p->state == VD_PAGE_LOADING)
			drop(m, s, p);
		vd_page_free(m, p);
	}
	pthread_rwlock_unlock(&s->lock);
	pthread_mutex_lock(&m->load_lock);
	pthread_cond_broadcast(&m->load_done);
	pthread_mutex_unlock(&m->load_lock);
}

/* Sees to it that the page is, or just was, in memory: the caller looks again. One thread reads, others wait for it. */
static int load(struct vd_meta *m, struct vd_page_key key, struct vd_error *e)
{
	struct vd_meta_shard *s = vd_meta_shard_of(m, key);
	struct vd_page *p, *other;
	int r = page_new(m, key, &p, e);

	if (r < 0)
		return r;
	p->touched = true;
	pthread_rwlock_wrlock(&s->lock);
	other = find(m, s, key);
	if (!other)
		insert(m, s, p);
	pthread_rwlock_unlock(&s->lock);
	if (other) {
		vd_page_free(m, p);
		wait_loaded(m, key);
		return 0;
	}
	vd_meta_trim(m);
	r = vd_set_pread(m->set, key.file, p->data, m->page_size, key.off, e);
	finish_load(m, p, r == 0);
	return r;
}

/* ---- access ------------------------------------------------------------------------------------------- */

/* The page that holds off; *len is cut to what of the range lies in it. */
static struct vd_page_key page_at(const struct vd_meta *m, uint32_t file, uint64_t off, size_t *len)
{
	uint64_t in_page = off & (m->page_size - 1);

	*len = vd_min_u64(*len, m->page_size - in_page);
	return (struct vd_page_key){ .off = off - in_page, .file = file };
}

static int check_range(uint32_t file, uint64_t off, uint64_t len, struct vd_error *e)
{
	uint64_t end;

	/* Up to what an off_t holds. */
	if (vd_add_u64(off, len, &end) && end <= INT64_MAX)
		return 0;
	return vd_fail_at(e, VD_ERANGE, off, "a table of %llu bytes in file %u of the image leaves the range of offsets",
			  (unsigned long long)len, file);
}

static bool copy_out(struct vd_meta *m, struct vd_page_key key, size_t in_page, void *buf, size_t len)
{
	struct vd_meta_shard *s = vd_meta_shard_of(m, key);
	struct vd_page *p;
	bool is_here;

	pthread_rwlock_rdlock(&s->lock);
	p = find(m, s, key);
	is_here = p && p->state != VD_PAGE_LOADING;
	if (is_here) {
		memcpy(buf, p->data + in_page, len);
		/* Only the first use writes: pages that all threads read stay shared in their caches. */
		if (!atomic_load_explicit(&p->touched, memory_order_relaxed))
			atomic_store_explicit(&p->touched, true, memory_order_relaxed);
	}
	pthread_rwlock_unlock(&s->lock);
	return is_here;
}

int vd_meta_read(struct vd_meta *m, uint32_t file, uint64_t off, void *buf, size_t len, unsigned flags,
		 struct vd_error *e)
{
	uint8_t *to = buf;
	int r = check_range(file, off, len, e);

	while (r == 0 && len) {
		size_t n = len;
		struct vd_page_key key = page_at(m, file, off, &n);

		if (copy_out(m, key, off - key.off, to, n)) {
			off += n;
			to += n;
			len -= n;
		} else if (flags & VD_META_NOWAIT) {
			r = vd_fail_at(e, VD_EAGAIN, off, "a table of %s is not in memory", vd_set_name(m->set, file));
		} else {
			r = load(m, key, e);
		}
	}
	return r;
}

/*
 * Finds or makes the page for a change, under the shard's write lock. *out stays NULL when its other bytes have to
 * be loaded first, which `whole` does not need.
 */
static int page_for_write(struct vd_meta *m, struct vd_meta_shard *s, struct vd_page_key key, bool whole,
			  struct vd_page **out, struct vd_error *e)
{
	struct vd_page *old = find(m, s, key);
	struct vd_page *p;
	int r;

	*out = NULL;
	if (old && (old->state == VD_PAGE_CLEAN || old->state == VD_PAGE_DIRTY)) {
		*out = old;
		return 0;
	}
	if (!whole && (!old || old->state == VD_PAGE_LOADING))
		return 0;
	r = page_new(m, key, &p, e);
	if (r < 0)
		return r;
	if (old) {
		if (!whole)
			memcpy(p->data, old->data, m->page_size);
		drop(m, s, old);
	}
	insert(m, s, p);
	*out = p;
	return 0;
}

/* buf NULL: zeros. */
static void change(struct vd_meta *m, struct vd_meta_shard *s, struct vd_page *p, size_t in_page, const void *buf,
		   size_t len, enum vd_meta_rank rank)
{
	if (buf)
		memcpy(p->data + in_page, buf, len);
	else
		memset(p->data + in_page, 0, len);
	atomic_store_explicit(&p->touched, true, memory_order_relaxed);
	if (p->state == VD_PAGE_DIRTY) {
		if (rank > p->rank)
			p->rank = rank;
		return;
	}
	p->rank = rank;
	vd_page_set_state(m, s, p, VD_PAGE_DIRTY);
}

static int write_in_page(struct vd_meta *m, struct vd_page_key key, size_t in_page, const void *buf, size_t len,
			 enum vd_meta_rank rank, struct vd_error *e)
{
	struct vd_meta_shard *s = vd_meta_shard_of(m, key);
	struct vd_page *p = NULL;
	int r = 0;

	while (r == 0 && !p) {
		pthread_rwlock_wrlock(&s->lock);
		r = page_for_write(m, s, key, len == m->page_size, &p, e);
		if (p)
			change(m, s, p, in_page, buf, len, rank);
		pthread_rwlock_unlock(&s->lock);
		if (r == 0 && !p)
			r = load(m, key, e);
	}
	vd_meta_trim(m);
	return r;
}

static int write_range(struct vd_meta *m, uint32_t file, uint64_t off, const uint8_t *from, uint64_t len,
		       enum vd_meta_rank rank, struct vd_error *e)
{
	int r = vd_meta_check_writable(m, e);

	if (r == 0)
		r = check_range(file, off, len, e);
	while (r == 0 && len) {
		size_t n = vd_min_u64(len, m->page_size);
		struct vd_page_key key = page_at(m, file, off, &n);

		r = write_in_page(m, key, off - key.off, from, n, rank, e);
		off += n;
		len -= n;
		if (from)
			from += n;
	}
	return r;
}

int vd_meta_write(struct vd_meta *m, uint32_t file, uint64_t off, const void *buf, size_t len, enum vd_meta_rank rank,
		  struct vd_error *e)
{
	return write_range(m, file, off, buf, len, rank, e);
}

int vd_meta_zero(struct vd_meta *m, uint32_t file, uint64_t off, uint64_t len, enum vd_meta_rank rank,
		 struct vd_error *e)
{
	return write_range(m, file, off, NULL, len, rank, e);
}

/* Every page that the range touches: a page lies in one allocation unit, and the unit is no table any more. */
void vd_meta_forget(struct vd_meta *m, uint32_t file, uint64_t off, uint64_t len)
{
	while (len) {
		size_t n = vd_min_u64(len, m->page_size);
		struct vd_page_key key = page_at(m, file, off, &n);
		struct vd_meta_shard *s = vd_meta_shard_of(m, key);
		struct vd_page *p;

		pthread_rwlock_wrlock(&s->lock);
		p = find(m, s, key);
		if (p)
			drop(m, s, p);
		pthread_rwlock_unlock(&s->lock);
		off += n;
		len -= n;
	}
}

bool vd_meta_wants_commit(const struct vd_meta *m)
{
	return m->n_dirty > m->max_pages / 2;
}

bool vd_meta_is_dirty(const struct vd_meta *m)
{
	return m->n_dirty > 0;
}

/* ---- the cache as a whole ----------------------------------------------------------------------------- */

void vd_meta_set_page_size(struct vd_meta *m, uint32_t page_size)
{
	m->page_size = page_size;
	m->max_pages = vd_max_u64(m->cache_bytes / (sizeof(struct vd_page) + page_size), PAGES_MIN);
}

/* As many buckets as the cache can hold of the smallest pages. */
static size_t buckets_per_shard(uint64_t cache_bytes)
{
	size_t n = BUCKETS_MIN;

	while (n < BUCKETS_MAX && n * VD_META_SHARDS * PAGE_SIZE_MIN < cache_bytes)
		n *= 2;
	return n;
}

static void shards_init(struct vd_meta *m)
{
	pthread_rwlockattr_t attr;

	pthread_rwlockattr_init(&attr);
	/* Else a stream of readers keeps a writer, which holds the allocation lock, waiting for good. */
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	for (size_t i = 0; i < VD_META_SHARDS; i++) {
		struct vd_meta_shard *s = &m->shards[i];

		pthread_rwlock_init(&s->lock, &attr);
		s->buckets = m->buckets + i * (m->bucket_mask + 1);
		TAILQ_INIT(&s->clean);
		TAILQ_INIT(&s->dirty);
	}
	pthread_rwlockattr_destroy(&attr);
}

int vd_meta_new(struct vd_set *set, uint64_t cache_bytes, bool fresh, struct vd_meta **out, struct vd_error *e)
{
	size_t per_shard = buckets_per_shard(cache_bytes);
	vd_auto_free struct vd_meta *m = NULL;
	int r = vd_alloc_buffer(sizeof(*m), &m, e);     /* vd_alloc() does not align to cache lines */

	if (r < 0)
		return r;
	memset(m, 0, sizeof(*m));
	r = vd_alloc(VD_META_SHARDS * per_shard, sizeof(*m->buckets), &m->buckets, e);
	if (r < 0)
		return r;
	m->set = set;
	m->fresh = fresh;
	m->cache_bytes = cache_bytes;
	m->bucket_mask = per_shard - 1;
	vd_meta_set_page_size(m, PAGE_SIZE_MIN);
	pthread_mutex_init(&m->load_lock, NULL);
	pthread_cond_init(&m->load_done, NULL);
	shards_init(m);
	*out = vd_steal(&m);
	return 0;
}

static void drop_list(struct vd_meta *m, struct vd_meta_shard *s, struct vd_page_list *list)
{
	while (!TAILQ_EMPTY(list))
		drop(m, s, TAILQ_FIRST(list));
}

void vd_meta_forget_all(struct vd_meta *m)
{
	for (size_t i = 0; i < VD_META_SHARDS; i++) {
		struct vd_meta_shard *s = &m->shards[i];

		pthread_rwlock_wrlock(&s->lock);
		drop_list(m, s, &s->clean);
		drop_list(m, s, &s->dirty);
		pthread_rwlock_unlock(&s->lock);
	}
}

void vd_meta_free(struct vd_meta *m)
{
	if (!m)
		return;
	vd_meta_forget_all(m);
	for (size_t i = 0; i < VD_META_SHARDS; i++)
		pthread_rwlock_destroy(&m->shards[i].lock);
	pthread_cond_destroy(&m->load_done);
	pthread_mutex_destroy(&m->load_lock);
	free(m->buckets);
	free(m);
}
