/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reads JSON as RFC 8259 has it. What keys and values mean is for others to say. */
#include "backup/jread.h"

#include <string.h>

#include "backup/seal.h"
#include "json.h"

#define DEPTH_MAX 60

struct jread jread_of(const void *text, size_t n)
{
	return (struct jread){ .at = text, .end = (const char *)text + n };
}

static void blanks(struct jread *j)
{
	while (j->at < j->end && (*j->at == ' ' || *j->at == '\n' || *j->at == '\t' || *j->at == '\r'))
		j->at++;
}

static bool bad(struct jread *j)
{
	j->is_bad = true;
	j->at = j->end;
	return false;
}

/* The next letter that is no blank, or 0. */
static char peek(struct jread *j)
{
	blanks(j);
	return j->at < j->end ? *j->at : 0;
}

static bool take(struct jread *j, char c)
{
	if (peek(j) != c)
		return false;
	j->at++;
	return true;
}

static bool take_word(struct jread *j, const char *word)
{
	size_t n = strlen(word);

	blanks(j);
	if ((size_t)(j->end - j->at) < n || memcmp(j->at, word, n) != 0)
		return false;
	j->at += n;
	return true;
}

static bool enter(struct jread *j, char open)
{
	if (take_word(j, "null"))
		return false;
	if (j->depth == DEPTH_MAX || !take(j, open))
		return bad(j);
	j->depth++;
	j->begun &= ~(UINT64_C(1) << j->depth);
	return true;
}

bool jread_object(struct jread *j)
{
	return enter(j, '{');
}

bool jread_array(struct jread *j)
{
	return enter(j, '[');
}

/* Whether another member follows, its comma taken; at the end the level is left. */
static bool follows(struct jread *j, char close)
{
	uint64_t bit = UINT64_C(1) << j->depth;

	if (j->is_bad || !j->depth)
		return bad(j);
	if (take(j, close)) {
		j->depth--;
		return false;
	}
	if (j->begun & bit && !take(j, ','))
		return bad(j);
	j->begun |= bit;
	return true;
}

bool jread_item(struct jread *j)
{
	return follows(j, ']');
}

/* ---- strings -------------------------------------------------------------------------------------------- */

struct sink {
	char *out;
	size_t n, size;                 /* of out */
	struct bytes *more;             /* instead of it */
	bool is_full;
};

static void give(struct sink *s, const char *from, size_t n)
{
	if (s->more) {
		bytes_add(s->more, from, n);
		return;
	}
	if (s->size - s->n <= n) {
		s->is_full = true;
		return;
	}
	memcpy(s->out + s->n, from, n);
	s->n += n;
}

static bool hex4(struct jread *j, uint32_t *v)
{
	*v = 0;
	if (j->end - j->at < 4)
		return false;
	for (int i = 0; i < 4; i++) {
		char c = *j->at++;
		int d = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;

		if (d < 0)
			return false;
		*v = *v << 4 | (uint32_t)d;
	}
	return true;
}

static void give_letter(struct sink *s, uint32_t c)
{
	char u[4];
	size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;

	for (size_t i = n; i-- > 1; c >>= 6)
		u[i] = (char)(0x80 | (c & 0x3f));
	u[0] = (char)(n == 1 ? c : (0xf00u >> n & 0xf0) | c);
	give(s, u, n);
}

/* Behind "\u"; half a pair is U+FFFD. */
static bool escaped_letter(struct jread *j, struct sink *s)
{
	uint32_t c, low;

	if (!hex4(j, &c))
		return false;
	if (c >= 0xd800 && c < 0xdc00 && j->end - j->at >= 6 && j->at[0] == '\\' && j->at[1] == 'u') {
		const char *back = j->at;

		j->at += 2;
		if (hex4(j, &low) && low >= 0xdc00 && low < 0xe000)
			c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
		else
			j->at = back;
	}
	give_letter(s, c >= 0xd800 && c < 0xe000 ? 0xfffd : c);
	return true;
}

