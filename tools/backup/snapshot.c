/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reads and writes snapshot objects as restic has them ("Snapshots" of its design document). Which of them are kept, retention.c says. */
#include "backup/snapshot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backup/jread.h"
#include "fail.h"
#include "ui.h"

/* ---- time ----------------------------------------------------------------------------------------------- */

void time_show(int64_t sec, uint32_t nsec, char out[40])
{
	time_t then = (time_t)sec;
	struct tm tm = { .tm_mday = 1 };
	size_t n;

	gmtime_r(&then, &tm);
	n = strftime(out, 40, "%Y-%m-%dT%H:%M:%S", &tm);
	if (nsec)
		n += (size_t)snprintf(out + n, 40 - n, ".%09u", nsec % 1000000000);
	snprintf(out + n, 40 - n, "Z");
}

bool time_read(const char *text, int64_t *sec, uint32_t *nsec)
{
	struct tm tm = { 0 };
	int hours = 0, minutes = 0, n = 0;
	const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
	uint32_t unit = 100000000;
	char sign = 0;

	if (!rest)
		return false;
	*nsec = 0;
	if (*rest == '.')
		for (rest++; *rest >= '0' && *rest <= '9'; rest++, unit /= 10)
			*nsec += (uint32_t)(*rest - '0') * unit;
	*sec = timegm(&tm);
	if (!strcmp(rest, "Z"))
		return true;
	if (sscanf(rest, "%c%2d:%2d%n", &sign, &hours, &minutes, &n) != 3 || rest[n] || (sign != '+' && sign != '-'))
		return false;
	*sec -= (sign == '+' ? 1 : -1) * (hours * 3600 + minutes * 60);
	return true;
}

/* ---- one ------------------------------------------------------------------------------------------------ */

void snapshot_free(struct snapshot *s)
{
	free(s->host);
	free(s->user);
	for (size_t i = 0; i < s->n_paths; i++)
		free(s->paths[i]);
	for (size_t i = 0; i < s->n_tags; i++)
		free(s->tags[i]);
	*s = (struct snapshot){ 0 };
}

static char *read_string(struct jread *j)
{
	struct bytes text = { 0 };

	jread_bytes(j, &text);
	bytes_add(&text, "", 1);
	return (char *)text.at;
}

static void read_word(struct jread *j, char **into)
{
	free(*into);
	*into = read_string(j);
}

/* More than there is room for are passed over: nothing of it is needed to restore. */
static void read_list(struct jread *j, char **at, size_t max, size_t *n)
{
	if (!jread_array(j))
		return;
	while (jread_item(j)) {
		if (*n < max)
			at[(*n)++] = read_string(j);
		else
			jread_skip(j);
	}
}

static void read_member(struct jread *j, const char *key, struct snapshot *s, char *when, size_t when_size)
{
	if (!strcmp(key, "time"))
		jread_text(j, when, when_size);
	else if (!strcmp(key, "tree"))
		jread_id(j, s->tree);
	else if (!strcmp(key, "parent"))
		s->has_parent = jread_text(j, s->parent, sizeof(s->parent)) > 0;
	else if (!strcmp(key, "hostname"))
		read_word(j, &s->host);
	else if (!strcmp(key, "username"))
		read_word(j, &s->user);
	else if (!strcmp(key, "paths"))
		read_list(j, s->paths, SNAPSHOT_PATHS_MAX, &s->n_paths);
	else if (!strcmp(key, "tags"))
		read_list(j, s->tags, SNAPSHOT_TAGS_MAX, &s->n_tags);
	else if (!strcmp(key, "uid"))
		s->uid = (uint32_t)jread_u64(j);
	else if (!strcmp(key, "gid"))
		s->gid = (uint32_t)jread_u64(j);
	else
		jread_skip(j);
}

int snapshot_read(const char *name, const void *json, size_t n, struct snapshot *out, struct vd_error *e)
{
	struct jread j = jread_of(json, n);
	char key[32], when[64] = "";

	*out = (struct snapshot){ 0 };
	if (jread_object(&j))
		while (jread_key(&j, key, sizeof(key)))
			read_member(&j, key, out, when, sizeof(when));
	snprintf(out->name, sizeof(out->name), "%s", name);
	if (!out->host)
		out->host = strdup("");
	if (!out->user)
		out->user = strdup("");
	if (jread_is_done(&j) && time_read(when, &out->sec, &out->nsec))
		return 0;
	snapshot_free(out);
	return fail(e, VD_ECORRUPT, "snapshot %.8s: it is not what a snapshot looks like", name);
}

