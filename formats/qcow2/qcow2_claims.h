/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Everything that leads to a byte of the image's files: each entry of each table, of the disk and of every snapshot.
 * The host walk makes claims of it, the check counts owners. Neither the refcounts nor what nothing leads to is seen here.
 *
 * C1  Damage ends nothing: an entry that breaks a rule is told as a finding, and what it names, as far as it can be
 *     understood, is told as well. Only a host that cannot be read, and want of memory, end the visit.
 * C2  An L2 table that many L1 entries lead to at the same place of the disk is read once, its entries told once with
 *     `n` of them, however many snapshots share; and twice at most if it is named for many places, which is damage.
 * C3  Tables are read past the cache: nothing in it is dirty.
 */
#ifndef VD_FORMATS_QCOW2_CLAIMS_H
#define VD_FORMATS_QCOW2_CLAIMS_H

#include "formats/qcow2/qcow2.h"

enum vd_qcow2_kind {
	QCOW2_REF_HEADER,               /* with extensions and backing file name */
	QCOW2_REF_KEY_AREA,
	QCOW2_REF_REFT,                 /* refcount table */
	QCOW2_REF_BLOCK,                /* refcount block */
	QCOW2_REF_SNAPSHOTS,            /* snapshot table */
	QCOW2_REF_L1,
	QCOW2_REF_L2,
	QCOW2_REF_CLUSTER,              /* what an L2 entry names */
	QCOW2_REF_BITMAP_DIR,
	QCOW2_REF_BITMAP_TABLE,
	QCOW2_REF_BITMAP_BITS,
};

struct vd_qcow2_ref {
	enum vd_qcow2_kind kind;
	uint32_t file;                  /* 0, or the data file */
	uint64_t host_off, len;         /* bytes in use; it owns every cluster that they touch */
	uint64_t entry_off;             /* of the entry, in file 0; VD_HOST_NOWHERE: the header itself */
	uint64_t guest_off;             /* CLUSTER, L2, L1: where the disk has it, or what it describes; else VD_HOST_NOWHERE */
	uint32_t view;                  /* 0: the disk; n: the nth snapshot; CLUSTER: the lowest of n */
	uint32_t n;                     /* CLUSTER: L1 entries that lead to its L2 table; else 1 */
	bool is_copied;                 /* L2, CLUSTER: what the entry says; it holds for the disk alone */
	uint64_t disk_size;             /* CLUSTER: the largest disk of its views: what lies past it is vm state */
	const struct vd_qcow2_cluster *cluster; /* CLUSTER */
};

/* What is wrong with an entry that leads to `kind`. */
typedef void (*vd_qcow2_finding_fn)(void *ctx, enum vd_qcow2_kind kind, uint64_t entry_off, const struct vd_error *what);

struct vd_qcow2_visit {
	uint32_t file;
	uint64_t start, end;            /* of that file: only what meets it is told. `ref` may lower end */
	bool each;                      /* CLUSTER: once for each view, n 1 */
	bool goes_on;                   /* an L2 table that the host cannot read is a finding, with code VD_EIO */
	int (*ref)(struct vd_qcow2_visit *v, const struct vd_qcow2_ref *ref, struct vd_error *e);
	int (*table)(struct vd_qcow2_visit *v, uint64_t l2_off, struct vd_error *e);    /* before each L2 table is read; may be NULL */
	const struct vd_qcow2_ref *about;       /* while `finding` runs: what the entry says, as far as it can be understood */
	vd_qcow2_finding_fn finding;    /* of all tables, wherever what they name lies; and of one as often as visits see it */
	void *ctx;
};
int vd_qcow2_visit(const struct vd_qcow2 *s, struct vd_qcow2_visit *v, struct vd_error *e) VD_MUST_CHECK;

/* L1 entries kept at a time. Tests make it small. */
extern size_t vd_qcow2_visit_batch;

/* qcow2_walk.c: for the table of callbacks. */
int vd_qcow2_walk(void *st, struct vd_window *w, struct vd_error *e);

#endif
