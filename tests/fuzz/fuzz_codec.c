/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Compressed clusters from strangers. Byte 0 of an input chooses the format (even: deflate, odd: zstd) and the size of
 * the cluster (512 << bits 1-3), the rest is the stream. Whatever the bytes, unpacking stays inside both buffers, two
 * libraries never disagree on what a stream means, and packing them comes back the same.
 */
#include <stdlib.h>
#include <string.h>

#include "libvdisk/codec/coder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void must(bool holds)
{
	if (!holds)
		abort();
}

static bool unpacks(struct vd_codec *c, enum vd_codec_kind kind, uint8_t *dst, size_t dst_len, const uint8_t *src, size_t len)
{
	int r = vd_codec_unpack(c, kind, dst, dst_len, src, len, NULL);

	must(r == 0 || r == VD_ECORRUPT);
	return r == 0;
}

static void packs(struct vd_codec *c, enum vd_codec_kind kind, const uint8_t *src, size_t len)
{
	size_t cap = len + len / 8 + 1024, n = 0;
	uint8_t *packed = malloc(cap), *back = malloc(len);

	must(packed && back && vd_codec_pack(c, kind, packed, cap, src, len, &n, NULL) == 0 && n);
	must(unpacks(c, kind, back, len, packed, n) && !memcmp(back, src, len));
	free(packed);
	free(back);
}

static struct vd_codec *fast, *plain;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	enum vd_codec_kind kind = len && data[0] & 1 ? VD_CODEC_ZSTD : len && data[0] & 16 ? VD_CODEC_ZLIB : VD_CODEC_DEFLATE12;
	size_t dst_len = len ? (size_t)512 << (data[0] >> 1 & 7) : 0;
	uint8_t *a = malloc(dst_len), *b = malloc(dst_len);

	if (!fast)
		must(vd_codec_new(&fast, NULL) == 0 && vd_codec_new_with(&vd_zlib_packer, &vd_zlib_unpacker, &plain, NULL) == 0);
	if (len > 1 && a && b) {
		bool by_fast = unpacks(fast, kind, a, dst_len, data + 1, len - 1);
		bool by_plain = unpacks(plain, kind, b, dst_len, data + 1, len - 1);

		must(!by_fast || !by_plain || !memcmp(a, b, dst_len));
		packs(fast, kind, data + 1, len - 1);
	}
	free(a);
	free(b);
	return 0;
}