int snapshot_load(struct repo *r, const char *name, struct snapshot *out, struct vd_error *e)
{
	struct bytes text = { 0 };
	int c = repo_load(r, STORE_SNAPSHOT, name, &text, e);

	if (c == 0)
		c = snapshot_read(name, text.at, text.n, out, e);
	bytes_free(&text);
	return c;
}

static void write_list(struct bytes *text, const char *key, char *const *at, size_t n)
{
	bytes_format(text, ",\"%s\":[", key);
	for (size_t i = 0; i < n; i++) {
		bytes_text(text, i ? "," : "");
		jwrite_text(text, at[i]);
	}
	bytes_text(text, "]");
}

int snapshot_save(struct repo *r, struct snapshot *s, struct vd_error *e)
{
	char hex[ID_HEX_SIZE], when[40];
	struct bytes text = { 0 };
	int c;

	time_show(s->sec, s->nsec, when);
	bytes_format(&text, "{\"time\":\"%s\"", when);
	if (s->has_parent)
		bytes_format(&text, ",\"parent\":\"%s\"", s->parent);
	id_show(s->tree, hex);
	bytes_format(&text, ",\"tree\":\"%s\"", hex);
	write_list(&text, "paths", s->paths, s->n_paths);
	bytes_text(&text, ",\"hostname\":");
	jwrite_text(&text, s->host);
	bytes_text(&text, ",\"username\":");
	jwrite_text(&text, s->user);
	bytes_format(&text, ",\"uid\":%u,\"gid\":%u", s->uid, s->gid);
	if (s->n_tags)
		write_list(&text, "tags", s->tags, s->n_tags);
	bytes_text(&text, "}");
	c = repo_save(r, STORE_SNAPSHOT, &text, s->name, e);
	bytes_free(&text);
	return c;
}

/* ---- all ------------------------------------------------------------------------------------------------ */

struct loading {
	struct repo *repo;
	void (*bad)(void *ctx, const char *name, const struct vd_error *why);
	void *ctx;
	struct snapshots *out;
	size_t room;
	struct vd_error *e;
};

static int load_one(void *ctx, const char *name, uint64_t size)
{
	struct loading *l = ctx;
	struct snapshot s;
	int c = snapshot_load(l->repo, name, &s, l->e);

	(void)size;
	if (c == VD_ENOENT)             /* forgotten meanwhile */
		return 0;
	if (c < 0 && l->bad) {
		l->bad(l->ctx, name, l->e);
		return 0;
	}
	if (c < 0)
		return c;
	if (l->out->n == l->room) {
		l->room = l->room ? 2 * l->room : 64;
		l->out->at = reallocarray(l->out->at, l->room, sizeof(s));
		if (!l->out->at)
			ui_out_of_memory();
	}
	l->out->at[l->out->n++] = s;
	return 0;
}

static int newest_first(const void *a, const void *b)
{
	const struct snapshot *x = a, *y = b;

	if (x->sec != y->sec)
		return x->sec < y->sec ? 1 : -1;
	if (x->nsec != y->nsec)
		return x->nsec < y->nsec ? 1 : -1;
	return strcmp(x->name, y->name);
}

int snapshots_load(struct repo *r, void (*bad)(void *ctx, const char *name, const struct vd_error *why), void *ctx, struct snapshots *out,
		   struct vd_error *e)
{
	struct loading l = { .repo = r, .bad = bad, .ctx = ctx, .out = out, .e = e };
	int c;

	*out = (struct snapshots){ 0 };
	c = store_list(repo_store(r), STORE_SNAPSHOT, load_one, &l, e);
	if (c < 0) {
		snapshots_free(out);
		return c;
	}
	if (out->n)
		qsort(out->at, out->n, sizeof(*out->at), newest_first);
	return 0;
}

void snapshots_free(struct snapshots *all)
{
	for (size_t i = 0; i < all->n; i++)
		snapshot_free(&all->at[i]);
	free(all->at);
	*all = (struct snapshots){ 0 };
}

int snapshots_find(const struct snapshots *all, const char *word, const struct snapshot **out, struct vd_error *e)
{
	size_t n = strlen(word), found = 0;

	if (!strcmp(word, "latest")) {
		*out = all->at;
		return all->n ? 0 : fail(e, VD_ENOENT, "the repository has no snapshot yet");
	}
	for (size_t i = 0; i < all->n; i++)
		if (n >= 4 && !strncmp(all->at[i].name, word, n)) {
			*out = &all->at[i];
			found++;
		}
	if (found == 1)
		return 0;
	if (!found)
		fail(e, VD_ENOENT, "there is no snapshot '%s'", word);
	else
		fail(e, VD_EARG, "%zu snapshots begin with '%s'", found, word);
	return fail_hint(e, found ? VD_EARG : VD_ENOENT, "'latest', or at least four digits of an id: vdisk backups list shows them");
}
