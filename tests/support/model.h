/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A byte array that says what an image must read: whoever changes the image through here can compare the two at any
 * time.
 */
#ifndef TESTS_MODEL_H
#define TESTS_MODEL_H

#include "tests/support/disks.h"

struct model {
	uint64_t size;
	uint8_t *bytes;
	uint64_t chance;        /* state of the random numbers: the test's own seed */
};

/* All zeros. */
void model_init(struct model *m, uint64_t size, uint64_t seed);
void model_free(struct model *m);

/* Random bytes into both. */
void model_write(struct model *m, struct vd_image *img, uint64_t off, uint64_t len);
/* The same byte throughout, which compresses. */
void model_fill(struct model *m, struct vd_image *img, uint64_t off, uint64_t len, uint8_t value);
void model_zero(struct model *m, struct vd_image *img, uint64_t off, uint64_t len);
/* Zeros that keep or get their space. */
void model_zero_allocated(struct model *m, struct vd_image *img, uint64_t off, uint64_t len);
/* Each byte stays or becomes zero; which, the model takes from the image. */
void model_discard(struct model *m, struct vd_image *img, uint64_t off, uint64_t len);
void model_check(const struct model *m, struct vd_image *img, uint64_t off, uint64_t len);
/* From first byte to last, in pieces of odd length, so that edges of the image and of the reads differ. */
void model_check_all(const struct model *m, struct vd_image *img);

/* splitmix64; below(n) is 0..n-1. */
uint64_t chance_next(uint64_t *state);
uint64_t chance_below(uint64_t *state, uint64_t n);

#endif
