/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Looks for the bytes in FILE in the memory of the process PID, which stands still. Prints how often they are there, and how
 * many of these may be swapped and how many would be in a core file.
 * usage: leftovers PID FILE
 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/support/leftover.h"

int main(int argc, char **argv)
{
	uint8_t bytes[512];
	FILE *f = argc == 3 ? fopen(argv[2], "r") : NULL;
	size_t len = f ? fread(bytes, 1, sizeof(bytes), f) : 0;
	struct vd_leftovers found;

	if (len < 8 || fclose(f)) {
		fprintf(stderr, "usage: leftovers PID FILE: at least 8 bytes are looked for\n");
		return 2;
	}
	vd_leftover_shift(bytes, len);
	found = vd_leftovers_of(atoi(argv[1]), bytes, len);
	printf("%d %d %d\n", found.all, found.swappable, found.dumped);
	return 0;
}
