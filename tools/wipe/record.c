/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Turns what is known of a wipe into JSON. Draws no conclusions: those are grade.c's. */
#include "wipe/record.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "json.h"

void wipe_record_free(struct wipe_record *rec)
{
	wipe_set_free(&rec->set);
	wipe_findings_free(&rec->findings);
}

static void put_time(struct json_object *j, const char *key, int64_t t)
{
	char text[32];
	time_t at = (time_t)t;
	struct tm tm;

	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&at, &tm));
	json_put_text(j, key, text);
}

/* ---- what it lies on -------------------------------------------------------------------------------------- */

static void put_attribute(struct json_object *j, const char *key, const char *folder, const char *name)
{
	char path[PATH_MAX + 64], text[128] = "";
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	f = fopen(path, "re");
	if (!f)
		return;
	if (fgets(text, sizeof(text), f)) {
		size_t n = strcspn(text, "\n");

		while (n && text[n - 1] == ' ')
			n--;
		text[n] = '\0';
		json_put_text(j, key, text);
	}
	fclose(f);
}

/* Model and serial number of the disk that a member lies on, as far as the system tells. */
static void put_medium(struct json_object *to, const struct wipe_member *m)
{
	dev_t dev = (dev_t)(m->is_device ? m->ino : m->dev);
	char path[64], folder[PATH_MAX], disk[PATH_MAX + 16];
	struct json_object *j;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u", major(dev), minor(dev));
	if (!realpath(path, folder))
		return;
	snprintf(disk, sizeof(disk), "%s/partition", folder);
	if (access(disk, F_OK) == 0)
		*strrchr(folder, '/') = '\0';
	j = json_put_object(to, "medium");
	json_put_text(j, "device", strrchr(folder, '/') + 1);
	put_attribute(j, "vendor", folder, "device/vendor");
	put_attribute(j, "model", folder, "device/model");
	put_attribute(j, "serial", folder, "device/serial");
	put_attribute(j, "serial", folder, "serial");
	put_attribute(j, "rotational", folder, "queue/rotational");
}

/* ---- members ---------------------------------------------------------------------------------------------- */

static void put_bad(struct json_object *to, const char *key, const struct wipe_bad *bad)
{
	struct json_object *j, *list;

	if (!bad->bytes)
		return;
	j = json_put_object(to, key);
	json_put_u64(j, "bytes", bad->bytes);
	list = json_put_array(j, "ranges");
	for (size_t i = 0; i < bad->n; i++) {
		struct json_object *range = json_new();

		json_put_u64(range, "start", bad->at[i].off);
		json_put_u64(range, "length", bad->at[i].len);
		json_add(list, range);
	}
}

static void put_identity(struct json_object *j, const struct wipe_set *set, size_t i)
{
	const struct wipe_member *m = &set->at[i];

	json_put_u64(j, "member", i);
	json_put_text(j, "path", m->path);
	json_put_text(j, "role", wipe_role_name(m->role));
	if (m->parent != i)
		json_put_u64(j, "of", m->parent);
	if (m->format[0])
		json_put_text(j, "format", m->format);
	if (m->disk_id[0])
		json_put_text(j, "disk-id", m->disk_id);
	json_put_text(j, "head-sha256", m->head_sha256);
	json_put_bool(j, "device", m->is_device);
	json_put_bool(j, "encrypted", m->is_encrypted);
	json_put_u64(j, "size", m->size);
	json_put_u64(j, "allocated", m->allocated);
	if (!m->is_device) {
		json_put_u64(j, "inode", m->ino);
		json_put_u64(j, "links", m->nlink);
	}
	if (m->born)
		put_time(j, "created", m->born / INT64_C(1000000000));
	json_put_u64(j, "snapshots", m->n_snapshots);
	json_put_u64(j, "vm-state-bytes", m->vm_state);
	put_medium(j, m);
}

static void put_before(struct json_object *to, const struct wipe_member *m)
{
	struct json_object *j = json_put_object(to, "before");

	json_put_bool(j, "extents-known", m->has_map || m->is_device);
	json_put_u64(j, "extents", m->before_extents);
	json_put_text(j, "extents-sha256", m->before_sha256);
	json_put_u64(j, "bytes", m->before_bytes);
	json_put_u64(j, "shared", m->shared);
	json_put_u64(j, "encoded", m->encoded);
	json_put_u64(j, "unwritten", m->unwritten);
	json_put_u64(j, "past-end", m->past_end);
}

static void put_work(struct json_object *j, const struct wipe_record *rec, const struct wipe_member *m)
{
	struct json_object *after = json_put_object(j, "after"), *ce;

	json_put_u64(after, "extents", m->after_extents);
	json_put_text(after, "extents-sha256", m->after_sha256);
	json_put_u64(after, "bytes", m->after_bytes);
	json_put_u64(j, "moved", m->moved);
	json_put_bool(j, "canary-moved", m->canary_moved);
	if (m->n_key_areas) {
		ce = json_put_object(j, "crypto-erase");
		json_put_u64(ce, "areas", m->n_key_areas);
		json_put_u64(ce, "bytes", m->erased_bytes);
		json_put_bool(ce, "proven", m->erased);
	}
	json_put_u64(j, "passes-done", m->pass);
	json_put_u64(j, "written", m->written);
	json_put_u64(j, "verified", m->verified);
	json_put_text(j, "read-path", m->through_cache ? "page-cache" : "direct");
	put_bad(j, "unwritable", &m->unwritable);
	put_bad(j, "unreadable", &m->unreadable);
	put_bad(j, "mismatch", &m->mismatch);
	json_put_bool(j, "done", m->is_done || (rec->plan.erases_only && m->is_encrypted && (m->erased || !m->n_key_areas)));
	json_put_bool(j, "unlinked", m->is_unlinked);
}

