/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the sources of changed blocks share with changes.c, which asks them in turn. */
#ifndef TOOLS_BACKUP_CHANGES_SOURCES_H
#define TOOLS_BACKUP_CHANGES_SOURCES_H

#include "backup/blockset.h"
#include "backup/changes.h"

/*
 * A mark is "size=N;chain=HEX", with more of the same kind behind where there is a source: "bitmap=NAME;granularity=N", "ctk=UUID/N", "list=ID".
 */
#define MARK_VALUE_SIZE 256

struct changes {
	const char *path;
	const struct vd_open_opts *opts;
	const struct changes_want *want;
	char series[17];                /* names what this chain of backups makes in the image */
	char fresh[64];                 /* the bitmap that records from here on; "": none was made */
	char base_bitmap[64];           /* the one that records since the base; "": none */
	bool base_tells;                /* and it does */
	struct live *live;              /* a machine's disk; NULL: nobody runs on it */
	char live_doubt[CHANGES_WHY_SIZE];
	struct blockset set;
	const char *source;             /* NULL: a scan has to be made */
	char mark[CHANGES_MARK_SIZE];
	size_t mark_len;
};

/* False: the mark has none of that name, or it does not fit. */
bool mark_get(const char *mark, const char *key, char value[MARK_VALUE_SIZE]);
bool mark_get_u64(const char *mark, const char *key, uint64_t *value);
/* What does not fit is left out as a whole: then nothing tells changes the next time. */
void mark_put(struct changes *c, const char *key, const char *fmt, ...) VD_PRINTF(3, 4);

/* 0, with the reason for a scan. */
int in_doubt(char why[CHANGES_WHY_SIZE], const char *fmt, ...) VD_PRINTF(2, 3);

/*
 * Each: 1 and c->set has what may have changed since the base; 0 and `why`; negative: what was asked for by name cannot be read. They add to
 * c->mark what they have to find again the next time, also with 0. c->set is empty before.
 */
int changes_of_bitmap(struct changes *c, struct vd_image *img, char why[CHANGES_WHY_SIZE], struct vd_error *e);
int changes_of_ctk(struct changes *c, struct vd_image *img, char why[CHANGES_WHY_SIZE], struct vd_error *e);
int changes_of_nbd(struct changes *c, struct vd_image *img, char why[CHANGES_WHY_SIZE], struct vd_error *e);
int changes_of_list(struct changes *c, struct vd_image *img, char why[CHANGES_WHY_SIZE], struct vd_error *e);

/* A name for a bitmap of this chain of backups, and how all such begin. */
int changes_bitmap_name(const struct changes *c, char name[64], struct vd_error *e);
void changes_bitmap_prefix(const struct changes *c, char prefix[64]);
/* Makes `fresh`; where it cannot, `why` says so. */
void changes_bitmap_make(struct changes *c, char why[CHANGES_WHY_SIZE]);
/* Into the mark goes the bitmap that records from now or from an earlier time. After changes_of_bitmap(). */
void changes_bitmap_mark(struct changes *c, uint64_t size);
int changes_bitmap_remove(struct changes *c, const char *name, struct vd_error *e);

#endif
