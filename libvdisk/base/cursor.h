/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Bounded cursors over header bytes, so that a parser reads like the specification. A read past the end sets
 * `failed`, returns zeros and never touches memory outside; the parser checks `failed` once at the end.
 */
#ifndef VD_BASE_CURSOR_H
#define VD_BASE_CURSOR_H

#include "libvdisk/base/bytes.h"

struct vd_reader {
	const uint8_t *p;
	size_t len, pos;
	bool failed;
};

static inline struct vd_reader vd_reader_of(const void *p, size_t len)
{
	return (struct vd_reader){ .p = p, .len = len };
}

/* n bytes at the cursor, or NULL past the end. */
static inline const uint8_t *vd_reader_take(struct vd_reader *r, size_t n)
{
	const uint8_t *at;

	if (r->failed || n > r->len - r->pos) {
		r->failed = true;
		return NULL;
	}
	at = r->p + r->pos;
	r->pos += n;
	return at;
}

static inline size_t vd_reader_left(const struct vd_reader *r)
{
	return r->failed ? 0 : r->len - r->pos;
}

static inline uint8_t vd_read_u8(struct vd_reader *r)
{
	const uint8_t *p = vd_reader_take(r, 1);

	return p ? *p : 0;
}

#define VD_DEFINE_READ(order, bits)                                                  \
	static inline uint##bits##_t vd_read_##order##bits(struct vd_reader *r)      \
	{                                                                            \
		const uint8_t *p = vd_reader_take(r, bits / 8);                      \
		return p ? vd_get_##order##bits(p) : 0;                              \
	}
VD_DEFINE_READ(be, 16)
VD_DEFINE_READ(be, 32)
VD_DEFINE_READ(be, 64)
VD_DEFINE_READ(le, 16)
VD_DEFINE_READ(le, 32)
VD_DEFINE_READ(le, 64)
#undef VD_DEFINE_READ

/* The writer's twin: a write past the end sets `failed` and writes nothing. */
struct vd_writer {
	uint8_t *p;
	size_t len, pos;
	bool failed;
};

static inline struct vd_writer vd_writer_of(void *p, size_t len)
{
	return (struct vd_writer){ .p = p, .len = len };
}

static inline uint8_t *vd_writer_take(struct vd_writer *w, size_t n)
{
	uint8_t *at;

	if (w->failed || n > w->len - w->pos) {
		w->failed = true;
		return NULL;
	}
	at = w->p + w->pos;
	w->pos += n;
	return at;
}

static inline void vd_write_bytes(struct vd_writer *w, const void *src, size_t n)
{
	uint8_t *p = vd_writer_take(w, n);

	if (p && n)
		memcpy(p, src, n);
}

static inline void vd_write_zeros(struct vd_writer *w, size_t n)
{
	uint8_t *p = vd_writer_take(w, n);

	if (p && n)
		memset(p, 0, n);
}

static inline void vd_write_u8(struct vd_writer *w, uint8_t v)
{
	vd_write_bytes(w, &v, 1);
}

#define VD_DEFINE_WRITE(order, bits)                                                 \
	static inline void vd_write_##order##bits(struct vd_writer *w, uint##bits##_t v) \
	{                                                                            \
		uint8_t *p = vd_writer_take(w, bits / 8);                            \
		if (p)                                                               \
			vd_put_##order##bits(p, v);                                  \
	}
VD_DEFINE_WRITE(be, 16)
VD_DEFINE_WRITE(be, 32)
VD_DEFINE_WRITE(be, 64)
VD_DEFINE_WRITE(le, 16)
VD_DEFINE_WRITE(le, 32)
VD_DEFINE_WRITE(le, 64)
#undef VD_DEFINE_WRITE

#endif
