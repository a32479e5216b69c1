/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Allocation with an honest failure path; the failure countdown is for tests and costs one relaxed load. */
#include "libvdisk/base/alloc.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 4096 /* alignment that O_DIRECT and vector loads are content with */

static atomic_long fail_after = -1;

long vd_alloc_fail_after(long n)
{
	return atomic_exchange(&fail_after, n);
}

static bool must_fail(void)
{
	if (atomic_load_explicit(&fail_after, memory_order_relaxed) < 0)
		return false;
	return atomic_fetch_sub(&fail_after, 1) == 0;
}

static int no_memory(struct vd_error *e, size_t n, size_t size)
{
	return vd_fail(e, VD_ENOMEM, "not enough memory for %zu x %zu bytes", n, size);
}

int vd_alloc(size_t n, size_t size, void *out, struct vd_error *e)
{
	void *p = must_fail() ? NULL : calloc(n ? n : 1, size ? size : 1);

	if (!p)
		return no_memory(e, n, size);
	memcpy(out, &p, sizeof(p));
	return 0;
}

int vd_alloc_buffer(size_t len, void *out, struct vd_error *e)
{
	void *p = NULL;

	if (must_fail() || posix_memalign(&p, PAGE, len ? len : 1))
		return no_memory(e, 1, len);
	memcpy(out, &p, sizeof(p));
	return 0;
}

int vd_realloc(void *p, size_t n, size_t size, struct vd_error *e)
{
	void *old, *grown;

	memcpy(&old, p, sizeof(old));
	grown = must_fail() ? NULL : reallocarray(old, n ? n : 1, size ? size : 1);
	if (!grown)
		return no_memory(e, n, size);
	memcpy(p, &grown, sizeof(grown));
	return 0;
}

int vd_memdup(const void *src, size_t len, void *out, struct vd_error *e)
{
	void *p;
	int r = vd_alloc(1, len, &p, e);

	if (r < 0)
		return r;
	if (len)
		memcpy(p, src, len);
	memcpy(out, &p, sizeof(p));
	return 0;
}

int vd_strdup(const char *s, char **out, struct vd_error *e)
{
	return vd_memdup(s, strlen(s) + 1, out, e);
}
