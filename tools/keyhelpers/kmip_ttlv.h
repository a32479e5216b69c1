/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The encoding of KMIP messages, TTLV (KMIP 1.4, 9.1): tag of 3 bytes, type of 1, length of 4, value padded to 8 bytes.
 * Neither direction allocates. What the tags mean is kmip_message.c's.
 */
#ifndef KEYHELPERS_KMIP_TTLV_H
#define KEYHELPERS_KMIP_TTLV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* KMIP 1.4, 9.1.1.2 */
enum ttlv_type {
	TTLV_NONE = 0,
	TTLV_STRUCTURE = 1,
	TTLV_INTEGER = 2,
	TTLV_LONG = 3,
	TTLV_BIG = 4,
	TTLV_ENUM = 5,
	TTLV_BOOL = 6,
	TTLV_TEXT = 7,
	TTLV_BYTES = 8,
	TTLV_DATE = 9,
	TTLV_INTERVAL = 10,
};

#define TTLV_HEADER 8           /* tag, type and length of an item */
#define TTLV_DEPTH 16           /* deepest nesting: replies have 6, attributes of a kind we do not read a few more */

/* ---- writing ---- */

/* Begins with p and cap set and all else zero. What does not fit is left out, and said by ttlv_finish(). */
struct ttlv_writer {
	uint8_t *p;
	size_t cap, len;
	size_t open[TTLV_DEPTH];        /* where the structures that are open begin */
	unsigned depth;
	bool has_failed;
};

void ttlv_begin(struct ttlv_writer *w, uint32_t tag);
void ttlv_end(struct ttlv_writer *w);
void ttlv_put_integer(struct ttlv_writer *w, uint32_t tag, uint32_t value);
void ttlv_put_enum(struct ttlv_writer *w, uint32_t tag, uint32_t value);
void ttlv_put_text(struct ttlv_writer *w, uint32_t tag, const char *text);
/* The length of the message; 0 when it did not fit or a structure is still open. */
size_t ttlv_finish(const struct ttlv_writer *w);

/* ---- reading ---- */

/* One item within somebody else's bytes; type TTLV_NONE: there is none, and all questions about it are answered no. */
struct ttlv_item {
	uint32_t tag;
	enum ttlv_type type;
	const uint8_t *p;
	size_t len;
};

/* How long the message is that begins with these 8 bytes; 0: it is no structure with this tag, or is over `max`. */
size_t ttlv_message_len(const uint8_t head[TTLV_HEADER], uint32_t tag, size_t max);
/* The whole of the bytes as one item; none when they are no TTLV. Judged deeply: items found in it later are sound. */
struct ttlv_item ttlv_parse(const uint8_t *p, size_t len);
/* Goes through the members of a structure; *at begins as 0. False: there are no more. */
bool ttlv_next(struct ttlv_item structure, size_t *at, struct ttlv_item *out);
/* The first member with this tag and type, or none. */
struct ttlv_item ttlv_get(struct ttlv_item structure, uint32_t tag, enum ttlv_type type);
/* Of an integer or an enumeration. */
bool ttlv_u32(struct ttlv_item item, uint32_t *out);
/* A text as a C string, only if all of it fits and is printable ASCII; otherwise false and an empty string. */
bool ttlv_copy_text(struct ttlv_item item, char *out, size_t size);

#endif
