/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the acts that change a whole image at once share: the list of snapshots, and the transaction that brings a new
 * set of tables into force.
 *
 *   snapshot table = n_snapshots entries, each padded to 8 bytes                          "Snapshots"
 *   entry          = l1_off:u64 l1_size:u32 id_len:u16 name_len:u16 date_sec:u32 date_nsec:u32 vm_clock:u64
 *                    vm_state_size:u32 extra_len:u32 extra:u8[extra_len] id:u8[id_len] name:u8[name_len]
 *   extra          = vm_state_size:u64 disk_size:u64 icount:u64, as far as extra_len goes, then what is unknown
 */
#ifndef VD_FORMATS_QCOW2_SHAPE_H
#define VD_FORMATS_QCOW2_SHAPE_H

#include <stdlib.h>

#include "formats/qcow2/qcow2.h"

#define QCOW2_AT_SIZE           24      /* of the disk, in the header */

struct vd_qcow2_snapshot {
	uint64_t at;                    /* offset of its entry, when it was read */
	uint64_t l1_off;
	uint32_t l1_size;
	uint32_t date_sec, date_nsec;
	uint64_t vm_clock, vm_state_size, disk_size, icount;
	char *id, *name;
	uint8_t *more;                  /* extra data past icount */
	size_t more_len;
};

struct vd_qcow2_snapshots {
	struct vd_qcow2_snapshot *at;
	size_t n;
	uint64_t table_len;             /* bytes on disk when it was read */
};

/* qcow2_snaptable.c */
int vd_qcow2_snapshots_read(const struct vd_qcow2 *s, struct vd_qcow2_snapshots *list, struct vd_error *e) VD_MUST_CHECK;
void vd_qcow2_snapshots_free(struct vd_qcow2_snapshots *list);
static inline void vd_qcow2_snapshots_cleanup(struct vd_qcow2_snapshots *list)
{
	vd_qcow2_snapshots_free(list);
}
#define vd_auto_snapshots __attribute__((cleanup(vd_qcow2_snapshots_cleanup)))
/* Takes entry's strings over on success. */
int vd_qcow2_snapshots_add(struct vd_qcow2_snapshots *list, struct vd_qcow2_snapshot *entry,
			   struct vd_error *e) VD_MUST_CHECK;
void vd_qcow2_snapshots_remove(struct vd_qcow2_snapshots *list, size_t i);
/* By id or name. VD_ENOENT; VD_EARG when it is the id of one and the name of another, or two have the name. */
int vd_qcow2_snapshots_find(const struct vd_qcow2 *s, const struct vd_qcow2_snapshots *list, const char *name,
			    size_t *i, struct vd_error *e) VD_MUST_CHECK;
/* The table's bytes, malloc'ed, padded with zeros to whole clusters. */
int vd_qcow2_snapshots_encode(const struct vd_qcow2 *s, const struct vd_qcow2_snapshots *list, uint8_t **out,
			      size_t *len, struct vd_error *e) VD_MUST_CHECK;

/* What an L1 table names: the offsets of L2 tables without flags, 0 where there is none. */
struct vd_qcow2_tree {
	uint64_t l1_off;
	uint32_t l1_size;
	uint64_t *l2;
};
/* Judges the table's place and each entry. */
int vd_qcow2_tree_read(const struct vd_qcow2 *s, uint64_t l1_off, uint32_t l1_size, struct vd_qcow2_tree *t,
		       struct vd_error *e) VD_MUST_CHECK;
static inline void vd_qcow2_tree_cleanup(struct vd_qcow2_tree *t)
{
	free(t->l2);
}
#define vd_auto_tree __attribute__((cleanup(vd_qcow2_tree_cleanup)))

/*
 * An act, as the difference between the image before and after. Trees are borrowed and may be NULL. The active L1
 * table is always built anew.
 */
struct vd_qcow2_act {
	uint64_t size;                          /* of the disk */
	uint32_t l1_size;                       /* of the active L1 table, at least 1 */
	const struct vd_qcow2_tree *active;     /* whose L2 tables are the active ones */
	uint64_t n_kept;                        /* guest clusters past these are dropped from the active tree; UINT64_MAX: none */
	const struct vd_qcow2_tree *gains;      /* what it reaches has an owner more */
	const struct vd_qcow2_tree *loses;      /* has one less, from guest cluster loses_from on */
	uint64_t loses_from;
	const struct vd_qcow2_snapshots *snapshots;     /* after */
	uint64_t old_snap_len;                  /* bytes of the snapshot table before */
	struct vd_qcow2_area dead[2];           /* L1 tables that are not needed any more; empty: none */
	uint32_t refcount_bits;                 /* after; 0: as before */
	bool ends_autoclear;                    /* the guest's bytes change, and with them what unknown autoclear bits say */
};

/*
 * Brings the act into force, durably. The caller has the image for itself with every table committed. Failed: nothing
 * has changed, but for VD_EPOISONED, after which it is not known.
 */
