/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A small driver that proves the contract where qcow2 cannot: data and holes alternate by sector inside a block, writes
 * need filling by the sector only, writers of one new block meet in it. It is pinned by the tests and in no registry.
 *
 *   sector 0     struct toy_header, in the machine's byte order
 *   sector 1...  block table: big-endian u32 a block, the sector where it begins; 0: hole, 1: zeros
 *   blocks       a map of one byte a sector, rounded up to whole sectors, then the data
 *
 * The map's bytes: 0: the parent's, 1: data, 2: zeros.
 */
#ifndef TESTS_TOY_H
#define TESTS_TOY_H

#include "libvdisk/core/format.h"

#define TOY_MAGIC "toydisk"
#define TOY_TABLE_OFF 512
#define TOY_BLOCK 16384                 /* default block size */
#define TOY_SIZE_MAX ((uint64_t)1 << 40)

struct toy_header {
	char magic[8];
	uint64_t size;
	uint32_t block_size;
	uint8_t is_dirty;
	char backing_file[128], backing_format[16];     /* empty: none */
};

extern const struct vd_format vd_format_toy;

#endif
