/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Zstandard frames by libzstd: qcow2's compression_type 1. */
#include "libvdisk/codec/coder.h"

#include <zstd.h>
#include <zstd_errors.h>

/* zstd's own default, which qemu uses too: level 1 packs 1.6 times as fast but gives 5 % larger files. */
#define LEVEL 3

static int packer_open(void **handle, struct vd_error *e)
{
	*handle = ZSTD_createCCtx();
	return *handle ? 0 : vd_fail(e, VD_ENOMEM, "not enough memory for zstd");
}

static void packer_close(void *handle)
{
	ZSTD_freeCCtx(handle);
}

static int failed(size_t code, size_t dst_len, struct vd_error *e)
{
	switch (ZSTD_getErrorCode(code)) {
	case ZSTD_error_memory_allocation:
		return vd_fail(e, VD_ENOMEM, "not enough memory for zstd");
	case ZSTD_error_dstSize_tooSmall:
		return vd_codec_too_much(dst_len, e);
	default:
		return vd_codec_broken(e);
	}
}

static int pack(void *handle, void *dst, size_t dst_len, const void *src, size_t src_len, size_t *got,
		struct vd_error *e)
{
	size_t n = ZSTD_compressCCtx(handle, dst, dst_len, src, src_len, LEVEL);

	if (ZSTD_getErrorCode(n) == ZSTD_error_dstSize_tooSmall)
		n = 0;
	if (ZSTD_isError(n))
		return vd_fail(e, VD_EFAILED, "zstd: %s", ZSTD_getErrorName(n));
	*got = n;
	return 0;
}

static int unpacker_open(void **handle, struct vd_error *e)
{
	*handle = ZSTD_createDCtx();
	return *handle ? 0 : vd_fail(e, VD_ENOMEM, "not enough memory for zstd");
}

static void unpacker_close(void *handle)
{
	ZSTD_freeDCtx(handle);
}

/*
 * A unit may consist of several frames, and garbage may follow the last (qemu reads it so). Frame by frame and in one
 * piece each: dst is the window then, so that a frame which asks for a window of gigabytes costs no memory.
 */
static int unpack(void *handle, void *dst, size_t dst_len, const void *src, size_t src_len, size_t *got,
		  struct vd_error *e)
{
	const uint8_t *in = src;
	uint8_t *out = dst;

	*got = 0;
	while (*got < dst_len && src_len) {
		size_t frame = ZSTD_findFrameCompressedSize(in, src_len), n;

		if (ZSTD_isError(frame))
			return vd_codec_broken(e);
		n = ZSTD_decompressDCtx(handle, out + *got, dst_len - *got, in, frame);
		if (ZSTD_isError(n))
			return failed(n, dst_len, e);
		*got += n;
		in += frame;
		src_len -= frame;
	}
	return 0;
}

const struct vd_coder vd_zstd_packer = { .open = packer_open, .close = packer_close, .run = pack };
const struct vd_coder vd_zstd_unpacker = { .open = unpacker_open, .close = unpacker_close, .run = unpack };
