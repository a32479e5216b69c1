/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A set of bytes of a disk, in blocks of 64 KiB or more: put in any order, in memory that has a bound whatever is put. What it says is never
 * less than what was put. Where it comes from is others' to know.
 */
#ifndef TOOLS_BACKUP_BLOCKSET_H
#define TOOLS_BACKUP_BLOCKSET_H

#include <stdbool.h>
#include <stdint.h>

struct blockset {
	uint64_t size;                  /* bytes of the disk */
	uint64_t n_blocks;
	unsigned shift;                 /* log2 of a block's bytes */
	uint64_t *bits;
};

/* What the blocks of a disk of this size have. */
unsigned blockset_shift(uint64_t size);
/* False: no memory. */
bool blockset_init(struct blockset *s, uint64_t size);
void blockset_fini(struct blockset *s);
/* What lies past the end is left out. */
void blockset_put(struct blockset *s, uint64_t off, uint64_t len);
/* The first range at or after `off`, within the disk; *len 0: none. */
void blockset_next(const struct blockset *s, uint64_t off, uint64_t *start, uint64_t *len);
uint64_t blockset_bytes(const struct blockset *s);

#endif
