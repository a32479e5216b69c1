/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The partitions of a disk, by its table: GPT or MBR. What is in them is nobody's business here. */
#ifndef TOOLS_PARTITIONS_H
#define TOOLS_PARTITIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <vdisk.h>

#define PARTITIONS_MAX 128

struct partition {
	unsigned number;        /* as Linux counts: place in the table; logical ones of an MBR from 5 on */
	uint64_t off, len;      /* on the disk, wholly inside it; len never 0 */
};
struct partitions {
	const char *scheme;     /* "gpt", "mbr"; NULL: there is no table */
	bool is_backup;         /* GPT: the first copy does not hold */
	size_t n, n_refused;    /* refused: they reach past the disk, or there are too many */
	struct partition at[PARTITIONS_MAX];
};

/* A table that does not hold is none: the disk was a stranger's. Fails only when the disk cannot be read. */
int partitions_read(struct vd_image *img, struct partitions *p, struct vd_error *e);

#endif
