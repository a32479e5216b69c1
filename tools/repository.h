/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opens the repository that the options name, with the secret that they name: for all verbs that have to do with backups. */
#ifndef TOOLS_REPOSITORY_H
#define TOOLS_REPOSITORY_H

#include "backup/repo.h"
#include "secrets.h"

struct repository {
	struct store *store;
	struct repo *repo;
	struct keys keys;               /* that were tried on it; those of images are among them, where the options do not tell them apart */
};

enum repository_lock { REPOSITORY_UNLOCKED, REPOSITORY_SHARED, REPOSITORY_EXCLUSIVE };
/* --repo is needed. Locked as asked, the index not read yet. */
int repository_open(const struct settings *s, enum repository_lock lock, struct repository *r, struct vd_error *e);
/* Only the store: what needs no key. */
int repository_open_store(const struct settings *s, struct repository *r, struct vd_error *e);
/* A new one. */
int repository_create(const struct settings *s, struct repository *r, struct vd_error *e);
/* However far it came; a zeroed struct is fine. */
void repository_close(struct repository *r);

#endif
