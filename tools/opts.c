/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reads command lines by the option tables. What options mean together, the verbs judge. */
#include "opts.h"

#include <ctype.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"
#include "sizes.h"

#define OPTS_MAX 64             /* options of one verb, all groups together */
#define LONG_BASE 256           /* getopt_long's value of row 0: above every letter */

/* The rows of a verb's groups in one list, as getopt_long wants them. */
struct flat {
	const struct opt *rows[OPTS_MAX];
	bool seen[OPTS_MAX];
	size_t n;
	struct option longs[OPTS_MAX + 1];
	char letters[3 * OPTS_MAX + 2];
};

static int bad_value(const char *shown, const char *value, const char *wanted, struct vd_error *e)
{
	return fail(e, VD_EARG, "%s: '%s' is not %s", shown, value, wanted);
}

static int set_number(const struct opt *o, const char *shown, const char *value, uint64_t *out, struct vd_error *e)
{
	char *end;
	unsigned long long n = strtoull(value, &end, 10);

	if (!isdigit((unsigned char)value[0]) || *end || n < o->min || n > o->max)
		return fail(e, VD_EARG, "%s: '%s' is not a number from %llu to %llu", shown, value,
			    (unsigned long long)o->min, (unsigned long long)o->max);
	*out = n;
	return 0;
}

static void list_choices(const struct opt_choice *c, char *buf, size_t size)
{
	size_t used = 0;

	buf[0] = '\0';
	for (; c->name && used < size; c++)
		used += (size_t)snprintf(buf + used, size - used, "%s%s", used ? ", " : "", c->name);
}

static int set_choice(const struct opt *o, const char *shown, const char *value, int *out, struct vd_error *e)
{
	char known[256];

	if (!value) {
		*out = o->value;
		return 0;
	}
	for (const struct opt_choice *c = o->choices; c->name; c++)
		if (!strcmp(c->name, value)) {
			*out = c->value;
			return 0;
		}
	list_choices(o->choices, known, sizeof(known));
	return fail(e, VD_EARG, "%s: '%s' is not one of: %s", shown, value, known);
}

static int set_switch(const char *shown, const char *value, bool *out, struct vd_error *e)
{
	if (strcmp(value, "on") != 0 && strcmp(value, "off") != 0)
		return bad_value(shown, value, "on or off", e);
	*out = !strcmp(value, "on");
	return 0;
}

static int add_text(struct texts *t, const char *shown, const char *value, struct vd_error *e)
{
	if (t->n == TEXTS_MAX)
		return fail(e, VD_EARG, "%s is given more than %d times", shown, TEXTS_MAX);
	t->at[t->n++] = value;
	return 0;
}

static int add_secret(struct secret_sources *s, const struct opt *o, const char *shown, const char *value,
		      struct vd_error *e)
{
	if (s->n == TEXTS_MAX)
		return fail(e, VD_EARG, "%s: more than %d keys are given", shown, TEXTS_MAX);
	s->at[s->n++] = (struct secret_source){ (enum secret_kind)o->value, value };
	return 0;
}

int opts_set(const struct opt *o, const char *shown, const char *value, struct settings *s, struct vd_error *e)
{
	void *where = (char *)s + o->where;

	switch (o->kind) {
	case OPT_FLAG:
		*(bool *)where = true;
		return 0;
	case OPT_SWITCH:
		return set_switch(shown, value, where, e);
	case OPT_TEXT:
		*(const char **)where = value;
		return 0;
	case OPT_TEXTS:
		return add_text(where, shown, value, e);
	case OPT_NUMBER:
		return set_number(o, shown, value, where, e);
	case OPT_SIZE:
		return size_parse(value, where) ? 0 : bad_value(shown, value, "a size such as 65536, 64K or 1.5G", e);
	case OPT_CHOICE:
		return set_choice(o, shown, value, where, e);
	case OPT_SECRET:
		return add_secret(where, o, shown, value, e);
	}
	return 0;
}

static bool may_repeat(const struct opt *o)
{
	return o->kind == OPT_TEXTS || o->kind == OPT_SECRET;
}

/* ---- argv ---------------------------------------------------------------------------------------------- */

static int arg_rule(const struct opt *o)
{
	if (!o->arg)
		return no_argument;
	return o->arg_is_optional ? optional_argument : required_argument;
}

