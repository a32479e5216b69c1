/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The options of these programs: each has a long name and takes a value. What the values mean, each program judges. */
#ifndef KEYHELPERS_OPTIONS_H
#define KEYHELPERS_OPTIONS_H

struct options_entry {
	const char *name;               /* without the dashes; NULL ends a table */
	const char **value;
};

/*
 * Puts the values where the table says; the last one of an option counts. Returns the index of the first argument behind
 * the options. --help prints `usage` and ends the program; what is wrong ends it, too.
 */
int options_take(int argc, char **argv, const struct options_entry *table, const char *usage);
/* Seconds, of the option --timeout; `otherwise` when text is NULL. */
unsigned options_timeout(const char *text, unsigned otherwise);

#endif
