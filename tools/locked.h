/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Text that is a secret, on its way between people and a key object: how it is kept, and how it is shown. */
#ifndef TOOLS_LOCKED_H
#define TOOLS_LOCKED_H

#include "json.h"

struct vd_error;

/* Zeroed, in pages of its own: locked as far as the system allows, and left out of core files. Ends the program when there is none. */
char *locked_new(size_t size);
/* Wipes; NULL is allowed. */
void locked_free(char *text, size_t size);

/* n texts, `stride` bytes apart, a line each on standard output, past all buffers. */
int locked_show(const char *texts, size_t stride, size_t n, struct vd_error *e);
/*
 * The object, which is freed, with one more member: the text, or an array of them. They have no letters that JSON escapes, and
 * json-c, which does not wipe, does not see them.
 */
int locked_show_text_in(struct json_object *j, const char *key, const char *text, struct vd_error *e);
int locked_show_array_in(struct json_object *j, const char *key, const char *texts, size_t stride, size_t n,
			 struct vd_error *e);

#endif
