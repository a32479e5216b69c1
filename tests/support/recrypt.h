/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Turns the payload of an image on the host of disks.h from one cipher to another, cluster by cluster as the host walk has
 * them: what a conversion in place does, without anything that makes it safe.
 */
#ifndef TESTS_RECRYPT_H
#define TESTS_RECRYPT_H

#include "tests/support/disks.h"

struct recrypt {
	struct vd_layer layer;
	uint8_t *header;
	size_t header_len;
};

/* A new volume key, and a LUKS header that the passphrase of variant.h opens. */
void recrypt_init(struct recrypt *c);
void recrypt_free(struct recrypt *c);

/* A handle for changes of shape and tables, which has the data file, too. */
struct vd_image *recrypt_open(unsigned flags);
/* All data in place, in each file up to `end`; NULL: plain. */
void recrypt_data(struct vd_image *img, uint64_t end, const struct vd_layer *from, const struct vd_layer *to);
/* The driver's set_key_area; NULL: none. */
int recrypt_set(struct vd_image *img, const struct recrypt *c, struct vd_error *e);

#endif
