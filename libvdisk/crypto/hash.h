/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Hashes of what comes in pieces. One thread at a time. */
#ifndef VD_CRYPTO_HASH_H
#define VD_CRYPTO_HASH_H

#include "libvdisk/base/error.h"

enum vd_hash_kind { VD_SHA1, VD_SHA256, VD_SHA512 };
#define VD_SHA256_LEN 32
#define VD_HASH_MAX 64          /* bytes of the longest */

struct vd_hash;

int vd_hash_new(enum vd_hash_kind kind, struct vd_hash **out, struct vd_error *e) VD_MUST_CHECK;
void vd_hash_free(struct vd_hash *h);
void vd_hash_add(struct vd_hash *h, const void *bytes, size_t len);
/* Ends it; out has room for VD_HASH_MAX. The length in bytes. */
size_t vd_hash_end(struct vd_hash *h, uint8_t *out);

#endif
