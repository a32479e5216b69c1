/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A descriptor that takes bytes in their order and gives none back (a pipe, a socket) as a file that is written once from its
 * beginning to its end.
 *
 * What is written ascends; what is left out between two writes, and up to a size set by truncate, are zeros. The last
 * megabyte at most waits in memory: that much may be read, written again, or truncated away as long as nothing of it went out.
 * Everything else fails. A flush does nothing: only vd_sink_end() says that all has gone out.
 */
#ifndef VD_IO_SINK_H
#define VD_IO_SINK_H

#include "libvdisk/io/io.h"

/* The descriptor stays the caller's, and open until the file is closed. `name` stands for it in messages. */
int vd_sink_new(int fd, const char *name, struct vd_io **out, struct vd_error *e) VD_MUST_CHECK;
/* Whoever waits for the reader gives up once *stop is true, with VD_ECANCELLED. NULL: it waits as long as it takes. */
void vd_sink_obey(struct vd_io *io, const atomic_bool *stop);
/* The end: what waits goes out, and zeros up to the size. Where it goes into a regular file, that is flushed. */
int vd_sink_end(struct vd_io *io, struct vd_error *e) VD_MUST_CHECK;

#endif
