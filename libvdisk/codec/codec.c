/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Chooses the library that packs or unpacks, keeps its handles, and holds results to the promised size. The work of
 * each library is in its own file.
 */
#include "libvdisk/codec/coder.h"

#include <string.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/base/freelist.h"

/* Reading: libdeflate is about twice as fast as zlib. Writing: see deflate_isal.c. */
#ifdef VD_HAVE_LIBDEFLATE
#define DEFLATE_UNPACKER vd_libdeflate_unpacker
#else
#define DEFLATE_UNPACKER vd_zlib_unpacker
#endif
#ifdef VD_HAVE_ISAL
#define DEFLATE_PACKER vd_isal_packer
#else
#define DEFLATE_PACKER vd_zlib_packer
#endif

/* The libraries count in 32 bits; no format has units near this size. */
#define MAX_LEN ((size_t)1 << 30)

enum direction { PACK, UNPACK, N_DIRECTIONS };

struct channel {
	const struct vd_coder *coder;
	struct vd_freelist handles;
};

struct vd_codec {
	struct channel deflate[N_DIRECTIONS], zlib[N_DIRECTIONS], zstd[N_DIRECTIONS];
};

static void channel_init(struct channel *ch, const struct vd_coder *coder)
{
	ch->coder = coder;
	vd_freelist_init(&ch->handles, coder->close);
}

int vd_codec_new_with(const struct vd_coder *deflate_packer, const struct vd_coder *deflate_unpacker,
		      struct vd_codec **out, struct vd_error *e)
{
	struct vd_codec *c;
	int r = vd_alloc(1, sizeof(*c), &c, e);

	if (r < 0)
		return r;
	channel_init(&c->deflate[PACK], deflate_packer);
	channel_init(&c->deflate[UNPACK], deflate_unpacker);
	channel_init(&c->zlib[PACK], deflate_packer->framed);
	channel_init(&c->zlib[UNPACK], deflate_unpacker->framed);
	channel_init(&c->zstd[PACK], &vd_zstd_packer);
	channel_init(&c->zstd[UNPACK], &vd_zstd_unpacker);
	*out = c;
	return 0;
}

int vd_codec_new(struct vd_codec **out, struct vd_error *e)
{
	return vd_codec_new_with(&DEFLATE_PACKER, &DEFLATE_UNPACKER, out, e);
}

void vd_codec_free(struct vd_codec *c)
{
	if (!c)
		return;
	for (int d = 0; d < N_DIRECTIONS; d++) {
		vd_freelist_fini(&c->deflate[d].handles);
		vd_freelist_fini(&c->zlib[d].handles);
		vd_freelist_fini(&c->zstd[d].handles);
	}
	free(c);
}

int vd_codec_broken(struct vd_error *e)
{
	return vd_fail(e, VD_ECORRUPT, "the compressed data are damaged");
}

int vd_codec_too_much(size_t dst_len, struct vd_error *e)
{
	return vd_fail(e, VD_ECORRUPT, "the compressed data expand to more than %zu bytes", dst_len);
}

static struct channel *channel_of(struct vd_codec *c, enum vd_codec_kind kind, enum direction d)
{
	switch (kind) {
	case VD_CODEC_DEFLATE12:
		return &c->deflate[d];
	case VD_CODEC_ZLIB:
		return &c->zlib[d];
	case VD_CODEC_ZSTD:
		return &c->zstd[d];
	case VD_CODEC_NONE:
		break;
	}
	return NULL;
}

static int run(struct vd_codec *c, enum vd_codec_kind kind, enum direction d, void *dst, size_t dst_len,
	       const void *src, size_t src_len, size_t *got, struct vd_error *e)
{
	struct channel *ch = channel_of(c, kind, d);
	void *handle;
	int r;

	if (!ch)
		return vd_fail(e, VD_EUNSUPPORTED, "unknown compression type %d", (int)kind);
	if (dst_len > MAX_LEN || src_len > MAX_LEN)
		return vd_fail(e, VD_EARG, "%zu bytes are too many for one compressed unit",
			       dst_len > src_len ? dst_len : src_len);
	handle = vd_freelist_get(&ch->handles);
	if (!handle && (r = ch->coder->open(&handle, e)) < 0)
		return r;
	r = ch->coder->run(handle, dst, dst_len, src, src_len, got, e);
	vd_freelist_put(&ch->handles, handle);
	return r;
}

int vd_codec_unpack_some(struct vd_codec *c, enum vd_codec_kind kind, void *dst, size_t dst_len, size_t least,
			 const void *src, size_t src_len, struct vd_error *e)
{
	size_t got = 0;
	int r = run(c, kind, UNPACK, dst, dst_len, src, src_len, &got, e);

	if (r < 0)
		return r;
	if (got < least)
		return vd_fail(e, VD_ECORRUPT, "the compressed data expand to %zu bytes instead of %zu", got, least);
	memset((uint8_t *)dst + got, 0, dst_len - got);
	return 0;
}

int vd_codec_unpack(struct vd_codec *c, enum vd_codec_kind kind, void *dst, size_t dst_len, const void *src,
		    size_t src_len, struct vd_error *e)
{
	return vd_codec_unpack_some(c, kind, dst, dst_len, dst_len, src, src_len, e);
}

int vd_codec_pack(struct vd_codec *c, enum vd_codec_kind kind, void *dst, size_t dst_cap, const void *src,
		  size_t src_len, size_t *packed_len, struct vd_error *e)
{
	return run(c, kind, PACK, dst, dst_cap, src, src_len, packed_len, e);
}
