/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Level 0: the list of snapshots against the ledger. A repository that was set back to an older state is whole in itself, and so is one from which somebody
 * took the newest snapshot: only what was written down elsewhere tells. Reads the receipts that backup and forget leave.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/snapshot.h"
#include "backup/verify.h"
#include "fail.h"
#include "ledger/allowed.h"
#include "ledger/book.h"
#include "signals.h"
#include "ui.h"

struct receipt {
	char snapshot[STORE_NAME_SIZE], tree[ID_HEX_SIZE];
	char time[40];
	uint64_t n;                     /* of the line */
	bool is_forgotten, is_there;
};

struct head {
	struct verify *v;
	const struct verify_trust *trust;
	char repository[ID_HEX_SIZE];   /* its id; "": not known without the key */
	struct receipt *at;             /* in the order of the ledger */
	size_t n, room;
	uint64_t strangers;
	struct vd_error *e;
};

static const char *text_of(struct json_object *body, const char *key)
{
	struct json_object *j;
	const char *text = json_object_object_get_ex(body, key, &j) ? json_object_get_string(j) : NULL;

	return text ? text : "";
}

/* By its id where the key tells it, else by its address; the id of the first that has it then holds. */
static bool is_of_this(struct head *h, struct json_object *body)
{
	const char *id = text_of(body, "repository");

	if (!h->repository[0] && !strcmp(text_of(body, "where"), h->trust->where))
		snprintf(h->repository, sizeof(h->repository), "%s", id);
	return h->repository[0] && !strcmp(h->repository, id);
}

/* 0: it may be relied on. */
static int judge_signature(struct head *h, const struct book_line *line)
{
	char name[ALLOWED_NAME_MAX];
	struct vd_error why;
	struct sshsig sig;
	int r;

	if (!line->signature && !h->trust->allowed)
		return 0;
	r = book_judge_signature(line, &sig, &why);
	if (r == 0 && h->trust->allowed)
		r = allowed_by_file(h->trust->allowed, &sig, NULL, name, &why);
	if (r < 0)
		verify_tell(h->v, VERIFY_FORGED, text_of(line->body, "snapshot"), "line %llu of the ledger: %s", (unsigned long long)line->n, why.message);
	return r;
}

static void add(struct head *h, const struct book_line *line)
{
	struct receipt *a;

	if (h->n == h->room) {
		h->room = h->room ? 2 * h->room : 64;
		h->at = reallocarray(h->at, h->room, sizeof(*h->at));
		if (!h->at)
			ui_out_of_memory();
	}
	a = &h->at[h->n++];
	*a = (struct receipt){ .n = line->n };
	snprintf(a->snapshot, sizeof(a->snapshot), "%s", text_of(line->body, "snapshot"));
	snprintf(a->tree, sizeof(a->tree), "%s", text_of(line->body, "tree"));
	snprintf(a->time, sizeof(a->time), "%s", text_of(line->body, "taken"));
}

static void forget(struct head *h, const char *name)
{
	for (size_t i = 0; i < h->n; i++)
		if (!strcmp(h->at[i].snapshot, name))
			h->at[i].is_forgotten = true;
}

static void forget_all(struct head *h, struct json_object *body)
{
	struct json_object *list;

	if (!json_object_object_get_ex(body, "snapshots", &list) || !json_object_is_type(list, json_type_array))
		return;
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		const char *name = json_object_get_string(json_object_array_get_idx(list, i));

		if (name)
			forget(h, name);
	}
}

static int take_line(void *ctx, const struct book_line *line)
{
	struct head *h = ctx;
	bool is_backup = !strcmp(line->kind, "backup"), is_forget = !strcmp(line->kind, "forget");

	if ((!is_backup && !is_forget) || !is_of_this(h, line->body) || judge_signature(h, line) < 0)
		return signals_check(h->e);
	if (is_backup)
		add(h, line);
	else
		forget_all(h, line->body);
	return 0;
}

/* ---- what is there --------------------------------------------------------------------------------------- */

static struct receipt *find(struct head *h, const char *name)
{
	for (size_t i = 0; i < h->n; i++)
		if (!strcmp(h->at[i].snapshot, name))
			return &h->at[i];
	return NULL;
}

static int take_snapshot(void *ctx, const char *name, uint64_t size)
{
	struct head *h = ctx;
	struct receipt *a = find(h, name);
	char tree[ID_HEX_SIZE];
	struct vd_error why;
	struct snapshot s;

	(void)size;
	h->v->snapshots++;
	if (!a) {
		verify_tell(h->v, VERIFY_STRANGER, name, "snapshot %.8s: the ledger has no receipt of it", name);
		return signals_check(h->e);
	}
	a->is_there = true;
	if (!h->v->repo)
		return signals_check(h->e);
	if (snapshot_load(h->v->repo, name, &s, &why) < 0) {
		verify_tell(h->v, VERIFY_OBJECT, name, "%s", why.message);
		return signals_check(h->e);
	}
	id_show(s.tree, tree);
	if (strcmp(tree, a->tree) != 0)
		verify_tell(h->v, VERIFY_OTHER_TREE, name, "snapshot %.8s: its receipt is of another tree", name);
	snapshot_free(&s);
	return signals_check(h->e);
}

/* A repository that was set back lacks all that came after a moment. */
static void tell_lost(struct head *h)
{
	size_t lost = 0, tail = 0, left = 0;
	const struct receipt *last = NULL;

	for (size_t i = 0; i < h->n; i++) {
		const struct receipt *a = &h->at[i];

		if (a->is_forgotten)
			continue;
		tail = a->is_there ? 0 : tail + 1;
		last = a->is_there ? a : last;
		left += a->is_there;
		if (a->is_there)
			continue;
		lost++;
		verify_tell(h->v, VERIFY_LOST, a->snapshot, "snapshot %.8s of %.19s (line %llu of the ledger) is not there, and nobody forgot it", a->snapshot,
			    a->time, (unsigned long long)a->n);
	}
	if (lost && tail == lost)
		verify_tell(h->v, VERIFY_ROLLBACK, "", "%s of the %zu snapshots in the ledger are missing: removed, or the repository was set back to %s%.19s%s",
			    lost == 1 ? "the newest" : left ? "all of the newest" : "all", h->n, left ? "what it was after " : "before the first",
			    left ? last->time : "", "");
}

int verify_head(struct verify *v, const struct verify_trust *t, struct vd_error *e)
{
	struct head h = { .v = v, .trust = t, .e = e };
	struct vd_error why;
	int r;

	if (v->repo)
		snprintf(h.repository, sizeof(h.repository), "%s", repo_id(v->repo));
	r = book_walk(t->book, take_line, &h, &why);
	if (r == VD_ECORRUPT || r == VD_EAUTH) {
		verify_tell(v, VERIFY_BOOK, "", "%s", why.message);
		r = 0;
	} else if (r < 0 && r != VD_ECANCELLED) {
		*e = why;
	}
	if (r == 0 && !h.n && !v->faults)
		r = fail(e, VD_ENOENT, "the ledger has no receipt of a backup in %s", t->where);
	v->snapshots = 0;
	if (r == 0)
		r = store_list(v->store, STORE_SNAPSHOT, take_snapshot, &h, e);
	if (r == 0)
		tell_lost(&h);
	free(h.at);
	return r;
}
