/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The acts on a chain that crashes and failures are tried on: on layer 2, which stands on 1 and that on 0, beside another, 3. */
#ifndef TESTS_CHAIN_ACTS_H
#define TESTS_CHAIN_ACTS_H

#include "tests/support/chain.h"

struct chain_act {
	const char *name;
	int (*run)(const struct chain *c, struct vd_image *img, struct vd_error *e);
	const char *before, *after;     /* names of the overlay's parent */
};

#define CHAIN_ACTS 4
extern const struct chain_act chain_acts[CHAIN_ACTS];

/* Makes such a chain: kinds from the bottom, then that of the other. */
void chain_make(struct chain *c, const char *const kinds[4], uint64_t seed);
/* Formats that know a parent by more than its name are committed one layer at a time. */
bool chain_act_suits(const struct chain_act *act, const char *const kinds[4]);

#endif
