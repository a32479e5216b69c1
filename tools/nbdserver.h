/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* nbdkit with the plugin of this project, as a child that serves one image at a socket. */
#ifndef TOOLS_NBDSERVER_H
#define TOOLS_NBDSERVER_H

#include <sys/types.h>

#include "secrets.h"

struct nbdserver {
	/* Set by the caller. */
	const struct settings *s;       /* how the image is opened, and who may connect */
	const char *image;
	int listen_fd;
	/* While it runs. */
	pid_t pid;                      /* 0: it does not */
	int report_fd;                  /* what it says of opening and closing the image */
};

/* Clients are served when it returns 0; else nothing runs, and what is wrong with image or key has the library's code. */
int nbdserver_start(struct nbdserver *n, const struct keys *keys, struct vd_error *e);
/* Ends it, after the requests under way. The result is that of flushing and closing the image, however the server ended. */
int nbdserver_stop(struct nbdserver *n, struct vd_error *e);

#endif
