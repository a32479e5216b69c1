/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a certificate does not say: limits that follow from how a wipe was done. */
#ifndef TOOLS_LEDGER_LIMITS_H
#define TOOLS_LEDGER_LIMITS_H

#include <json-c/json.h>

/* Adds "limitations", each with its code and the text in English; there is always one. */
void limits_put(struct json_object *doc, struct json_object *wipe);
/* The text of a code in Chinese, or NULL. */
const char *limits_chinese(const char *code);

#endif
