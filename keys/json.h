/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading the JSON text of LUKS2 metadata in place: no allocation, no recursion deeper than the metadata's own. Strings
 * are compared as they are written; one with an escape is equal to nothing.
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

#endif
