/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Puts bytes into armour and takes them out; what they say is for others. Scratch memory is the callers': it may hold secrets. */
#include "ledger/armour.h"

#include <stdio.h>
#include <string.h>

#include "keyhelpers/base64.h"

#define COLUMNS 70      /* as OpenSSH has it */

void armour_put(const char *label, const void *bytes, size_t n, char *letters, struct bytes *out)
{
	size_t len = BASE64_LEN(n);

	base64_encode(bytes, n, letters);
	bytes_format(out, "-----BEGIN %s-----\n", label);
	for (size_t i = 0; i < len; i += COLUMNS) {
		bytes_add(out, letters + i, len - i < COLUMNS ? len - i : COLUMNS);
		bytes_text(out, "\n");
	}
	bytes_format(out, "-----END %s-----\n", label);
	explicit_bzero(letters, len);
}

/* The next line without its end; false: there is none. */
static bool next_line(const char **at, const char *end, const char **line, size_t *n)
{
	const char *stop = *at < end ? memchr(*at, '\n', (size_t)(end - *at)) : NULL;

	if (!stop)
		return false;
	*line = *at;
	*n = (size_t)(stop - *at);
	if (*n && stop[-1] == '\r')
		(*n)--;
	*at = stop + 1;
	return true;
}

static bool is_edge(const char *word, const char *label, const char *line, size_t n)
{
	char wanted[64];

	return (size_t)snprintf(wanted, sizeof(wanted), "-----%s %s-----", word, label) == n && !memcmp(wanted, line, n);
}

/* base64 is strict but for the last bits of the last letter, which stand for nothing. */
static bool is_the_only_way(const char *letters, size_t len, const struct bytes *out)
{
	char last[5];
	size_t tail = out->n % 3 ? out->n % 3 : 3;

	if (!len)
		return false;
	base64_encode(out->at + out->n - tail, tail, last);
	return !memcmp(last, letters + len - 4, 4);
}

bool armour_take(const char *label, const char *text, size_t text_n, char *letters, struct bytes *out)
{
	const char *at = text, *end = text + text_n, *line;
	size_t n, len = 0, got = 0;
	bool fits;

	if (!next_line(&at, end, &line, &n) || !is_edge("BEGIN", label, line, n))
		return false;
	while (next_line(&at, end, &line, &n) && !is_edge("END", label, line, n)) {
		if (!n)
			return false;
		memcpy(letters + len, line, n);
		len += n;
	}
	if (at != end || !is_edge("END", label, line, n))
		return false;
	fits = base64_decode(letters, len, out->at, out->room, &got);
	out->n = got;
	fits = fits && got && is_the_only_way(letters, len, out);
	explicit_bzero(letters, len);
	return fits;
}
