/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Random bytes fit for keys, and the start of libgcrypt. */
#ifndef VD_CRYPTO_RANDOM_H
#define VD_CRYPTO_RANDOM_H

#include "libvdisk/base/error.h"

int vd_random(void *buf, size_t len, struct vd_error *e) VD_MUST_CHECK;
/* Initialises libgcrypt once a process, unless the application has; every entry point that uses libgcrypt calls it. */
int vd_crypto_init(struct vd_error *e) VD_MUST_CHECK;

#endif
