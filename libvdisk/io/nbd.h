/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A disk that a server exports over NBD, as a device: its size is fixed. What is asked of it is libnbd's to say in the protocol's words. */
#ifndef VD_IO_NBD_H
#define VD_IO_NBD_H

#include "libvdisk/io/io.h"

/*
 * nbd+unix:///EXPORT?socket=PATH, a socket of this machine's; nbd://HOST:PORT/EXPORT, in clear; nbds:// and nbds+unix://, by TLS.
 * No path of a file begins so.
 */
bool vd_nbd_is_name(const char *path);
int vd_nbd_open(const char *name, unsigned flags, struct vd_io **out, struct vd_error *e) VD_MUST_CHECK;

#endif
