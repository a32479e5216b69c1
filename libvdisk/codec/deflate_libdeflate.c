/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Unpacks deflate with libdeflate, about twice as fast as zlib. Packing is left to ISA-L and zlib: libdeflate knows
 * no 4 KiB window.
 */
#include "libvdisk/codec/coder.h"

#include <libdeflate.h>

static int unpacker_open(void **handle, struct vd_error *e)
{
	*handle = libdeflate_alloc_decompressor();
	return *handle ? 0 : vd_fail(e, VD_ENOMEM, "not enough memory for libdeflate");
}

static void unpacker_close(void *handle)
{
	libdeflate_free_decompressor(handle);
}

static int judge(enum libdeflate_result result, size_t dst_len, struct vd_error *e)
{
	switch (result) {
	case LIBDEFLATE_SUCCESS:
		return 0;
	case LIBDEFLATE_INSUFFICIENT_SPACE:
		return vd_codec_too_much(dst_len, e);
	default:
		return vd_codec_broken(e);
	}
}

/* The _ex calls are the ones documented to stop where the stream ends, wherever src does. */
static int unpack(void *handle, void *dst, size_t dst_len, const void *src, size_t src_len, size_t *got,
		  struct vd_error *e)
{
	size_t used;

	return judge(libdeflate_deflate_decompress_ex(handle, src, src_len, dst, dst_len, &used, got), dst_len, e);
}

static int unpack_framed(void *handle, void *dst, size_t dst_len, const void *src, size_t src_len, size_t *got,
			 struct vd_error *e)
{
	size_t used;

	return judge(libdeflate_zlib_decompress_ex(handle, src, src_len, dst, dst_len, &used, got), dst_len, e);
}

static const struct vd_coder framed_unpacker = {
	.open = unpacker_open, .close = unpacker_close, .run = unpack_framed,
};
const struct vd_coder vd_libdeflate_unpacker = {
	.open = unpacker_open, .close = unpacker_close, .run = unpack, .framed = &framed_unpacker,
};
