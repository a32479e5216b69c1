/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Holds a document against certificate.md. Making one is certificate.c's, showing it sheet.c's. */
#include "ledger/schema.h"

#include <stdio.h>
#include <string.h>

#include "fail.h"
#include "ledger/certificate.h"
#include "wipe/grade.h"

struct row {
	const char *path;               /* "a.b[].c": of each c in the array b */
	enum json_type type;
};
/* Keys beyond these may be there. */
static const struct row rows[] = {
	{ "act", json_type_string },
	{ "issued", json_type_string },
	{ "limitations", json_type_array },
	{ "limitations[].code", json_type_string },
	{ "limitations[].text", json_type_string },
	{ "operator", json_type_object },
	{ "operator.uid", json_type_int },
	{ "type", json_type_string },
	{ "version", json_type_int },
	{ "wipe", json_type_object },
	{ "wipe.consent", json_type_string },
	{ "wipe.ended", json_type_string },
	{ "wipe.findings", json_type_array },
	{ "wipe.findings[].best-grade", json_type_string },
	{ "wipe.findings[].code", json_type_string },
	{ "wipe.findings[].text", json_type_string },
	{ "wipe.forced", json_type_boolean },
	{ "wipe.grade", json_type_string },
	{ "wipe.host", json_type_object },
	{ "wipe.host.name", json_type_string },
	{ "wipe.limits", json_type_array },
	{ "wipe.method", json_type_string },
	{ "wipe.passes", json_type_array },
	{ "wipe.pattern-key-sha256", json_type_string },
	{ "wipe.profile", json_type_string },
	{ "wipe.run", json_type_string },
	{ "wipe.schema", json_type_int },
	{ "wipe.seconds", json_type_int },
	{ "wipe.set", json_type_array },
	{ "wipe.set[].after.bytes", json_type_int },
	{ "wipe.set[].after.extents", json_type_int },
	{ "wipe.set[].allocated", json_type_int },
	{ "wipe.set[].before.bytes", json_type_int },
	{ "wipe.set[].before.extents", json_type_int },
	{ "wipe.set[].done", json_type_boolean },
	{ "wipe.set[].grade", json_type_string },
	{ "wipe.set[].moved", json_type_int },
	{ "wipe.set[].path", json_type_string },
	{ "wipe.set[].role", json_type_string },
	{ "wipe.set[].size", json_type_int },
	{ "wipe.set[].verified", json_type_int },
	{ "wipe.set[].written", json_type_int },
	{ "wipe.started", json_type_string },
	{ "wipe.statement", json_type_string },
	{ "wipe.tool.name", json_type_string },
	{ "wipe.tool.version", json_type_string },
	{ "wipe.verification.mode", json_type_string },
};
#define N_ROWS (sizeof(rows) / sizeof(rows[0]))

struct json_object *schema_at(struct json_object *j, const char *path)
{
	char key[64];
	size_t n;

	for (; j && *path; path += n + (path[n] == '.')) {
		n = strcspn(path, ".");
		if (n >= sizeof(key) || !json_object_is_type(j, json_type_object))
			return NULL;
		memcpy(key, path, n);
		key[n] = '\0';
		j = json_object_object_get(j, key);
	}
	return j;
}

const char *schema_text(struct json_object *j, const char *path)
{
	struct json_object *at = schema_at(j, path);

	return json_object_is_type(at, json_type_string) ? json_object_get_string(at) : "";
}

static bool has_type(struct json_object *j, const char *path, enum json_type type)
{
	const char *each = strstr(path, "[].");
	char list_path[64];
	struct json_object *list;

	if (!each)
		return json_object_is_type(schema_at(j, path), type);
	snprintf(list_path, sizeof(list_path), "%.*s", (int)(each - path), path);
	list = schema_at(j, list_path);
	if (!json_object_is_type(list, json_type_array))
		return false;
	for (size_t i = 0; i < json_object_array_length(list); i++)
		if (!has_type(json_object_array_get_idx(list, i), each + 3, type))
			return false;
	return true;
}

/* ---- what it says ----------------------------------------------------------------------------------------- */

static enum wipe_grade grade_of(const char *name)
{
	int g = 0;

	while (g < WIPE_N_GRADES && strcmp(name, wipe_grade_name((enum wipe_grade)g)))
		g++;
	return (enum wipe_grade)g;
}

static bool all_are_done(struct json_object *set)
{
	size_t n = json_object_array_length(set);

	for (size_t i = 0; i < n; i++)
		if (!json_object_get_boolean(schema_at(json_object_array_get_idx(set, i), "done")))
			return false;
	return n > 0;
}

bool schema_earns_certificate(struct json_object *wipe)
{
	struct json_object *set = schema_at(wipe, "set");
	bool is_verified = strcmp(schema_text(wipe, "verification.mode"), "none") || !strcmp(schema_text(wipe, "method"), "crypto-erase");

	return grade_of(schema_text(wipe, "grade")) <= WIPE_NOT_ASSURED && is_verified && json_object_is_type(set, json_type_array) &&
	       all_are_done(set);
}

/* The whole is not better than its worst part. */
static int judge_grades(struct json_object *wipe, struct vd_error *e)
{
	struct json_object *set = schema_at(wipe, "set");
	enum wipe_grade whole = grade_of(schema_text(wipe, "grade")), part;

	if (whole == WIPE_N_GRADES)
		return fail(e, VD_ECORRUPT, "there is no grade '%s'", schema_text(wipe, "grade"));
	for (size_t i = 0; i < json_object_array_length(set); i++) {
		struct json_object *m = json_object_array_get_idx(set, i);

		part = grade_of(schema_text(m, "grade"));
		if (part == WIPE_N_GRADES || part > whole)
			return fail(e, VD_ECORRUPT, "the grade of the whole is '%s', that of %s '%s'", schema_text(wipe, "grade"),
				    schema_text(m, "path"), schema_text(m, "grade"));
	}
	return 0;
}

int schema_judge(struct json_object *doc, struct vd_error *e)
{
	const char *type = schema_text(doc, "type");
	struct json_object *version = schema_at(doc, "version"), *wipe = schema_at(doc, "wipe");
	int r;

	if (strcmp(type, "certificate") && strcmp(type, "incident"))
		return fail(e, VD_ECORRUPT, "the document is neither a certificate nor an incident record");
	if (!json_object_is_type(version, json_type_int) || json_object_get_int64(version) != CERTIFICATE_VERSION)
		return fail(e, VD_EUNSUPPORTED, "the document is of a version that this vdisk does not know");
	for (size_t i = 0; i < N_ROWS; i++)
		if (!has_type(doc, rows[i].path, rows[i].type))
			return fail(e, VD_ECORRUPT, "the document lacks '%s', or it is no %s", rows[i].path, json_type_to_name(rows[i].type));
	if (strcmp(schema_text(doc, "act"), "wipe"))
		return fail(e, VD_EUNSUPPORTED, "the document is about an act that this vdisk does not know: '%s'", schema_text(doc, "act"));
	r = judge_grades(wipe, e);
	if (r == 0 && !strcmp(type, "certificate") && !schema_earns_certificate(wipe))
		r = fail(e, VD_ECORRUPT, "it is called a certificate, and its wipe did not complete or was not verified");
	return r;
}
