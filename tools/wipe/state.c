/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writes and reads the state of a wipe as JSON. The key in it is that of the pattern, which hides nothing: it is what the member holds
 * then. Whether the files are still those of which it speaks, run.c finds out.
 */
#include "wipe/state.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fail.h"
#include "json.h"
#include "ui.h"
#include "wipe/engine.h"

#define STATE_MAX (64 << 20)
#define STATE_VERSION 1

/* Members' numbers that are kept, by name: written and read by the same list. */
#define NUMBERS(X) \
	X(size) X(allocated) X(dev) X(ino) X(nlink) X(born) X(vm_state) X(n_snapshots) X(before_extents) X(before_bytes) \
	X(after_extents) X(after_bytes) \
	X(moved) X(shared) X(encoded) X(unwritten) X(past_end) X(erased_bytes) X(pass) X(offset) X(written) X(verified)
#define FLAGS(X) \
	X(is_device) X(is_image) X(is_encrypted) X(has_map) X(canary_moved) X(through_cache) X(erased) X(is_done) X(is_unlinked) X(has_failed)
#define TEXTS(X) X(format) X(disk_id) X(head_sha256) X(before_sha256) X(after_sha256)

/* ---- writing ---------------------------------------------------------------------------------------------- */

/* What is below a member can be asked for no more when its file is gone. */
static void put_keeps(struct json_object *to, const struct wipe_member *m)
{
	struct json_object *list = json_put_array(to, "keeps");

	for (size_t i = 0; i < m->n_keeps; i++) {
		struct json_object *j = json_new();

		json_put_u64(j, "kind", m->keeps[i].kind);
		json_put_bool(j, "certain", m->keeps[i].is_certain);
		json_put_text(j, "text", m->keeps[i].text);
		json_add(list, j);
	}
}

static struct json_object *member_to_json(const struct wipe_member *m)
{
	struct json_object *j = json_new(), *areas;

	json_put(j, "path", json_object_new_string(m->path));
	json_put_text(j, "role", wipe_role_name(m->role));
	json_put_u64(j, "parent", m->parent);
#define NUMBER(name) json_put_u64(j, #name, (uint64_t)m->name);
	NUMBERS(NUMBER)
#undef NUMBER
#define TEXT(name) json_put_text(j, #name, m->name);
	TEXTS(TEXT)
#undef TEXT
#define FLAG(name) json_put_bool(j, #name, m->name);
	FLAGS(FLAG)
#undef FLAG
	put_keeps(j, m);
	areas = json_put_array(j, "key_areas");
	for (size_t i = 0; i < m->n_key_areas; i++) {
		json_add(areas, json_object_new_uint64(m->key_areas[i].off));
		json_add(areas, json_object_new_uint64(m->key_areas[i].len));
	}
	return j;
}

static struct json_object *to_json(const struct wipe_record *rec, const uint8_t key[WIPE_KEY_SIZE])
{
	struct json_object *j = json_new(), *list;
	char hex[2 * WIPE_KEY_SIZE + 1], name[16];

	json_put_u64(j, "vdisk-wipe", STATE_VERSION);
	json_put_text(j, "run", rec->run);
	json_put_text(j, "confirm", rec->confirm);
	wipe_hex(key, WIPE_KEY_SIZE, hex);
	json_put_text(j, "pattern-key", hex);
	json_put_u64(j, "started", (uint64_t)rec->started);
	json_put_u64(j, "seconds", rec->seconds);
	json_put_u64(j, "resumed", rec->resumed);
	json_put_text(j, "machine-name", rec->set.machine_name);
	json_put_text(j, "machine-id", rec->set.machine_id);
	json_put_bool(j, "force", rec->force);
	json_put_bool(j, "publish-key", rec->publish_key);
	json_put(j, "certificate", json_object_new_string(rec->paper.file));
	json_put(j, "sign-key", json_object_new_string(rec->paper.sign_key));
	json_put(j, "operator", json_object_new_string(rec->paper.person));
	json_put_text(j, "profile", rec->plan.profile);
	json_put_bool(j, "erases_only", rec->plan.erases_only);
	json_put_u64(j, "verify", rec->plan.verify);
	json_put_u64(j, "samples", rec->plan.samples);
	json_put_text(j, "confidence", rec->plan.confidence);
	json_put_text(j, "fraction", rec->plan.fraction);
	list = json_put_array(j, "passes");
	for (size_t i = 0; i < rec->plan.n_passes; i++) {
		wipe_pass_name(&rec->plan.passes[i], name);
		json_add(list, json_text(name));
	}
	list = json_put_array(j, "limits");
	for (size_t i = 0; i < rec->set.n_notes; i++)
		json_add(list, json_text(rec->set.notes[i]));
	list = json_put_array(j, "members");
	for (size_t i = 0; i < rec->set.n; i++)
		json_add(list, member_to_json(&rec->set.at[i]));
	return j;
}

