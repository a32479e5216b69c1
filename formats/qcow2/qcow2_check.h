/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the check and the repair share: rules that a word of a table keeps, and what can be done for one that does not. */
#ifndef VD_FORMATS_QCOW2_CHECK_H
#define VD_FORMATS_QCOW2_CHECK_H

#include "formats/qcow2/qcow2_tally.h"

/* A rule that an entry of an L1 or L2 table breaks. */
struct vd_qcow2_fault {
	enum vd_finding_kind kind;
	const char *text;
	bool has_right;                 /* what it must have been can be told */
};
#define QCOW2_FAULTS_MAX 6

/* An entry as it lies in a table, 8 bytes or 16. */
struct vd_qcow2_word {
	uint64_t first, bitmap;         /* bitmap: extended L2 only */
};

/*
 * All rules that the entry of `ref` (an L1 or L2 entry) breaks, apart from those about refcounts and about who else is where
 * it leads. *right is the entry with those put right that can be. Returns how many.
 */
size_t vd_qcow2_entry_faults(const struct vd_qcow2 *s, const struct vd_qcow2_ref *ref, struct vd_qcow2_word word,
			     struct vd_qcow2_fault *faults, struct vd_qcow2_word *right);
int vd_qcow2_word_read(const struct vd_qcow2 *s, const struct vd_qcow2_ref *ref, struct vd_qcow2_word *word,
		       struct vd_error *e) VD_MUST_CHECK;
/* The table that the entry lies in is in nobody's way, so that the entry may be changed where it is. In the window. */
bool vd_qcow2_table_is_alone(const struct vd_qcow2_tally *t, uint64_t entry_off);
/* A cluster that is used for two things, of which one is a table. */
bool vd_qcow2_use_clashes(uint16_t uses);
/* The repair moves all tables but one, or all, out of such a cluster. */
bool vd_qcow2_clash_is_mendable(uint16_t uses);
/* ... and cannot even begin: it would move the very table that makes an L2 table's place be known for wrong. */
bool vd_qcow2_clash_blocks(uint16_t uses);

/* Nothing that is needed, and qemu stumbles over it. */
static inline bool vd_qcow2_snap_off_is_odd(const struct vd_qcow2_header *h)
{
	return !h->n_snapshots && h->snap_off & ((UINT64_C(1) << h->cluster_bits) - 1);
}

/* The copied flag that an entry of the disk should have. refcount: of the cluster that it names. */
static inline bool vd_qcow2_wants_copied(uint64_t refs, uint64_t refcount, uint64_t max)
{
	return vd_min_u64(vd_max_u64(refs, refcount), max) == 1;
}

/* qcow2_check.c, qcow2_mend.c: for the table of callbacks. */
int vd_qcow2_check(void *st, struct vd_check *c, struct vd_error *e);
int vd_qcow2_mend(void *st, enum vd_repair repair, struct vd_check *c, struct vd_error *e);

#endif