static bool escape(struct jread *j, struct sink *s)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	const char *known;

	if (j->at == j->end)
		return false;
	if (*j->at == 'u') {
		j->at++;
		return escaped_letter(j, s);
	}
	known = *j->at ? strchr(from, *j->at) : NULL;
	if (!known)
		return false;
	j->at++;
	give(s, &to[known - from], 1);
	return true;
}

static bool string(struct jread *j, struct sink *s)
{
	if (!take(j, '"'))
		return bad(j);
	while (j->at < j->end && *j->at != '"') {
		const char *run = j->at;

		while (j->at < j->end && *j->at != '"' && *j->at != '\\' && (unsigned char)*j->at >= 0x20)
			j->at++;
		give(s, run, (size_t)(j->at - run));
		if (j->at == j->end || *j->at == '"')
			break;
		if (*j->at++ != '\\' || !escape(j, s))
			return bad(j);
	}
	if (j->at == j->end)
		return bad(j);
	j->at++;
	return true;
}

size_t jread_text(struct jread *j, char *out, size_t size)
{
	struct sink s = { .out = out, .size = size };

	if (!take_word(j, "null") && string(j, &s) && s.is_full)
		bad(j);
	out[j->is_bad ? 0 : s.n] = '\0';
	return j->is_bad ? 0 : s.n;
}

void jread_bytes(struct jread *j, struct bytes *out)
{
	struct sink s = { .more = out };

	if (!take_word(j, "null"))
		string(j, &s);
}

/* The short way first: an id has no escapes. */
void jread_id(struct jread *j, uint8_t id[32])
{
	char hex[ID_HEX_SIZE];

	blanks(j);
	if (j->end - j->at < ID_HEX_SIZE + 1 || j->at[0] != '"' || j->at[ID_HEX_SIZE] != '"') {
		bad(j);
		return;
	}
	memcpy(hex, j->at + 1, ID_HEX_SIZE - 1);
	hex[ID_HEX_SIZE - 1] = '\0';
	if (!id_read(hex, id))
		bad(j);
	else
		j->at += ID_HEX_SIZE + 1;
}

bool jread_key(struct jread *j, char *key, size_t size)
{
	struct sink s = { .out = key, .size = size };

	if (!follows(j, '}') || !string(j, &s))
		return false;
	key[s.is_full ? 0 : s.n] = '\0';
	return take(j, ':') || bad(j);
}

/* ---- other values --------------------------------------------------------------------------------------- */

uint64_t jread_u64(struct jread *j)
{
	uint64_t v = 0;

	if (take_word(j, "null"))
		return 0;
	if (peek(j) < '0' || peek(j) > '9')
		bad(j);
	while (j->at < j->end && *j->at >= '0' && *j->at <= '9')
		if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, (uint64_t)(*j->at++ - '0'), &v))
			bad(j);
	return j->is_bad ? 0 : v;
}

bool jread_bool(struct jread *j)
{
	if (take_word(j, "true"))
		return true;
	return take_word(j, "false") || take_word(j, "null") ? false : bad(j);
}

static void skip_scalar(struct jread *j)
{
	const char *begin = j->at;

	while (j->at < j->end && strchr("+-.eE0123456789truefalsn", *j->at) && *j->at)
		j->at++;
	if (j->at == begin)
		bad(j);
}

/* The depth has a limit, and so has this. */
void jread_skip(struct jread *j)
{
	struct sink nowhere = { 0 };
	char key[1];

	switch (peek(j)) {
	case '{':
		for (jread_object(j); jread_key(j, key, sizeof(key));)
			jread_skip(j);
		break;
	case '[':
		for (jread_array(j); jread_item(j);)
			jread_skip(j);
		break;
	case '"':
		string(j, &nowhere);
		break;
	default:
		skip_scalar(j);
	}
}

bool jread_is_done(struct jread *j)
{
	blanks(j);
	return !j->is_bad && !j->depth && j->at == j->end;
}

/* ---- the other way -------------------------------------------------------------------------------------- */

void jwrite_text(struct bytes *out, const char *text)
{
	struct json_object *t = json_text(text);

	bytes_text(out, json_object_to_json_string_ext(t, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(t);
}
