/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Transcodes names, strictly: what is no text in one encoding is none in the other. */
#include "libvdisk/base/utf16.h"

static uint32_t unit_at(const uint8_t *p, enum vd_utf16_order order)
{
	return order == VD_UTF16_LE ? vd_get_le16(p) : vd_get_be16(p);
}

static void put_unit(uint8_t *p, enum vd_utf16_order order, uint16_t unit)
{
	if (order == VD_UTF16_LE)
		vd_put_le16(p, unit);
	else
		vd_put_be16(p, unit);
}

static bool is_high(uint32_t unit)
{
	return unit >= 0xd800 && unit < 0xdc00;
}

static bool is_low(uint32_t unit)
{
	return unit >= 0xdc00 && unit < 0xe000;
}

/* The bytes of c in UTF-8: 1 to 4. */
static size_t put_utf8(uint32_t c, uint8_t out[4])
{
	static const uint8_t lead[] = { 0, 0, 0xc0, 0xe0, 0xf0 };
	size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;

	for (size_t i = n - 1; i > 0; i--, c >>= 6)
		out[i] = 0x80 | (c & 0x3f);
	out[0] = lead[n] | c;
	return n;
}

bool vd_utf16_decode(struct vd_bytes text, enum vd_utf16_order order, char *out, size_t cap)
{
	size_t used = 0;

	for (size_t i = 0; i + 2 <= text.len; i += 2) {
		uint32_t c = unit_at(text.p + i, order);
		uint8_t bytes[4];
		size_t n;

		if (!c)
			break;
		if (is_low(c))
			return false;
		if (is_high(c)) {
			uint32_t low = i + 4 <= text.len ? unit_at(text.p + i + 2, order) : 0;

			if (!is_low(low))
				return false;
			c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
			i += 2;
		}
		n = put_utf8(c, bytes);
		if (used + n + 1 > cap)
			return false;
		memcpy(out + used, bytes, n);
		used += n;
	}
	if (used >= cap)
		return false;
	out[used] = '\0';
	return true;
}

/* One character of valid UTF-8 at *p, which moves on; 0 at the end, UINT32_MAX for what is none. */
static uint32_t take_utf8(const uint8_t **p)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	uint32_t c = **p;
	size_t n = c < 0x80 ? 1 : c < 0xc0 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf8 ? 4 : 0;

	if (!n)
		return UINT32_MAX;
	c = n == 1 ? c : c & (0x7fu >> n);
	for (size_t i = 1; i < n; i++) {
		if (((*p)[i] & 0xc0) != 0x80)
			return UINT32_MAX;
		c = c << 6 | ((*p)[i] & 0x3f);
	}
	*p += c ? n : 0;
	return c < least[n] || c > 0x10ffff || is_high(c) || is_low(c) ? UINT32_MAX : c;
}

bool vd_utf16_encode(const char *text, enum vd_utf16_order order, uint8_t *out, size_t cap, size_t *len)
{
	const uint8_t *p = (const uint8_t *)text;
	uint32_t c;

	*len = 0;
	while ((c = take_utf8(&p))) {
		size_t n = c < 0x10000 ? 2 : 4;

		if (c == UINT32_MAX || *len + n > cap)
			return false;
		if (n == 2) {
			put_unit(out + *len, order, c);
		} else {
			put_unit(out + *len, order, 0xd800 + ((c - 0x10000) >> 10));
			put_unit(out + *len + 2, order, 0xdc00 + ((c - 0x10000) & 0x3ff));
		}
		*len += n;
	}
	return true;
}
