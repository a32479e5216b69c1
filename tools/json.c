/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Builds and prints JSON. Which keys there are is the verbs' business. */
#include "json.h"

#include <stdlib.h>
#include <string.h>

#include "ui.h"

static struct json_object *there(struct json_object *j)
{
	if (!j)
		ui_out_of_memory();
	return j;
}

struct json_object *json_new(void)
{
	return there(json_object_new_object());
}

static bool is_tail(unsigned char c)
{
	return (c & 0xc0) == 0x80;
}

/* Length of the well-formed UTF-8 character at p (Unicode 15, table 3-7), or 0. */
static size_t utf8_len(const unsigned char *p)
{
	if (p[0] < 0x80)
		return 1;
	if (p[0] >= 0xc2 && p[0] <= 0xdf)
		return is_tail(p[1]) ? 2 : 0;
	if (p[0] >= 0xe0 && p[0] <= 0xef) {
		if (!is_tail(p[1]) || !is_tail(p[2]) || (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f))
			return 0;
		return 3;
	}
	if (p[0] >= 0xf0 && p[0] <= 0xf4) {
		if (!is_tail(p[1]) || !is_tail(p[2]) || !is_tail(p[3]) || (p[0] == 0xf0 && p[1] < 0x90) ||
		    (p[0] == 0xf4 && p[1] > 0x8f))
			return 0;
		return 4;
	}
	return 0;
}

bool json_is_utf8(const char *text, size_t n)
{
	const unsigned char *p = (const unsigned char *)text, *end = p + n;

	while (p < end) {
		size_t len = utf8_len(p);

		if (!len || len > (size_t)(end - p))
			return false;
		p += len;
	}
	return true;
}

struct json_object *json_text(const char *text)
{
	const unsigned char *p = (const unsigned char *)text;
	char *copy = malloc(3 * strlen(text) + 1), *to = copy;
	struct json_object *j;

	if (!copy)
		ui_out_of_memory();
	while (*p) {
		size_t n = utf8_len(p);

		memcpy(to, n ? (const char *)p : "\xef\xbf\xbd", n ? n : 3);
		to += n ? n : 3;
		p += n ? n : 1;
	}
	*to = '\0';
	j = there(json_object_new_string(copy));
	free(copy);
	return j;
}

void json_put(struct json_object *to, const char *key, struct json_object *value)
{
	if (json_object_object_add(to, key, value) < 0)
		ui_out_of_memory();
}

void json_put_text(struct json_object *to, const char *key, const char *text)
{
	json_put(to, key, json_text(text));
}

void json_put_u64(struct json_object *to, const char *key, uint64_t n)
{
	json_put(to, key, there(json_object_new_uint64(n)));
}

void json_put_bool(struct json_object *to, const char *key, bool b)
{
	json_put(to, key, there(json_object_new_boolean(b)));
}

struct json_object *json_put_object(struct json_object *to, const char *key)
{
	struct json_object *j = json_new();

	json_put(to, key, j);
	return j;
}

struct json_object *json_put_array(struct json_object *to, const char *key)
{
	struct json_object *j = there(json_object_new_array());

	json_put(to, key, j);
	return j;
}

void json_add(struct json_object *array, struct json_object *value)
{
	if (json_object_array_add(array, value) < 0)
		ui_out_of_memory();
}

static void print(FILE *f, struct json_object *j, int flags)
{
	fputs(json_object_to_json_string_ext(j, flags | JSON_C_TO_STRING_NOSLASHESCAPE), f);
	json_object_put(j);
}

void json_print_to(FILE *f, struct json_object *j)
{
	print(f, j, JSON_C_TO_STRING_PLAIN);
	putc('\n', f);
	fflush(f);
}

void json_print(struct json_object *j)
{
	json_print_to(ui_results(), j);
}

void json_print_pretty(struct json_object *j)
{
	print(stdout, j, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED);
	putchar('\n');
}

void json_print_item(struct json_object *j, bool is_first)
{
	fputs(is_first ? "[" : ",\n", stdout);
	print(stdout, j, JSON_C_TO_STRING_PLAIN);
}

void json_print_items_end(bool is_empty)
{
	puts(is_empty ? "[]" : "]");
}
