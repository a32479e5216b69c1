/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The window: a piece of one host file, and who says that bytes of it are his. A driver's walk() claims all that its
 * tables say lies inside; cover.c makes of the claims a gapless row of runs with one owner each.
 *
 * D1  A driver claims whatever its entries name, judged or not: what is claimed twice becomes CORRUPT, what is not
 *     claimed is taken for free, and free space may be scrubbed. A bad entry is a finding, not the end of the walk.
 * D2  Claims come in any order and may reach past the window; what lies outside is dropped. w->end may fall with any
 *     claim, when they are too many for the memory there is: a driver looks at it anew where that saves work.
 * D3  What several entries may lead to is claimed in pieces that are the same for all of them (a unit, a subcluster),
 *     so that equal ranges meet. Several entries that the driver knows of at once are one claim with refs. The opposite
 *     is is_sole, which keeps long rows short.
 * D4  The format's own accounts come after all claims, in ascending order, and claim nothing.
 *
 * Memory is bounded by VD_WINDOW_CLAIMS, whatever the image says.
 */
#ifndef VD_CORE_WINDOW_H
#define VD_CORE_WINDOW_H

#include "libvdisk/base/error.h"

/* Windows begin and end at multiples of this, or with the file: no format's unit that is counted is larger. */
#define VD_WINDOW_ALIGN (UINT64_C(2) << 20)
/* 48 bytes each, and a third more while they are sorted. */
#define VD_WINDOW_CLAIMS (UINT64_C(2) << 20)
#define VD_WINDOW_COUNTS (UINT64_C(1) << 20)

struct vd_claim {
	uint64_t host_off, len;         /* len not 0 */
	uint64_t guest_off;             /* as in struct vd_host_run; leaf tables: what they describe */
	uint64_t parent_off;            /* of the entry that names host_off */
	uint32_t view;
	uint32_t refs;                  /* entries that lead here: 1, or more with `view` the lowest */
	uint8_t owner;                  /* enum vd_owner: any but FREE, LEAKED, TAIL, HOSTHOLE */
	uint8_t why;                    /* enum vd_why */
	bool is_sole;                   /* content that no other entry may lead to: neighbours become one claim, if ... */
	uint8_t unit_bits, entry_bytes; /* ... they are named side by side: so many bytes of table for each 1 << unit_bits of host */
};

/* What the format counts: each unit in [off, end) has `count` owners. */
struct vd_counted {
	uint64_t off, end, count;
};

/* A piece of the LUKS header. */
struct vd_span {
	uint64_t off, end;
};
#define VD_WINDOW_DEAD_MAX 33

struct vd_window {
	/* For the driver to read. */
	uint32_t file;                  /* index in the set */
	uint64_t start, end;            /* of that file; end <= its size */
	bool each;                      /* claim each entry once for each view, refs 1 */

	/* The core's. */
	struct vd_claim *claims;        /* sorted by vd_window_settle() */
	size_t n_claims, max_claims;
	struct vd_counted *counts;
	size_t n_counts, max_counts;
	uint64_t unit;                  /* that the format gives out; 1: none */
	uint64_t tail;                  /* nothing is in use from here on */
	bool has_counts;
	bool is_crowded;                /* more claims than fit, in a window that can get no smaller */
	struct vd_span dead[VD_WINDOW_DEAD_MAX];        /* room for key material that no keyslot uses, ascending */
	size_t n_dead;
	uint64_t n_findings;
	struct vd_error first_finding;
	int (*list)(void *ctx, const struct vd_claim *c, struct vd_error *e);   /* not NULL: takes the claims, none is kept */
	void *list_ctx;
};

/* ---- for drivers ---------------------------------------------------------------------------------------- */

/* These bytes are mine. Fails for want of memory only. */
int vd_window_claim(struct vd_window *w, const struct vd_claim *c, struct vd_error *e) VD_MUST_CHECK;
/* The file is given out in units of this many bytes, from 0 on; from `tail` on nothing ever was. Default: 1, the file's end. */
void vd_window_set_units(struct vd_window *w, uint64_t unit, uint64_t tail);
/* The format keeps accounts of its units; without this call, what is not claimed is free. */
void vd_window_has_counts(struct vd_window *w);
/* Units of [off, off+len) have so many owners by the format's account; those that are never told have none. */
int vd_window_count(struct vd_window *w, uint64_t off, uint64_t len, uint64_t count, struct vd_error *e) VD_MUST_CHECK;
/* Something is wrong with a table: `what` says what and where. */
void vd_window_finding(struct vd_window *w, const struct vd_error *what);
/* The range touches the window as it is now. */
static inline bool vd_window_meets(const struct vd_window *w, uint64_t off, uint64_t len)
{
	return off < w->end && (off >= w->start || len > w->start - off);
}

/* ---- for the core --------------------------------------------------------------------------------------- */

/* [start, end) of a file; start at a multiple of VD_WINDOW_ALIGN unless there is `list`. */
void vd_window_init(struct vd_window *w, uint32_t file, uint64_t start, uint64_t end);
/* After the driver's walk: sorted by offset, equal ranges made one. */
void vd_window_settle(struct vd_window *w);
void vd_window_fini(struct vd_window *w);
/* Where the entry lies that leads to a byte of a claim. */
uint64_t vd_claim_parent(const struct vd_claim *c, uint64_t host_off);
/* What becomes of two claims of the same bytes: the one that shows, with the refs of both, or CORRUPT. */
struct vd_claim vd_claim_join(const struct vd_claim *a, const struct vd_claim *b);
/* Tests make windows small. */
extern size_t vd_window_claims, vd_window_counts;

#endif
