/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Locked, undumpable, wiped memory; who may see a secret is its owner's business. */
#include "libvdisk/base/secret.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE ((size_t)4096)

void vd_wipe(void *p, size_t len)
{
	explicit_bzero(p, len);
}

bool vd_secret_equal(const void *a, const void *b, size_t len)
{
	const volatile uint8_t *x = a, *y = b;
	uint8_t diff = 0;

	for (size_t i = 0; i < len; i++)
		diff |= x[i] ^ y[i];
	return !diff;
}

int vd_secret_alloc(struct vd_secret *s, size_t len, struct vd_error *e)
{
	size_t mapped = (len + PAGE - 1) / PAGE * PAGE;
	void *p;

	*s = (struct vd_secret){ 0 };
	if (!mapped)
		mapped = PAGE;
	p = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return vd_fail(e, VD_ENOMEM, "not enough memory for a secret of %zu bytes", len);
	/* Best effort, each for itself: a container without RLIMIT_MEMLOCK must still be able to open its disk. */
	(void)!mlock(p, mapped);
	(void)!madvise(p, mapped, MADV_DONTDUMP);
	(void)!madvise(p, mapped, MADV_WIPEONFORK);
	*s = (struct vd_secret){ .p = p, .len = len, .mapped = mapped };
	return 0;
}

int vd_secret_copy(struct vd_secret *s, const void *src, size_t len, struct vd_error *e)
{
	int r = vd_secret_alloc(s, len, e);

	if (r < 0)
		return r;
	if (len)
		memcpy(s->p, src, len);
	return 0;
}

void vd_secret_free(struct vd_secret *s)
{
	if (s->p) {
		vd_wipe(s->p, s->mapped);
		munmap(s->p, s->mapped);
	}
	*s = (struct vd_secret){ 0 };
}
