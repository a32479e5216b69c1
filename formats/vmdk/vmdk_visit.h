/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Every entry that leads to bytes of a disk's files, one after the other: for the host walk and for the check. */
#ifndef VD_FORMATS_VMDK_VISIT_H
#define VD_FORMATS_VMDK_VISIT_H

#include "formats/vmdk/vmdk.h"

enum vd_vmdk_ref_kind {
	VMDK_REF_HEADER,                /* headers, footers, markers */
	VMDK_REF_DESCRIPTOR,
	VMDK_REF_GD, VMDK_REF_RGD, VMDK_REF_GT, VMDK_REF_RGT,
	VMDK_REF_SE_JOURNAL, VMDK_REF_SE_MAP,   /* seSparse: journal; bitmap of free grains, back map */
	VMDK_REF_DATA,                  /* a grain, or a flat extent */
	VMDK_REF_PACKED,
};

struct vd_vmdk_ref {
	enum vd_vmdk_ref_kind kind;
	uint32_t file;
	uint64_t host_off, len, used;   /* used <= len: the rest is padding */
	uint64_t guest_off;             /* UINT64_MAX: none */
	uint64_t entry_off;             /* in the same file; UINT64_MAX: none */
};

/* Something wrong with an entry. */
struct vd_vmdk_fault {
	enum vd_finding_kind kind;
	uint32_t file;
	uint64_t entry_off, guest_off, n;
	bool can_mend;                  /* the other set of tables has what is right, and this one can be written */
	const struct vd_error *what;
};

struct vd_vmdk_visit {
	struct vd_vmdk *s;
	void *ctx;
	uint32_t file;                  /* of this file alone; UINT32_MAX: of all */
	int (*take)(struct vd_vmdk_visit *v, const struct vd_vmdk_ref *ref, struct vd_error *e);
	int (*fault)(struct vd_vmdk_visit *v, const struct vd_vmdk_fault *f, struct vd_error *e);
	bool compares;                  /* the two sets of tables with each other, too */
};

/* Alone on the handle, or beside readers. Fails as the callbacks do, or for want of memory. */
int vd_vmdk_visit(struct vd_vmdk_visit *v, struct vd_error *e) VD_MUST_CHECK;

/*
 * Of two entries for one grain, the first set's and the redundant one's, which may differ: what both are to be. False when
 * that is not known. The guest reads the first where that makes sense; what the second alone names may be what damage has
 * taken out of the first, unless the disk was not closed cleanly: the second set is written first.
 */
bool vd_vmdk_pair(const struct vd_vmdk_extent *x, uint32_t first, uint32_t second, uint32_t *right);
/* Its tables may be written by a repair. */
bool vd_vmdk_is_mendable(const struct vd_vmdk *s, const struct vd_vmdk_extent *x);
/* The mark of an unclean close may be taken back. */
bool vd_vmdk_can_be_clean(const struct vd_vmdk *s, const struct vd_vmdk_extent *x);
/* A header that says so is refused by some. */
bool vd_vmdk_overhead_is_past(const struct vd_vmdk *s, const struct vd_vmdk_extent *x);

/* vmdk_walk.c */
int vd_vmdk_walk(void *st, struct vd_window *w, struct vd_error *e);
/* vmdk_mend.c */
int vd_vmdk_mend(void *st, enum vd_repair repair, struct vd_check *c, struct vd_error *e);
/* vmdk_check.c */
/*
 * Releases what no table names, and cuts the end of the files off. Where an entry makes no sense, or the two sets say
 * different things, all of the file stays: what no table names may be what was lost.
 */
int vd_vmdk_give_back(struct vd_vmdk *s, struct vd_check *c, struct vd_error *e) VD_MUST_CHECK;
extern const struct vd_repair_ops vd_vmdk_repair_ops;

#endif
