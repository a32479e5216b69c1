/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Chunks back into an image, on all cores: each is what its name says when it is written, or nothing is. Knows chunks of any length, restic's too.
 * What is made of it, and when it gets its name, is the caller's.
 */
#ifndef TOOLS_BACKUP_RECOVER_H
#define TOOLS_BACKUP_RECOVER_H

#include "backup/disk.h"

struct recovery {
	struct repo *repo;              /* its index has been read */
	struct vd_image *to;            /* open for writing */
	unsigned threads;
	bool only_differing;            /* what `to` has already is not written, and not fetched */
	struct vd_job job;
	const char *phase;              /* for the job: "restore" */
	uint64_t total, done;           /* bytes, over all calls */
	/* Counted. */
	uint64_t written, zeros, same;  /* bytes */
};
/* The content of a file's node at byte `at` of the image; what lies past its end has to be zeros. VD_ECORRUPT: the node contradicts itself. */
int recover_node(struct recovery *v, const struct node *n, uint64_t at, struct vd_error *e);

/* The content of a disk, part by part. */
int recover_disk(struct recovery *v, const struct disk_base *disk, struct vd_error *e);

#endif
