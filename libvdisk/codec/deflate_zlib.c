/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Deflate by zlib, raw and framed, which every build has. Faster libraries have their own files. */
#include "libvdisk/codec/coder.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

#include <zlib.h>

/* qcow2's compression_type 0 has a 4 KiB window (docs/interop/qcow2.txt); negative: raw deflate, no zlib header. */
#define PACK_WINDOW_BITS (-12)
/* Reading takes the largest window: writers with longer distances exist, and the whole output is at hand anyway. */
#define UNPACK_WINDOW_BITS (-15)
#define FRAMED_WINDOW_BITS 15
#define MEM_LEVEL 9 /* the most that zlib takes: 256 KiB a handle */

static int made(int r, z_stream *z, void **handle, struct vd_error *e)
{
	if (r == Z_OK) {
		*handle = z;
		return 0;
	}
	free(z);
	return vd_fail(e, VD_ENOMEM, "not enough memory for zlib");
}

static int open_packer(int window_bits, void **handle, struct vd_error *e)
{
	z_stream *z;
	int r = vd_alloc(1, sizeof(*z), &z, e);

	if (r < 0)
		return r;
	r = deflateInit2(z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, window_bits, MEM_LEVEL, Z_DEFAULT_STRATEGY);
	return made(r, z, handle, e);
}

static int packer_open(void **handle, struct vd_error *e)
{
	return open_packer(PACK_WINDOW_BITS, handle, e);
}

static int framed_packer_open(void **handle, struct vd_error *e)
{
	return open_packer(FRAMED_WINDOW_BITS, handle, e);
}

static void packer_close(void *handle)
{
	deflateEnd(handle);
	free(handle);
}

static void set_buffers(z_stream *z, void *dst, size_t dst_len, const void *src, size_t src_len)
{
	z->next_in = (Bytef *)src;
	z->avail_in = (uInt)src_len;
	z->next_out = dst;
	z->avail_out = (uInt)dst_len;
}

static int pack(void *handle, void *dst, size_t dst_len, const void *src, size_t src_len, size_t *got,
		struct vd_error *e)
{
	z_stream *z = handle;

	(void)e;
	deflateReset(z);
	set_buffers(z, dst, dst_len, src, src_len);
	*got = deflate(z, Z_FINISH) == Z_STREAM_END ? z->total_out : 0;
	return 0;
}

static int open_unpacker(int window_bits, void **handle, struct vd_error *e)
{
	z_stream *z;
	int r = vd_alloc(1, sizeof(*z), &z, e);

	if (r < 0)
		return r;
	return made(inflateInit2(z, window_bits), z, handle, e);
}

static int unpacker_open(void **handle, struct vd_error *e)
{
	return open_unpacker(UNPACK_WINDOW_BITS, handle, e);
}

static int framed_unpacker_open(void **handle, struct vd_error *e)
{
	return open_unpacker(FRAMED_WINDOW_BITS, handle, e);
}

static void unpacker_close(void *handle)
{
	inflateEnd(handle);
	free(handle);
}

static int unpack(void *handle, void *dst, size_t dst_len, const void *src, size_t src_len, size_t *got,
		  struct vd_error *e)
{
	z_stream *z = handle;
	int r;

	inflateReset(z);
	set_buffers(z, dst, dst_len, src, src_len);
	r = inflate(z, Z_FINISH);
	if (r == Z_MEM_ERROR)
		return vd_fail(e, VD_ENOMEM, "not enough memory for zlib");
	if (r == Z_BUF_ERROR && !z->avail_out && z->avail_in)
		return vd_codec_too_much(dst_len, e);
	if (r != Z_STREAM_END)
		return vd_codec_broken(e);
	*got = z->total_out;
	return 0;
}

static const struct vd_coder framed_packer = { .open = framed_packer_open, .close = packer_close, .run = pack };
static const struct vd_coder framed_unpacker = { .open = framed_unpacker_open, .close = unpacker_close, .run = unpack };

const struct vd_coder vd_zlib_packer = {
	.open = packer_open, .close = packer_close, .run = pack, .framed = &framed_packer,
};
const struct vd_coder vd_zlib_unpacker = {
	.open = unpacker_open, .close = unpacker_close, .run = unpack, .framed = &framed_unpacker,
};
