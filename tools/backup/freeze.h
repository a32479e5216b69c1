/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* File systems of a guest that stand still for a moment, by the agent in it. */
#ifndef TOOLS_BACKUP_FREEZE_H
#define TOOLS_BACKUP_FREEZE_H

#include <vdisk.h>

struct freeze;

/*
 * They stand still when it returns 0. From before that until freeze_end() a process of its own waits, which thaws them should this one be killed. After a
 * failure they have been thawed as well.
 */
int freeze_begin(const char *agent_socket, struct freeze **out, struct vd_error *e);
/* Thaws, always; negative: the guest did not say that it has. NULL is allowed. */
int freeze_end(struct freeze *f, struct vd_error *e);

#endif
