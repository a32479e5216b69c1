/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sizes as people write and read them. */
#ifndef TOOLS_SIZES_H
#define TOOLS_SIZES_H

#include <stdbool.h>
#include <stdint.h>

struct size_text {
	char s[32];
};

/* "4096", "64k", "1.5G", "2TiB": whole bytes only. False when it is none, or too large. */
bool size_parse(const char *text, uint64_t *bytes);
/* "12.3 MiB": three digits that count. */
struct size_text size_show(double bytes);

#endif
