/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a view of file systems could not see, as JSON: alike in all that look through one. */
#ifndef TOOLS_SHORTFALLS_H
#define TOOLS_SHORTFALLS_H

#include <json-c/json.h>

#include "fsview/fsview.h"

/* "shortfalls", "total-shortfalls", and "complete": there are none. */
void shortfalls_put(const struct fsview *v, struct json_object *to);

#endif
