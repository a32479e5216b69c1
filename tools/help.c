/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Prints the tables for people and for programs. What they say is written where they are. */
#include "help.h"

#include <stdio.h>
#include <string.h>

#include "exit.h"
#include "json.h"

#define WIDTH 80                /* a terminal's usual width; help that is piped looks the same */
#define TEXT_COLUMN 30          /* where the explanations of options begin */

/* Prints words from column `at` on, wrapped, later lines beginning at `indent`. */
static void print_wrapped(const char *text, size_t at, size_t indent)
{
	while (*text) {
		size_t word = strcspn(text, " ");

		if (at > indent && at + 1 + word > WIDTH) {
			printf("\n%*s", (int)indent, "");
			at = indent;
		} else if (at > indent) {
			putchar(' ');
			at++;
		}
		printf("%.*s", (int)word, text);
		at += word;
		text += word;
		text += strspn(text, " ");
	}
	putchar('\n');
}

static void print_option(const struct opt *o)
{
	char left[64];
	size_t used;

	if (o->letter)
		used = (size_t)snprintf(left, sizeof(left), "  -%c, --%s", o->letter, o->name);
	else
		used = (size_t)snprintf(left, sizeof(left), "      --%s", o->name);
	if (o->arg)
		snprintf(left + used, sizeof(left) - used, o->arg_is_optional ? "[=%s]" : " %s", o->arg);
	used = strlen(left);
	printf("%s", left);
	if (used >= TEXT_COLUMN)
		printf("\n%*s", TEXT_COLUMN, "");
	else
		printf("%*s", (int)(TEXT_COLUMN - used), "");
	print_wrapped(o->help, TEXT_COLUMN, TEXT_COLUMN);
}

void help_print_verb(const struct verb *verb)
{
	printf("usage: vdisk %s [options] %s\n\n", verb->name, verb->operands);
	print_wrapped(verb->about, 0, 0);
	for (const struct opt_group *const *g = verb->groups; *g; g++) {
		if (g == verb->groups || strcmp(g[-1]->title, (*g)->title) != 0)
			printf("\n%s:\n", (*g)->title);
		for (const struct opt *o = (*g)->opts; o->name; o++)
			print_option(o);
	}
	printf("\nExamples:\n");
	for (const char *const *x = verb->examples; *x; x++)
		printf("  %s\n", *x);
	printf("\nSee vdisk-%s(1).\n", verb->name);
}

void help_print_all(const struct verb *const *verbs)
{
	printf("usage: vdisk VERB [options] IMAGE [OUT]\n\n");
	for (; *verbs; verbs++)
		printf("  %-9s %s\n", (*verbs)->name, (*verbs)->summary);
	printf("\nExamples:\n"
	       "  vdisk encrypt disk.raw disk.qcow2\n"
	       "  vdisk info disk.qcow2\n"
	       "  vdisk decrypt --passphrase-file pw disk.qcow2 disk.raw\n"
	       "\n`vdisk help VERB` says more; vdisk(1) all of it.\n");
}

/* ---- for programs --------------------------------------------------------------------------------------- */

static struct json_object *dump_option(const struct opt *o)
{
	struct json_object *j = json_new();
	char letter[2] = { o->letter, '\0' };

	json_put_text(j, "long", o->name);
	if (o->letter)
		json_put_text(j, "short", letter);
	if (o->arg)
		json_put_text(j, "argument", o->arg);
	json_put_bool(j, "argument-optional", o->arg_is_optional);
	json_put_bool(j, "repeatable", o->kind == OPT_TEXTS || o->kind == OPT_SECRET);
	json_put_text(j, "help", o->help);
	if (o->choices) {
		struct json_object *list = json_put_array(j, "choices");

		for (const struct opt_choice *c = o->choices; c->name; c++)
			json_add(list, json_text(c->name));
	}
	return j;
}

static struct json_object *dump_verb(const struct verb *verb)
{
	struct json_object *j = json_new(), *list;

	json_put_text(j, "name", verb->name);
	json_put_text(j, "operands", verb->operands);
	json_put_text(j, "summary", verb->summary);
	list = json_put_array(j, "options");
	for (const struct opt_group *const *g = verb->groups; *g; g++)
		for (const struct opt *o = (*g)->opts; o->name; o++)
			json_add(list, dump_option(o));
	return j;
}

void help_dump_options(const struct verb *const *verbs)
{
	struct json_object *j = json_new(), *list;
	const struct exit_row *row;

	json_put_text(j, "schema", "vdisk.options/1");
	json_put_text(j, "version", vd_version());
	list = json_put_array(j, "verbs");
	for (; *verbs; verbs++)
		json_add(list, dump_verb(*verbs));
	list = json_put_array(j, "exit-statuses");
	for (unsigned i = 0; (row = exit_row(i)); i++) {
		struct json_object *x = json_new();

		json_put_u64(x, "status", (uint64_t)row->status);
		json_put_text(x, "reason", row->reason);
		json_add(list, x);
	}
	json_print(j);
}
