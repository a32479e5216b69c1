/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a disk holds by its partition table and file systems, and whether they can be read: the part of a drill that boots nothing. */
#ifndef TOOLS_DRILL_STRUCTURE_H
#define TOOLS_DRILL_STRUCTURE_H

#include <json-c/json.h>
#include <vdisk.h>

struct structure {
	bool is_sound;                  /* there is a file system, and nothing that was read breaks a rule of its format */
	bool has_windows;               /* NTFS */
	char words[320];                /* the first thing that is wrong, or the system that was found */
	struct json_object *details;    /* "table", "volumes", "shortfalls", "system"; the caller's to put */
};
int structure_check(struct vd_image *img, struct structure *out, struct vd_error *e);

#endif
