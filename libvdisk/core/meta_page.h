/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The insides of core/meta as its two files share them: meta.c keeps the pages, meta_commit.c writes them out.
 *
 * A page is in one state, and moves only under the write lock of its shard:
 *
 *                  load ok               write                snapshot
 *   (none) -> LOADING -----> CLEAN ---------------> DIRTY ----------------> FLYING -- commit ok ------> CLEAN
 *                |             |                      |                        |  `--- commit failed --> DIRTY
 *                | forget,     | evict, forget        | forget                 | write, forget
 *                v overwrite   v                      v                        v
 *              GONE          (none)                 (none)                    GONE
 *
 *   LOADING  its bytes are on the way from the host, into it, by the thread that made it
 *   CLEAN    as on the host; may be evicted
 *   DIRTY    newer than the host
 *   FLYING   belongs to a batch, which reads it without a lock: so its bytes do not change any more, and a write
 *            puts a changed copy in its place
 *   GONE     not in the hash any more; freed by the loader or the batch that still holds it
 */
#ifndef VD_CORE_META_PAGE_H
#define VD_CORE_META_PAGE_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>

#include "libvdisk/core/meta.h"

enum vd_page_state { VD_PAGE_LOADING, VD_PAGE_CLEAN, VD_PAGE_DIRTY, VD_PAGE_FLYING, VD_PAGE_GONE };

struct vd_page_key {
	uint64_t off;                   /* in the file; a multiple of the page size */
	uint32_t file;
};

struct vd_page {
	struct vd_page *chain;          /* next in the hash bucket */
	TAILQ_ENTRY(vd_page) link;      /* in the shard's list of CLEAN or of DIRTY pages */
	struct vd_page_key key;
	enum vd_page_state state;
	enum vd_meta_rank rank;         /* DIRTY, FLYING: the highest that it was dirtied with */
	atomic_bool touched;            /* used since eviction last looked at it */
	uint8_t data[];
};
TAILQ_HEAD(vd_page_list, vd_page);

#define VD_META_SHARDS 64               /* power of two; 16 threads then meet on one lock in a quarter of their calls at worst */

/* Pages by hash of the key. The lock covers the pages' states and bytes: shared to copy out, exclusive to change. */
struct vd_meta_shard {
	_Alignas(64) pthread_rwlock_t lock;
	struct vd_page **buckets;
	struct vd_page_list clean;      /* newest first; evicted from the tail */
	struct vd_page_list dirty;
};

struct vd_meta {
	struct vd_set *set;
	bool fresh;
	struct vd_meta_journal journal; /* log NULL: none */
	uint32_t page_size;
	uint64_t cache_bytes;
	size_t max_pages;
	struct vd_page **buckets;       /* of all shards */
	size_t bucket_mask;             /* within a shard */
	atomic_size_t n_pages, n_clean, n_dirty;
	atomic_uint hand;               /* the shard that gives the next page to evict */
	atomic_bool poisoned;
	uint64_t n_snapshots;           /* under the allocation lock */
	pthread_mutex_t load_lock;      /* taken before a shard's lock */
	pthread_cond_t load_done;       /* some LOADING page left that state */
	struct vd_meta_shard shards[VD_META_SHARDS];
};

struct vd_meta_shard *vd_meta_shard_of(struct vd_meta *m, struct vd_page_key key);
/* VD_EPOISONED after a failed commit (I5). */
int vd_meta_check_writable(const struct vd_meta *m, struct vd_error *e) VD_MUST_CHECK;
/* Moves between the lists; under the shard's write lock. Not from or to GONE. */
void vd_page_set_state(struct vd_meta *m, struct vd_meta_shard *s, struct vd_page *p, enum vd_page_state state);
/* For a page that is in neither hash nor list. */
void vd_page_free(struct vd_meta *m, struct vd_page *p);
/* Evicts until the bound holds or nothing is clean; without a lock. */
void vd_meta_trim(struct vd_meta *m);

#endif
