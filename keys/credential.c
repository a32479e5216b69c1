/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Secrets that systemd passes to a service as files in a folder of its own (systemd.exec(5), "Credentials"). */
#include "keys/key.h"

#include "libvdisk/base/cleanup.h"

#include <stdio.h>
#include <string.h>

/* A name is one file in the folder: it comes from a command line and must not lead out of there. */
static bool is_credential_name(const char *name)
{
	return *name && !strchr(name, '/') && strcmp(name, ".") && strcmp(name, "..");
}

VD_PUBLIC int vd_key_from_credential(const char *directory, const char *name, struct vd_key **out, struct vd_error *e)
{
	vd_auto_free char *path = NULL;

	if (!is_credential_name(name))
		return vd_fail(e, VD_EARG, "\"%s\" is no name of a credential", name);
	if (asprintf(&path, "%s/%s", directory, name) < 0) {
		path = NULL;
		return vd_fail(e, VD_ENOMEM, "not enough memory for the path of credential %s", name);
	}
	return vd_key_read_file(path, VD_KEY_ALL, out, e);
}
