/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The kinds of image that random work and crashes are tried on, each a line in a table: how it is made on the host of
 * disks.h under the name "d", with a parent "p" and a data file "x" where it has them; and how the peer opens it.
 */
#ifndef TESTS_VARIANT_H
#define TESTS_VARIANT_H

#include "tests/support/model.h"

enum variant_flag {
	VARIANT_OVER_RAW = 1,           /* has a raw parent, shorter than the disk */
	VARIANT_OVER_SAME = 2,          /* has a parent of its own format */
	VARIANT_PACKED = 4,             /* every other unit is compressed at first */
	VARIANT_LUKS = 8,               /* encrypted: natively, or raw as a container */
	VARIANT_SNAPSHOT = 16,          /* made by the peer, with a snapshot that shares every cluster */
};

/* Beside the model of the disk: what the snapshot of it has to hold for ever. */
extern uint8_t *variant_snapshot;

struct variant {
	const char *name;
	const struct vd_format *format;
	unsigned flags;                 /* enum variant_flag */
	uint64_t size;
	uint32_t unit;                  /* allocation unit: offsets and lengths are drawn in its scale */
	struct vd_create_opts opts;     /* beside format, size, parent, key */
};

extern const struct variant variants[];
extern const size_t n_variants;

/* Makes it; the model gets its content. False: the peer that it needs is missing. */
bool variant_make(const struct variant *v, struct model *m);
/* Makes another one of the kind, over the same parent if any; neither filled nor committed. */
int variant_create_on(const struct variant *v, struct vd_host *host, const char *name, struct vd_image **img,
		      struct vd_error *e);
const struct variant *variant_named(const char *name);
/* From any host that has its files. cache_bytes: 0: the default; 1: as little as possible. */
int variant_open_on(const struct variant *v, struct vd_host *host, const char *name, unsigned flags,
		    uint64_t cache_bytes, struct vd_image **img, struct vd_error *e);
struct vd_image *variant_open(const struct variant *v, unsigned flags);
/* A snapshot inside the image, for reading. */
int variant_open_snapshot(const struct variant *v, struct vd_host *host, const char *name, const char *snapshot,
			  struct vd_image **img, struct vd_error *e);
/* The snapshot, if the kind has one, holds what it held when it was taken; else says why not. */
bool variant_keeps_snapshot(const struct variant *v, struct vd_host *host, uint64_t size, struct vd_error *e);

/* Whether the peer, qemu-img, is installed; and whether it knows the format. */
bool peer_is_here(void);
bool peer_knows(const struct variant *v);
/* Copies all files of a host in memory to the current folder, where qemu-img checks "d": no errors, leaks if allowed. */
void peer_check(const struct variant *v, struct vd_host *mem, bool may_leak);
/* ... and compares it, and what its snapshot holds, with the model. */
void peer_compare(const struct variant *v, struct vd_host *mem, const struct model *m);

#endif
