/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Stream-optimized VMDKs built grain by grain, in any order and with any fault: more than writers make. */
#ifndef TESTS_VMDK_STREAM_BYTES_H
#define TESTS_VMDK_STREAM_BYTES_H

#include "tests/support/vmdk_bytes.h"

#define STREAM_GRAIN 4096
#define STREAM_GTES 8                   /* small tables, so that a small disk has several */
#define STREAM_N_TABLES 3
#define STREAM_GRAINS (STREAM_GTES * STREAM_N_TABLES)
#define STREAM_SIZE ((uint64_t)STREAM_GRAINS * STREAM_GRAIN)
#define STREAM_FRONT 16                 /* sectors before the first marker */

struct stream_bytes {
	uint8_t *p;
	size_t len;
	bool tables_first;
	uint32_t gt[STREAM_GRAINS], gd[STREAM_N_TABLES];
	size_t gd_at, footer_at, eos_at;/* of what is behind the markers */
};

/* tables_first: as qemu writes it, else as VMware does. */
struct stream_bytes stream_start(bool tables_first);
/* Every byte of the grain is `value`. */
void stream_add(struct stream_bytes *s, unsigned grain, uint8_t value);
void stream_add_bytes(struct stream_bytes *s, unsigned grain, const uint8_t plain[STREAM_GRAIN]);
/* Tables, directory, footer, end; tables_first: the tables. */
void stream_end(struct stream_bytes *s);
void stream_free(struct stream_bytes *s);

#endif