static void put_members(struct json_object *to, const struct wipe_record *rec, bool was_wiped)
{
	struct wipe_findings ignored = { 0 };
	struct json_object *list;

	if (rec->set.machine_name[0] || rec->set.machine_id[0]) {
		list = json_put_object(to, "machine");
		json_put_text(list, "name", rec->set.machine_name);
		json_put_text(list, "id", rec->set.machine_id);
	}
	if (rec->snapshot[0])
		json_put_text(to, "snapshot", rec->snapshot);
	if (rec->guest_free)
		json_put_bool(to, "guest-free", true);
	list = json_put_array(to, "set");

	for (size_t i = 0; i < rec->set.n; i++) {
		struct json_object *j = json_new();

		put_identity(j, &rec->set, i);
		put_before(j, &rec->set.at[i]);
		if (was_wiped)
			put_work(j, rec, &rec->set.at[i]);
		json_put_text(j, "grade", wipe_grade_name(wipe_grade_member(&rec->set, i, &rec->plan, was_wiped, &ignored)));
		json_add(list, j);
	}
	wipe_findings_free(&ignored);
}

/* ---- the whole -------------------------------------------------------------------------------------------- */

static void put_plan(struct json_object *to, const struct wipe_plan *plan)
{
	static const char *const ways[] = { "full", "sample", "none" };
	struct json_object *passes, *v;
	char name[16];

	json_put_text(to, "method", plan->is_partial ? "overwrite-free" : plan->erases_only ? "crypto-erase" : "overwrite");
	json_put_text(to, "profile", plan->profile);
	passes = json_put_array(to, "passes");
	for (size_t i = 0; i < plan->n_passes; i++) {
		wipe_pass_name(&plan->passes[i], name);
		json_add(passes, json_text(name));
	}
	v = json_put_object(to, "verification");
	json_put_text(v, "mode", ways[plan->verify]);
	if (plan->verify != WIPE_VERIFY_SAMPLE)
		return;
	json_put_u64(v, "blocks-a-member", plan->samples);
	json_put_u64(v, "block-size", 4096);
	json_put_text(v, "confidence-percent", plan->confidence);
	json_put_text(v, "detects-percent", plan->fraction);
}

static void put_findings(struct json_object *to, const struct wipe_record *rec)
{
	struct json_object *list = json_put_array(to, "findings");

	for (size_t i = 0; i < rec->findings.n; i++) {
		const struct wipe_finding *f = &rec->findings.at[i];
		struct json_object *j = json_new();

		json_put_text(j, "code", f->code);
		if (f->member != SIZE_MAX)
			json_put_u64(j, "member", f->member);
		json_put_text(j, "best-grade", wipe_grade_name(f->grade));
		json_put_text(j, "text", f->text);
		json_add(list, j);
	}
	list = json_put_array(to, "limits");
	for (size_t i = 0; i < rec->set.n_notes; i++)
		json_add(list, json_text(rec->set.notes[i]));
}

static void put_host(struct json_object *to)
{
	struct json_object *j = json_put_object(to, "host");
	struct utsname u;

	if (uname(&u) == 0) {
		json_put_text(j, "name", u.nodename);
		json_put_text(j, "system", u.sysname);
		json_put_text(j, "kernel", u.release);
	}
	put_attribute(j, "machine-id", "/etc", "machine-id");
}

void wipe_set_to_json(const struct wipe_record *rec, struct json_object *to)
{
	json_put_text(to, "confirm", rec->confirm);
	put_plan(to, &rec->plan);
	put_members(to, rec, false);
	put_findings(to, rec);
	json_put_text(to, "best-grade", wipe_grade_name(rec->grade));
}

void wipe_record_to_json(const struct wipe_record *rec, const uint8_t key[WIPE_KEY_SIZE], struct json_object *to)
{
	static const char *const consents[] = { "typed-name", "id", "resume" };
	struct wipe_hash *h = wipe_hash_new();
	struct json_object *tool;
	char hex[65];

	json_put_u64(to, "schema", WIPE_RECORD_SCHEMA);
	json_put_text(to, "run", rec->run);
	tool = json_put_object(to, "tool");
	json_put_text(tool, "name", "vdisk");
	json_put_text(tool, "version", vd_version());
	put_host(to);
	put_time(to, "started", rec->started);
	put_time(to, "ended", rec->ended);
	json_put_u64(to, "seconds", rec->seconds);
	json_put_u64(to, "resumed", rec->resumed);
	json_put_text(to, "confirm", rec->confirm);
	json_put_text(to, "consent", consents[rec->consent]);
	json_put_bool(to, "forced", rec->force);
	put_plan(to, &rec->plan);
	wipe_hash_add(h, key, WIPE_KEY_SIZE);
	wipe_hash_end_text(h, hex);
	json_put_text(to, "pattern-key-sha256", hex);
	if (rec->publish_key) {
		wipe_hex(key, WIPE_KEY_SIZE, hex);
		json_put_text(to, "pattern-key", hex);
	}
	put_members(to, rec, true);
	put_findings(to, rec);
	json_put_text(to, "grade", wipe_grade_name(rec->grade));
	json_put_text(to, "statement", wipe_grade_text(rec->grade));
}
