/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which command lines change an image, a key, a repository or a certificate, and therefore are in the book. */
#ifndef TOOLS_LEDGER_RECORDED_H
#define TOOLS_LEDGER_RECORDED_H

#include "settings.h"

/* A verb of which nothing is known here is recorded. */
bool is_recorded(const char *verb, const struct settings *s);

#endif