static int write_all(int fd, const char *text, size_t len)
{
	while (len) {
		ssize_t n = write(fd, text, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		text += n;
		len -= (size_t)n;
	}
	return fsync(fd);
}

int wipe_state_save(const char *path, const struct wipe_record *rec, const uint8_t key[WIPE_KEY_SIZE], struct vd_error *e)
{
	struct json_object *j = to_json(rec, key);
	const char *text = json_object_to_json_string_ext(j, JSON_C_TO_STRING_PLAIN);
	char next[PATH_MAX];
	int fd, r = 0;

	snprintf(next, sizeof(next), "%s.next", path);
	fd = open(next, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0 || write_all(fd, text, strlen(text)))
		r = fail_errno(e, errno, "%s cannot be written", next);
	if (fd >= 0 && close(fd) && r == 0)
		r = fail_errno(e, errno, "%s cannot be written", next);
	json_object_put(j);
	if (r == 0 && rename(next, path))
		r = fail_errno(e, errno, "%s cannot be written", path);
	return r < 0 ? r : wipe_flush_folder_of(path, e);
}

int wipe_state_remove(const char *path, struct vd_error *e)
{
	if (unlink(path) && errno != ENOENT)
		return fail_errno(e, errno, "%s cannot be removed", path);
	return wipe_flush_folder_of(path, e);
}

/* ---- reading ---------------------------------------------------------------------------------------------- */

static uint64_t number(struct json_object *j, const char *key)
{
	struct json_object *v;

	return json_object_object_get_ex(j, key, &v) ? json_object_get_uint64(v) : 0;
}

static bool flag(struct json_object *j, const char *key)
{
	struct json_object *v;

	return json_object_object_get_ex(j, key, &v) && json_object_get_boolean(v);
}

static void text(struct json_object *j, const char *key, char *to, size_t size)
{
	struct json_object *v;
	const char *value = json_object_object_get_ex(j, key, &v) ? json_object_get_string(v) : NULL;

	snprintf(to, size, "%s", value ? value : "");
}

static struct json_object *array(struct json_object *j, const char *key)
{
	struct json_object *v;

	return json_object_object_get_ex(j, key, &v) && json_object_is_type(v, json_type_array) ? v : NULL;
}

static void areas_from_json(struct wipe_member *m, struct json_object *list)
{
	size_t n = list ? json_object_array_length(list) / 2 : 0;

	m->key_areas = calloc(n ? n : 1, sizeof(m->key_areas[0]));
	if (!m->key_areas)
		ui_out_of_memory();
	for (size_t i = 0; i < n; i++)
		m->key_areas[m->n_key_areas++] = (struct wipe_span){
			json_object_get_uint64(json_object_array_get_idx(list, 2 * i)),
			json_object_get_uint64(json_object_array_get_idx(list, 2 * i + 1)),
		};
}

static void keeps_from_json(struct wipe_member *m, struct json_object *list)
{
	size_t n = list ? json_object_array_length(list) : 0;

	for (size_t i = 0; i < n && i < WIPE_KEEPS_MAX; i++) {
		struct json_object *j = json_object_array_get_idx(list, i);
		struct vd_keeps *k = &m->keeps[m->n_keeps++];

		k->kind = (enum vd_keeps_kind)number(j, "kind");
		k->is_certain = flag(j, "certain");
		text(j, "text", k->text, sizeof(k->text));
	}
}

static bool member_from_json(struct wipe_member *m, struct json_object *j)
{
	char role[32], path[PATH_MAX];

	text(j, "path", path, sizeof(path));
	text(j, "role", role, sizeof(role));
	m->path = strdup(path);
	m->role = wipe_role_of(role);
	m->parent = (size_t)number(j, "parent");
#define NUMBER(name) m->name = (__typeof__(m->name))number(j, #name);
	NUMBERS(NUMBER)
#undef NUMBER
#define TEXT(name) text(j, #name, m->name, sizeof(m->name));
	TEXTS(TEXT)
#undef TEXT
#define FLAG(name) m->name = flag(j, #name);
	FLAGS(FLAG)
#undef FLAG
	areas_from_json(m, array(j, "key_areas"));
	keeps_from_json(m, array(j, "keeps"));
	return m->path && path[0] == '/' && m->role < WIPE_N_ROLES;
}

static bool plan_from_json(struct wipe_plan *plan, struct json_object *j)
{
	struct json_object *list = array(j, "passes");
	size_t n = list ? json_object_array_length(list) : 0;

	text(j, "profile", plan->profile, sizeof(plan->profile));
	text(j, "confidence", plan->confidence, sizeof(plan->confidence));
	text(j, "fraction", plan->fraction, sizeof(plan->fraction));
	plan->erases_only = flag(j, "erases_only");
	plan->verify = (enum wipe_verify)number(j, "verify");
	plan->samples = number(j, "samples");
	if (!n || n > WIPE_PASSES_MAX || plan->verify > WIPE_VERIFY_NONE)
		return false;
	for (size_t i = 0; i < n; i++) {
		const char *name = json_object_get_string(json_object_array_get_idx(list, i));

		plan->passes[i].is_random = name && !strcmp(name, "aes-256-ctr");
		plan->passes[i].byte = name ? (uint8_t)strtoul(name, NULL, 16) : 0;
	}
	plan->n_passes = n;
	return true;
}

static bool key_from_text(const char *hex, uint8_t key[WIPE_KEY_SIZE])
{
	if (strlen(hex) != 2 * WIPE_KEY_SIZE || strspn(hex, "0123456789abcdef") != 2 * WIPE_KEY_SIZE)
		return false;
	for (size_t i = 0; i < WIPE_KEY_SIZE; i++) {
		char byte[3] = { hex[2 * i], hex[2 * i + 1], '\0' };

		key[i] = (uint8_t)strtoul(byte, NULL, 16);
	}
	return true;
}

static bool members_from_json(struct wipe_set *set, struct json_object *list)
{
	size_t n = list ? json_object_array_length(list) : 0;
	bool is_sound = n && n <= WIPE_MEMBERS_MAX;

	if (!is_sound)
		return false;
	set->at = calloc(n, sizeof(set->at[0]));
	if (!set->at)
		ui_out_of_memory();
	for (size_t i = 0; i < n && is_sound; i++) {
		is_sound = member_from_json(&set->at[set->n++], json_object_array_get_idx(list, i));
		is_sound = is_sound && set->at[i].parent < n && set->at[i].offset <= set->at[i].size;
	}
	return is_sound;
}

static bool from_json(struct wipe_record *rec, uint8_t key[WIPE_KEY_SIZE], struct json_object *j)
{
	struct json_object *limits = array(j, "limits");
	char hex[2 * WIPE_KEY_SIZE + 2];

	text(j, "run", rec->run, sizeof(rec->run));
	text(j, "confirm", rec->confirm, sizeof(rec->confirm));
	text(j, "pattern-key", hex, sizeof(hex));
	rec->started = (int64_t)number(j, "started");
	rec->seconds = number(j, "seconds");
	rec->resumed = number(j, "resumed");
	rec->force = flag(j, "force");
	rec->publish_key = flag(j, "publish-key");
	text(j, "certificate", rec->paper.file, sizeof(rec->paper.file));
	text(j, "sign-key", rec->paper.sign_key, sizeof(rec->paper.sign_key));
	text(j, "operator", rec->paper.person, sizeof(rec->paper.person));
	text(j, "machine-name", rec->set.machine_name, sizeof(rec->set.machine_name));
	text(j, "machine-id", rec->set.machine_id, sizeof(rec->set.machine_id));
	for (size_t i = 0; limits && i < json_object_array_length(limits) && i < WIPE_NOTES_MAX; i++)
		wipe_set_note(&rec->set, "%s", json_object_get_string(json_object_array_get_idx(limits, i)));
	return number(j, "vdisk-wipe") == STATE_VERSION && key_from_text(hex, key) && plan_from_json(&rec->plan, j) &&
	       members_from_json(&rec->set, array(j, "members"));
}

int wipe_state_load(const char *path, struct wipe_record *rec, uint8_t key[WIPE_KEY_SIZE], struct vd_error *e)
{
	int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	struct json_object *j;
	struct stat st;
	bool is_sound;

	if (fd < 0)
		return fail_errno(e, errno, "%s: the state of a wipe cannot be read", path);
	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_size > STATE_MAX) {
		close(fd);
		return fail(e, VD_ECORRUPT, "%s is no state of a wipe", path);
	}
	j = json_object_from_fd(fd);
	close(fd);
	is_sound = j && json_object_is_type(j, json_type_object) && from_json(rec, key, j);
	json_object_put(j);
	return is_sound ? 0 : fail(e, VD_ECORRUPT, "%s is no state of a wipe, or is damaged", path);
}
