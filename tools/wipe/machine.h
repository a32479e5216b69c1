/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What belongs to a virtual machine beside its disks: configuration, memory, firmware, TPM, logs. */
#ifndef TOOLS_WIPE_MACHINE_H
#define TOOLS_WIPE_MACHINE_H

#include "settings.h"
#include "wipe/set.h"

/* A .vmx, or a libvirt domain's .xml, by its name. */
bool wipe_is_machine(const char *path);
int wipe_discover_machine(const struct settings *s, const char *path, struct wipe_set *set, struct vd_error *e);
/* A folder that holds one machine and nothing else: what is not known to belong to one is left, and noted. */
int wipe_discover_folder(const struct settings *s, const char *path, struct wipe_set *set, struct vd_error *e);

#endif
