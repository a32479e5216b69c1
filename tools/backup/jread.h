/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * JSON that is read as it comes, without a tree of it: indexes and trees are larger than memory should be. Every input is hostile; what breaks a
 * rule makes the reader bad, and then all else reads as nothing, so that one question at the end is enough.
 */
#ifndef TOOLS_BACKUP_JREAD_H
#define TOOLS_BACKUP_JREAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ledger/bytes.h"

struct jread {
	const char *at, *end;
	uint64_t begun;                 /* a bit for each level: something was read in it */
	unsigned depth;
	bool is_bad;
};
struct jread jread_of(const void *text, size_t n);

/* Enters an object, or an array. False, too, for null in its place. */
bool jread_object(struct jread *j);
bool jread_array(struct jread *j);
/* The next key, its value to be read or skipped; false at the end of the object. A key that does not fit is "". */
bool jread_key(struct jread *j, char *key, size_t size);
/* Whether one more value follows in the array. */
bool jread_item(struct jread *j);

/* The string, a NUL behind it; one that does not fit is bad. */
size_t jread_text(struct jread *j, char *out, size_t size);
/* The same, added to bytes (no NUL). */
void jread_bytes(struct jread *j, struct bytes *out);
/* 64 digits. */
void jread_id(struct jread *j, uint8_t id[32]);
uint64_t jread_u64(struct jread *j);
bool jread_bool(struct jread *j);
void jread_skip(struct jread *j);
/* All was read but blanks, and nothing was bad. */
bool jread_is_done(struct jread *j);

/* The other way: a JSON string with its quotes. Bytes that are no UTF-8 become U+FFFD. */
void jwrite_text(struct bytes *out, const char *text);

#endif
