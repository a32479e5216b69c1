/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Shell commands as children, for the sources of keys that run one. */
#ifndef VD_KEYS_CHILD_H
#define VD_KEYS_CHILD_H

#include <sys/types.h>

#include "libvdisk/base/error.h"

struct vd_child {
	const char *what;               /* "the passphrase command": what it is in messages */
	pid_t pid;
};

/*
 * Runs sh -c COMMAND with these descriptors as standard input (-1: the application's) and output. `own_group`: in a process
 * group of its own, so that all that it starts can be stopped with it.
 */
int vd_child_start(struct vd_child *child, const char *command, int in, int out, bool own_group, struct vd_error *e) VD_MUST_CHECK;
/* True when it has ended, too early or not; its status is still there. */
bool vd_child_has_ended(const struct vd_child *child);
/* Waits for its end. A signal or a status other than 0 is VD_EFAILED; *status is that of exit(3), or -1. */
int vd_child_wait(const struct vd_child *child, int *status, struct vd_error *e) VD_MUST_CHECK;

#endif
