/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* UTF-16, in which Microsoft's formats hold names, to and from UTF-8. */
#ifndef VD_BASE_UTF16_H
#define VD_BASE_UTF16_H

#include "libvdisk/base/bytes.h"

enum vd_utf16_order { VD_UTF16_LE, VD_UTF16_BE };

/* Up to the first NUL, or all; `out` is NUL-terminated. False: surrogates without a partner, or more than fits. */
bool vd_utf16_decode(struct vd_bytes text, enum vd_utf16_order order, char *out, size_t cap);
/* Without a NUL; *len becomes the bytes used. False: no UTF-8, or more than fits. */
bool vd_utf16_encode(const char *text, enum vd_utf16_order order, uint8_t *out, size_t cap, size_t *len);

#endif
