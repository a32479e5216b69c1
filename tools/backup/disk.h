/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How a disk lies in a snapshot: a folder with image.json, which says what it was, and either its content in parts of bounded size, each in a folder of its
 * own so that unchanged ones share their tree, with disk.vmdk beside them, by which they open in qemu as they stand; or the files it consists of, as
 * they lie ("opaque").
 *
 *    NAME/image.json  NAME/disk.vmdk  NAME/part-00000/flat ...  NAME/luks-header  NAME/image-head
 *    NAME/image.json  NAME/files/...
 */
#ifndef TOOLS_BACKUP_DISK_H
#define TOOLS_BACKUP_DISK_H

#include "backup/content.h"

#define DISK_MARK_MAX CHANGES_MARK_SIZE

/* image.json. */
struct disk_facts {
	char format[16], subformat[32], source[4096];
	char encryption[16];            /* of the image: "none", "luks", "aes" */
	uint64_t size;                  /* of the disk; opaque: of all files */
	uint32_t chunk;
	uint64_t part;                  /* bytes of each part but the last; opaque: 0 */
	uint32_t n_parts;
	bool is_opaque;
	bool is_consistent;             /* nobody else could write meanwhile */
	char mark[DISK_MARK_MAX];       /* changes.h */
	char root[ID_HEX_SIZE];         /* SHA-256 of the trees of all parts, in their order; opaque: of "files" */
};
int disk_read_facts(const void *json, size_t n, struct disk_facts *out, struct vd_error *e);
void disk_write_facts(const struct disk_facts *f, struct bytes *out);

/* The larger the disk the larger its chunks: at most four million of them up to 32 TiB. */
uint32_t disk_chunk(uint64_t size);

/* A disk in a snapshot, with what is needed to go on from it. */
struct disk_base {
	struct disk_facts facts;
	struct tree folder;
};
/* The folder NAME below a snapshot's tree. VD_ENOENT: there is none, or it is no disk's. */
int disk_open_base(struct repo *r, const uint8_t root[ID_SIZE], const char *name, struct disk_base *out, struct vd_error *e);
/* The same by the folder's own tree. */
int disk_of_folder(struct repo *r, const uint8_t id[ID_SIZE], struct disk_base *out, struct vd_error *e);
void disk_close_base(struct disk_base *b);
/* The chunks of one part. */
int disk_load_part(struct repo *r, const struct disk_base *b, uint32_t i, struct tree *holder, struct node **out, struct vd_error *e);

/*
 * The content of the image into `folder`, by parts. f->size and chunk say how; part, n_parts and root are filled in. `base` may be NULL; it is used where `changes`
 * tells what is the same. All nodes are made with `mode` of nobody but the owner.
 */
int disk_store_content(struct writer *w, struct vd_image *img, const struct changes *changes, const struct disk_base *base, struct disk_facts *f,
		       struct tree *folder, const struct vd_job *job, struct content_counts *counts, struct vd_error *e);
/* One file as it lies, its holes not read, as a node of that name. `img` is open as raw. */
int disk_store_file(struct writer *w, struct vd_image *img, uint32_t chunk, struct tree *folder, const char *name, const struct vd_job *job,
		    struct content_counts *counts, struct vd_error *e);
/* Bytes as a file, and a tree as a folder. */
int disk_store_bytes(struct writer *w, const struct bytes *content, struct tree *folder, const char *name, int64_t mtime, struct vd_error *e);
int disk_store_folder(struct writer *w, struct tree *of, struct tree *folder, const char *name, int64_t mtime, struct vd_error *e);

#endif
