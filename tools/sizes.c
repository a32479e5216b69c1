/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reads and prints sizes in powers of 1024, as qemu-img does. */
#include "sizes.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

/* The power of two of a suffix, or -1: "", "b", "k", "K", "KiB", "m" ... */
static int shift_of(const char *suffix)
{
	static const char letters[] = "KMGTPE";
	const char *at;

	if (!suffix[0] || !strcasecmp(suffix, "b"))
		return 0;
	at = strchr(letters, suffix[0] >= 'a' && suffix[0] <= 'z' ? suffix[0] - 32 : suffix[0]);
	if (!at || (suffix[1] && strcasecmp(suffix + 1, "ib") != 0 && strcasecmp(suffix + 1, "b") != 0))
		return -1;
	return 10 * (int)(at - letters + 1);
}

/* Digits with one point among them, as a whole number and the power of ten that it must be divided by. */
static const char *parse_decimal(const char *p, unsigned __int128 *number, unsigned __int128 *divisor)
{
	bool after_point = false;
	const char *start = p;

	*number = 0;
	*divisor = 1;
	for (; (*p >= '0' && *p <= '9') || (*p == '.' && !after_point && p > start); p++) {
		if (*p == '.') {
			after_point = true;
			continue;
		}
		*number = *number * 10 + (unsigned)(*p - '0');
		*divisor *= after_point ? 10 : 1;
		if (*number > UINT64_MAX || *divisor > 1000000000u)
			return start;
	}
	return p > start && p[-1] == '.' ? start : p;
}

bool size_parse(const char *text, uint64_t *bytes)
{
	unsigned __int128 number, divisor;
	const char *suffix = parse_decimal(text, &number, &divisor);
	int shift = suffix == text ? -1 : shift_of(suffix);

	if (shift < 0)
		return false;
	number <<= shift;
	if (number % divisor || number / divisor > INT64_MAX)
		return false;
	*bytes = (uint64_t)(number / divisor);
	return true;
}

struct size_text size_show(double bytes)
{
	static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	struct size_text t;
	unsigned u = 0;

	/* 1023.5 would be printed as 1024 of the smaller unit. */
	for (; bytes >= 1023.5 && u < 6; u++)
		bytes /= 1024;
	if (u == 0 || bytes >= 99.95 || bytes == (double)(uint64_t)bytes)
		snprintf(t.s, sizeof(t.s), "%.0f %s", bytes, units[u]);
	else
		snprintf(t.s, sizeof(t.s), "%.1f %s", bytes, units[u]);
	return t;
}