int vd_qcow2_shape(struct vd_qcow2 *s, const struct vd_qcow2_act *act, struct vd_error *e) VD_MUST_CHECK;

/*
 * The switch itself: the fields of the header that an act or a repair may change, in one write, made durable; this handle
 * then works with the tables that they name. VD_EPOISONED when it fails.
 */
int vd_qcow2_switch(struct vd_qcow2 *s, const struct vd_qcow2_header *h, struct vd_error *e) VD_MUST_CHECK;
/* Words of a new table, padded with zeros to whole clusters, past the cache. */
int vd_qcow2_words_write(struct vd_qcow2 *s, const uint64_t *words, uint64_t n, uint64_t cluster, uint64_t n_clusters,
			 struct vd_error *e) VD_MUST_CHECK;

/* VD_EPOISONED, in words: a write of the header failed. */
int vd_qcow2_unsure(const struct vd_qcow2 *s, struct vd_error *e);

/* qcow2_orphans.c: what an act in force has made free, but left with a count of one, goes through the core. */
struct vd_qcow2_lost {
	const struct vd_qcow2_act *act;
	struct vd_qcow2_counts *counts;         /* with the blocks, and of all clusters, before the act */
	uint64_t n_clusters;
	const bool *is_moved;                   /* L2 tables of act->active that have a copy now */
	struct vd_qcow2_area dead[4];           /* whole tables that nothing names any more */
};
int vd_qcow2_free_orphans(struct vd_qcow2 *s, const struct vd_qcow2_lost *lost, struct vd_error *e) VD_MUST_CHECK;
/* qcow2_remains.c: what of the old tables has no owner any more is overwritten. */
int vd_qcow2_wipe_tables(struct vd_qcow2 *s, const struct vd_qcow2_lost *lost, struct vd_error *e) VD_MUST_CHECK;

/* qcow2_refplan.c: owners of all clusters after an act, a window of them at a time. */
struct vd_qcow2_counts {
	const struct vd_qcow2 *s;
	const uint64_t *blocks;                 /* where the refcount blocks are; 0: none */
	uint64_t n_blocks;
	uint32_t order;                         /* width in them */
	uint64_t first, end;                    /* clusters in the window */
	uint64_t *count;
	bool *is_orphan;                        /* the last owner was taken away since load; NULL: nobody asks */
};
/* Clusters in a window: a power of two, so that it is a multiple or a part of any block's. Tests make it small. */
extern uint64_t vd_qcow2_window;

/* Fills the window with the counts as they are. */
int vd_qcow2_counts_load(struct vd_qcow2_counts *c, uint64_t first, uint64_t end, struct vd_error *e) VD_MUST_CHECK;
/* One owner more or less for those of n clusters that lie in the window; down from 0 or up from 0 is VD_ECORRUPT. */
int vd_qcow2_counts_step(struct vd_qcow2_counts *c, uint64_t cluster, uint64_t n, bool up,
			 struct vd_error *e) VD_MUST_CHECK;
/* The same for what a tree reaches from a guest cluster on. */
enum vd_qcow2_parts { QCOW2_TABLES = 1, QCOW2_DATA = 2, QCOW2_ALL = 3 };
int vd_qcow2_counts_tree(struct vd_qcow2_counts *c, const struct vd_qcow2_tree *t, uint64_t from,
			 enum vd_qcow2_parts parts, bool up, struct vd_error *e) VD_MUST_CHECK;
/* VD_EUNSUPPORTED when a count is more than this width can say. */
int vd_qcow2_counts_judge(const struct vd_qcow2_counts *c, uint32_t order, struct vd_error *e) VD_MUST_CHECK;
/* Writes the window into new blocks of this width, past the cache: blocks[i] is where block i goes, 0: nowhere. */
int vd_qcow2_counts_store(const struct vd_qcow2_counts *c, const uint64_t *blocks, uint32_t order,
			  struct vd_error *e) VD_MUST_CHECK;
/* Orphans count as owned once more, by nobody. */
void vd_qcow2_counts_keep_orphans(struct vd_qcow2_counts *c);
static inline bool vd_qcow2_counts_has(const struct vd_qcow2_counts *c, uint64_t cluster)
{
	return cluster >= c->first && cluster < c->end;
}

/* qcow2_snapshot.c, qcow2_resize.c: for the table of callbacks. */
extern const struct vd_snap_ops vd_qcow2_snap_ops;
int vd_qcow2_reach(void *st, uint64_t size, struct vd_error *e);
int vd_qcow2_resize(void *st, uint64_t size, struct vd_error *e);
/* qcow2_amend.c */
int vd_qcow2_amend(void *st, const struct vd_amend_opts *o, bool only_judge, struct vd_error *e);
/* Turns a handle that only reads, just opened, to a snapshot's disk. */
int vd_qcow2_view_snapshot(struct vd_qcow2 *s, const char *name, uint64_t file_size, struct vd_error *e) VD_MUST_CHECK;

#endif
