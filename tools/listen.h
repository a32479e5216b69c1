/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The socket at which a disk is served, and the address by which clients find it. Who serves there is nbdserver.h's. */
#ifndef TOOLS_LISTEN_H
#define TOOLS_LISTEN_H

#include <limits.h>

#include "settings.h"

struct listener {
	int fd;                         /* bound and listening; -1: closed */
	char folder[PATH_MAX];          /* made for the socket, to be removed with it; "" where the user named a place */
	char path[PATH_MAX];            /* of the socket; "" with TCP */
	char uri[2 * PATH_MAX];         /* as libnbd and qemu take it */
};

/*
 * A socket of this machine, at s->serve.socket or in a new folder of this user's, or TCP at s->serve.address: never without
 * either certificates or pre-shared keys.
 */
int listener_open(struct listener *l, const struct settings *s, struct vd_error *e);
/* Removes the socket, too. */
void listener_close(struct listener *l);

#endif
