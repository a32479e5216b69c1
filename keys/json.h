/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading JSON text in place, that of LUKS2 metadata and of key commands: no allocation, no copy that its reader did not ask
 * for, so a secret stays where it is. Strings are compared as they are written; one with an escape is equal to nothing.
 */
#ifndef VD_KEYS_JSON_H
#define VD_KEYS_JSON_H

#include "libvdisk/base/bytes.h"

/* One value, as text; empty: there is none, and all questions about it are answered no. */
struct vd_json {
	const char *p;
	size_t len;
};

/* The whole text as one value; empty when it is no JSON. Judged deeply: members found later are sound. */
struct vd_json vd_json_of(struct vd_bytes text);
/* The member of an object, or an empty value. */
struct vd_json vd_json_get(struct vd_json object, const char *name);

/* Goes through an object's members or an array's elements (then *key is empty). *at begins as 0. */
bool vd_json_next(struct vd_json container, size_t *at, struct vd_json *key, struct vd_json *value);
size_t vd_json_count(struct vd_json container);

bool vd_json_is(struct vd_json value, const char *string);
/* A number written as such, or in a string as LUKS2 does for those of 64 bits. Digits only. */
bool vd_json_u64(struct vd_json value, uint64_t *out);
/* The text of a string as a C string; empty when it is none, or does not fit. */
void vd_json_copy(struct vd_json value, char *out, size_t size);
/* What is between the quotes of a string, for a message or a closer look; empty for other values. */
struct vd_json vd_json_text(struct vd_json value);
/* The bytes of a string with its escapes undone; *len of them. False when it is none, or has more than `size`. */
bool vd_json_unescape(struct vd_json value, char *out, size_t size, size_t *len);
/* The value's text without blanks between its parts: how many bytes, or 0 when it has more than `size`. */
size_t vd_json_compact(struct vd_json value, char *out, size_t size);
/* How deep objects and arrays are nested; 0 for other values. */
unsigned vd_json_depth(struct vd_json value);

#endif
