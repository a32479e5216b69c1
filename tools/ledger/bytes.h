/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bytes that are put together, and taken apart again with a bounded cursor; knows the numbers and strings of SSH (RFC 4251, 5). */
#ifndef TOOLS_LEDGER_BYTES_H
#define TOOLS_LEDGER_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <vdisk.h>

/* {0} is empty and grows; bytes_over() stays in memory of the caller, who makes it large enough: secrets leave no copies behind. */
struct bytes {
	uint8_t *at;
	size_t n, room;
	bool is_fixed;
};
struct bytes bytes_over(void *memory, size_t size);
void bytes_free(struct bytes *b);
void bytes_add(struct bytes *b, const void *from, size_t n);
void bytes_text(struct bytes *b, const char *text);
void bytes_format(struct bytes *b, const char *fmt, ...) VD_PRINTF(2, 3);
void bytes_u32(struct bytes *b, uint32_t v);
/* Length and content. */
void bytes_string(struct bytes *b, const void *from, size_t n);
void bytes_string_text(struct bytes *b, const char *text);

/* A place in bytes that are read. What is not there makes it bad, and then all else reads as nothing. */
struct cursor {
	const uint8_t *at;
	size_t left;
	bool is_bad;
};
struct cursor cursor_of(const void *at, size_t n);
uint32_t cursor_u32(struct cursor *c);
const uint8_t *cursor_take(struct cursor *c, size_t n);
/* The content, as a cursor of its own; of a bad one: empty and bad. */
struct cursor cursor_string(struct cursor *c);
bool cursor_is_text(const struct cursor *c, const char *text);
/* All was read, and all was there. */
bool cursor_is_done(const struct cursor *c);

#endif
