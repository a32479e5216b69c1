/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Base64; whether what it stands for is a secret is its callers' business, so nothing is copied and nothing allocated. */
#include "keys/base64.h"

#include <string.h>

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

size_t vd_base64_encode(struct vd_bytes in, char *out)
{
	const uint8_t *p = in.p;
	size_t n = 0;

	for (size_t i = 0; i < in.len; i += 3) {
		uint32_t v = (uint32_t)p[i] << 16 | (i + 1 < in.len ? p[i + 1] << 8 : 0) | (i + 2 < in.len ? p[i + 2] : 0);
		size_t letters_of = in.len - i >= 3 ? 4 : in.len - i + 1;

		for (size_t k = 0; k < letters_of; k++)
			out[n++] = letters[v >> (18 - 6 * k) & 63];
	}
	out[n] = '\0';
	return n;
}

bool vd_base64_decode(uint8_t *text, size_t *len)
{
	size_t n = *len, out = 0;
	uint32_t bits = 0;

	if (n % 4)
		return false;
	for (int i = 0; i < 2 && n && text[n - 1] == '='; i++)
		n--;
	for (size_t i = 0; i < n; i++) {
		const char *at = text[i] ? strchr(letters, text[i]) : NULL;

		if (!at)
			return false;
		bits = bits << 6 | (uint32_t)(at - letters);
		if (i % 4)
			text[out++] = (uint8_t)(bits >> (6 - 2 * (i % 4)));
	}
	/* What the last letter has beyond the last byte is zero: one secret has one text. */
	if ((n % 4 == 2 && bits & 15) || (n % 4 == 3 && bits & 3))
		return false;
	*len = out;
	return true;
}
