/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who names each cluster of the image file and what the refcounts say of it, a window of clusters at a time. What follows
 * from it is the check's (qcow2_check.c) and the repair's (qcow2_mend.c).
 */
#ifndef VD_FORMATS_QCOW2_TALLY_H
#define VD_FORMATS_QCOW2_TALLY_H

#include "formats/qcow2/qcow2_claims.h"

/* What a cluster is named for: bit 1 << enum vd_qcow2_kind, and these. */
#define QCOW2_TALLY_L1_SNAPSHOT (1u << 11)      /* L1 and L2 stand for the disk's, these for a snapshot's */
#define QCOW2_TALLY_L2_SNAPSHOT (1u << 12)
#define QCOW2_TALLY_COPIED      (1u << 13)      /* an entry of the disk has the copied flag */
#define QCOW2_TALLY_NOT_COPIED  (1u << 14)      /* one has not */
#define QCOW2_TALLY_TWICE       (1u << 15)      /* something that cannot be shared is named twice */
#define QCOW2_TALLY_USES        0x1fffu         /* without the flags */

/* A table of the right size, offsets of blocks that cannot be right left out. */
struct vd_qcow2_blocks {
	uint64_t *off;
	uint64_t n;
};

struct vd_qcow2_tally {
	const struct vd_qcow2 *s;
	struct vd_qcow2_blocks blocks;
	uint64_t n_clusters;            /* of the file, and of what packed clusters at its end reach into */
	uint64_t n_windows;
	uint64_t first, end;            /* clusters in the window */
	uint64_t max;                   /* clusters in any */
	uint32_t *refs;                 /* up to UINT32_MAX */
	uint16_t *uses;
	uint64_t beyond;                /* lowest offset past the end of the file that is named; UINT64_MAX: none */
	bool goes_on;                   /* past tables that the host cannot read */
	/* Sees each reference once, in the visit of the first window. May be NULL. */
	int (*each)(void *ctx, const struct vd_qcow2_ref *ref, struct vd_error *e);
	/* Before each table: how far it is through the file, all windows taken together. May be NULL. */
	int (*progress)(void *ctx, uint64_t done, uint64_t total, struct vd_error *e);
	void *ctx;
	uint64_t n_findings;            /* of the tables, in the last visit */

	/* Counts are read in small pieces: */
	uint64_t raw_first, raw_end;
	uint8_t raw[QCOW2_BATCH_BYTES];
};

/* Clusters in a window: a power of two, 64 at least. Tests make it small. */
extern uint64_t vd_qcow2_tally_window;

/* t: zero, or with callbacks. n_more: clusters behind the end of the file that are counted, too. */
int vd_qcow2_tally_init(struct vd_qcow2_tally *t, const struct vd_qcow2 *s, uint64_t n_more, struct vd_error *e) VD_MUST_CHECK;
void vd_qcow2_tally_fini(struct vd_qcow2_tally *t);
/* Counts the references to clusters of the window from `first` on, a multiple of the window's size. */
int vd_qcow2_tally_count(struct vd_qcow2_tally *t, uint64_t first, struct vd_error *e) VD_MUST_CHECK;
/* The refcount of any cluster; 0 where nothing counts it. Cheap in ascending order. */
int vd_qcow2_tally_refcount(struct vd_qcow2_tally *t, uint64_t cluster, uint64_t *count, struct vd_error *e) VD_MUST_CHECK;
/* Its bit in `uses`. */
uint16_t vd_qcow2_tally_use(const struct vd_qcow2_ref *ref);
/* What a reference is charged for: clusters first to *end, exclusive; 0 when it lies outside the image file. */
uint64_t vd_qcow2_tally_clusters(const struct vd_qcow2 *s, const struct vd_qcow2_ref *ref, uint64_t *end);

static inline bool vd_qcow2_tally_has(const struct vd_qcow2_tally *t, uint64_t cluster)
{
	return cluster >= t->first && cluster < t->end;
}

#endif
