/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Base64 with the standard alphabet (RFC 4648, section 4), as age and key commands write it. */
#ifndef VD_KEYS_BASE64_H
#define VD_KEYS_BASE64_H

#include "libvdisk/base/bytes.h"

/* Letters of so many bytes, padding counted. */
#define VD_BASE64_LEN(n) (((n) + 2) / 3 * 4)

/* Without padding, which the caller adds where it is wanted; out has room for VD_BASE64_LEN(len) and a NUL. Returns the letters. */
size_t vd_base64_encode(struct vd_bytes in, char *out);
/* Takes the padding off that has to be there, and decodes in place; *len is that of the text, then of the bytes. */
bool vd_base64_decode(uint8_t *text, size_t *len);

#endif
