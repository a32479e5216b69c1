/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Writes what a scan has found. Every text of the image passes ui_line() or json_text(), which let no control character through. */
#include "scan/report.h"

#include <stdio.h>

#include "json.h"
#include "shortfalls.h"
#include "sizes.h"
#include "ui.h"

const char *scan_result_name(enum scan_result r)
{
	static const char *const names[] = { "clean", "findings", "incomplete" };

	return names[r];
}

/* ---- JSON ------------------------------------------------------------------------------------------------- */

static void put_volumes(const struct fsview *v, struct json_object *to)
{
	struct json_object *list = json_put_array(to, "volumes");
	const struct fsview_volume *x;

	for (size_t i = 0; (x = fsview_volume(v, i)); i++) {
		struct json_object *j = json_new();

		json_put_text(j, "name", x->name);
		json_put_text(j, "file-system", fsview_fs_name(x->fs));
		json_put_u64(j, "size", x->size);
		if (x->label[0])
			json_put_text(j, "label", x->label);
		if (x->uuid[0])
			json_put_text(j, "uuid", x->uuid);
		if (x->mounted_at[0])
			json_put_text(j, "mounted-at", x->mounted_at);
		json_put_bool(j, "read", x->is_readable);
		json_add(list, j);
	}
}

static void put_packages(const struct scan_facts *f, struct json_object *to)
{
	struct json_object *list = json_put_array(to, "packages");

	for (size_t i = 0; i < f->n_packages; i++) {
		const struct scan_package *p = &f->packages[i];
		struct json_object *j;

		if (!p->is_installed)
			continue;
		j = json_new();
		json_put_text(j, "name", p->name);
		json_put_text(j, "version", p->version);
		json_put_text(j, "architecture", p->arch);
		json_put_text(j, "source", p->source);
		json_put_text(j, "source-version", p->source_version);
		json_add(list, j);
	}
}

static void put_users(const struct scan_facts *f, struct json_object *to)
{
	struct json_object *list = json_put_array(to, "users");

	for (size_t i = 0; i < f->n_users; i++) {
		struct json_object *j = json_new();

		json_put_text(j, "name", f->users[i].name);
		json_put_u64(j, "uid", f->users[i].uid);
		json_put_text(j, "shell", f->users[i].shell);
		json_add(list, j);
	}
}

static void put_services(const struct scan_facts *f, struct json_object *to)
{
	struct json_object *list = json_put_array(to, "services");

	for (size_t i = 0; i < f->n_services; i++) {
		struct json_object *j = json_new();

		json_put_text(j, "name", f->services[i].name);
		json_put_text(j, "state", f->services[i].is_masked ? "masked" : "enabled");
		json_put_text(j, "by", f->services[i].by);
		json_add(list, j);
	}
}

static void put_findings(const struct scan_findings *f, struct json_object *to)
{
	struct json_object *list = json_put_array(to, "findings");

	for (size_t i = 0; i < f->n; i++) {
		struct json_object *j = json_new();

		json_put_text(j, "rule", f->at[i].rule);
		json_put_text(j, "severity", scan_severity_name(f->at[i].severity));
		json_put_text(j, "subject", f->at[i].subject);
		json_put_text(j, "text", f->at[i].text);
		if (f->at[i].remedy)
			json_put_text(j, "remedy", f->at[i].remedy);
		json_add(list, j);
	}
	json_put_u64(to, "total-findings", f->total);
}

static void put_notes(const struct fsview *v, struct json_object *to)
{
	struct json_object *notes = json_put_array(to, "notes");

	for (size_t i = 0; fsview_note(v, i); i++)
		json_add(notes, json_text(fsview_note(v, i)));
}

void scan_report_json(const struct scan_report *r)
{
	const struct scan_facts *f = r->facts;
	struct json_object *j = json_new(), *os;

	json_put_text(j, "schema", "vdisk-scan/1");
	json_put_text(j, "image", r->image);
	json_put_text(j, "result", scan_result_name(r->result));
	json_put_text(j, "fail-on", scan_severity_name(r->fail_on));
	json_put_text(j, "partition-table", fsview_table(f->view));
	os = json_put_object(j, "system");
	json_put_text(os, "id", f->os_id);
	json_put_text(os, "version", f->os_version);
	json_put_text(os, "name", f->os_name);
	json_put_text(os, "package-system", f->package_system);
	shortfalls_put(f->view, j);
	put_notes(f->view, j);
	put_findings(r->findings, j);
	put_volumes(f->view, j);
	put_users(f, j);
	put_services(f, j);
	put_packages(f, j);
	json_print(j);
}

/* ---- a table for people ----------------------------------------------------------------------------------- */

static const char *colour_of(enum scan_severity s)
{
	static const enum ui_colour colours[SCAN_N_SEVERITIES] = { UI_DIM, UI_DIM, UI_YELLOW, UI_RED, UI_MAGENTA };

	return ui_colour(colours[s]);
}

static void show_finding(const struct scan_finding *x)
{
	ui_line("%s%-8s%s  %-9s %s%s%s", colour_of(x->severity), scan_severity_name(x->severity), ui_colour(UI_PLAIN), x->rule,
		x->subject, x->subject[0] ? ": " : "", x->text);
	if (x->remedy)
		ui_summary("%20s%s%s%s", "", ui_colour(UI_DIM), x->remedy, ui_colour(UI_PLAIN));
}

static void show_shortfalls(const struct fsview *v)
{
	const struct fsview_shortfall *s;
	uint64_t total;
	size_t n;

	s = fsview_shortfalls(v, &n, &total);
	for (size_t i = 0; i < n; i++)
		ui_line("%s%-8s%s  %-9s %s%s%s", ui_colour(UI_RED), "unseen", ui_colour(UI_PLAIN), fsview_lack_name(s[i].lack), s[i].where,
			s[i].where[0] ? ": " : "", s[i].text);
	if (total > n)
		ui_line("%-8s  and %llu more that could not be looked at", "unseen", (unsigned long long)(total - n));
	for (size_t i = 0; fsview_note(v, i); i++)
		ui_summary("%snote%s      %s", ui_colour(UI_DIM), ui_colour(UI_PLAIN), fsview_note(v, i));
}

static void show_system(const struct scan_facts *f)
{
	const struct fsview_volume *x;

	ui_summary("%s, %zu packages (%s), %zu users", f->os_name[0] ? f->os_name : "unknown system", f->n_packages,
		   f->package_system[0] ? f->package_system : "no database", f->n_users);
	for (size_t i = 0; (x = fsview_volume(f->view, i)); i++)
		ui_summary("  %-14s %-10s %10s  %s", x->name, fsview_fs_name(x->fs), size_show((double)x->size).s, x->mounted_at);
}

void scan_report_human(const struct scan_report *r)
{
	static const enum ui_colour colours[] = { [SCAN_CLEAN] = UI_GREEN, [SCAN_FOUND] = UI_RED, [SCAN_INCOMPLETE] = UI_YELLOW };
	const uint64_t *n = r->findings->by_severity;

	show_system(r->facts);
	for (size_t i = 0; i < r->findings->n; i++)
		show_finding(&r->findings->at[i]);
	show_shortfalls(r->facts->view);
	ui_summary("%s%s: %s%s: %llu critical, %llu high, %llu medium, %llu low", ui_colour(colours[r->result]), r->image,
		   scan_result_name(r->result), ui_colour(UI_PLAIN), (unsigned long long)n[SCAN_CRITICAL],
		   (unsigned long long)n[SCAN_HIGH], (unsigned long long)n[SCAN_MEDIUM], (unsigned long long)n[SCAN_LOW]);
}
