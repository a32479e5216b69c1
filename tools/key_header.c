/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdisk key backup-header and restore-header, and the backup that is offered before a change. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fail.h"
#include "key_acts.h"
#include "source.h"
#include "ui.h"

/* ---- before a change -------------------------------------------------------------------------------------- */

/* Beside the image, under a name that says when: an older backup is never in the way. */
static char *default_name(const char *image)
{
	time_t now = time(NULL);
	char when[32] = "", *name;
	struct tm tm;

	if (localtime_r(&now, &tm))
		strftime(when, sizeof(when), "%Y%m%d-%H%M%S", &tm);
	if (asprintf(&name, "%s.%s.header", image, when) < 0)
		ui_out_of_memory();
	return name;
}

/* An older backup may be all that is left of a disk. */
static int back_up(struct key_request *q, const char *name, struct vd_error *e)
{
	int r = vd_header_backup(q->img, name, e);

	return r == VD_EEXIST ? fail_hint(e, r, "choose another name: what is there may be a backup, and is never replaced") : r;
}

static int back_up_to(struct key_request *q, const char *name, struct vd_error *e)
{
	int r = back_up(q, name, e);

	if (r == 0)
		ui_note("the header of before is in %s: guard that file like the disk", name);
	return r;
}

/* A header that cannot be read has nothing to back up: restore-header is about to replace it. */
static bool has_header(const struct key_request *q)
{
	struct vd_info info;

	return source_info(q->img, &info, NULL) == 0 && info.luks.version;
}

int key_offer_backup(struct key_request *q, struct vd_error *e)
{
	char *name, *question;
	int r;

	if (q->s->header_backup)
		return back_up(q, q->s->header_backup, e);
	if (!has_header(q) || q->s->quiet)
		return 0;
	if (q->s->yes || !ui_is_interactive()) {
		ui_note("a header that is lost or damaged takes the disk with it: --header-backup FILE keeps a copy");
		return 0;
	}
	name = default_name(q->image);
	if (asprintf(&question, "A header that is lost or damaged takes the disk with it. Back it up to %s first?", name) < 0)
		ui_out_of_memory();
	r = ui_offer(question, e);
	if (r > 0)
		r = back_up_to(q, name, e);
	free(question);
	free(name);
	return r;
}

/* ---- by itself -------------------------------------------------------------------------------------------- */

static void print_file_done(const struct key_request *q, const char *act, const char *words, const char *after)
{
	struct json_object *j;

	if (!ui_is_json()) {
		ui_summary("%s: the header is %s %s%s", q->image, words, q->what, after);
		return;
	}
	j = key_summary(q, act);
	json_put_text(j, "file", q->what);
	json_print(j);
}

int key_act_backup_header(struct key_request *q, struct vd_error *e)
{
	int r = back_up(q, q->what, e);

	if (r == 0)
		print_file_done(q, "backup-header", "backed up in", ": guard that file like the disk");
	return r;
}

/* The key has to open the header in the file: that of the image may be gone. */
int key_act_restore_header(struct key_request *q, struct vd_error *e)
{
	int r = secrets_of_options(q->s, &q->keys, e);

	if (r == 0 && !q->keys.n)
		r = secrets_unasked(CREDENTIAL_KEY, &q->keys, e);
	if (r == 0 && !q->keys.n)
		r = secrets_ask(q->what, &q->keys, e);
	if (r == 0)
		r = key_offer_backup(q, e);
	if (r < 0)
		return r;
	r = VD_EKEY;
	secrets_status(q->keys.at, q->keys.n);
	for (size_t i = 0; i < q->keys.n && r == VD_EKEY; i++)
		r = vd_header_restore(q->img, q->what, q->keys.at[i], e);
	ui_status_end();
	if (r == 0)
		print_file_done(q, "restore-header", "that of", " again");
	return r;
}
