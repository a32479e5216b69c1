/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The book as people ask of it: acts with how they ended, of some time, image, person or verb. */
#ifndef TOOLS_LEDGER_DEEDS_H
#define TOOLS_LEDGER_DEEDS_H

#include "ledger/acts.h"

struct deed {
	uint64_t n;                     /* of the line that announced it, or that is all there is of it */
	char hash[BOOK_HASH_SIZE];
	struct json_object *line;       /* that line */
	struct json_object *end;        /* the line that closed it, or NULL: it runs, or was killed */
};
struct deeds {
	struct deed *at;
	size_t n, room;
	uint64_t lines;                 /* that were read */
};
/* Reads and verifies the whole book. --since, --until, --image, --who and --act of `s` choose. */
int deeds_read(struct book *b, const struct ledger_settings *s, struct deeds *d, struct vd_error *e);
void deeds_free(struct deeds *d);

/* "wipe", or the kind of a line that is no act; belongs to it. */
const char *deed_act(const struct deed *d);
/* "done", "failed", "not closed"; or "" for a line that is no act. */
const char *deed_outcome(const struct deed *d);
const char *deed_time(const struct deed *d);
const char *deed_user(const struct deed *d);
/* The first object, or what was made first, or "". */
const char *deed_object(const struct deed *d);
/* All of them: "a b -> c". */
void deed_put_objects(const struct deed *d, struct bytes *out);
/* What is at "a.b" of one of its lines, as text, or "". */
const char *line_text(struct json_object *line, const char *path);

enum export_form { EXPORT_UNSAID, EXPORT_ECS, EXPORT_CEF, EXPORT_CSV };
/* One record after the other, in a form that log stores take. */
void deeds_export(const struct deeds *d, enum export_form form, struct bytes *out);

#endif
