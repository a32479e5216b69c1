/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which pack a blob lies in: 48 bytes a blob in memory, filled from the repository's index files. */
#ifndef TOOLS_BACKUP_INDEX_H
#define TOOLS_BACKUP_INDEX_H

#include "backup/blob.h"

struct index;
int index_new(struct index **out, struct vd_error *e);
/* NULL is allowed. */
void index_free(struct index *x);

/* Any thread. Several places of one blob are fine, the first is kept. */
void index_add(struct index *x, const uint8_t pack[ID_SIZE], const struct blob *blobs, size_t n);
/* Adds what an index file says. VD_ECORRUPT: it breaks a rule. */
int index_read(struct index *x, const char *name, const void *json, size_t n, struct vd_error *e);
/*
 * False: nobody has it. A blob that was claimed and is not in a pack yet is had, but has no place: b->len is 0, and it is not found by
 * others than claim.
 */
bool index_find(struct index *x, enum blob_type type, const uint8_t id[ID_SIZE], struct blob *b, uint8_t pack[ID_SIZE]);
/* True: it was not there, and is the caller's to store; to all others it is there from now on. */
bool index_claim(struct index *x, enum blob_type type, const uint8_t id[ID_SIZE]);

/* All packs and what of them the index knows; a result that is not 0 ends it. No blob may be added meanwhile. */
size_t index_count(const struct index *x);
size_t index_packs(const struct index *x);
const uint8_t *index_pack(const struct index *x, size_t i);
int index_each(struct index *x, int (*each)(void *ctx, size_t pack, const struct blob *b), void *ctx);

/* The text of an index file, grown pack by pack. */
void index_write_pack(struct bytes *text, const uint8_t pack[ID_SIZE], const struct blob *blobs, size_t n);
void index_write_end(struct bytes *text);

#endif
