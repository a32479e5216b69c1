/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Announces an act in the book before it is done, and closes it after: kinds "begin" and "end". Where the book lies is decided here, and whether it is
 * kept; which verbs change anything is recorded.h's.
 */
#ifndef TOOLS_LEDGER_ACTS_H
#define TOOLS_LEDGER_ACTS_H

#include "ledger/book.h"
#include "settings.h"

/* $VDISK_LEDGER, or /var/lib/vdisk/ledger for root, or $XDG_STATE_HOME/vdisk/ledger, made with the folders above it. */
int ledger_folder(char *path, size_t size, struct vd_error *e);
int ledger_open(struct book **out, struct vd_error *e);

struct act {
	struct book *book;              /* NULL: nothing is written */
	char begun[BOOK_HASH_SIZE];     /* the line that announced it */
	const struct settings *s;
	bool was_there[OPERANDS_MAX];
};
/* Negative: the act must not be done, since it could not be announced. argv[0] is the verb. */
int act_begin(struct act *a, const struct settings *s, int argc, char *const *argv, struct vd_error *e);
/* `r` is what the verb returned, and is returned; if it was none of failure and the line cannot be written, that is. Frees. */
int act_end(struct act *a, int r, struct vd_error *e);

/* Keeping the book ends, or begins again: each with a line that says so. */
int ledger_turn(struct book *b, bool on, struct vd_error *e);
/* *off: turned off; *since: the line that says so. VD_ECORRUPT: no line does. */
int ledger_is_off(struct book *b, bool *off, struct vd_error *e);

#endif
