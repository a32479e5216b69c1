/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reads allowed_signers files as ssh-keygen does. Whether a signature holds was seen before. */
#include "ledger/allowed.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fail.h"
#include "ledger/files.h"

#define WORD_MAX 1024

struct line {
	char principals[WORD_MAX], namespaces[WORD_MAX];        /* namespaces "": any */
	time_t after, before;           /* 0: unbounded */
	bool is_authority;
	struct sshkey key;
};

/* ---- words ------------------------------------------------------------------------------------------------ */

/* Patterns between commas, as ssh has them: * and ?, and one with ! before it takes away what others allow. */
static bool matches(const char *patterns, const char *text)
{
	char copy[WORD_MAX], *save = NULL;
	bool found = false;

	snprintf(copy, sizeof(copy), "%s", patterns);
	for (char *p = strtok_r(copy, ",", &save); p; p = strtok_r(NULL, ",", &save)) {
		bool is_not = *p == '!', is = fnmatch(p + is_not, text, FNM_NOESCAPE) == 0;

		if (is && is_not)
			return false;
		found |= is;
	}
	return found;
}

/* The next word, up to a blank that stands in no quotes; the quotes go. False: there is none, or it is too long. */
static bool take_word(const char **at, char word[WORD_MAX])
{
	const char *p = *at + strspn(*at, " \t");
	bool is_quoted = false;
	size_t n = 0;

	for (; *p && *p != '\r' && (is_quoted || (*p != ' ' && *p != '\t')); p++) {
		if (*p == '"')
			is_quoted = !is_quoted;
		else if (n + 1 < WORD_MAX)
			word[n++] = *p;
		else
			return false;
	}
	word[n] = '\0';
	*at = p;
	return n && !is_quoted;
}

/* YYYYMMDD[HHMM[SS]][Z]; without Z in the time of this place. */
static bool take_time(const char *text, time_t *out)
{
	static const char *const forms[] = { [8] = "%Y%m%d", [12] = "%Y%m%d%H%M", [14] = "%Y%m%d%H%M%S" };
	size_t n = strspn(text, "0123456789");
	bool is_utc = text[n] == 'Z';
	struct tm tm = { .tm_isdst = -1 };
	char digits[16];
	const char *end;

	if ((n != 8 && n != 12 && n != 14) || text[n + is_utc])
		return false;
	snprintf(digits, sizeof(digits), "%.*s", (int)n, text);
	end = strptime(digits, forms[n], &tm);
	if (!end || *end)
		return false;
	*out = is_utc ? timegm(&tm) : mktime(&tm);
	return *out > 0;
}

/* ---- lines ------------------------------------------------------------------------------------------------ */

static bool take_option(char *word, struct line *l)
{
	char *value = strchr(word, '=');

	if (!strcasecmp(word, "cert-authority"))
		return l->is_authority = true;
	if (!value)
		return false;
	*value++ = '\0';
	if (!strcasecmp(word, "namespaces"))
		return snprintf(l->namespaces, sizeof(l->namespaces), "%s", value) > 0;
	if (!strcasecmp(word, "valid-after"))
		return take_time(value, &l->after);
	if (!strcasecmp(word, "valid-before"))
		return take_time(value, &l->before);
	return false;
}

/* Commas between options, outside of quotes, become ends of texts; the quotes go. */
static bool take_options(const char *from, size_t n, struct line *l)
{
	char word[WORD_MAX];
	bool is_quoted = false;
	size_t len = 0;

	for (size_t i = 0; i <= n; i++) {
		if (i < n && from[i] == '"') {
			is_quoted = !is_quoted;
		} else if (i < n && (is_quoted || from[i] != ',')) {
			if (len + 1 >= sizeof(word))
				return false;
			word[len++] = from[i];
		} else {
			word[len] = '\0';
			len = 0;
			if (!take_option(word, l))
				return false;
		}
	}
	return !is_quoted;
}

/* False: the line allows nothing: it is empty, of another kind of key, or cannot be read. */
static bool take_line(const char *text, struct line *l)
{
	char word[WORD_MAX], kind[64];
	const char *at = text, *options;

	*l = (struct line){ 0 };
	text += strspn(text, " \t");
	if (!*text || *text == '#' || !take_word(&at, l->principals))
		return false;
	at += strspn(at, " \t");
	if (sshkey_of_line(at, &l->key, kind))
		return true;
	options = at;
	if (!take_word(&at, word) || !take_options(options, (size_t)(at - options), l))
		return false;
	return sshkey_of_line(at + strspn(at, " \t"), &l->key, kind);
}

static bool allows(const struct line *l, const struct sshsig *sig, const char *who, time_t now)
{
	if (l->is_authority || memcmp(l->key.public_key, sig->public_key, ED25519_SIZE))
		return false;
	if (who && !matches(l->principals, who))
		return false;
	if (l->namespaces[0] && !matches(l->namespaces, sig->ns))
		return false;
	return (!l->after || now >= l->after) && (!l->before || now <= l->before);
}

static bool find(char *text, const struct sshsig *sig, const char *who, struct line *l, bool *has_key)
{
	time_t now = time(NULL);
	char *save = NULL;

	*has_key = false;
	for (char *at = strtok_r(text, "\n", &save); at; at = strtok_r(NULL, "\n", &save)) {
		if (!take_line(at, l))
			continue;
		*has_key |= !memcmp(l->key.public_key, sig->public_key, ED25519_SIZE);
		if (allows(l, sig, who, now))
			return true;
	}
	return false;
}

int allowed_by_file(const char *path, const struct sshsig *sig, const char *who, char name[ALLOWED_NAME_MAX], struct vd_error *e)
{
	char print[SSHKEY_PRINT_SIZE];
	struct bytes text = { 0 };
	struct line l;
	bool found, has_key = false;
	int r = file_read(path, ALLOWED_FILE_MAX, &text, e);

	if (r == 0)
		bytes_add(&text, "", 1);
	found = r == 0 && find((char *)text.at, sig, who, &l, &has_key);
	bytes_free(&text);
	if (r < 0)
		return r;
	if (found) {
		snprintf(name, ALLOWED_NAME_MAX, "%.*s", ALLOWED_NAME_MAX - 1, who ? who : l.principals);
		return 0;
	}
	sshkey_print(sig->public_key, print);
	fail(e, VD_EAUTH, "%s does not allow the key that signed, %s%s%s, to sign%s", path, print, who ? ", as " : "", who ? who : "",
	     has_key ? " this, now, for that person" : "");
	return has_key ? fail_hint(e, VD_EAUTH, "the key is there: look at its principals, namespaces and times") :
			 fail_hint(e, VD_EAUTH, "if it should, a line goes there: NAME and the line of the public key");
}

int allowed_by_key(const char *path, const struct sshsig *sig, char name[ALLOWED_NAME_MAX], struct vd_error *e)
{
	char print[SSHKEY_PRINT_SIZE];
	struct sshkey k;
	int r = sshkey_read(path, &k, e);

	if (r < 0)
		return r;
	snprintf(name, ALLOWED_NAME_MAX, "%s", k.comment);
	sshkey_free(&k);
	if (!memcmp(k.public_key, sig->public_key, ED25519_SIZE))
		return 0;
	sshkey_print(sig->public_key, print);
	return fail(e, VD_EAUTH, "it was signed by another key than %s: %s", path, print);
}
