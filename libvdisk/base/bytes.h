/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Integers in byte arrays, big- and little-endian, at any alignment. */
#ifndef VD_BASE_BYTES_H
#define VD_BASE_BYTES_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A borrowed run of bytes. */
struct vd_bytes {
	const uint8_t *p;
	size_t len;
};

#define VD_DEFINE_ENDIAN(order, bits)                                                \
	static inline uint##bits##_t vd_get_##order##bits(const void *p)             \
	{                                                                            \
		uint##bits##_t v;                                                    \
		memcpy(&v, p, sizeof(v));                                            \
		return order##bits##toh(v);                                          \
	}                                                                            \
	static inline void vd_put_##order##bits(void *p, uint##bits##_t v)           \
	{                                                                            \
		v = hto##order##bits(v);                                             \
		memcpy(p, &v, sizeof(v));                                            \
	}
VD_DEFINE_ENDIAN(be, 16)
VD_DEFINE_ENDIAN(be, 32)
VD_DEFINE_ENDIAN(be, 64)
VD_DEFINE_ENDIAN(le, 16)
VD_DEFINE_ENDIAN(le, 32)
VD_DEFINE_ENDIAN(le, 64)
#undef VD_DEFINE_ENDIAN

/* True when all bytes are zero. At memory speed on a buffer of any alignment. */
bool vd_is_zero(const void *p, size_t len);

#endif
