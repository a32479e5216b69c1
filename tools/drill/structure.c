/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Asks the view of file systems; a disk of which nothing can be read shows nothing, and one that breaks a rule is not sound. */
#include "drill/structure.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fsview/fsview.h"
#include "json.h"
#include "shortfalls.h"

#define RELEASE_MAX 65536

static bool put_volumes(struct fsview *v, struct structure *out)
{
	struct json_object *list = json_put_array(out->details, "volumes");
	bool has_files = false;

	for (size_t i = 0; fsview_volume(v, i); i++) {
		const struct fsview_volume *x = fsview_volume(v, i);
		struct json_object *j = json_new();

		json_put_text(j, "name", x->name);
		json_put_text(j, "file-system", fsview_fs_name(x->fs));
		json_put_u64(j, "size", x->size);
		json_put_text(j, "label", x->label);
		json_put_bool(j, "readable", x->is_readable);
		json_put_bool(j, "dirty", x->is_dirty);
		json_put_text(j, "mounted-at", x->mounted_at);
		json_add(list, j);
		has_files |= x->is_readable || x->fs == FSVIEW_FS_LUKS || x->fs == FSVIEW_FS_BITLOCKER;
		out->has_windows |= x->fs == FSVIEW_FS_NTFS;
	}
	return has_files;
}

/* The first rule that is broken, in words. */
static bool find_damage(const struct fsview *v, struct structure *out)
{
	const struct fsview_shortfall *at;
	uint64_t total;
	size_t n;

	at = fsview_shortfalls(v, &n, &total);
	for (size_t i = 0; i < n; i++) {
		if (at[i].lack != FSVIEW_DAMAGED && at[i].lack != FSVIEW_STOPPED)
			continue;
		snprintf(out->words, sizeof(out->words), "%s", at[i].text);
		return true;
	}
	return false;
}

/* PRETTY_NAME of os-release(5). */
static void put_system(struct fsview *v, struct structure *out)
{
	struct vd_error ignored;
	char *text = NULL, *at, *end;
	size_t len;

	if (fsview_load(v, "/etc/os-release", RELEASE_MAX, &text, &len, &ignored) < 0)
		return;
	at = strstr(text, "PRETTY_NAME=\"");
	if (at) {
		at += strlen("PRETTY_NAME=\"");
		end = at + strcspn(at, "\"\n");
		*end = 0;
		json_put_text(out->details, "system", at);
		if (!out->words[0])
			snprintf(out->words, sizeof(out->words), "%.120s", at);
	}
	free(text);
}

int structure_check(struct vd_image *img, struct structure *out, struct vd_error *e)
{
	struct fsview *v;
	bool has_files, is_damaged;
	int r;

	*out = (struct structure){ .details = json_new() };
	r = fsview_open(img, NULL, &v, e);
	if (r < 0)
		return r;
	json_put_text(out->details, "table", fsview_table(v));
	has_files = put_volumes(v, out);
	put_system(v, out);
	shortfalls_put(v, out->details);
	is_damaged = find_damage(v, out);
	out->is_sound = has_files && !is_damaged;
	if (!has_files && !is_damaged)
		snprintf(out->words, sizeof(out->words), "no file system was found on the disk");
	json_put_bool(out->details, "sound", out->is_sound);
	json_put_text(out->details, "words", out->words);
	fsview_close(v);
	return 0;
}
