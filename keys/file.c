/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Secrets from files: key files verbatim, passphrase files by their first line. */
#include "keys/key.h"

#include "libvdisk/base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

int vd_key_read_file(const char *path, enum vd_key_extent extent, struct vd_key **out, struct vd_error *e)
{
	vd_auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);

	struct stat st;
	int r;

	if (fd < 0) {
		r = vd_fail_errno(e, errno, "opening the secret in %s", path);
		return vd_hint(e, r, "check the name of the file, and that you may read it");
	}
	if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
		r = vd_fail_errno(e, EISDIR, "opening the secret in %s", path);
		return vd_hint(e, r, "name the file in it that holds the secret");
	}
	return vd_key_read(fd, extent, path, out, e);
}

VD_PUBLIC int vd_key_from_file(const char *path, struct vd_key **out, struct vd_error *e)
{
	return vd_key_read_file(path, VD_KEY_ALL, out, e);
}

VD_PUBLIC int vd_key_from_passphrase_file(const char *path, struct vd_key **out, struct vd_error *e)
{
	return vd_key_read_file(path, VD_KEY_LINE, out, e);
}
