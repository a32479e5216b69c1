/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A certificate for people, in English or Chinese: lines of text, or one HTML page to print that needs nothing beside it. */
#ifndef TOOLS_LEDGER_SHEET_H
#define TOOLS_LEDGER_SHEET_H

#include "ledger/certificate.h"

enum sheet_lang { SHEET_ENGLISH, SHEET_CHINESE };

struct sheet {
	const struct certificate *c;    /* signed */
	enum sheet_lang lang;
	const char *path, *sig_path;
	const char *signer;             /* whose key it is, of a list that the user trusts; NULL: was not asked */
};
void sheet_print(const struct sheet *s);
void sheet_to_html(const struct sheet *s, struct bytes *out);

/* What both forms are made of. */
enum sheet_tone { SHEET_GOOD, SHEET_DOUBTFUL, SHEET_BAD };
struct sheet_sink {
	void (*title)(void *ctx, const char *title, enum sheet_tone tone, const char *verdict);
	void (*section)(void *ctx, const char *name);
	void (*pair)(void *ctx, const char *label, const char *value);
	void (*item)(void *ctx, const char *text);
	void *ctx;
};
void sheet_walk(const struct sheet *s, const struct sheet_sink *sink);
/* One text of two. */
const char *sheet_say(const struct sheet *s, const char *english, const char *chinese);
/* What stands at the end of a page. */
const char *sheet_operator_line(const struct sheet *s);
const char *sheet_validator_line(const struct sheet *s);
const char *sheet_note(const struct sheet *s);
/* The command with which anybody verifies it. */
void sheet_put_command(const struct sheet *s, struct bytes *out);

#endif
