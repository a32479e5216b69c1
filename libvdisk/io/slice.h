/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A part of a host file as a file of its own. */
#ifndef VD_IO_SLICE_H
#define VD_IO_SLICE_H

#include "libvdisk/io/io.h"

/* [off, off+len) of `whole`, for reading, which the slice owns on success. `name` stands for it in messages. */
int vd_slice_new(struct vd_io *whole, uint64_t off, uint64_t len, const char *name, struct vd_io **out,
		 struct vd_error *e) VD_MUST_CHECK;
/* From `off` on to where the file ends, which grows with what is written. The rest of it is the caller's, who keeps away meanwhile. */
int vd_slice_new_output(struct vd_io *whole, uint64_t off, const char *name, struct vd_io **out, struct vd_error *e) VD_MUST_CHECK;

#endif
