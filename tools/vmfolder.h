/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What lies in the folder of a virtual machine: its disks, each once, and the files that are none. */
#ifndef TOOLS_VMFOLDER_H
#define TOOLS_VMFOLDER_H

#include "settings.h"

#define VMFOLDER_MAX 256

struct vmfolder {
	char *disks[VMFOLDER_MAX];      /* paths; a disk that others stand on is not listed: it is read through them */
	char *files[VMFOLDER_MAX];
	size_t n_disks, n_files;
};
/* Looks at regular files of the folder itself, in the order of their names, by their tables: no key is used. */
int vmfolder_look(const struct settings *s, const char *folder, struct vmfolder *out, struct vd_error *e);
void vmfolder_free(struct vmfolder *f);

#endif
