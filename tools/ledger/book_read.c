/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads the book back and holds each line against the one before it. Where it does not follow, the lines behind it tell what was done to
 * it; whether the whole of it was made anew is for signatures to tell, not for this.
 */
#include "ledger/book.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fail.h"
#include "ledger/canon.h"
#include "ledger/book_files.h"

struct walk {
	struct book *b;
	struct book_reader r;
	struct book_head at;            /* the last line that held */
	struct book_head head;          /* the last line there is, as the head has it; zeros: not known */
	int (*each)(void *ctx, const struct book_text *line);
	void *ctx;
};

/* The next line of this part or of those behind it. As book_reader_next(). */
static int next_line(struct walk *w, const char **line, size_t *len, uint64_t *torn, struct vd_error *e)
{
	int r;

	*torn = 0;
	for (;;) {
		uint32_t part = w->r.part + 1;

		r = book_reader_next(w->b, &w->r, line, len, torn, e);
		if (r || *torn || !book_part_exists(w->b, part))
			return r;
		book_reader_close(&w->r);
		r = book_reader_open(w->b, part, 0, &w->r, e);
		if (r < 0)
			return r;
	}
}

/* Whether line `wanted` stands somewhere behind. */
static bool stands_behind(struct walk *w, uint64_t wanted)
{
	struct vd_error ignored;
	const char *line, *prev;
	uint64_t torn, n;
	size_t len;

	while (next_line(w, &line, &len, &torn, &ignored) == 1)
		if (book_take_start(line, len, &n, &prev) && n == wanted)
			return true;
	return false;
}

/* Line n is where it should be and is not of the line before it: the next line's link tells which of the two was changed. */
static int tell_changed(struct walk *w, const char *line, size_t len, uint64_t n, struct vd_error *e)
{
	char hash[BOOK_HASH_SIZE];
	const char *link = w->head.hash;
	uint64_t torn, m;

	book_hash(line, len, hash);
	if (n != w->head.n && (next_line(w, &line, &len, &torn, e) != 1 || !book_take_start(line, len, &m, &link)))
		link = BOOK_NO_HASH;
	/* What follows is of this line as it is. */
	if (!memcmp(link, hash, BOOK_HASH_SIZE - 1))
		n--;
	return fail(e, VD_ECORRUPT, "%s: line %llu was changed", w->b->folder, (unsigned long long)n);
}

static int tell_number(struct walk *w, uint64_t n, struct vd_error *e)
{
	unsigned long long wanted = w->at.n + 1;

	if (n < wanted)
		return fail(e, VD_ECORRUPT, "%s: line %llu stands where line %llu should: lines changed places, or one was put in again", w->b->folder,
			    (unsigned long long)n, wanted);
	if (stands_behind(w, wanted))
		return fail(e, VD_ECORRUPT, "%s: line %llu stands where line %llu should: lines changed places", w->b->folder, (unsigned long long)n, wanted);
	if (n == wanted + 1)
		return fail(e, VD_ECORRUPT, "%s: line %llu is missing", w->b->folder, wanted);
	return fail(e, VD_ECORRUPT, "%s: lines %llu to %llu are missing", w->b->folder, wanted, (unsigned long long)n - 1);
}

static int take_line(struct walk *w, const char *line, size_t len, struct vd_error *e)
{
	const char *prev;
	uint64_t n;

	if (!book_take_start(line, len, &n, &prev))
		return fail(e, VD_ECORRUPT, "%s: line %llu was changed: it is no line of a ledger", w->b->folder, (unsigned long long)w->at.n + 1);
	if (n != w->at.n + 1)
		return tell_number(w, n, e);
	if (memcmp(prev, w->at.hash, BOOK_HASH_SIZE - 1))
		return tell_changed(w, line, len, n, e);
	w->at.n = n;
	w->at.part = w->r.part;
	w->at.end = w->r.at;
	book_hash(line, len, w->at.hash);
	return 0;
}

static const char *text_of(struct json_object *j, const char *key)
{
	return json_object_get_string(json_object_object_get(j, key));
}

int book_line_read(struct book *b, const struct book_text *text, struct book_line *line, struct vd_error *e)
{
	struct bytes bytes = { .at = (uint8_t *)text->text, .n = text->len, .is_fixed = true };
	int r;

	*line = (struct book_line){ .n = text->n };
	r = canon_read(b->folder, &bytes, &line->whole, e);
	if (r < 0)
		return r;
	line->kind = text_of(line->whole, "kind");
	line->time = text_of(line->whole, "time");
	line->signature = text_of(line->whole, "signature");
	line->body = json_object_object_get(line->whole, "what");
	memcpy(line->hash, text->hash, sizeof(line->hash));
	if (json_object_is_type(line->body, json_type_object) && line->time)
		return 0;
	book_line_free(line);
	return fail(e, VD_ECORRUPT, "%s: line %llu says nothing", b->folder, (unsigned long long)text->n);
}

void book_line_free(struct book_line *line)
{
	json_object_put(line->whole);
	*line = (struct book_line){ 0 };
}

