/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The bytes of a disk, or of a file, as a list of chunks: what is allocated is read, on all cores; what is not, and what nobody has written to since the
 * base, is not read. Knows nothing of folders.
 */
#ifndef TOOLS_BACKUP_CONTENT_H
#define TOOLS_BACKUP_CONTENT_H

#include "backup/changes.h"
#include "backup/writer.h"

struct content_counts {
	uint64_t read;                  /* bytes read from the disk */
	uint64_t zero;                  /* not read: it holds nothing there */
	uint64_t same;                  /* not read: not changed since the base */
};

struct content;
/*
 * `img` is read in chunks of `chunk` bytes. `changes`: what was written since the base, or NULL: all that is allocated is read. Both are borrowed. The
 * progress callback of `job` is told of bytes out of `total`.
 */
int content_new(struct writer *w, struct vd_image *img, uint32_t chunk, const struct changes *changes, const struct vd_job *job, uint64_t total,
		struct content **out, struct vd_error *e);
void content_free(struct content *c);

/* Whether nothing in the range may have changed: never true without changes. */
bool content_is_same(const struct content *c, uint64_t off, uint64_t len);
/*
 * Fills in ids of the chunks of [off, off + len), which begins at a multiple of the chunk size; what lies past the end of the image is zeros. `base`: those
 * of the base for the same range, or NULL.
 */
int content_read(struct content *c, uint64_t off, uint64_t len, const uint8_t (*base)[ID_SIZE], uint8_t (*ids)[ID_SIZE], struct vd_error *e);
/* A range that was left out as being the same. */
int content_skip(struct content *c, uint64_t len, struct vd_error *e);
struct content_counts content_counts(const struct content *c);

static inline uint64_t content_chunks(uint64_t len, uint32_t chunk)
{
	return len / chunk + (len % chunk != 0);
}

#endif