static void flatten(const struct verb *verb, struct flat *f)
{
	char *letter = f->letters;

	*letter++ = ':';        /* getopt reports a missing argument apart from an unknown option */
	for (const struct opt_group *const *g = verb->groups; *g; g++)
		for (const struct opt *o = (*g)->opts; o->name && f->n < OPTS_MAX; o++) {
			f->longs[f->n] = (struct option){ o->name, arg_rule(o), NULL, LONG_BASE + (int)f->n };
			f->rows[f->n++] = o;
			if (!o->letter)
				continue;
			*letter++ = o->letter;
			if (arg_rule(o) == required_argument)
				*letter++ = ':';
		}
}

static const char *flat_name(const void *ctx, size_t i)
{
	const struct flat *f = ctx;

	return i < f->n ? f->rows[i]->name : NULL;
}

/* The row of what getopt_long returned or complains about; f->n: none. */
static size_t find_row(const struct flat *f, int c)
{
	size_t i = 0;

	if (c >= LONG_BASE)
		return (size_t)(c - LONG_BASE);
	while (i < f->n && f->rows[i]->letter != c)
		i++;
	return c ? i : f->n;
}

static int refuse_unknown(const struct flat *f, char *const *argv, struct vd_error *e)
{
	const char *typed, *near;
	char name[64];
	int r;

	if (optopt && optopt < LONG_BASE)
		return fail(e, VD_EARG, "unknown option '-%c'", optopt);
	if (optopt)
		return fail(e, VD_EARG, "--%s takes no argument", f->rows[find_row(f, optopt)]->name);
	typed = argv[optind - 1] + 2;
	/* Without what follows the "=": somebody may have tried to give a passphrase here. */
	snprintf(name, sizeof(name), "%.*s", (int)strcspn(typed, "="), typed);
	r = fail(e, VD_EARG, "unknown option '--%s'", name);
	near = opts_nearest(name, flat_name, f);
	return near ? fail_hint(e, r, "did you mean --%s?", near) : r;
}

static int take(struct flat *f, size_t row, const char *value, struct settings *s, struct vd_error *e)
{
	const struct opt *o = f->rows[row];
	char shown[64];

	snprintf(shown, sizeof(shown), "--%s", o->name);
	/* The last of two would win in silence: in a command made by a script that is never what was meant. */
	if (f->seen[row] && !may_repeat(o))
		return fail(e, VD_EARG, "%s is given twice", shown);
	f->seen[row] = true;
	return opts_set(o, shown, value, s, e);
}

static int take_options(struct flat *f, int argc, char **argv, struct settings *s, struct vd_error *e)
{
	int c, r = 0;

	optind = 0;     /* glibc: start anew */
	opterr = 0;
	while (r == 0 && (c = getopt_long(argc, argv, f->letters, f->longs, NULL)) != -1) {
		if (c == '?')
			return refuse_unknown(f, argv, e);
		if (c == ':')
			return fail(e, VD_EARG, "--%s needs an argument", f->rows[find_row(f, optopt)]->name);
		r = take(f, find_row(f, c), optarg, s, e);
	}
	return r;
}

static int take_operands(const struct verb *verb, int argc, char **argv, struct settings *s, struct vd_error *e)
{
	size_t n = (size_t)(argc - optind);

	if (n < verb->min_operands || n > verb->max_operands)
		return fail(e, VD_EARG, "%s: wants %s, got %zu operand%s", verb->name, verb->operands, n,
			    n == 1 ? "" : "s");
	for (size_t i = 0; i < n; i++) {
		s->operands[i] = argv[optind + (int)i];
		if (!s->operands[i][0])
			return fail(e, VD_EARG, "%s: an operand is empty", verb->name);
	}
	s->n_operands = n;
	return 0;
}

/* "-1G" before any "--" is the last operand: behind all else, where getopt is not shown it. How many there are. */
static int put_aside_numbers(int argc, char **argv)
{
	int n = 0;

	for (int i = 1; i < argc - n && strcmp(argv[i], "--") != 0;) {
		char *word = argv[i];

		if (word[0] != '-' || !isdigit((unsigned char)word[1])) {
			i++;
			continue;
		}
		memmove(&argv[i], &argv[i + 1], (size_t)(argc - i - 1) * sizeof(*argv));
		argv[argc - 1] = word;
		n++;
	}
	return n;
}

