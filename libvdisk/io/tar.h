/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Tar archives (POSIX.1-2017, pax, "ustar Interchange Format"): what is where in one, and the headers of a new one. */
#ifndef VD_IO_TAR_H
#define VD_IO_TAR_H

#include "libvdisk/io/io.h"

#define VD_TAR_BLOCK 512                /* headers and members begin at multiples of it; two of zeros end the archive */

struct vd_tar_member {
	char name[256];
	uint64_t off, len;              /* of its bytes, inside the archive */
};

/* Whether the first bytes of a file are a tar header. */
int vd_tar_probe(struct vd_io *io, bool *yes, struct vd_error *e) VD_MUST_CHECK;
/*
 * The next regular file from *at on, which begins as 0 and is moved. VD_ENOENT past the last; VD_ECORRUPT for what is no tar,
 * or reaches past the end of the file.
 */
int vd_tar_next(struct vd_io *io, uint64_t *at, struct vd_tar_member *m, struct vd_error *e) VD_MUST_CHECK;

/* A header for a member of this name, up to 99 bytes, mode 0644, no owner. */
void vd_tar_header(uint8_t out[VD_TAR_BLOCK], const char *name, uint64_t len, uint64_t mtime);

#endif
