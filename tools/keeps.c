/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Asks the library for each file of an image, and says what it knows but once. */
#include "keeps.h"

#include <string.h>

#include "json.h"
#include "ui.h"

#define FACTS_MAX 16            /* of one file */
#define TOLD_MAX 64             /* of all: what is more is like it */

struct told {
	struct vd_keeps at[TOLD_MAX];
	size_t n;
};

static bool is_told(const struct told *t, const struct vd_keeps *k)
{
	for (size_t i = 0; i < t->n; i++)
		if (!strcmp(t->at[i].text, k->text))
			return true;
	return false;
}

static void print(const char *file, const struct vd_keeps *k)
{
	struct json_object *j;

	if (!ui_is_json()) {
		ui_summary("%s: %s: %s", k->is_certain ? "keeps old blocks" : "may keep old blocks", file, k->text);
		return;
	}
	j = json_new();
	json_put_text(j, "type", "host");
	json_put_text(j, "fact", vd_keeps_name(k->kind));
	json_put_bool(j, "certain", k->is_certain);
	json_put_text(j, "file", file);
	json_put_text(j, "message", k->text);
	json_print(j);
}

static void tell_file(struct told *t, const char *file)
{
	struct vd_keeps facts[FACTS_MAX];
	struct vd_error e;
	size_t n = 0;

	if (vd_host_keeps(file, facts, FACTS_MAX, &n, &e) < 0)
		ui_note("%s", e.message);
	for (size_t i = 0; i < n && i < FACTS_MAX; i++) {
		if (t->n == TOLD_MAX || is_told(t, &facts[i]))
			continue;
		t->at[t->n++] = facts[i];
		print(file, &facts[i]);
	}
}

void keeps_tell(struct vd_image *img)
{
	struct told t = { .n = 0 };

	for (uint32_t i = 0; i < vd_host_file_count(img); i++)
		tell_file(&t, vd_host_file_name(img, i));
}