static int give(struct walk *w, const char *line, size_t len)
{
	const char *kind = line + sizeof("{\"kind\":\"") - 1;
	struct book_text text = { .n = w->at.n, .kind = kind, .text = line, .len = len };

	text.kind_len = (size_t)((const char *)memchr(kind, '"', len) - kind);
	memcpy(text.hash, w->at.hash, sizeof(text.hash));
	return w->each(w->ctx, &text);
}

/* Lines up to `end`, or all there are where that is zeros. */
static int follow(struct walk *w, const struct book_head *end, uint64_t *torn, struct vd_error *e)
{
	const char *line;
	size_t len;
	int r;

	for (;;) {
		if (end->n && w->at.n >= end->n)
			return 0;
		r = next_line(w, &line, &len, torn, e);
		if (r <= 0)
			return r;
		r = take_line(w, line, len, e);
		if (r == 0 && w->each)
			r = give(w, line, len);
		if (r)
			return r;
	}
}

int book_roll(struct book *b, struct book_head *head, uint64_t *torn, struct vd_error *e)
{
	struct walk w = { .b = b, .at = *head };
	const struct book_head all = { 0 };
	uint32_t part = head->part ? head->part : 1;
	struct stat st;
	int r;

	*torn = 0;
	if (!head->n && !book_part_exists(b, part))
		return 0;
	r = book_reader_open(b, part, head->end, &w.r, e);
	if (r == 0 && fstat(w.r.fd, &st) == 0 && (uint64_t)st.st_size < head->end)
		r = fail(e, VD_ECORRUPT, "%s: its end was cut off: line %llu should be the last", b->folder, (unsigned long long)head->n);
	if (r == 0)
		r = follow(&w, &all, torn, e);
	/* A part that somebody made and was killed before he wrote to it. */
	if (r == 0 && *torn && w.r.part != w.at.part) {
		w.at.part = w.r.part;
		w.at.end = 0;
	}
	book_reader_close(&w.r);
	*head = w.at;
	return r;
}

static int judge_end(struct walk *w, struct vd_error *e)
{
	const struct book_head *head = &w->head;

	if (w->at.n < head->n)
		return fail(e, VD_ECORRUPT, "%s: its end was cut off: lines %llu to %llu are missing", w->b->folder, (unsigned long long)w->at.n + 1,
			    (unsigned long long)head->n);
	if (strcmp(w->at.hash, head->hash))
		return fail(e, VD_ECORRUPT, "%s: line %llu was changed", w->b->folder, (unsigned long long)head->n);
	return 0;
}

int book_scan(struct book *b, int (*each)(void *ctx, const struct book_text *line), void *ctx, struct vd_error *e)
{
	struct walk w = { .b = b, .at.hash = BOOK_NO_HASH, .each = each, .ctx = ctx };
	const struct book_head all = { 0 };
	bool is_lost;
	uint64_t torn = 0;
	int lock = book_lock(b, LOCK_SH, e), r;

	if (lock < 0)
		return lock;
	r = book_read_head(b, &w.head, &is_lost, e);
	close(lock);
	if (r < 0 || (!w.head.n && !book_part_exists(b, 1)))
		return r;
	r = book_reader_open(b, 1, 0, &w.r, e);
	if (r == 0)
		r = follow(&w, &w.head, &torn, e);
	if (r == 0 && w.head.n)
		r = judge_end(&w, e);
	/* What was written since, or by somebody who was killed. */
	if (r == 0)
		r = follow(&w, &all, &torn, e);
	book_reader_close(&w.r);
	return r;
}

struct reading {
	struct book *b;
	int (*each)(void *ctx, const struct book_line *line);
	void *ctx;
	struct vd_error *e;
};

static int read_line(void *ctx, const struct book_text *text)
{
	struct reading *r = ctx;
	struct book_line line;
	int ret = book_line_read(r->b, text, &line, r->e);

	if (ret < 0)
		return ret;
	ret = r->each(r->ctx, &line);
	book_line_free(&line);
	return ret;
}

int book_walk(struct book *b, int (*each)(void *ctx, const struct book_line *line), void *ctx, struct vd_error *e)
{
	struct reading r = { .b = b, .each = each, .ctx = ctx, .e = e };

	return book_scan(b, read_line, &r, e);
}

int book_judge_signature(const struct book_line *line, struct sshsig *sig, struct vd_error *e)
{
	struct bytes text = { 0 }, armour = { .is_fixed = true };
	char ns[64];
	int r;

	if (!line->signature)
		return fail(e, VD_EAUTH, "line %llu of the ledger is not signed", (unsigned long long)line->n);
	armour.at = (uint8_t *)line->signature;
	armour.n = strlen(line->signature);
	snprintf(ns, sizeof(ns), "vdisk-%s", line->kind);
	r = canon_write(line->body, &text, e);
	if (r == 0)
		r = sshsig_read("the ledger", &armour, sig, e);
	if (r == 0)
		r = sshsig_judge(sig, ns, &text, e);
	bytes_free(&text);
	return r;
}
