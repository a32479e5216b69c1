/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random chains of images on the host of disks.h: layers "l0" (at the bottom), "l1", ... of random kinds and sizes, each
 * with a byte array that says what its disk reads.
 */
#ifndef TESTS_CHAIN_H
#define TESTS_CHAIN_H

#include "tests/support/model.h"

#define CHAIN_MAX 4

struct chain_kind {
	const char *name;
	const struct vd_format *format;
	bool is_luks, is_packed;        /* packed: its disk is compressed at first; at the bottom only */
	struct vd_create_opts opts;     /* beside format, size, parent, key */
};
extern const struct chain_kind chain_kinds[];
extern const size_t n_chain_kinds;

struct chain_layer {
	char name[8];
	const struct chain_kind *kind;
	struct model m;
	int parent;                     /* index of the layer; -1: none */
};

struct chain {
	struct chain_layer at[CHAIN_MAX];
	size_t n;
	uint64_t chance;
	struct vd_key *key;             /* of all that are encrypted */
};

void chain_init(struct chain *c, uint64_t seed);
void chain_free(struct chain *c);
/* Adds a layer over another one (-1: none) and writes to it here and there; its index. Sizes are near the parent's. */
size_t chain_add(struct chain *c, const struct chain_kind *kind, int parent);
/* Of any kind that can stand there. */
const struct chain_kind *chain_any_kind(struct chain *c, int parent);
const struct chain_kind *chain_kind_named(const char *name);
const char *chain_format(const struct chain_layer *l);

int chain_open_on(const struct chain *c, struct vd_host *host, size_t i, unsigned flags, struct vd_image **img,
		  struct vd_error *e);
struct vd_image *chain_open(const struct chain *c, size_t i, unsigned flags);
/* The layer reads what its array has, and its tables are without error and without leak. */
void chain_check(const struct chain *c, size_t i);

#endif
