/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Lists shortfalls; whether one of them fails anything is for who asked. */
#include "shortfalls.h"

#include "json.h"

void shortfalls_put(const struct fsview *v, struct json_object *to)
{
	struct json_object *list = json_put_array(to, "shortfalls");
	const struct fsview_shortfall *s;
	uint64_t total;
	size_t n;

	s = fsview_shortfalls(v, &n, &total);
	for (size_t i = 0; i < n; i++) {
		struct json_object *j = json_new();

		json_put_text(j, "kind", fsview_lack_name(s[i].lack));
		json_put_text(j, "where", s[i].where);
		json_put_text(j, "text", s[i].text);
		json_add(list, j);
	}
	json_put_u64(to, "total-shortfalls", total);
	json_put_bool(to, "complete", !total);
}
