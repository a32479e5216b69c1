/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Looks for secrets in the memory of a process: this one, or a child that stands still. */
#ifndef VD_TESTS_LEFTOVER_H
#define VD_TESTS_LEFTOVER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define VD_SANITIZED 1 /* their shadow memory is too large to search, and they make mlock() do nothing */
#else
#define VD_SANITIZED 0
#endif

/* A searcher must not hold what it looks for: bytes are handed over with SHIFT added to each. */
#define VD_LEFTOVER_SHIFT 0x55

struct vd_leftovers {
	int all;                /* how often the bytes are in readable memory, and of these ... */
	int swappable;          /* ... where it is not locked (VmFlags "lo"), */
	int dumped;             /* ... where a core file would have it (no VmFlags "dd") */
};
struct vd_leftovers vd_leftovers_of(pid_t pid, const uint8_t *shifted, size_t len);

/* How often the bytes are in memory of this process. */
int vd_leftovers(const uint8_t *shifted, size_t len);

/* Adds SHIFT to each byte, which is what the above takes. */
void vd_leftover_shift(uint8_t *bytes, size_t len);

#endif
