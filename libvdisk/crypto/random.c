/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Brings libgcrypt up once a process, and gives out random bytes. What is done with them is left to the callers.
 */
#include "libvdisk/crypto/random.h"

#include <errno.h>
#include <gcrypt.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>

/* The first release with XTS, whose data-unit counter diskcipher.c relies on. */
#define OLDEST_GCRYPT "1.8.0"

/*
 * Bytes of libgcrypt's locked pool. A cipher handle takes 3040 of them (measured, 1.10.1), and each image keeps a
 * handle for every thread at work: 512 KiB is room for 170. Where little may be locked, an eighth is taken and the
 * rest left to keys; a handle that finds the pool full lives in common memory.
 */
static size_t pool_size(void)
{
	const size_t least = 32 << 10, most = 512 << 10;
	struct rlimit limit;

	if (getrlimit(RLIMIT_MEMLOCK, &limit) < 0 || limit.rlim_cur / 8 < least)
		return least;
	return limit.rlim_cur / 8 < most ? limit.rlim_cur / 8 : most;
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool is_usable;

/* libgcrypt locks its pool, but core files have it. The first block of a new pool lies on its first page. */
static void leave_out_of_core_files(size_t size)
{
	const uintptr_t page = 4096;
	void *first = gcry_malloc_secure(1);

	if (first && gcry_is_secure(first))
		(void)!madvise((void *)((uintptr_t)first & ~(page - 1)), size, MADV_DONTDUMP);
	gcry_free(first);
}

/*
 * INIT_SECMEM fails where memory may not be locked. The pool then serves unlocked, although gcry_is_secure() says
 * otherwise; like base/secret.h this library then works on, and SECURITY.md tells what is lost.
 */
static void init(void)
{
	const size_t size = pool_size();

	if (gcry_control(GCRYCTL_INITIALIZATION_FINISHED_P)) {
		is_usable = true;
		return;
	}
	if (!gcry_check_version(OLDEST_GCRYPT))
		return;
	gcry_control(GCRYCTL_DISABLE_SECMEM_WARN);
	(void)!gcry_control(GCRYCTL_INIT_SECMEM, size, 0);
	gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0);
	leave_out_of_core_files(size);
	is_usable = true;
}

int vd_crypto_init(struct vd_error *e)
{
	pthread_once(&once, init);
	if (is_usable)
		return 0;
	return vd_fail(e, VD_EUNSUPPORTED, "libgcrypt %s is too old, %s or newer is needed",
		       gcry_check_version(NULL), OLDEST_GCRYPT);
}

VD_PUBLIC int vd_libgcrypt_setup(struct vd_error *e)
{
	return vd_crypto_init(e);
}

/* The kernel's generator, not libgcrypt's pool: a forked process or a resumed VM never gets the same bytes twice. */
int vd_random(void *buf, size_t len, struct vd_error *e)
{
	uint8_t *p = buf;

	while (len) {
		ssize_t n = getrandom(p, len, 0);

		if (n < 0 && errno != EINTR)
			return vd_fail_errno(e, errno, "getting random bytes from the kernel");
		if (n > 0) {
			p += n;
			len -= (size_t)n;
		}
	}
	return 0;
}
