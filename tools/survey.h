/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Looks at what the host holds of a disk, part by part, without its key: the bytes of the data extents are read from
 * their files as they lie there.
 */
#ifndef TOOLS_SURVEY_H
#define TOOLS_SURVEY_H

#include "classify.h"
#include "settings.h"

struct survey_cell {
	enum content worst;
	bool has_data;          /* false: hole or zeros by the tables */
};

struct survey {
	/* Set by the caller. */
	struct vd_image *img;
	uint64_t cell_bytes;            /* of the disk */
	size_t n_cells;
	struct survey_cell *cells;
	bool full;                      /* look at all data, not at samples */
	/* The result. */
	uint64_t bytes_by_tables[3];    /* of the disk: enum survey_kind */
	uint64_t looked_at[CONTENT_N];  /* bytes of data that were looked at, by what they look like */
};
enum survey_kind { SURVEY_HOLE, SURVEY_DATA, SURVEY_PACKED };

int survey_run(struct survey *v, struct vd_error *e);

#endif
