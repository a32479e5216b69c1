/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where a repository's objects lie: a folder, or a server that speaks restic's REST protocol. An object is whole and durable once put, has a name
 * that nothing else may take, and never changes. A store knows nothing of what is in them: ciphers, packs and JSON are others'.
 */
#ifndef TOOLS_BACKUP_STORE_H
#define TOOLS_BACKUP_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include <vdisk.h>

/* The kinds that restic's design document names ("Repository Layout"); each has a folder of its own, but for the config. */
enum store_kind { STORE_CONFIG, STORE_KEY, STORE_LOCK, STORE_SNAPSHOT, STORE_INDEX, STORE_PACK };
#define STORE_NAME_SIZE 65      /* 64 lowercase hexadecimal digits: SHA-256 of the object as it lies there; the config has none: "" */

struct store;
/* How a server is reached. A folder needs nothing of it: NULL. */
struct store_access {
	const char *credentials;        /* file whose first line is "user:password"; NULL: none are asked for */
	const char *ca;                 /* file of certificates (PEM) that may vouch for the server; NULL: those of the system */
	const char *pin;                /* "sha256//" and the hash in base64 of the only public key that it may have; NULL: any */
	unsigned patience;              /* seconds in which a lost connection is tried again; 0: 300 */
};
/*
 * `where`: a path, or rest:http://HOST/REPO, rest:https://... (no user or password in it). What access points to is copied. Nothing is read or written
 * yet. close() takes what open() or create() gave, or NULL.
 */
int store_open(const char *where, const struct store_access *access, struct store **out, struct vd_error *e);
/* Makes the empty places of a new repository. VD_EEXIST: one is there already, or the folder is not empty. */
int store_create(const char *where, const struct store_access *access, struct store **out, struct vd_error *e);
void store_close(struct store *s);
/* As the user named it; of the store. */
const char *store_where(const struct store *s);

/*
 * All calls below: from any thread, side by side. A lost connection is tried again inside, with pauses that grow, until it is plain that nothing
 * answers: VD_EIO.
 */

/*
 * Durable under its name when it returns, from the n pieces in order. Put again under the same name with the same content: fine. VD_ENOSPC, VD_EIO: it
 * is not there; what is left of the try is not under any object's name.
 */
int store_put(struct store *s, enum store_kind kind, const char *name, const struct iovec *pieces, int n, struct vd_error *e);
/* Reads exactly n bytes from `off`. VD_ENOENT: no such object. VD_ECORRUPT: it is shorter. */
int store_get(struct store *s, enum store_kind kind, const char *name, uint64_t off, void *buf, size_t n, struct vd_error *e);
int store_size(struct store *s, enum store_kind kind, const char *name, uint64_t *size, struct vd_error *e);
/* Calls `each` for every object of a kind, in no order; what has no name of an object is passed over. A result that is not 0 ends it and is returned. */
int store_list(struct store *s, enum store_kind kind, int (*each)(void *ctx, const char *name, uint64_t size), void *ctx, struct vd_error *e);
/* VD_ENOENT: it was not there. */
int store_remove(struct store *s, enum store_kind kind, const char *name, struct vd_error *e);

#endif
