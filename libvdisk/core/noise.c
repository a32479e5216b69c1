/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Counts bytes and judges the counts. The bounds, and why they hold, are in noise.h. */
#include "libvdisk/core/noise.h"

#include <math.h>
#include <string.h>

#define STEP 32         /* a bound for each so many bytes; fewer bytes have fewer pairs, so it holds for those up to it */

static const uint16_t bounds[VD_NOISE_SECTOR / STEP] = {
	114, 167, 215, 265, 317, 373, 433, 498, 569, 646, 730, 823, 922, 1028, 1141, 1258,
};

unsigned vd_noise_bound(size_t len)
{
	return bounds[(len + STEP - 1) / STEP - 1];
}

/* Four tables, since a byte that equals the one before would wait for its count; none overflows, with 128 bytes in each. */
static void count(const uint8_t *p, size_t len, uint16_t sum[256])
{
	uint8_t t[4][256];
	size_t i = 0;

	memset(t, 0, sizeof(t));
	for (; i + 8 <= len; i += 8) {
		uint64_t w;

		memcpy(&w, p + i, 8);
		t[0][w & 0xff]++;
		t[1][w >> 8 & 0xff]++;
		t[2][w >> 16 & 0xff]++;
		t[3][w >> 24 & 0xff]++;
		t[0][w >> 32 & 0xff]++;
		t[1][w >> 40 & 0xff]++;
		t[2][w >> 48 & 0xff]++;
		t[3][w >> 56]++;
	}
	for (; i < len; i++)
		t[i & 3][p[i]]++;
	for (int v = 0; v < 256; v++)
		sum[v] = t[0][v] + t[1][v] + t[2][v] + t[3][v];
}

bool vd_noise_sector(const uint8_t *p, size_t len, struct vd_noise *sum)
{
	uint16_t n[256];
	uint32_t squares = 0;

	count(p, len, n);
	for (int v = 0; v < 256; v++)
		squares += (uint32_t)n[v] * n[v];
	if ((squares - len) / 2 >= vd_noise_bound(len))
		return false;
	for (int v = 0; v < 256; v++)
		sum->count[v] += n[v];
	return true;
}

void vd_noise_add(struct vd_noise *to, const struct vd_noise *from)
{
	for (int v = 0; v < 256; v++)
		to->count[v] += from->count[v];
}

bool vd_noise_may_be(const struct vd_noise *sum)
{
	double n = 0, nats = 0;

	for (int v = 0; v < 256; v++)
		n += (double)sum->count[v];
	for (int v = 0; v < 256; v++)
		/* log1p, since of many bytes each count is its share but for a part in a million. */
		if (sum->count[v])
			nats += (double)sum->count[v] * log1p(((double)sum->count[v] * 256 - n) / n);
	return nats < VD_NOISE_NATS;
}
