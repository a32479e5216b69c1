/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Bytes of image files in the tests' host in memory, read and changed behind the library's back: how a test breaks
 * one rule of an image that is good otherwise, and looks at what was written.
 */
#ifndef TESTS_QCOW2_BYTES_H
#define TESTS_QCOW2_BYTES_H

#include "tests/support/disks.h"

/* Big-endian, n_bytes of 1 to 8. */
uint64_t bytes_get(const char *name, uint64_t off, unsigned n_bytes);
void bytes_put(const char *name, uint64_t off, unsigned n_bytes, uint64_t value);
void bytes_read(const char *name, uint64_t off, void *buf, size_t len);
void bytes_write(const char *name, uint64_t off, const void *buf, size_t len);
uint64_t bytes_size(const char *name);
void bytes_truncate(const char *name, uint64_t size);

/* Offsets in the file of the first L1 entry, and of the L2 entry of a guest offset, which must have a table. */
uint64_t bytes_l1(const char *name);
uint64_t bytes_l2_entry(const char *name, uint64_t guest_off);
/* The refcount of the cluster at this offset; 0 when nothing counts it. */
uint64_t bytes_refcount(const char *name, uint64_t host_off);

/* The second opinion on the file finds no fault and no leak. */
#define expect_sound(name) expect_sound_at(name, 0, __FILE__, __LINE__)
/* No fault, and this many leaked clusters. */
#define expect_leaks(name, n) expect_sound_at(name, n, __FILE__, __LINE__)
void expect_sound_at(const char *name, unsigned n_leaks, const char *file, int line);

#endif
