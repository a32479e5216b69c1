/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The library's allocations. They never abort; a test can make the Nth fail to show that out-of-memory is
 * survived everywhere. Released with free().
 */
#ifndef VD_BASE_ALLOC_H
#define VD_BASE_ALLOC_H

#include "libvdisk/base/error.h"

/* n * size zeroed bytes; overflow of the product and want of memory are VD_ENOMEM. n == 0 gives a valid pointer. */
int vd_alloc(size_t n, size_t size, void *out, struct vd_error *e) VD_MUST_CHECK;
/* len bytes, not zeroed, at a page boundary: payload buffers. */
int vd_alloc_buffer(size_t len, void *out, struct vd_error *e) VD_MUST_CHECK;
/* Grows *p (a pointer to the old array) to n elements; the new ones are not zeroed. On failure *p is unchanged. */
int vd_realloc(void *p, size_t n, size_t size, struct vd_error *e) VD_MUST_CHECK;
int vd_strdup(const char *s, char **out, struct vd_error *e) VD_MUST_CHECK;
int vd_memdup(const void *src, size_t len, void *out, struct vd_error *e) VD_MUST_CHECK;

/* Tests: after n more successful allocations one fails, once; negative: never. Returns what was left before: negative after the failure. */
long vd_alloc_fail_after(long n);

#endif
