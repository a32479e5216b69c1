/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Writes and reads TTLV in the caller's memory. Every length is held against what is left before it is used. */
#include "keyhelpers/kmip_ttlv.h"

#include <string.h>

static void put_be32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 24);
	p[1] = (uint8_t)(v >> 16);
	p[2] = (uint8_t)(v >> 8);
	p[3] = (uint8_t)v;
}

static uint32_t get_be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static size_t padded(size_t len)
{
	return (len + 7) & ~(size_t)7;
}

/* ---- writing -------------------------------------------------------------------------------------------- */

/* Room for an item, its padding already zero; NULL when there is none. */
static uint8_t *put_head(struct ttlv_writer *w, uint32_t tag, enum ttlv_type type, size_t len)
{
	uint8_t *p = w->p + w->len;

	if (w->has_failed || len > w->cap || TTLV_HEADER + padded(len) > w->cap - w->len) {
		w->has_failed = true;
		return NULL;
	}
	put_be32(p, tag << 8 | type);
	put_be32(p + 4, (uint32_t)len);
	memset(p + TTLV_HEADER, 0, padded(len));
	w->len += TTLV_HEADER + padded(len);
	return p + TTLV_HEADER;
}

void ttlv_begin(struct ttlv_writer *w, uint32_t tag)
{
	size_t start = w->len;

	if (w->depth == TTLV_DEPTH)
		w->has_failed = true;
	else if (put_head(w, tag, TTLV_STRUCTURE, 0))
		w->open[w->depth++] = start;
}

void ttlv_end(struct ttlv_writer *w)
{
	size_t start;

	if (w->has_failed || !w->depth) {
		w->has_failed = true;
		return;
	}
	start = w->open[--w->depth];
	put_be32(w->p + start + 4, (uint32_t)(w->len - start - TTLV_HEADER));
}

void ttlv_put_integer(struct ttlv_writer *w, uint32_t tag, uint32_t value)
{
	uint8_t *p = put_head(w, tag, TTLV_INTEGER, 4);

	if (p)
		put_be32(p, value);
}

void ttlv_put_enum(struct ttlv_writer *w, uint32_t tag, uint32_t value)
{
	uint8_t *p = put_head(w, tag, TTLV_ENUM, 4);

	if (p)
		put_be32(p, value);
}

void ttlv_put_text(struct ttlv_writer *w, uint32_t tag, const char *text)
{
	uint8_t *p = put_head(w, tag, TTLV_TEXT, strlen(text));

	if (p)
		memcpy(p, text, strlen(text));
}

size_t ttlv_finish(const struct ttlv_writer *w)
{
	return w->has_failed || w->depth ? 0 : w->len;
}

/* ---- reading -------------------------------------------------------------------------------------------- */

/* KMIP 1.4, 9.1.1.3: types of fixed size have no other. */
static bool is_length_of(enum ttlv_type type, uint32_t len)
{
	switch (type) {
	case TTLV_INTEGER:
	case TTLV_ENUM:
	case TTLV_INTERVAL:
		return len == 4;
	case TTLV_LONG:
	case TTLV_BOOL:
	case TTLV_DATE:
		return len == 8;
	case TTLV_STRUCTURE:
	case TTLV_BIG:
		return len % 8 == 0;
	case TTLV_TEXT:
	case TTLV_BYTES:
		return true;
	default:
		return false;
	}
}

/* The item that begins the bytes, and how many of them it takes with its padding; 0: it is none. */
static size_t read_item(const uint8_t *p, size_t left, struct ttlv_item *out)
{
	uint32_t len;

	if (left < TTLV_HEADER)
		return 0;
	len = get_be32(p + 4);
	*out = (struct ttlv_item){ get_be32(p) >> 8, (enum ttlv_type)p[3], p + TTLV_HEADER, len };
	if (len > left - TTLV_HEADER || padded(len) > left - TTLV_HEADER || !is_length_of(out->type, len))
		return 0;
	return TTLV_HEADER + padded(len);
}

static bool is_sound(struct ttlv_item item, unsigned depth)
{
	struct ttlv_item member;
	size_t at = 0, n;

	if (item.type != TTLV_STRUCTURE)
		return true;
	if (depth == TTLV_DEPTH)
		return false;
	while (at < item.len) {
		n = read_item(item.p + at, item.len - at, &member);
		if (!n || !is_sound(member, depth + 1))
			return false;
		at += n;
	}
	return true;
}

size_t ttlv_message_len(const uint8_t head[TTLV_HEADER], uint32_t tag, size_t max)
{
	uint32_t len = get_be32(head + 4);

	if (get_be32(head) != (tag << 8 | TTLV_STRUCTURE) || len % 8 || max < TTLV_HEADER || len > max - TTLV_HEADER)
		return 0;
	return TTLV_HEADER + (size_t)len;
}

struct ttlv_item ttlv_parse(const uint8_t *p, size_t len)
{
	struct ttlv_item item = { 0 };

	if (!len || read_item(p, len, &item) != len || !is_sound(item, 0))
		return (struct ttlv_item){ 0 };
	return item;
}

bool ttlv_next(struct ttlv_item structure, size_t *at, struct ttlv_item *out)
{
	size_t n = 0;

	if (structure.type == TTLV_STRUCTURE && *at < structure.len)
		n = read_item(structure.p + *at, structure.len - *at, out);
	*at += n;
	return n > 0;
}

struct ttlv_item ttlv_get(struct ttlv_item structure, uint32_t tag, enum ttlv_type type)
{
	struct ttlv_item item;
	size_t at = 0;

	while (ttlv_next(structure, &at, &item))
		if (item.tag == tag && item.type == type)
			return item;
	return (struct ttlv_item){ 0 };
}

bool ttlv_u32(struct ttlv_item item, uint32_t *out)
{
	if (item.type != TTLV_INTEGER && item.type != TTLV_ENUM)
		return false;
	*out = get_be32(item.p);
	return true;
}

bool ttlv_copy_text(struct ttlv_item item, char *out, size_t size)
{
	out[0] = '\0';
	if (item.type != TTLV_TEXT || item.len >= size)
		return false;
	for (size_t i = 0; i < item.len; i++)
		if (item.p[i] < ' ' || item.p[i] > '~')
			return false;
	memcpy(out, item.p, item.len);
	out[item.len] = '\0';
	return true;
}
