/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * core/meta: the tables of one image, cached and ordered. A driver reads and writes its tables here by file and
 * offset as if they were memory, and says with each write which rank it has; meta sees to it that no table
 * reaches the disk before what it points at.
 *
 * I1  Nothing is written but by a commit. A commit takes a snapshot of all dirty pages at one instant (under the
 *     image's allocation lock) and writes it in rank order: rank 0, flush of all files, rank 1, flush, ...
 * I2  Payload that was written before its pointer was published is durable before any page above rank 0: the first
 *     flush of a commit covers it. So a pointer has rank 1 or more; rank 0 is for what points at nothing (refcounts).
 * I3  A rank that has no dirty page costs no flush: at most VD_META_RANKS flushes a commit, whatever it holds.
 * I4  A page that is dirty, or part of a commit under way, is never dropped; what is read is always the newest.
 * I5  A failed write or flush of a commit poisons the cache: every later write and commit fails with VD_EPOISONED.
 * I6  Eviction drops clean pages only, so it needs no order. When dirty pages pass half of the bound, vd_meta_wants_commit()
 *     turns true and the caller commits at its next safe point.
 *
 * This is the edges of the design's contract reduced to ranks: what would have made edges run both ways (a refcount
 * that falls must follow the unlinking, one that rises must precede the linking) cannot arise, because space is only given
 * back after the commit that unlinked it (core/space.h).
 */
#ifndef VD_CORE_META_H
#define VD_CORE_META_H

#include "libvdisk/io/set.h"

#define VD_META_RANKS 4
/* Ranks by meaning; a driver uses those it needs. */
enum vd_meta_rank {
	VD_RANK_OWNER = 0,      /* says who owns space: refcount blocks; new tables nothing points at yet */
	VD_RANK_INDEX = 1,      /* points at owners: refcount table, its place in the header */
	VD_RANK_LEAF = 2,       /* points at payload: L2 tables, grain tables, BAT */
	VD_RANK_ROOT = 3,       /* points at leaves: L1 table, grain directory; commit points */
};

struct vd_meta;

/* `fresh`: the files have no name yet, so order does not matter and a commit is one flush at its end. */
int vd_meta_new(struct vd_set *set, uint64_t cache_bytes, bool fresh, struct vd_meta **out, struct vd_error *e) VD_MUST_CHECK;
void vd_meta_free(struct vd_meta *m);

/* Once, before the first access: 512..65536, a power of two, at most the format's allocation unit, so that no page holds payload. Default 512. */
void vd_meta_set_page_size(struct vd_meta *m, uint32_t page_size);

#define VD_META_NOWAIT 1        /* VD_EAGAIN instead of reading from the host */

/* Any range that does not leave the file's tables; len is small (an entry, a run of entries). Many threads at once. Each page's part of the copy is atomic against writers. */
int vd_meta_read(struct vd_meta *m, uint32_t file, uint64_t off, void *buf, size_t len, unsigned flags,
		 struct vd_error *e) VD_MUST_CHECK;
/* Changes table bytes in memory; the page keeps the highest rank it was dirtied with. Under the allocation lock. */
int vd_meta_write(struct vd_meta *m, uint32_t file, uint64_t off, const void *buf, size_t len, enum vd_meta_rank rank,
		  struct vd_error *e) VD_MUST_CHECK;
/* A new table in space that nothing points at: page-aligned range becomes zeros without being read. Under the allocation lock. */
int vd_meta_zero(struct vd_meta *m, uint32_t file, uint64_t off, uint64_t len, enum vd_meta_rank rank,
		 struct vd_error *e) VD_MUST_CHECK;
/*
 * The range holds no table any more: its pages are dropped, dirty or not. Under the allocation lock. A commit under way may
 * still write an older copy, and a reader may load the range anew, so the place for it is freed(), where neither is left.
 */
void vd_meta_forget(struct vd_meta *m, uint32_t file, uint64_t off, uint64_t len);
/* Drops every page, dirty or not: other tables are in force. Nobody reads or commits meanwhile. */
void vd_meta_forget_all(struct vd_meta *m);

bool vd_meta_wants_commit(const struct vd_meta *m);
bool vd_meta_is_dirty(const struct vd_meta *m);
/* How many snapshots were taken. Under the allocation lock; unchanged means that what was written since is in none yet. */
uint64_t vd_meta_n_snapshots(const struct vd_meta *m);

/* A page that is about to be written in place: page_size bytes. */
struct vd_meta_change {
	uint64_t off;
	uint32_t file;
	const uint8_t *data;
};
/* A log of the format's own. */
struct vd_meta_journal {
	void *ctx;
	size_t max_pages;               /* in one entry */
	/* Makes durable what the pages are to be, where open() finds it; all that was written before is durable. */
	int (*log)(void *ctx, const struct vd_meta_change *pages, size_t n, struct vd_error *e);
};
/*
 * From now on a commit logs pages, in the order of their ranks and as many as one entry takes, before it writes them in
 * place; each entry's pages are durable there before the next entry is logged. Not for fresh images.
 */
void vd_meta_set_journal(struct vd_meta *m, const struct vd_meta_journal *journal);

struct vd_meta_batch;           /* a snapshot of all dirty pages */
/* Under the allocation lock: copies, clears dirtiness. *out may come out empty (never NULL). */
int vd_meta_snapshot(struct vd_meta *m, struct vd_meta_batch **out, struct vd_error *e) VD_MUST_CHECK;
/* Without the allocation lock, one at a time (the caller serialises): writes the batch in rank order, flushes the set even when the batch is empty, frees the batch. */
int vd_meta_commit(struct vd_meta *m, struct vd_meta_batch *batch, struct vd_error *e) VD_MUST_CHECK;

#endif
