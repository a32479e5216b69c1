/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* CRC-32C by eight tables, eight bytes a step. */
#include "libvdisk/base/crc32c.h"

#include <pthread.h>

#include "libvdisk/base/bytes.h"

#define POLYNOMIAL 0x82f63b78u          /* bits reversed */

static uint32_t tables[8][256];
static pthread_once_t made = PTHREAD_ONCE_INIT;

static void make_tables(void)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t c = i;

		for (int bit = 0; bit < 8; bit++)
			c = c & 1 ? c >> 1 ^ POLYNOMIAL : c >> 1;
		tables[0][i] = c;
	}
	for (uint32_t i = 0; i < 256; i++)
		for (int t = 1; t < 8; t++)
			tables[t][i] = tables[t - 1][i] >> 8 ^ tables[0][tables[t - 1][i] & 0xff];
}

uint32_t vd_crc32c(uint32_t crc, const void *p, size_t len)
{
	const uint8_t *at = p;

	pthread_once(&made, make_tables);
	crc = ~crc;
	for (; len >= 8; at += 8, len -= 8) {
		uint64_t v = vd_get_le64(at) ^ crc;

		crc = 0;
		for (int i = 0; i < 8; i++)
			crc ^= tables[7 - i][v >> 8 * i & 0xff];
	}
	for (; len; at++, len--)
		crc = crc >> 8 ^ tables[0][(crc ^ *at) & 0xff];
	return ~crc;
}
