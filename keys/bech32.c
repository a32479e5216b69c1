/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reads Bech32, lower case only, as age writes its recipients. */
#include "keys/bech32.h"

#include <string.h>

#define CHECKSUM 6              /* letters */
#define TEXT_MAX 200

static const char letters[] = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";

/* One step of the checksum (BIP 173, "Checksum"). */
static uint32_t polymod(uint32_t c, uint8_t value)
{
	static const uint32_t generator[] = { 0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3 };
	uint32_t top = c >> 25;

	c = (c & 0x1ffffff) << 5 ^ value;
	for (int i = 0; i < 5; i++)
		if (top >> i & 1)
			c ^= generator[i];
	return c;
}

static bool checksum_holds(const char *hrp, const uint8_t *values, size_t n)
{
	uint32_t c = 1;

	for (const char *p = hrp; *p; p++)
		c = polymod(c, (uint8_t)*p >> 5);
	c = polymod(c, 0);
	for (const char *p = hrp; *p; p++)
		c = polymod(c, *p & 31);
	for (size_t i = 0; i < n; i++)
		c = polymod(c, values[i]);
	return c == 1;
}

/* Letters of 5 bits into bytes of 8; what is left over are less than 5 zero bits. */
static bool regroup(const uint8_t *values, size_t n, uint8_t *out, size_t len)
{
	uint32_t held = 0;
	unsigned bits = 0;
	size_t done = 0;

	for (size_t i = 0; i < n; i++) {
		held = (held << 5 | values[i]) & 0xfff;
		bits += 5;
		if (bits < 8)
			continue;
		bits -= 8;
		if (done == len)
			return false;
		out[done++] = (uint8_t)(held >> bits);
	}
	return done == len && bits < 5 && !(held & ((1u << bits) - 1));
}

bool vd_bech32_decode(const char *text, const char *hrp, uint8_t *out, size_t len)
{
	size_t name = strlen(hrp), n = strlen(text);
	uint8_t values[TEXT_MAX];

	if (n > TEXT_MAX || n < name + 1 + CHECKSUM || strncmp(text, hrp, name) || text[name] != '1')
		return false;
	text += name + 1;
	n -= name + 1;
	for (size_t i = 0; i < n; i++) {
		const char *at = strchr(letters, text[i]);

		if (!at)
			return false;
		values[i] = (uint8_t)(at - letters);
	}
	return checksum_holds(hrp, values, n) && regroup(values, n - CHECKSUM, out, len);
}
