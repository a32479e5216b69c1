/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Puts bytes into letters and takes them out again; knows nothing of what they say. */
#include "keyhelpers/base64.h"

#include <string.h>

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_encode(const uint8_t *in, size_t len, char *out)
{
	for (size_t i = 0; i < len; i += 3) {
		size_t n = len - i < 3 ? len - i : 3;
		uint32_t v = (uint32_t)in[i] << 16 | (n > 1 ? in[i + 1] << 8 : 0) | (n > 2 ? in[i + 2] : 0);

		for (size_t k = 0; k < 4; k++)
			*out++ = k <= n ? letters[v >> (18 - 6 * k) & 63] : '=';
	}
	*out = '\0';
}

/* 0 to 63, or 64 for what is no letter of base64. */
static uint32_t value_of(char c)
{
	const char *at = c ? strchr(letters, c) : NULL;

	return at ? (uint32_t)(at - letters) : 64;
}

bool base64_decode(const char *text, size_t text_len, uint8_t *out, size_t size, size_t *len)
{
	size_t pad = 0, n = 0;
	uint32_t v = 0;

	if (text_len % 4)
		return false;
	while (pad < 2 && pad < text_len && text[text_len - 1 - pad] == '=')
		pad++;
	if (text_len / 4 * 3 - pad > size)
		return false;
	for (size_t i = 0; i < text_len - pad; i++) {
		uint32_t letter = value_of(text[i]);

		if (letter > 63)
			return false;
		v = v << 6 | letter;
		if (i % 4)
			out[n++] = (uint8_t)(v >> (6 - 2 * (i % 4)));
	}
	*len = n;
	return true;
}
