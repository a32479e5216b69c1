/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What certificate.md asks of a document: the keys that have to be there, and what may not contradict. */
#ifndef TOOLS_LEDGER_SCHEMA_H
#define TOOLS_LEDGER_SCHEMA_H

#include <json-c/json.h>
#include <stdbool.h>
#include <vdisk.h>

/* Whether a wipe of which this is the record may have a certificate: it completed, and was verified. */
bool schema_earns_certificate(struct json_object *wipe);
/* VD_ECORRUPT names what is missing or contradicts. */
int schema_judge(struct json_object *doc, struct vd_error *e);

/* The member at "a.b.c", or NULL; its text, or "". */
struct json_object *schema_at(struct json_object *j, const char *path);
const char *schema_text(struct json_object *j, const char *path);

#endif
