/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The book's acts in the forms that log stores take: Elastic Common Schema 8 (JSON lines), ArcSight CEF 0, and comma-separated values (RFC 4180).
 */
#include <stdio.h>
#include <string.h>

#include "json.h"
#include "ledger/deeds.h"
#include "ledger/schema.h"

/* ---- ECS -------------------------------------------------------------------------------------------------- */

static void put_ecs(const struct deed *d, struct bytes *out)
{
	struct json_object *j = json_new(), *event, *user, *file, *own;
	const char *outcome = deed_outcome(d);

	json_put_text(j, "@timestamp", deed_time(d));
	json_put_text(json_put_object(j, "ecs"), "version", "8.11.0");
	event = json_put_object(j, "event");
	json_put_text(event, "kind", "event");
	json_put_text(event, "module", "vdisk");
	json_put_text(event, "dataset", "vdisk.ledger");
	json_put_text(event, "action", deed_act(d));
	json_put_text(event, "outcome", !strcmp(outcome, "done") ? "success" : !strcmp(outcome, "failed") ? "failure" : "unknown");
	json_put_u64(event, "sequence", d->n);
	if (d->end)
		json_put_text(event, "end", line_text(d->end, "time"));
	user = json_put_object(j, "user");
	json_put_text(user, "name", deed_user(d));
	json_put(user, "id", json_text(line_text(d->line, "who.uid")));
	json_put_text(json_put_object(j, "host"), "name", line_text(d->line, "who.host"));
	json_put(json_put_object(j, "process"), "pid", json_object_get(schema_at(d->line, "who.pid")));
	file = json_put_object(j, "file");
	json_put_text(file, "path", deed_object(d));
	if (d->end && *line_text(d->end, "what.message"))
		json_put_text(json_put_object(j, "error"), "message", line_text(d->end, "what.message"));
	own = json_put_object(j, "vdisk");
	json_put_text(own, "hash", d->hash);
	json_put(own, "what", json_object_get(schema_at(d->line, "what")));
	bytes_text(out, json_object_to_json_string_ext(j, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
	bytes_text(out, "\n");
	json_object_put(j);
}

/* ---- CEF -------------------------------------------------------------------------------------------------- */

/* In the header '|' and '\' are escaped, in extensions '=' and '\'; line ends in neither stand as they are. */
static void put_cef_text(struct bytes *out, const char *text, char special)
{
	for (; *text; text++) {
		if (*text == '\n' || *text == '\r') {
			bytes_text(out, *text == '\n' ? "\\n" : "\\r");
			continue;
		}
		if (*text == '\\' || *text == special)
			bytes_text(out, "\\");
		bytes_add(out, text, 1);
	}
}

static void put_cef_pair(struct bytes *out, const char *key, const char *text)
{
	if (!*text)
		return;
	bytes_format(out, " %s=", key);
	put_cef_text(out, text, '=');
}

static void put_cef(const struct deed *d, struct bytes *out)
{
	const char *outcome = deed_outcome(d);
	char n[24];

	snprintf(n, sizeof(n), "%llu", (unsigned long long)d->n);
	bytes_text(out, "CEF:0|vdisk|vdisk|");
	put_cef_text(out, vd_version(), '|');
	bytes_text(out, "|");
	put_cef_text(out, deed_act(d), '|');
	bytes_text(out, "|");
	put_cef_text(out, deed_act(d), '|');
	bytes_text(out, strcmp(outcome, "done") && *outcome ? "|6|" : "|3|");
	bytes_format(out, "externalId=%s", n);
	put_cef_pair(out, "rt", deed_time(d));
	put_cef_pair(out, "end", line_text(d->end, "time"));
	put_cef_pair(out, "suser", deed_user(d));
	put_cef_pair(out, "suid", line_text(d->line, "who.uid"));
	put_cef_pair(out, "dvchost", line_text(d->line, "who.host"));
	put_cef_pair(out, "filePath", deed_object(d));
	put_cef_pair(out, "outcome", outcome);
	put_cef_pair(out, "msg", line_text(d->end, "what.message"));
	put_cef_pair(out, "cs1Label", "ledger hash");
	put_cef_pair(out, "cs1", d->hash);
	bytes_text(out, "\n");
}

/* ---- CSV -------------------------------------------------------------------------------------------------- */

/* A field that a spreadsheet would take for a formula has a quote before it, so that it is text. */
static void put_csv_field(struct bytes *out, const char *text, const char *behind)
{
	bytes_text(out, "\"");
	if (*text && strchr("=+-@\t\r", *text))
		bytes_text(out, "'");
	for (; *text; text++) {
		if (*text == '"')
			bytes_text(out, "\"");
		bytes_add(out, text, 1);
	}
	bytes_text(out, "\"");
	bytes_text(out, behind);
}

static void put_csv(const struct deed *d, struct bytes *out)
{
	bytes_format(out, "%llu,", (unsigned long long)d->n);
	put_csv_field(out, deed_time(d), ",");
	put_csv_field(out, line_text(d->end, "time"), ",");
	put_csv_field(out, line_text(d->line, "who.host"), ",");
	put_csv_field(out, deed_user(d), ",");
	put_csv_field(out, deed_act(d), ",");
	put_csv_field(out, deed_object(d), ",");
	put_csv_field(out, deed_outcome(d), ",");
	put_csv_field(out, line_text(d->end, "what.exit"), ",");
	put_csv_field(out, line_text(d->end, "what.message"), ",");
	put_csv_field(out, d->hash, "\r\n");
}

void deeds_export(const struct deeds *d, enum export_form form, struct bytes *out)
{
	if (form == EXPORT_CSV)
		bytes_text(out, "n,time,end,host,user,act,object,outcome,exit,message,hash\r\n");
	for (size_t i = 0; i < d->n; i++) {
		if (form == EXPORT_ECS)
			put_ecs(&d->at[i], out);
		else if (form == EXPORT_CEF)
			put_cef(&d->at[i], out);
		else
			put_csv(&d->at[i], out);
	}
}
