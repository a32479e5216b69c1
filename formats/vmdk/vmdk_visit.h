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
	bool is_mended;                 /* the other set of tables has what is right */
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

/* vmdk_walk.c */
int vd_vmdk_walk(void *st, struct vd_window *w, struct vd_error *e);
/* vmdk_check.c */
extern const struct vd_repair_ops vd_vmdk_repair_ops;

#endif