int opts_parse(const struct verb *verb, int argc, char **argv, struct settings *s, struct vd_error *e)
{
	struct flat f = { 0 };
	int n_aside = verb->ends_with_number ? put_aside_numbers(argc, argv) : 0, r;

	flatten(verb, &f);
	r = take_options(&f, argc - n_aside, argv, s, e);
	if (r == 0 && !s->help)
		r = take_operands(verb, argc, argv, s, e);
	if (r < 0 && !e->hint[0])
		return fail_hint(e, r, "see: vdisk help %s", verb->name);
	return r;
}

/* ---- key=value lists ------------------------------------------------------------------------------------ */

/* Ends the text at the next single comma and halves doubled ones before it. Returns what is behind, or NULL. */
static char *cut_pair(char *p)
{
	char *to = p;

	for (; *p; *to++ = *p++) {
		if (*p != ',')
			continue;
		if (p[1] != ',') {
			*to = '\0';
			return p + 1;
		}
		p++;
	}
	*to = '\0';
	return NULL;
}

static int refuse_key(const struct opt *table, const char *what, const char *key, struct vd_error *e)
{
	char known[512] = "";
	size_t used = 0;
	int r = fail(e, VD_EARG, "%s has no option '%s'", what, key);

	for (; table->name && used < sizeof(known); table++)
		used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%s", used ? ", " : "", table->name);
	return fail_hint(e, r, "known are: %s", known);
}

static int take_pair(const struct opt *table, const char *what, char *pair, bool *seen, struct settings *s,
		     struct vd_error *e)
{
	char *value = strchr(pair, '=');
	size_t row = 0;

	if (value)
		*value++ = '\0';
	while (table[row].name && strcmp(table[row].name, pair) != 0)
		row++;
	if (!table[row].name)
		return refuse_key(table, what, pair, e);
	if (seen[row])
		return fail(e, VD_EARG, "%s is given twice", pair);
	if (!value)
		return fail(e, VD_EARG, "%s needs a value: %s=...", pair, pair);
	seen[row] = true;
	return opts_set(&table[row], pair, value, s, e);
}

int opts_parse_pairs(const struct opt *table, const char *what, char *pairs, struct settings *s, struct vd_error *e)
{
	bool seen[OPTS_MAX] = { false };
	int r = 0;

	while (pairs && r == 0) {
		char *pair = pairs;

		pairs = cut_pair(pair);
		r = take_pair(table, what, pair, seen, s, e);
	}
	return r;
}

/* ---- near misses ---------------------------------------------------------------------------------------- */

#define NAME_MAX_LEN 32

/* Insertions, deletions, changes and swaps of neighbours between two short names (optimal string alignment). */
static unsigned distance(const char *a, const char *b)
{
	unsigned d[NAME_MAX_LEN + 1][NAME_MAX_LEN + 1];
	size_t n = strlen(a), m = strlen(b);

	if (n > NAME_MAX_LEN || m > NAME_MAX_LEN)
		return NAME_MAX_LEN;
	for (size_t i = 0; i <= n; i++)
		for (size_t j = 0; j <= m; j++) {
			unsigned best = i && j ? d[i - 1][j - 1] + (a[i - 1] != b[j - 1]) : (unsigned)(i + j);

			if (i && d[i - 1][j] + 1 < best)
				best = d[i - 1][j] + 1;
			if (j && d[i][j - 1] + 1 < best)
				best = d[i][j - 1] + 1;
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && d[i - 2][j - 2] + 1 < best)
				best = d[i - 2][j - 2] + 1;
			d[i][j] = best;
		}
	return d[n][m];
}

const char *opts_nearest(const char *typed, const char *(*next)(const void *ctx, size_t i), const void *ctx)
{
	const char *best = NULL, *name;
	unsigned best_distance = (unsigned)strlen(typed) / 3 + 1;

	for (size_t i = 0; (name = next(ctx, i)); i++) {
		unsigned d = distance(typed, name);

		if (d <= best_distance) {
			best_distance = d - (d > 0);
			best = name;
		}
	}
	return best;
}
