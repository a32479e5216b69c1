/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Blobs into a repository: what it has is not stored again, what is new goes into packs, and packs into index files. */
#ifndef TOOLS_BACKUP_WRITER_H
#define TOOLS_BACKUP_WRITER_H

#include "backup/tree.h"

struct writer_counts {
	uint64_t blobs_new, bytes_new;  /* content bytes that the repository had not */
	uint64_t bytes_stored;          /* of packs and indexes, as they lie there */
};

struct writer;
/* The index has been read, and a lock is held. n: threads that store blobs, each with its bench. */
int writer_new(struct repo *r, unsigned n, struct writer **out, struct vd_error *e);
/* What was not finished is no part of the repository but for packs that are indexed. NULL is allowed. */
void writer_free(struct writer *w);
struct repo *writer_repo(const struct writer *w);
unsigned writer_threads(const struct writer *w);

/* Any thread, but one at a time for each `who`. The id of the content is the result. */
int writer_add(struct writer *w, unsigned who, enum blob_type type, const void *content, size_t n, uint8_t id[ID_SIZE], struct vd_error *e);
int writer_add_tree(struct writer *w, struct tree *t, uint8_t id[ID_SIZE], struct vd_error *e);
/* All packs durable, then the index that names them. */
int writer_finish(struct writer *w, struct vd_error *e);
struct writer_counts writer_counts(const struct writer *w);

#endif
