/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backup/store_kind.h"
#include "fail.h"

int store_rest_open(const char *where, const struct store_access *access, bool creates, struct store **out, struct vd_error *e)
{
	(void)access, (void)creates, (void)out;
	return fail(e, VD_EUNSUPPORTED, "%s: servers cannot be reached yet", where);
}
