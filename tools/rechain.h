/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The job that rebase and flatten have in common: an overlay gets another parent, or none. */
#ifndef TOOLS_RECHAIN_H
#define TOOLS_RECHAIN_H

#include "settings.h"

/* The image is the first operand; name NULL: none. `label` is the verb, for progress and summary. */
int rechain(struct settings *s, const char *label, const char *name, const char *format, struct vd_error *e);

/* What a stopped job on a chain comes to: the library says that it was cancelled, the user wants to know what holds. */
int rechain_explain_stop(int code, const char *what_holds, struct vd_error *e);

#endif
