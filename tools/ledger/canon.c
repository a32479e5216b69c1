/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Writes JSON in its canonical form, and tells whether it is in it. What it says is for others. */
#include "ledger/canon.h"

#include <stdlib.h>
#include <string.h>

#include "fail.h"
#include "json.h"
#include "ui.h"

#define DEPTH_MAX 16

/* UTF-16, by whose units keys are ordered, has all beyond U+FFFF before U+E000 (RFC 8785, 3.2.3); UTF-8 has it after U+FFFF. */
static int rank(unsigned char c)
{
	return c == 0xee || c == 0xef ? c + 0x10 : c;
}

static int compare_keys(const void *a, const void *b)
{
	const unsigned char *x = *(const unsigned char *const *)a, *y = *(const unsigned char *const *)b;

	while (*x && *x == *y) {
		x++;
		y++;
	}
	return rank(*x) - rank(*y);
}

static int put_text(const char *text, size_t n, struct bytes *out, struct vd_error *e)
{
	static const char shorts[] = "\bb\tt\nn\ff\rr\"\"\\\\";

	if (!json_is_utf8(text, n))
		return fail(e, VD_ECORRUPT, "a text of the document is no UTF-8");
	bytes_text(out, "\"");
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)text[i];
		const char *at = shorts;

		while (*at && *at != text[i])
			at += 2;
		if (c && *at)
			bytes_format(out, "\\%c", at[1]);
		else if (c < 0x20)
			bytes_format(out, "\\u%04x", c);
		else
			bytes_add(out, text + i, 1);
	}
	bytes_text(out, "\"");
	return 0;
}

static int put(struct json_object *j, int depth, struct bytes *out, struct vd_error *e);

static const char **sorted_keys(struct json_object *j, size_t *n)
{
	const char **keys = calloc((size_t)json_object_object_length(j) + 1, sizeof(*keys));

	if (!keys)
		ui_out_of_memory();
	*n = 0;
	json_object_object_foreach(j, key, value) {
		(void)value;
		keys[(*n)++] = key;
	}
	qsort(keys, *n, sizeof(*keys), compare_keys);
	return keys;
}

static int put_object(struct json_object *j, int depth, struct bytes *out, struct vd_error *e)
{
	size_t n;
	const char **keys = sorted_keys(j, &n);
	int r = 0;

	bytes_text(out, "{");
	for (size_t i = 0; i < n && r == 0; i++) {
		bytes_text(out, i ? "," : "");
		r = put_text(keys[i], strlen(keys[i]), out, e);
		bytes_text(out, ":");
		if (r == 0)
			r = put(json_object_object_get(j, keys[i]), depth, out, e);
	}
	bytes_text(out, "}");
	free(keys);
	return r;
}

static int put_array(struct json_object *j, int depth, struct bytes *out, struct vd_error *e)
{
	size_t n = json_object_array_length(j);
	int r = 0;

	bytes_text(out, "[");
	for (size_t i = 0; i < n && r == 0; i++) {
		bytes_text(out, i ? "," : "");
		r = put(json_object_array_get_idx(j, i), depth, out, e);
	}
	bytes_text(out, "]");
	return r;
}

static void put_number(struct json_object *j, struct bytes *out)
{
	int64_t v = json_object_get_int64(j);

	if (v < 0)
		bytes_format(out, "%lld", (long long)v);
	else
		bytes_format(out, "%llu", (unsigned long long)json_object_get_uint64(j));
}

static int put(struct json_object *j, int depth, struct bytes *out, struct vd_error *e)
{
	if (depth >= DEPTH_MAX)
		return fail(e, VD_ECORRUPT, "the document is nested more than %d deep", DEPTH_MAX);
	switch (json_object_get_type(j)) {
	case json_type_null:
		bytes_text(out, "null");
		return 0;
	case json_type_boolean:
		bytes_text(out, json_object_get_boolean(j) ? "true" : "false");
		return 0;
	case json_type_int:
		put_number(j, out);
		return 0;
	case json_type_string:
		return put_text(json_object_get_string(j), (size_t)json_object_get_string_len(j), out, e);
	case json_type_array:
		return put_array(j, depth + 1, out, e);
	case json_type_object:
		return put_object(j, depth + 1, out, e);
	default:
		return fail(e, VD_ECORRUPT, "a number of the document is not whole");
	}
}

int canon_write(struct json_object *j, struct bytes *out, struct vd_error *e)
{
	return put(j, 0, out, e);
}

/* There is one way to write what was read: written again it is the same bytes, or it was in another form. */
int canon_read(const char *path, const struct bytes *text, struct json_object **out, struct vd_error *e)
{
	struct json_tokener *t = json_tokener_new_ex(DEPTH_MAX);
	struct bytes again = { 0 };
	struct vd_error ignored;
	struct json_object *j;
	bool is_same;

	if (!t)
		ui_out_of_memory();
	json_tokener_set_flags(t, JSON_TOKENER_STRICT);
	j = text->n && text->n < INT32_MAX ? json_tokener_parse_ex(t, (const char *)text->at, (int)text->n) : NULL;
	json_tokener_free(t);
	if (!json_object_is_type(j, json_type_object)) {
		json_object_put(j);
		return fail(e, VD_ECORRUPT, "%s: is no JSON object", path);
	}
	is_same = canon_write(j, &again, &ignored) == 0 && again.n == text->n && !memcmp(again.at, text->at, again.n);
	bytes_free(&again);
	if (!is_same) {
		json_object_put(j);
		return fail(e, VD_ECORRUPT, "%s: is not in canonical form (RFC 8785)", path);
	}
	*out = j;
	return 0;
}
