/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A drill's result as a document that is signed, and as one HTML page with the picture. */
#ifndef TOOLS_DRILL_REPORT_H
#define TOOLS_DRILL_REPORT_H

#include "drill/boot.h"
#include "drill/structure.h"
#include "ledger/bytes.h"

struct drill {
	const char *image;              /* what was drilled, as the user named it */
	const char *repository, *where, *snapshot, *path;       /* of a backup: its id, place, whole name, the disk in it; or NULL */
	char started[40];               /* RFC 3339 */
	double seconds;
	struct structure structure;
	const struct boot_plan *plan;   /* NULL: nothing was to be booted */
	struct boot_result *boot;
	char qemu[160];
};
/* The structure is sound, and where it was booted that proves it. */
bool drill_passed(const struct drill *d);
/* The document; whole numbers only, so that it has a canonical form. The caller's to put. */
struct json_object *drill_document(const struct drill *d);
/* `document` is what drill_document() gave. */
void drill_page(const struct drill *d, struct json_object *document, bool chinese, struct bytes *out);

#endif
