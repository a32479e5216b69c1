/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reads options as getopt_long() does, but tells what is wrong in the reply: nobody sees standard error of a program. */
#include "keyhelpers/options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "keyhelpers/protocol.h"

#define TIMEOUT_MAX 3600        /* vdisk itself waits for a minute unless it is told otherwise */

static const char **place_of(const struct options_entry *table, const char *name, size_t len)
{
	for (; table->name; table++)
		if (strlen(table->name) == len && !memcmp(table->name, name, len))
			return table->value;
	protocol_fail(PROTOCOL_FAILED, "there is no option --%.*s: see --help", (int)len, name);
}

int options_take(int argc, char **argv, const struct options_entry *table, const char *usage)
{
	int i = 1;

	while (i < argc && !strncmp(argv[i], "--", 2)) {
		const char *name = argv[i++] + 2, *value = strchr(name, '=');
		const char **place;

		if (!*name)
			break;
		if (!strcmp(name, "help")) {
			fputs(usage, stdout);
			exit(EXIT_SUCCESS);
		}
		place = place_of(table, name, strcspn(name, "="));
		if (!value && i == argc)
			protocol_fail(PROTOCOL_FAILED, "--%s: a value is missing", name);
		*place = value ? value + 1 : argv[i++];
	}
	return i;
}

unsigned options_timeout(const char *text, unsigned otherwise)
{
	char *end;
	unsigned long seconds;

	if (!text)
		return otherwise;
	seconds = strtoul(text, &end, 10);
	if (*end || text[0] < '0' || text[0] > '9' || seconds < 1 || seconds > TIMEOUT_MAX)
		protocol_fail(PROTOCOL_FAILED, "--timeout: 1 to %d seconds, not '%s'", TIMEOUT_MAX, text);
	return (unsigned)seconds;
}
