/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Goes through all writable memory as /proc/self/maps lists it. */
#include "tests/support/leftover.h"

#include <stdio.h>
#include <stdlib.h>

static int in_range(const uint8_t *p, const uint8_t *end, const uint8_t *shifted, size_t len)
{
	int found = 0;

	for (; p + len <= end; p++) {
		size_t k = 0;

		while (k < len && ((p[k] + VD_LEFTOVER_SHIFT) & 0xff) == shifted[k])
			k++;
		found += k == len;
	}
	return found;
}

int vd_leftovers(const uint8_t *shifted, size_t len)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512], mode[8];
	uintptr_t from, to;
	int found = 0;

	if (!maps)
		abort();
	while (fgets(line, sizeof(line), maps))
		if (sscanf(line, "%lx-%lx %7s", &from, &to, mode) == 3 && mode[0] == 'r' && mode[1] == 'w')
			found += in_range((const uint8_t *)from, (const uint8_t *)to, shifted, len);
	fclose(maps);
	return found;
}
