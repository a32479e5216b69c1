/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Checks images whose table names blocks: entries that make no sense, places that two of them name. Space that none names
 * is no fault where nobody keeps account of it. The file is gone through in windows, a bit for each unit of it, so that
 * memory does not grow with the file.
 */
#ifndef VD_FORMATS_BLOCKCHECK_H
#define VD_FORMATS_BLOCKCHECK_H

#include "libvdisk/core/format.h"

struct vd_block_check {
	/* The driver's. */
	struct vd_check *c;
	const char *file;
	uint32_t unit;                  /* in which places are given out */
	uint64_t end;                   /* of the file, as far as blocks lie there */
	uint32_t block_size;            /* guest bytes */
	uint64_t size;                  /* of the disk */
	void *st;
	/* Names every place, and every entry that is not sound. */
	int (*visit)(void *st, struct vd_block_check *k, struct vd_error *e);

	/* The check's own: the window, in units. */
	uint64_t start, stop;
	uint8_t *taken;
	bool is_first;                  /* what does not depend on the window is told and counted once */
};

int vd_check_blocks(struct vd_block_check *k, struct vd_error *e) VD_MUST_CHECK;

/* From visit(). An entry names [off, off+len); guest_off of a block, VD_HOST_NOWHERE: of a table. */
int vd_check_place(struct vd_block_check *k, uint64_t off, uint64_t len, uint64_t entry_off, uint64_t guest_off,
		   struct vd_error *e) VD_MUST_CHECK;
/* An entry of which nothing can be made. */
int vd_check_broken(struct vd_block_check *k, uint64_t entry_off, uint64_t guest_off, const struct vd_error *what,
		    struct vd_error *e) VD_MUST_CHECK;
/* A finding that is about no entry, and can be mended. */
int vd_check_tell(struct vd_block_check *k, enum vd_finding_kind kind, enum vd_severity severity, const char *text,
		  struct vd_error *e) VD_MUST_CHECK;

#endif
