/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The one way to write a JSON document that is signed or chained: RFC 8785 with whole numbers only. Keys in order, no blanks, UTF-8, and
 * of the two ways to write a letter the shorter. A number may go beyond 2^53 and is exact, which RFC 8785 leaves open.
 */
#ifndef TOOLS_LEDGER_CANON_H
#define TOOLS_LEDGER_CANON_H

#include <json-c/json.h>

#include "ledger/bytes.h"

/* Adds the document. VD_ECORRUPT: it holds a number that is not whole, or text that is no UTF-8. */
int canon_write(struct json_object *j, struct bytes *out, struct vd_error *e);
/* Reads an object that was written so, and by nobody otherwise: VD_ECORRUPT. Free it with json_object_put(). `path` is for messages. */
int canon_read(const char *path, const struct bytes *text, struct json_object **out, struct vd_error *e);

#endif
