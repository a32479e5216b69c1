/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A secret encrypted to public keys, as a file. The encryption is the keys room's. */
#include <stdlib.h>

#include "libvdisk/base/cleanup.h"
#include "libvdisk/core/image.h"
#include "libvdisk/core/keysrc.h"
#include "libvdisk/io/atomic.h"

VD_PUBLIC int vd_key_escrow(const struct vd_key *key, const char *const *recipients, size_t n, const char *path, struct vd_error *e)
{
	vd_auto_free uint8_t *sealed = NULL;
	size_t len = 0;
	int r;

	if (!n)
		return vd_fail(e, VD_EARG, "a secret is to be encrypted to nobody");
	r = vd_age_seal(key, recipients, n, &sealed, &len, e);
	return r < 0 ? r : vd_output_put(vd_host_os(), path, sealed, len, len, e);
}
