/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Puts bytes together and takes them apart; what they mean is for others to say. */
#include "ledger/bytes.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ui.h"

struct bytes bytes_over(void *memory, size_t size)
{
	return (struct bytes){ .at = memory, .room = size, .is_fixed = true };
}

void bytes_free(struct bytes *b)
{
	if (!b->is_fixed)
		free(b->at);
	*b = (struct bytes){ 0 };
}

static uint8_t *make_room(struct bytes *b, size_t n)
{
	size_t room = b->room ? b->room : 256;
	uint8_t *at;

	if (n <= b->room - b->n)
		return b->at + b->n;
	if (b->is_fixed || n > SIZE_MAX / 4 || b->n > SIZE_MAX / 4)
		ui_out_of_memory();
	while (room - b->n < n)
		room *= 2;
	at = realloc(b->at, room);
	if (!at)
		ui_out_of_memory();
	b->at = at;
	b->room = room;
	return b->at + b->n;
}

void bytes_add(struct bytes *b, const void *from, size_t n)
{
	if (!n)
		return;
	memcpy(make_room(b, n), from, n);
	b->n += n;
}

void bytes_text(struct bytes *b, const char *text)
{
	bytes_add(b, text, strlen(text));
}

void bytes_format(struct bytes *b, const char *fmt, ...)
{
	va_list ap, again;
	int n;

	va_start(ap, fmt);
	va_copy(again, ap);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0)
		ui_out_of_memory();
	vsnprintf((char *)make_room(b, (size_t)n + 1), (size_t)n + 1, fmt, again);
	va_end(again);
	b->n += (size_t)n;
}

void bytes_u32(struct bytes *b, uint32_t v)
{
	const uint8_t be[4] = { (uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v };

	bytes_add(b, be, sizeof(be));
}

void bytes_string(struct bytes *b, const void *from, size_t n)
{
	bytes_u32(b, (uint32_t)n);
	bytes_add(b, from, n);
}

void bytes_string_text(struct bytes *b, const char *text)
{
	bytes_string(b, text, strlen(text));
}

/* ---- taking apart ----------------------------------------------------------------------------------------- */

struct cursor cursor_of(const void *at, size_t n)
{
	return (struct cursor){ .at = at, .left = n };
}

const uint8_t *cursor_take(struct cursor *c, size_t n)
{
	const uint8_t *at = c->at;

	if (c->is_bad || n > c->left) {
		*c = (struct cursor){ .at = at, .is_bad = true };
		return NULL;
	}
	c->at += n;
	c->left -= n;
	return at;
}

uint32_t cursor_u32(struct cursor *c)
{
	const uint8_t *p = cursor_take(c, 4);

	return p ? (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3] : 0;
}

struct cursor cursor_string(struct cursor *c)
{
	size_t n = cursor_u32(c);
	const uint8_t *at = cursor_take(c, n);

	return (struct cursor){ .at = at, .left = at ? n : 0, .is_bad = !at };
}

bool cursor_is_text(const struct cursor *c, const char *text)
{
	return !c->is_bad && c->left == strlen(text) && !memcmp(c->at, text, c->left);
}

bool cursor_is_done(const struct cursor *c)
{
	return !c->is_bad && !c->left;
}
