/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A strict reader of JSON text (RFC 8259). What the members mean is the callers' business. */
#include "keys/json.h"

#include "libvdisk/base/checked.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DEPTH 16 /* LUKS2 metadata have 4 levels; tokens of others a few more */

/* A position in the text; p == NULL after a fault, which every step passes on. */
struct at {
	const char *p, *end;
};

static char peek(const struct at *a)
{
	return a->p && a->p < a->end ? *a->p : '\0';
}

static void skip_blanks(struct at *a)
{
	while (peek(a) == ' ' || peek(a) == '\n' || peek(a) == '\t' || peek(a) == '\r')
		a->p++;
}

static void expect(struct at *a, char c)
{
	if (a->p && peek(a) == c && c)
		a->p++;
	else
		a->p = NULL;
}

static bool is_hex(char c)
{
	return c && strchr("0123456789abcdefABCDEF", c);
}

/* Behind the backslash. */
static void skip_escape(struct at *a)
{
	char c = peek(a);

	if (!c || !strchr("\"\\/bfnrtu", c)) {
		a->p = NULL;
		return;
	}
	a->p++;
	for (int i = 0; c == 'u' && i < 4 && a->p; i++)
		a->p = is_hex(peek(a)) ? a->p + 1 : NULL;
}

static void skip_string(struct at *a)
{
	expect(a, '"');
	while (a->p && peek(a) != '"') {
		/* Control characters, the end of the text among them, may not stand in a string. */
		if ((unsigned char)peek(a) < 0x20) {
			a->p = NULL;
		} else if (peek(a) == '\\') {
			a->p++;
			skip_escape(a);
		} else {
			a->p++;
		}
	}
	expect(a, '"');
}

static void skip_digits(struct at *a)
{
	const char *start = a->p;

	while (peek(a) >= '0' && peek(a) <= '9')
		a->p++;
	if (a->p == start)
		a->p = NULL;
}

static void skip_number(struct at *a)
{
	if (peek(a) == '-')
		a->p++;
	if (peek(a) == '0')
		a->p++;
	else
		skip_digits(a);
	if (peek(a) == '.') {
		a->p++;
		skip_digits(a);
	}
	if (peek(a) == 'e' || peek(a) == 'E') {
		a->p++;
		if (peek(a) == '+' || peek(a) == '-')
			a->p++;
		skip_digits(a);
	}
}

/* Numbers and the three words. */
static void skip_word(struct at *a)
{
	static const char *const words[] = { "true", "false", "null" };

	for (size_t i = 0; a->p && i < sizeof(words) / sizeof(words[0]); i++) {
		size_t len = strlen(words[i]);

		if ((size_t)(a->end - a->p) >= len && !memcmp(a->p, words[i], len)) {
			a->p += len;
			return;
		}
	}
	skip_number(a);
}

static void skip_value(struct at *a, int depth);

static void skip_member(struct at *a, bool in_object, int depth)
{
	skip_blanks(a);
	if (in_object) {
		skip_string(a);
		skip_blanks(a);
		expect(a, ':');
	}
	skip_value(a, depth);
}

static void skip_container(struct at *a, int depth)
{
	bool in_object = peek(a) == '{';
	char close = in_object ? '}' : ']';

	a->p = depth < MAX_DEPTH ? a->p + 1 : NULL;
	skip_blanks(a);
	if (peek(a) == close) {
		a->p++;
		return;
	}
	skip_member(a, in_object, depth + 1);
	while (peek(a) == ',') {
		a->p++;
		skip_member(a, in_object, depth + 1);
	}
	expect(a, close);
}

/* Past one value and the blanks around it. */
static void skip_value(struct at *a, int depth)
{
	skip_blanks(a);
	if (peek(a) == '{' || peek(a) == '[')
		skip_container(a, depth);
	else if (peek(a) == '"')
		skip_string(a);
	else if (a->p)
		skip_word(a);
	skip_blanks(a);
}

static struct vd_json trimmed(const char *from, const char *to)
{
	struct at a = { from, to };

	skip_blanks(&a);
	while (to > a.p && strchr(" \n\t\r", to[-1]))
		to--;
	return (struct vd_json){ a.p, (size_t)(to - a.p) };
}

struct vd_json vd_json_of(struct vd_bytes text)
{
	const char *p = (const char *)text.p;
	struct at a = { p, p + text.len };

	if (!text.len)
		return (struct vd_json){ 0 };
	skip_value(&a, 0);
	if (a.p != a.end)
		return (struct vd_json){ 0 };
	return trimmed(p, a.end);
}

static bool is_container(struct vd_json v)
{
	return v.len && (*v.p == '{' || *v.p == '[');
}

bool vd_json_next(struct vd_json container, size_t *at, struct vd_json *key, struct vd_json *value)
{
	const char *start;
	struct at a;

	*key = (struct vd_json){ 0 };
	if (!is_container(container))
		return false;
	a = (struct at){ container.p + *at, container.p + container.len };
	a.p++; /* the bracket, or the comma where the last call has stopped */
	skip_blanks(&a);
	if (peek(&a) == '}' || peek(&a) == ']' || a.p >= a.end)
		return false;
	if (*container.p == '{') {
		start = a.p;
		skip_string(&a);
		*key = trimmed(start, a.p ? a.p : start);
		skip_blanks(&a);
		expect(&a, ':');
	}
	start = a.p;
	skip_value(&a, 0);
	if (!a.p)
		return false;
	*value = trimmed(start, a.p);
	*at = (size_t)(a.p - container.p);
	return true;
}

