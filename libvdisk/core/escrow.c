/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A secret encrypted to public keys, as a file. The encryption is the keys room's. */
#include <stdlib.h>

#include "libvdisk/base/cleanup.h"
#include "libvdisk/core/image.h"
#include "libvdisk/core/keysrc.h"
#include "libvdisk/io/atomic.h"

typedef int (*seal_fn)(const struct vd_key *key, const char *const *recipients, size_t n, uint8_t **out, size_t *out_len,
		       struct vd_error *e);

static int escrow(seal_fn seal, const struct vd_key *key, const char *const *recipients, size_t n, const char *path,
		  struct vd_error *e)
{
	vd_auto_free uint8_t *sealed = NULL;
	size_t len = 0;
	int r;

	if (!n)
		return vd_fail(e, VD_EARG, "a secret is to be encrypted to nobody");
	r = seal(key, recipients, n, &sealed, &len, e);
	return r < 0 ? r : vd_output_put(vd_host_os(), path, false, sealed, len, len, e);
}

VD_PUBLIC int vd_key_escrow(const struct vd_key *key, const char *const *recipients, size_t n, const char *path, struct vd_error *e)
{
	return escrow(vd_age_seal, key, recipients, n, path, e);
}

VD_PUBLIC int vd_key_escrow_openpgp(const struct vd_key *key, const char *const *key_files, size_t n, const char *path,
				    struct vd_error *e)
{
#ifdef VD_HAVE_GPGME
	return escrow(vd_openpgp_seal, key, key_files, n, path, e);
#else
	(void)key, (void)key_files, (void)n, (void)path;
	return vd_fail(e, VD_EUNSUPPORTED, "this library was built without gpgme, which OpenPGP takes");
#endif
}
