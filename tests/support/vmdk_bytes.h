/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* VMDK files built byte by byte from the formats' descriptions, for what no tool at hand makes. */
#ifndef TESTS_VMDK_BYTES_H
#define TESTS_VMDK_BYTES_H

#include "tests/support/disks.h"

#define VMDK_GRAIN 4096                 /* of all that is built here */
#define VMDK_GRAINS_AT 64               /* hosted: sector of the first grain */

struct vmdk_bytes {
	uint8_t *p;
	size_t len;
};

/*
 * A hosted sparse extent of version 1 with a redundant set of tables, no grains, and the descriptor embedded (NULL: none):
 *   sector 0 header, 1 descriptor (4), 5 redundant directory, 6 its tables, 30 directory, 31 its tables, 64 grains
 */
struct vmdk_bytes vmdk_hosted(uint64_t capacity, const char *descriptor);
#define VMDK_RGD_AT 5
#define VMDK_GD_AT 30
/* Adds a grain of this value at the end and names it in both tables. */
void vmdk_add_grain(struct vmdk_bytes *b, uint64_t grain, uint8_t value);
/* The entry of a grain. */
uint8_t *vmdk_entry(struct vmdk_bytes *b, uint64_t grain, bool redundant);
/* The descriptor of a single sparse extent; `more` lines at its end. */
const char *vmdk_sparse_text(uint64_t capacity, const char *more);

struct vmdk_bytes vmdk_cowd(uint64_t capacity);
void vmdk_cowd_add_grain(struct vmdk_bytes *b, uint64_t grain, uint8_t value);
struct vmdk_bytes vmdk_sesparse(uint64_t capacity);
/* kind: the entry's top nibble; 3: a grain of this value. */
void vmdk_sesparse_set(struct vmdk_bytes *b, uint64_t grain, unsigned kind, uint8_t value);

/* Onto the host of disks.h; the bytes stay the caller's. */
void vmdk_put(const char *name, const struct vmdk_bytes *b);
void vmdk_put_text(const char *name, const char *text);
void vmdk_free(struct vmdk_bytes *b);

#endif
