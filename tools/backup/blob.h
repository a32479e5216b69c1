/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One blob: compressed, sealed, and back, when it is what its name says or nothing. What a thread needs for that (ciphers, compressor, memory) is
 * a bench; where blobs lie, others know.
 */
#ifndef TOOLS_BACKUP_BLOB_H
#define TOOLS_BACKUP_BLOB_H

#include "backup/seal.h"
#include "backup/zpress.h"

enum blob_type { BLOB_DATA, BLOB_TREE };
#define BLOB_DATA_MAX (16u << 20)       /* restic's largest chunk is 8 MiB */
#define BLOB_TREE_MAX (512u << 20)      /* 7.6 million chunks: more has exhausted restic's memory at others */

/* What an index, or the header of a pack, says of a blob. */
struct blob {
	uint8_t id[ID_SIZE];            /* SHA-256 of the content */
	enum blob_type type;
	uint32_t off, len;              /* in the pack, sealed */
	uint32_t raw_len;               /* of the content, 0: it is not compressed */
};
/* Content bytes. */
size_t blob_size(const struct blob *b);

struct bench;
int bench_new(const struct seal_key *key, struct bench **out, struct vd_error *e);
/* NULL is allowed. */
void bench_free(struct bench *b);
struct sealer *bench_sealer(struct bench *b);
struct zpress *bench_zpress(struct bench *b);
/* Memory that grows, and lasts until the next call: for what is read from a store. */
uint8_t *bench_room(struct bench *b, size_t n);

/* b->len and raw_len are filled in, and *sealed is the bench's, until its next use. */
int blob_close(struct bench *w, const void *content, size_t n, struct blob *b, const uint8_t **sealed, struct vd_error *e);
/*
 * `content` takes blob_size(b) bytes. VD_EAUTH: nobody with the key made it, or it is not the blob of that name (another was put in its place).
 * VD_ECORRUPT: it contradicts itself.
 */
int blob_open(struct bench *w, const struct blob *b, const uint8_t *sealed, void *content, struct vd_error *e);

#endif
