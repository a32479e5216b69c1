/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Hashes by libgcrypt. */
#include "libvdisk/crypto/hash.h"

#include <gcrypt.h>
#include <string.h>

#include "libvdisk/crypto/random.h"

static const int algos[] = { [VD_SHA1] = GCRY_MD_SHA1, [VD_SHA256] = GCRY_MD_SHA256, [VD_SHA512] = GCRY_MD_SHA512 };

int vd_hash_new(enum vd_hash_kind kind, struct vd_hash **out, struct vd_error *e)
{
	gcry_md_hd_t h;
	int r = vd_crypto_init(e);

	if (r < 0)
		return r;
	if (gcry_md_open(&h, algos[kind], 0))
		return vd_fail(e, VD_EFAILED, "libgcrypt has no %s", gcry_md_algo_name(algos[kind]));
	*out = (struct vd_hash *)h;
	return 0;
}

void vd_hash_free(struct vd_hash *h)
{
	gcry_md_close((gcry_md_hd_t)h);
}

void vd_hash_add(struct vd_hash *h, const void *bytes, size_t len)
{
	gcry_md_write((gcry_md_hd_t)h, bytes, len);
}

size_t vd_hash_end(struct vd_hash *h, uint8_t *out)
{
	gcry_md_hd_t md = (gcry_md_hd_t)h;
	int algo = gcry_md_get_algo(md);
	size_t len = gcry_md_get_algo_dlen(algo);

	memcpy(out, gcry_md_read(md, algo), len);
	return len;
}
