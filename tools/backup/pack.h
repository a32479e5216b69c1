/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pack files: sealed blobs, one behind the other, a sealed header that names them, and its length (restic's design document, "Pack Format"). Written
 * by many threads at once in bounded memory; the header alone can be read back.
 */
#ifndef TOOLS_BACKUP_PACK_H
#define TOOLS_BACKUP_PACK_H

#include "backup/blob.h"
#include "backup/store.h"

#define PACK_TARGET (16u << 20)         /* restic's own */

/* ---- writing ---- */

struct packer;
/*
 * `done` is told of each pack that is durable, one at a time: its blobs, in their order. `bytes` is the pack's size. n_stores threads put packs into
 * the store while others are filled.
 */
int packer_new(struct store *store, const struct seal_key *key, unsigned n_stores,
	       int (*done)(void *ctx, const uint8_t pack[ID_SIZE], const struct blob *blobs, size_t n, uint64_t bytes, struct vd_error *e), void *ctx,
	       struct packer **out, struct vd_error *e);
/* Copies a sealed blob; b->off is set. Any thread; waits while too many packs are on their way. Fails when one of them has failed. */
int packer_add(struct packer *p, const struct blob *b, const uint8_t *sealed, struct vd_error *e);
/* What is begun goes out, too; returns when all of it is durable. */
int packer_flush(struct packer *p, struct vd_error *e);
/* What is not flushed is lost. NULL is allowed. */
void packer_free(struct packer *p);

/* ---- reading ---- */

/* The blobs of a pack by its own header: *blobs is malloc'ed. VD_ECORRUPT, VD_EAUTH: it is not one, or not of this repository. */
int pack_read_header(struct store *store, struct bench *w, const char *name, uint64_t size, struct blob **blobs, size_t *n, struct vd_error *e);
/* The same of a pack that is in memory; its header is unsealed in place. */
int pack_open_header(struct bench *w, const char *name, uint8_t *pack, uint64_t size, struct blob **blobs, size_t *n, struct vd_error *e);

#endif
