/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Base64 with padding (RFC 4648, 4), in memory of the caller. */
#ifndef KEYHELPERS_BASE64_H
#define KEYHELPERS_BASE64_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BASE64_LEN(n) (((n) + 2) / 3 * 4)

/* out has BASE64_LEN(len) + 1 bytes. */
void base64_encode(const uint8_t *in, size_t len, char *out);
/* False: the letters are no base64, or say more than fits. */
bool base64_decode(const char *text, size_t text_len, uint8_t *out, size_t size, size_t *len);

#endif
