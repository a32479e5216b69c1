/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Words failures and maps codes; leaves printing and exit statuses to the tools. */
#include "libvdisk/base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Text from an image may hold terminal escapes; what reaches an error message is printable or UTF-8. */
static void escape_controls(char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			*s = '?';
}

static void set_message(struct vd_error *e, const char *fmt, va_list ap)
{
	vsnprintf(e->message, sizeof(e->message), fmt, ap);
	escape_controls(e->message);
}

static void append(char *buf, size_t size, const char *fmt, ...) VD_PRINTF(3, 4);
static void append(char *buf, size_t size, const char *fmt, ...)
{
	size_t used = strlen(buf);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(buf + used, size - used, fmt, ap);
	va_end(ap);
}

static void reset(struct vd_error *e, int code)
{
	e->code = code;
	e->sys_errno = 0;
	e->has_offset = false;
	e->offset = 0;
	e->message[0] = '\0';
	e->hint[0] = '\0';
}

int vd_fail(struct vd_error *e, int code, const char *fmt, ...)
{
	va_list ap;

	if (!e)
		return code;
	reset(e, code);
	va_start(ap, fmt);
	set_message(e, fmt, ap);
	va_end(ap);
	return code;
}

int vd_code_of_errno(int err)
{
	switch (err) {
	case ENOMEM: return VD_ENOMEM;
	case ENOENT: case ENOTDIR: return VD_ENOENT;
	case EEXIST: return VD_EEXIST;
	case EACCES: case EPERM: case EROFS: return VD_EACCESS;
	case ENOSPC: case EDQUOT: case EFBIG: return VD_ENOSPC;
	case EBUSY: case ETXTBSY: return VD_EBUSY;
	case EOPNOTSUPP: return VD_EUNSUPPORTED;
	default: return VD_EIO;
	}
}

int vd_fail_errno(struct vd_error *e, int err, const char *fmt, ...)
{
	int code = vd_code_of_errno(err);
	char text[128];
	va_list ap;

	if (!e)
		return code;
	reset(e, code);
	e->sys_errno = err;
	va_start(ap, fmt);
	set_message(e, fmt, ap);
	va_end(ap);
	append(e->message, sizeof(e->message), ": %s", strerror_r(err, text, sizeof(text)));
	return code;
}

int vd_fail_at(struct vd_error *e, int code, uint64_t offset, const char *fmt, ...)
{
	va_list ap;

	if (!e)
		return code;
	reset(e, code);
	e->has_offset = true;
	e->offset = offset;
	va_start(ap, fmt);
	set_message(e, fmt, ap);
	va_end(ap);
	append(e->message, sizeof(e->message), ", at offset %llu", (unsigned long long)offset);
	return code;
}

int vd_hint(struct vd_error *e, int code, const char *fmt, ...)
{
	va_list ap;

	if (!e)
		return code;
	va_start(ap, fmt);
	vsnprintf(e->hint, sizeof(e->hint), fmt, ap);
	va_end(ap);
	escape_controls(e->hint);
	return e->code;
}

int vd_error_prefix(struct vd_error *e, int code, const char *fmt, ...)
{
	char old[sizeof(e->message)];
	va_list ap;

	if (!e)
		return code;
	memcpy(old, e->message, sizeof(old));
	va_start(ap, fmt);
	set_message(e, fmt, ap);
	va_end(ap);
	append(e->message, sizeof(e->message), "%s", old);
	return e->code;
}

struct code_row {
	int code, exit_status;
	const char *name, *text;
};

static const struct code_row *find(int code)
{
	static const struct code_row ok = { VD_OK, 0, "ok", "done" };
	static const struct code_row rows[] = {
#define ROW(sym, value, status, name, text) { sym, status, name, text },
		VD_CODE_TABLE(ROW)
#undef ROW
	};

	if (code == VD_OK)
		return &ok;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (rows[i].code == code)
			return &rows[i];
	return &rows[0];
}

VD_PUBLIC const char *vd_code_name(int code)
{
	return find(code)->name;
}

VD_PUBLIC const char *vd_code_text(int code)
{
	return find(code)->text;
}

VD_PUBLIC int vd_code_exit_status(int code)
{
	return find(code)->exit_status;
}
