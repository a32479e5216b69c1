/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the sources of keys share: the key object, and reading a secret from a descriptor into locked memory. */
#ifndef VD_KEYS_KEY_H
#define VD_KEYS_KEY_H

#include "libvdisk/base/secret.h"

/* Makes a key of the secret, which it takes over even when it fails. An empty one is VD_EARG, named by `what`. */
int vd_key_adopt(struct vd_secret *s, const char *what, struct vd_key **out, struct vd_error *e) VD_MUST_CHECK;

enum vd_key_extent {
	VD_KEY_LINE,            /* up to the first newline, which is taken off; nothing behind it is read */
	VD_KEY_ALL,             /* up to end of file, verbatim */
};
/* Reads from the descriptor; more than VD_KEY_MAX bytes are VD_EARG. `what` names the source in messages. */
int vd_key_read(int fd, enum vd_key_extent extent, const char *what, struct vd_key **out,
		struct vd_error *e) VD_MUST_CHECK;
/* Opens the file and reads from it. */
int vd_key_read_file(const char *path, enum vd_key_extent extent, struct vd_key **out,
		     struct vd_error *e) VD_MUST_CHECK;

#endif
