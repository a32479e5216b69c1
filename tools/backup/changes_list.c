/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changed blocks from a list of the caller's: one JSON object a page, one after another, as who asks VMware's
 * QueryChangedDiskAreas gets them. A page says which part of the disk it is about and what changed in it; only pages that follow
 * each other from the first byte of the disk to the last make a list. A page is in memory at a time, and has a bound.
 *
 *     {"disk-size": N, "since": ID, "until": ID, "start": N, "length": N, "changed": [{"start": N, "length": N}, ...]}
 *
 * "startOffset" and "changedArea", VMware's own words, are taken for "start" and "changed".
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <string.h>
#include <unistd.h>

#include "backup/changes_sources.h"
#include "fail.h"

#define PAGE_MAX (4u << 20)     /* bytes; about 100 000 ranges, which take ten times that while they are looked at */
#define ID_MAX 200

struct list {
	struct changes *c;
	uint64_t size;                  /* of the disk */
	uint64_t reached;               /* up to here pages have told */
	char since[ID_MAX + 1], until[ID_MAX + 1];
	bool has_page;
	char *why;
};

/* ---- a page --------------------------------------------------------------------------------------------- */

static bool get_u64(struct json_object *o, const char *key, const char *alias, uint64_t *value)
{
	struct json_object *v;

	if (!json_object_object_get_ex(o, key, &v) && !(alias && json_object_object_get_ex(o, alias, &v)))
		return false;
	/* What is larger than 2^64 reads as the largest, which no disk has. */
	if (!json_object_is_type(v, json_type_int) || (json_object_get_int64(v) < 0))
		return false;
	*value = json_object_get_uint64(v);
	return true;
}

/* It goes into a mark, and must not end it. */
static bool get_id(struct json_object *o, const char *key, char id[ID_MAX + 1])
{
	struct json_object *v;
	const char *text;
	size_t n;

	if (!json_object_object_get_ex(o, key, &v) || !json_object_is_type(v, json_type_string))
		return false;
	text = json_object_get_string(v);
	n = strlen(text);
	if (!n || n > ID_MAX || n != (size_t)json_object_get_string_len(v))
		return false;
	for (size_t i = 0; i < n; i++)
		if (text[i] < ' ' || text[i] > '~' || text[i] == ';')
			return false;
	memcpy(id, text, n + 1);
	return true;
}

static int take_ids(struct list *l, struct json_object *page)
{
	char since[ID_MAX + 1], until[ID_MAX + 1];

	if (!get_id(page, "since", since) || !get_id(page, "until", until))
		return in_doubt(l->why, "the list does not say from when to when it is");
	if (l->has_page && (strcmp(since, l->since) || strcmp(until, l->until)))
		return in_doubt(l->why, "a page of the list is of another time");
	memcpy(l->since, since, sizeof(since));
	memcpy(l->until, until, sizeof(until));
	l->has_page = true;
	return 1;
}

static int take_ranges(struct list *l, struct json_object *ranges, uint64_t start, uint64_t end)
{
	for (size_t i = 0; i < json_object_array_length(ranges); i++) {
		struct json_object *x = json_object_array_get_idx(ranges, i);
		uint64_t off, len;

		if (!json_object_is_type(x, json_type_object) || !get_u64(x, "start", NULL, &off) || !get_u64(x, "length", NULL, &len))
			return in_doubt(l->why, "the list has a range without start or length");
		if (off < start || off > end || len > end - off)
			return in_doubt(l->why, "the list has a range outside its page, at byte %" PRIu64, off);
		blockset_put(&l->c->set, off, len);
	}
	return 1;
}

