/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Takes one image, or the folder of a virtual machine, into the tree of a snapshot that is being made. */
#ifndef TOOLS_IMAGEBACKUP_H
#define TOOLS_IMAGEBACKUP_H

#include "backup/disk.h"
#include "backup/snapshot.h"
#include "repository.h"

#define IMAGES_MAX 128

/* What was done with one image, for the summary and for what is to be done once the snapshot is durable. */
struct imagebackup {
	char name[512];                 /* in the snapshot: "disk.qcow2", "vm/disk.vmdk" */
	struct disk_facts facts;
	struct content_counts counts;
	char how[256];                  /* why what was read: "qcow2 bitmap", "all that is allocated: no base" */
	/* Changed blocks. */
	struct changes *changes;
	struct changes_want want;
	struct vd_gate_dirs dirs;
	struct vd_open_opts opts;
	char mark[DISK_MARK_MAX];       /* of the base */
};

struct backup_run {
	struct settings *s;
	struct repository *r;
	struct writer *w;
	const struct snapshots *before;
	const char *host;
	struct keys *keys;              /* of images */
	struct vd_job job;
	struct imagebackup *images[IMAGES_MAX];
	size_t n_images;
	uint64_t other_files, passed_over;      /* of folders of machines */
};

/* Not a path: nbd+unix://..., which a server shows. */
bool imagebackup_is_served(const char *operand);
/* `operand` as the user named it, its absolute path as the snapshot will name it: the base is of the same. Adds nodes to `root`. */
int imagebackup_take(struct backup_run *b, const char *operand, const char *absolute, struct tree *root, struct vd_error *e);
/* When it is known whether the snapshot is durable. Frees. */
void imagebackup_settle(struct backup_run *b, bool is_durable);

#endif
