/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Fills struct vd_error. Prints nothing: that is ui.c. */
#include "fail.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static int code_of_errno(int err)
{
	switch (err) {
	case ENOMEM: return VD_ENOMEM;
	case ENOENT: case ENOTDIR: return VD_ENOENT;
	case EEXIST: return VD_EEXIST;
	case EACCES: case EPERM: case EROFS: return VD_EACCESS;
	case ENOSPC: case EDQUOT: return VD_ENOSPC;
	default: return VD_EIO;
	}
}

static void word(struct vd_error *e, int code, const char *fmt, va_list ap)
{
	*e = (struct vd_error){ .code = code };
	vsnprintf(e->message, sizeof(e->message), fmt, ap);
}

int fail(struct vd_error *e, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	word(e, code, fmt, ap);
	va_end(ap);
	return code;
}

int fail_errno(struct vd_error *e, int err, const char *fmt, ...)
{
	size_t used;
	va_list ap;

	va_start(ap, fmt);
	word(e, code_of_errno(err), fmt, ap);
	va_end(ap);
	e->sys_errno = err;
	used = strlen(e->message);
	snprintf(e->message + used, sizeof(e->message) - used, ": %s", strerror(err));
	return e->code;
}

int fail_hint(struct vd_error *e, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(e->hint, sizeof(e->hint), fmt, ap);
	va_end(ap);
	return code;
}
