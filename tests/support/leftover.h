/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Looks for secrets that have been left behind in this process's memory. */
#ifndef VD_TESTS_LEFTOVER_H
#define VD_TESTS_LEFTOVER_H

#include <stddef.h>
#include <stdint.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define VD_SANITIZED 1 /* their shadow memory is too large to search, and they make mlock() do nothing */
#else
#define VD_SANITIZED 0
#endif

/* A searcher must not hold what it looks for: bytes are handed over with SHIFT added to each. */
#define VD_LEFTOVER_SHIFT 0x55

/* How often the bytes are in writable memory. */
int vd_leftovers(const uint8_t *shifted, size_t len);

#endif