static int take_page(struct list *l, struct json_object *page)
{
	struct json_object *ranges;
	uint64_t size, start, length;

	if (!json_object_is_type(page, json_type_object))
		return in_doubt(l->why, "a page of the list is no JSON object");
	if (!get_u64(page, "disk-size", NULL, &size) || size != l->size)
		return in_doubt(l->why, "the list is of another disk, or does not say its size");
	if (!take_ids(l, page))
		return 0;
	if (!get_u64(page, "start", "startOffset", &start) || !get_u64(page, "length", NULL, &length))
		return in_doubt(l->why, "a page of the list does not say what it is about");
	if (start != l->reached || length > size - start)
		return in_doubt(l->why, "the pages of the list do not follow each other at byte %" PRIu64, l->reached);
	if ((!json_object_object_get_ex(page, "changed", &ranges) && !json_object_object_get_ex(page, "changedArea", &ranges)) ||
	    !json_object_is_type(ranges, json_type_array))
		return in_doubt(l->why, "a page of the list does not say what changed");
	l->reached = start + length;
	return take_ranges(l, ranges, start, start + length);
}

/* ---- all pages ------------------------------------------------------------------------------------------ */

static bool is_blank(const char *p, size_t n)
{
	while (n && strchr(" \t\r\n", *p) && *p) {
		p++;
		n--;
	}
	return !n;
}

/* Pages end anywhere in what was read; *in_page: bytes of one that has begun. */
static int feed(struct list *l, struct json_tokener *t, const char *p, size_t n, size_t *in_page)
{
	while (n) {
		struct json_object *page;
		size_t used;
		int r;

		if (!*in_page && is_blank(p, n))
			return 1;
		page = json_tokener_parse_ex(t, p, (int)n);
		used = json_tokener_get_parse_end(t);
		if (!page && json_tokener_get_error(t) != json_tokener_continue)
			return in_doubt(l->why, "the list is no JSON");
		*in_page = page ? 0 : *in_page + used;
		r = page ? take_page(l, page) : 1;
		json_object_put(page);
		if (!r)
			return 0;
		if (*in_page > PAGE_MAX)
			return in_doubt(l->why, "a page of the list has more than 4 MiB");
		if (page)
			json_tokener_reset(t);
		p += used;
		n -= used;
	}
	return 1;
}

static int read_pages(struct list *l, int fd, const char *path, struct vd_error *e)
{
	struct json_tokener *t = json_tokener_new();
	char buf[65536];
	size_t in_page = 0;
	ssize_t n = 0;
	int r = 1;

	if (!t)
		return fail(e, VD_ENOMEM, "not enough memory");
	json_tokener_set_flags(t, JSON_TOKENER_STRICT | JSON_TOKENER_ALLOW_TRAILING_CHARS);
	while (r == 1 && (n = read(fd, buf, sizeof(buf))) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			r = fail_errno(e, errno, "%s", path);
			break;
		}
		r = feed(l, t, buf, (size_t)n, &in_page);
	}
	json_tokener_free(t);
	if (r == 1 && (in_page || l->reached != l->size))
		return in_doubt(l->why, "the list ends at byte %" PRIu64 " of %" PRIu64, l->reached, l->size);
	return r;
}

static int open_list(const char *path, struct vd_error *e)
{
	int fd = !strcmp(path, "-") ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);

	return fd < 0 ? fail_errno(e, errno, "%s", path) : fd;
}

int changes_of_list(struct changes *c, struct vd_image *img, char why[CHANGES_WHY_SIZE], struct vd_error *e)
{
	struct list l = { .c = c, .size = vd_image_size(img), .why = why };
	char base[MARK_VALUE_SIZE];
	int fd = open_list(c->want->list, e), r;

	if (fd < 0)
		return fd;
	r = read_pages(&l, fd, c->want->list, e);
	close(fd);
	if (r == 1 && l.has_page)
		mark_put(c, "list", "%s", l.until);
	if (r != 1)
		return r;
	if (!c->want->mark || !mark_get(c->want->mark, "list", base))
		return in_doubt(why, "the base was not backed up with a list");
	return !strcmp(base, l.since) ? 1 : in_doubt(why, "the list begins at another time than the base was made");
}
