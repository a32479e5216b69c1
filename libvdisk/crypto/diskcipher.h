/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Disk encryption of runs of sectors: AES-XTS with the plain64 tweak (IEEE 1619, LUKS "xts-plain64"), and for
 * reading old qcow2 images AES-128-CBC with a plain64 IV.
 *
 * Threads: one context serves any number of threads at once; it keeps a libgcrypt handle for each.
 */
#ifndef VD_CRYPTO_DISKCIPHER_H
#define VD_CRYPTO_DISKCIPHER_H

#include "libvdisk/base/error.h"

enum vd_diskcipher_kind {
	VD_DISKCIPHER_AES_XTS,          /* key: 32 or 64 bytes, the two halves must differ (FIPS 140-3 IG C.I) */
	VD_DISKCIPHER_AES_CBC_PLAIN64,  /* key: 16 bytes; qcow2 crypt_method 1 */
};

struct vd_diskcipher;

/* The check on an XTS key of `len` bytes: equal halves make the mode weak. Takes the same time wherever they differ. */
bool vd_xts_halves_differ(const void *key, size_t len);

/* Copies the key into locked memory. Equal halves and other sizes are VD_EKEY. */
int vd_diskcipher_new(enum vd_diskcipher_kind kind, const void *key, size_t key_len, struct vd_diskcipher **out,
		      struct vd_error *e) VD_MUST_CHECK;
/* Wipes; NULL is allowed. No call may be under way. */
void vd_diskcipher_free(struct vd_diskcipher *c);

/*
 * In place. len is a multiple of sector_size (512..4096, power of two); `unit` is the number of the first 512-byte
 * unit: with larger sectors the tweak still counts 512-byte units, as dm-crypt does without iv_large_sectors.
 */
int vd_diskcipher_encrypt(struct vd_diskcipher *c, void *buf, size_t len, uint64_t unit, size_t sector_size,
			  struct vd_error *e) VD_MUST_CHECK;
int vd_diskcipher_decrypt(struct vd_diskcipher *c, void *buf, size_t len, uint64_t unit, size_t sector_size,
			  struct vd_error *e) VD_MUST_CHECK;

#endif
