/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A restic repository of version 2: its keys, config, index and locks, and the small objects that are sealed one by one. Where objects lie is store.h's,
 * what trees and snapshots say is theirs.
 */
#ifndef TOOLS_BACKUP_REPO_H
#define TOOLS_BACKUP_REPO_H

#include "backup/index.h"
#include "backup/pack.h"
#include "backup/store.h"

struct repo;

/* Key, then config: it exists once the config does. VD_EEXIST: one is there. The store is borrowed. */
int repo_create(struct store *store, const struct vd_key *secret, struct repo **out, struct vd_error *e);
/* VD_EKEY: none of the n secrets opens it. VD_ENOENT: there is none. */
int repo_open(struct store *store, struct vd_key *const *secrets, size_t n, struct repo **out, struct vd_error *e);
/* Gives up the lock, if one is held. NULL is allowed. */
void repo_close(struct repo *r);

struct store *repo_store(const struct repo *r);
const char *repo_where(const struct repo *r);
const char *repo_id(const struct repo *r);              /* 64 digits */
unsigned repo_version(const struct repo *r);
/* For benches of other threads; stays in locked memory of the repo. */
const struct seal_key *repo_key(const struct repo *r);

/* Reads all index files: before blobs are looked for. The index is the repo's. Again: what has come since is added. */
int repo_load_index(struct repo *r, struct vd_error *e);
struct index *repo_index(struct repo *r);

/*
 * The content of a blob, added to `out`. Any thread. VD_ENOENT: no index names it. VD_EAUTH, VD_ECORRUPT, VD_EIO: as it lies there it is not to be had; read
 * twice before it is said.
 */
int repo_load_blob(struct repo *r, enum blob_type type, const uint8_t id[ID_SIZE], struct bytes *out, struct vd_error *e);

/*
 * The small objects: sealed JSON of one file. `name` is held against the content before it is opened: VD_EAUTH, another lies in its place. `text` is
 * added to. Any thread.
 */
int repo_load(struct repo *r, enum store_kind kind, const char *name, struct bytes *text, struct vd_error *e);
int repo_save(struct repo *r, enum store_kind kind, const struct bytes *text, char name[STORE_NAME_SIZE], struct vd_error *e);

/* ---- locks: restic's rules (design document, "Locks") ---- */

/*
 * Shared: others may read and write, nobody removes. Exclusive: nobody else is there. VD_EBUSY says who is. Kept fresh by a thread until repo_unlock();
 * SIGHUP, by which restic asks whether the holder lives, does nothing meanwhile.
 */
int repo_lock(struct repo *r, bool is_exclusive, struct vd_error *e);
void repo_unlock(struct repo *r);
/* VD_EBUSY: the lock could not be kept, and others may have taken the repository for free. To be asked before what cannot be taken back. */
int repo_still_locked(struct repo *r, struct vd_error *e);

struct repo_lock_info {
	char name[STORE_NAME_SIZE];
	char host[128], user[64];
	uint64_t pid;
	int64_t time;                   /* seconds since 1970 */
	bool is_exclusive;
	bool is_stale;                  /* 30 minutes old, or its process is gone from this machine */
};
/* Of this process; lock.c keeps it there. */
struct repo_lock;
struct repo_lock **repo_lock_slot(struct repo *r);
/* In no order; what cannot be read is as good as exclusive. */
int repo_each_lock(struct repo *r, int (*each)(void *ctx, const struct repo_lock_info *l), void *ctx, struct vd_error *e);

#endif
