/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* From the options to an open repository. What is done with it, the verbs know. */
#include "repository.h"

#include <string.h>

#include "fail.h"
#include "ui.h"

#define TRIES_MAX 3             /* at the terminal */

static int judge(const struct settings *s, struct vd_error *e)
{
	if (s->backup.repo)
		return 0;
	fail(e, VD_EARG, "no repository is named");
	return fail_hint(e, VD_EARG, "--repo FOLDER, or --repo rest:https://HOST/PATH");
}

static struct store_access access_of(const struct settings *s)
{
	return (struct store_access){ .credentials = s->backup.credentials, .ca = s->backup.ca, .pin = s->backup.pin };
}

/* Its own options first; without any, the keys of images are tried: often there is one for all. */
static int fetch_keys(const struct settings *s, struct keys *keys, struct vd_error *e)
{
	int r = secrets_of(s, s->backup.keys.n ? &s->backup.keys : &s->keys, keys, e);

	if (r == 0 && !keys->n)
		r = secrets_unasked(CREDENTIAL_REPO_KEY, keys, e);
	return r == 0 && !keys->n ? secrets_unasked(CREDENTIAL_KEY, keys, e) : r;
}

static int open_with(struct repository *r, struct vd_error *e)
{
	int c;

	secrets_status(r->keys.at, r->keys.n);
	c = repo_open(r->store, r->keys.at, r->keys.n, &r->repo, e);
	ui_status_end();
	return c;
}

static int open_asking(const struct settings *s, struct repository *r, struct vd_error *e)
{
	int c = VD_EKEY;

	for (int i = 0; i < TRIES_MAX && c == VD_EKEY; i++) {
		if (i)
			ui_warn("that key does not fit");
		c = secrets_ask(s->backup.repo, &r->keys, e);
		if (c == 0)
			c = open_with(r, e);
	}
	return c;
}

int repository_open_store(const struct settings *s, struct repository *r, struct vd_error *e)
{
	struct store_access access = access_of(s);
	int c = judge(s, e);

	return c < 0 ? c : store_open(s->backup.repo, &access, &r->store, e);
}

int repository_open(const struct settings *s, enum repository_lock lock, struct repository *r, struct vd_error *e)
{
	int c = repository_open_store(s, r, e);

	if (c == 0)
		c = fetch_keys(s, &r->keys, e);
	if (c == 0)
		c = r->keys.n ? open_with(r, e) : open_asking(s, r, e);
	if (c == 0 && lock != REPOSITORY_UNLOCKED)
		c = repo_lock(r->repo, lock == REPOSITORY_EXCLUSIVE, e);
	return c;
}

int repository_create(const struct settings *s, struct repository *r, struct vd_error *e)
{
	struct store_access access = access_of(s);
	struct vd_key *key = NULL;
	int c = judge(s, e);

	if (c == 0)
		c = secrets_for_new(s, s->backup.repo, CREDENTIAL_REPO_KEY, &key, e);
	if (c == 0)
		c = store_create(s->backup.repo, &access, &r->store, e);
	if (c == 0)
		c = repo_create(r->store, key, &r->repo, e);
	vd_key_free(key);
	return c;
}

void repository_close(struct repository *r)
{
	repo_close(r->repo);
	store_close(r->store);
	secrets_free(&r->keys);
	*r = (struct repository){ 0 };
}
