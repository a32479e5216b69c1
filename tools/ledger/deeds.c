/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Joins the two lines of each act, and leaves out what was not asked for. How it is shown is the verb's and export.c's. */
#include "ledger/deeds.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fail.h"
#include "ledger/schema.h"
#include "ui.h"

#define TIME_SIZE 40

struct reading {
	const struct ledger_settings *s;
	struct deeds *d;
	char since[TIME_SIZE], until[TIME_SIZE], image[PATH_MAX];
};

const char *line_text(struct json_object *line, const char *path)
{
	struct json_object *at = line ? schema_at(line, path) : NULL;

	return at ? json_object_get_string(at) : "";
}

const char *deed_time(const struct deed *d)
{
	return line_text(d->line, "time");
}

const char *deed_user(const struct deed *d)
{
	return line_text(d->line, "who.user");
}

static bool is_act(const struct deed *d)
{
	return !strcmp(line_text(d->line, "kind"), "begin");
}

const char *deed_act(const struct deed *d)
{
	return line_text(d->line, is_act(d) ? "what.act" : "kind");
}

const char *deed_outcome(const struct deed *d)
{
	if (!is_act(d))
		return "";
	if (!d->end)
		return "not closed";
	return json_object_get_int64(schema_at(d->end, "what.exit")) ? "failed" : "done";
}

static const char *first_of(struct json_object *line, const char *path)
{
	struct json_object *list = line ? schema_at(line, path) : NULL;

	if (!json_object_is_type(list, json_type_array) || !json_object_array_length(list))
		return "";
	return json_object_get_string(json_object_array_get_idx(list, 0));
}

const char *deed_object(const struct deed *d)
{
	const char *object = first_of(d->line, "what.objects");

	if (!*object)
		object = first_of(d->end, "what.made");
	return *object ? object : line_text(d->line, "what.image");
}

static void put_list(struct json_object *line, const char *path, const char *between, struct bytes *out)
{
	struct json_object *list = line ? schema_at(line, path) : NULL;

	if (!json_object_is_type(list, json_type_array))
		return;
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		bytes_text(out, i ? " " : between);
		bytes_text(out, json_object_get_string(json_object_array_get_idx(list, i)));
	}
}

void deed_put_objects(const struct deed *d, struct bytes *out)
{
	put_list(d->line, "what.objects", "", out);
	put_list(d->end, "what.made", out->n ? " -> " : "", out);
	if (!out->n)
		bytes_text(out, deed_object(d));
	bytes_add(out, "", 1);
}

static bool names(struct json_object *line, const char *path, const char *image)
{
	struct json_object *list = line ? schema_at(line, path) : NULL;

	if (!json_object_is_type(list, json_type_array))
		return false;
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		const char *name = json_object_get_string(json_object_array_get_idx(list, i)), *base = strrchr(name, '/');

		if (!strcmp(name, image) || (base && !strchr(image, '/') && !strcmp(base + 1, image)))
			return true;
	}
	return false;
}

static bool is_of_image(const struct deed *d, const char *image)
{
	return names(d->line, "what.objects", image) || names(d->end, "what.made", image) || !strcmp(line_text(d->line, "what.image"), image);
}

static bool is_wanted(const struct reading *r, const struct deed *d)
{
	const struct ledger_settings *s = r->s;

	if (*r->since && strcmp(deed_time(d), r->since) < 0)
		return false;
	if (*r->until && strcmp(deed_time(d), r->until) >= 0)
		return false;
	if (s->who && strcmp(deed_user(d), s->who))
		return false;
	if (s->act && strcmp(deed_act(d), s->act))
		return false;
	return !s->image || is_of_image(d, r->image) || is_of_image(d, s->image);
}

static void drop(struct deed *d)
{
	json_object_put(d->line);
	json_object_put(d->end);
	*d = (struct deed){ 0 };
}

/* An act that is not closed stays until the end: what it made may be what was asked for. */
static void sift(const struct reading *r, bool all)
{
	struct deeds *d = r->d;
	size_t kept = 0;

	for (size_t i = 0; i < d->n; i++) {
		bool open = !all && is_act(&d->at[i]) && !d->at[i].end;

		if (open || is_wanted(r, &d->at[i]))
			d->at[kept++] = d->at[i];
		else
			drop(&d->at[i]);
	}
	d->n = kept;
}

static struct deed *begun(struct deeds *d, const char *hash)
{
	/* It is near the end, but for long jobs. */
	for (size_t i = d->n; i-- > 0;)
		if (!strcmp(d->at[i].hash, hash))
			return &d->at[i];
	return NULL;
}

static void add(struct deeds *d, const struct book_line *line)
{
	if (d->n == d->room) {
		d->room = d->room ? 2 * d->room : 1024;
		d->at = realloc(d->at, d->room * sizeof(*d->at));
		if (!d->at)
			ui_out_of_memory();
	}
	d->at[d->n] = (struct deed){ .n = line->n, .line = json_object_get(line->whole) };
	memcpy(d->at[d->n++].hash, line->hash, BOOK_HASH_SIZE);
}

static int take(void *ctx, const struct book_line *line)
{
	struct reading *r = ctx;
	struct deed *of;

	r->d->lines++;
	if (strcmp(line->kind, "end")) {
		if (r->d->n && r->d->n == r->d->room)
			sift(r, false);
		add(r->d, line);
		return 0;
	}
	of = begun(r->d, line_text(line->whole, "what.of"));
	if (of && !of->end)
		of->end = json_object_get(line->whole);
	return 0;
}

/* "2026-11-24", "2026-11-24T12:00:00Z" or the like, as the book has it; or "90d", "12h", "30m": so long ago. */
static int read_time(const char *what, const char *text, char out[TIME_SIZE], struct vd_error *e)
{
	char *end;
	unsigned long long n;
	time_t at = time(NULL);
	struct tm tm;

	*out = 0;
	if (!text)
		return 0;
	if (strlen(text) >= 4 && strspn(text, "0123456789") == 4 && text[4] == '-' && strlen(text) < TIME_SIZE) {
		snprintf(out, TIME_SIZE, "%s", text);
		return 0;
	}
	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno || end == text || !*end || end[1] || !strchr("dhm", *end) || n > 1000000)
		return fail(e, VD_EARG, "%s: '%s' is no time: 2026-11-24, 2026-11-24T12:00:00Z, 90d, 12h or 30m", what, text);
	at -= (time_t)(n * (*end == 'd' ? 86400 : *end == 'h' ? 3600 : 60));
	gmtime_r(&at, &tm);
	strftime(out, TIME_SIZE, "%Y-%m-%dT%H:%M:%SZ", &tm);
	return 0;
}

int deeds_read(struct book *b, const struct ledger_settings *s, struct deeds *d, struct vd_error *e)
{
	struct reading reading = { .s = s, .d = d };
	int r = read_time("--since", s->from, reading.since, e);

	*d = (struct deeds){ 0 };
	if (r == 0)
		r = read_time("--until", s->to, reading.until, e);
	if (s->image && !realpath(s->image, reading.image))
		snprintf(reading.image, sizeof(reading.image), "%s", s->image);
	if (r == 0)
		r = book_walk(b, take, &reading, e);
	if (r == 0)
		sift(&reading, true);
	return r;
}

void deeds_free(struct deeds *d)
{
	for (size_t i = 0; i < d->n; i++)
		drop(&d->at[i]);
	free(d->at);
	*d = (struct deeds){ 0 };
}
