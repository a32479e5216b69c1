/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Words broken images, and images that a failure may have changed. */
#include "formats/corrupt.h"

#include <stdarg.h>
#include <stdio.h>

int vd_corrupt(const char *name, struct vd_error *e, uint64_t at, const char *fmt, ...)
{
	char what[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	vd_fail_at(e, VD_ECORRUPT, at, "%s%s%s", name ? name : "", name ? ": " : "", what);
	return vd_hint(e, VD_ECORRUPT, "what can be read may be saved with vdisk convert; else restore the image from a backup");
}

int vd_unsure(const char *name, struct vd_error *e, const char *what)
{
	struct vd_error cause;

	if (!e || e->code == VD_EPOISONED)
		return VD_EPOISONED;
	cause = *e;
	vd_fail(e, VD_EPOISONED, "%s: %s: %s", name, what, cause.message);
	return vd_hint(e, VD_EPOISONED, "make sure that the image's disk works, open the image again and look");
}
