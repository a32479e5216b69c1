/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* VHDX files in the tests' host in memory, made with blocks of 1 MiB and looked at and changed by their bytes. */
#ifndef TESTS_VHDX_BYTES_H
#define TESTS_VHDX_BYTES_H

#include "tests/support/qcow2_bytes.h"

#define vhdx (&vd_format_vhdx)

/* kind NULL: what follows from the parent, NULL: none. */
void vhdx_make(const char *name, uint64_t size, const char *kind, const char *parent);

/* Little-endian, n_bytes of 1 to 8. */
uint64_t le_get(const char *name, uint64_t off, unsigned n_bytes);
void le_put(const char *name, uint64_t off, unsigned n_bytes, uint64_t value);
/* Makes the checksum of a structure right, which lies behind its signature. */
void crc_put(const char *name, uint64_t off, size_t len);

/* Where the regions lie, by the first region table; the entry of a block of the first chunk; blocks a chunk. */
uint64_t vhdx_bat(const char *name);
uint64_t vhdx_metadata(const char *name);
uint64_t vhdx_entry(const char *name, uint64_t block);
uint64_t vhdx_chunk_ratio(const char *name);

#endif
