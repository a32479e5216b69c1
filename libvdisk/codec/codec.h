/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Compression of clusters and grains behind one interface, whichever library does the work.
 *
 * Threads: one context serves any number of threads at once; it keeps library handles for each.
 */
#ifndef VD_CODEC_CODEC_H
#define VD_CODEC_CODEC_H

#include "libvdisk/base/error.h"

enum vd_codec_kind {
	VD_CODEC_NONE,
	VD_CODEC_DEFLATE12,     /* raw deflate, 4 KiB window: qcow2 compression_type 0 */
	VD_CODEC_ZSTD,          /* zstd frames: qcow2 compression_type 1 */
	VD_CODEC_ZLIB,          /* deflate in the frame of RFC 1950, 32 KiB window, with a checksum: VMDK */
};

struct vd_codec;

int vd_codec_new(struct vd_codec **out, struct vd_error *e) VD_MUST_CHECK;
void vd_codec_free(struct vd_codec *c);

/*
 * Expands exactly dst_len bytes. src_len is an upper bound: what follows the end of the stream is ignored. A stream
 * that gives less or more, or is broken, is VD_ECORRUPT; the output buffer's content is then undefined.
 */
int vd_codec_unpack(struct vd_codec *c, enum vd_codec_kind kind, void *dst, size_t dst_len, const void *src,
		    size_t src_len, struct vd_error *e) VD_MUST_CHECK;
/* The same for a unit that may end early: at least `least` bytes, and zeros after what there is. */
int vd_codec_unpack_some(struct vd_codec *c, enum vd_codec_kind kind, void *dst, size_t dst_len, size_t least,
			 const void *src, size_t src_len, struct vd_error *e) VD_MUST_CHECK;
/* Packs src; *packed_len is 0 when the result would not fit dst_cap bytes (then the caller stores it plain). */
int vd_codec_pack(struct vd_codec *c, enum vd_codec_kind kind, void *dst, size_t dst_cap, const void *src,
		  size_t src_len, size_t *packed_len, struct vd_error *e) VD_MUST_CHECK;

#endif
