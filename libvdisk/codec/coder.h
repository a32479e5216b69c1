/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What each compression library offers to codec.c: one direction of one format. A handle serves one thread at a time
 * and is used again and again.
 */
#ifndef VD_CODEC_CODER_H
#define VD_CODEC_CODER_H

#include "libvdisk/codec/codec.h"

struct vd_coder {
	int (*open)(void **handle, struct vd_error *e);
	void (*close)(void *handle);
	/*
	 * *got becomes how many bytes dst has received. A packer sets it to 0 when dst has no room for all. An unpacker
	 * stops at the end of the stream, whatever follows in src; broken streams, and such that hold more than dst
	 * takes, are VD_ECORRUPT.
	 */
	int (*run)(void *handle, void *dst, size_t dst_len, const void *src, size_t src_len, size_t *got,
		   struct vd_error *e);
	const struct vd_coder *framed;  /* deflate: the same library in the frame of RFC 1950 */
};

extern const struct vd_coder vd_zlib_packer, vd_zlib_unpacker;
extern const struct vd_coder vd_isal_packer;            /* with VD_HAVE_ISAL */
extern const struct vd_coder vd_libdeflate_unpacker;    /* with VD_HAVE_LIBDEFLATE */
extern const struct vd_coder vd_zstd_packer, vd_zstd_unpacker;

/* vd_codec_new() with the given coders for deflate instead of the fastest that were built in. */
int vd_codec_new_with(const struct vd_coder *deflate_packer, const struct vd_coder *deflate_unpacker,
		      struct vd_codec **out, struct vd_error *e) VD_MUST_CHECK;

/* The two ways in which a stream can be wrong, worded alike whichever library has found it. */
int vd_codec_broken(struct vd_error *e);
int vd_codec_too_much(size_t dst_len, struct vd_error *e);

#endif