size_t vd_json_count(struct vd_json container)
{
	struct vd_json key, value;
	size_t at = 0, n = 0;

	while (vd_json_next(container, &at, &key, &value))
		n++;
	return n;
}

struct vd_json vd_json_text(struct vd_json value)
{
	if (value.len < 2 || *value.p != '"')
		return (struct vd_json){ 0 };
	return (struct vd_json){ value.p + 1, value.len - 2 };
}

bool vd_json_is(struct vd_json value, const char *string)
{
	struct vd_json text = vd_json_text(value);

	return text.p && text.len == strlen(string) && !memcmp(text.p, string, text.len);
}

struct vd_json vd_json_get(struct vd_json object, const char *name)
{
	struct vd_json key, value;
	size_t at = 0;

	while (vd_json_next(object, &at, &key, &value))
		if (vd_json_is(key, name))
			return value;
	return (struct vd_json){ 0 };
}

bool vd_json_u64(struct vd_json value, uint64_t *out)
{
	struct vd_json digits = value.len && *value.p == '"' ? vd_json_text(value) : value;
	uint64_t n = 0;

	if (!digits.len)
		return false;
	for (size_t i = 0; i < digits.len; i++) {
		if (digits.p[i] < '0' || digits.p[i] > '9')
			return false;
		if (!vd_mul_u64(n, 10, &n) || !vd_add_u64(n, (uint64_t)(digits.p[i] - '0'), &n))
			return false;
	}
	*out = n;
	return true;
}

void vd_json_copy(struct vd_json value, char *out, size_t size)
{
	struct vd_json text = vd_json_text(value);

	snprintf(out, size, "%.*s", text.len < size ? (int)text.len : 0, text.p ? text.p : "");
}

/* ---- strings with their escapes undone --------------------------------------------------------------------- */

static uint32_t hex4(const char *p)
{
	char digits[5] = { p[0], p[1], p[2], p[3], '\0' };

	return (uint32_t)strtoul(digits, NULL, 16);
}

/* The character that the escape behind the backslash at p stands for, at most `left` bytes; *used of them are the escape. */
static uint32_t unescape(const char *p, size_t left, size_t *used)
{
	static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
	const char *plain = strchr(from, *p);
	uint32_t high, low;

	*used = 1;
	if (*p != 'u')
		return (uint8_t)(plain ? to[plain - from] : *p);
	*used = 5;
	high = hex4(p + 1);
	if (high < 0xd800 || high > 0xdfff)
		return high;
	/* Half a surrogate pair is no character (RFC 8259, section 8.2). */
	low = left >= 11 && p[5] == '\\' && p[6] == 'u' ? hex4(p + 7) : 0;
	if (high > 0xdbff || low < 0xdc00 || low > 0xdfff)
		return 0xfffd;
	*used = 11;
	return 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
}

static size_t utf8(uint32_t point, char out[4])
{
	size_t n = point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
	static const uint8_t lead[] = { 0, 0, 0xc0, 0xe0, 0xf0 };

	for (size_t i = n - 1; i > 0; i--, point >>= 6)
		out[i] = (char)(0x80 | (point & 0x3f));
	out[0] = (char)(lead[n] | point);
	return n;
}

bool vd_json_unescape(struct vd_json value, char *out, size_t size, size_t *len)
{
	struct vd_json text = vd_json_text(value);
	size_t i = 0;

	*len = 0;
	if (!text.p)
		return false;
	while (i < text.len) {
		char piece[4] = { text.p[i] };
		size_t used = 0, n = 1;

		if (text.p[i++] == '\\')
			n = utf8(unescape(text.p + i, text.len - i, &used), piece);
		i += used;
		if (n > size - *len)
			return false;
		memcpy(out + *len, piece, n);
		*len += n;
	}
	return true;
}

size_t vd_json_compact(struct vd_json value, char *out, size_t size)
{
	bool in_string = false;
	size_t n = 0;

	for (size_t i = 0; i < value.len; i++) {
		char c = value.p[i];

		if (!in_string && strchr(" \n\t\r", c))
			continue;
		if (n == size)
			return 0;
		out[n++] = c;
		if (c == '"')
			in_string = !in_string;
		if (c != '\\' || i + 1 == value.len)
			continue;
		if (n == size)
			return 0;
		out[n++] = value.p[++i];
	}
	return n;
}

/* ---- depth ----------------------------------------------------------------------------------------------- */

unsigned vd_json_depth(struct vd_json value)
{
	unsigned depth = 0, deepest = 0;
	bool in_string = false;

	for (size_t i = 0; i < value.len; i++) {
		char c = value.p[i];

		if (c == '"')
			in_string = !in_string;
		else if (c == '\\')
			i++;
		else if (!in_string && (c == '{' || c == '['))
			deepest = ++depth > deepest ? depth : deepest;
		else if (!in_string && (c == '}' || c == ']'))
			depth--;
	}
	return deepest;
}
