/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Help, made of the tables of verbs and options. */
#ifndef TOOLS_HELP_H
#define TOOLS_HELP_H

#include "opts.h"

/* `verbs` ends with NULL in each. */
void help_print_all(const struct verb *const *verbs);
void help_print_verb(const struct verb *verb);
/* The tables and the exit statuses as JSON: completion is made of it, and tests hold the pages against it. */
void help_dump_options(const struct verb *const *verbs);

#endif
