/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Names in descriptors as UTF-8: VMware writes them in the code page of the machine that made the disk. Whole descriptors, if
 * somebody's editor made UTF-16 of them.
 */
#include "formats/vmdk/vmdk.h"

#include <errno.h>
#include <iconv.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"

static bool is_ascii(struct vd_bytes text)
{
	for (size_t i = 0; i < text.len; i++)
		if (text.p[i] & 0x80)
			return false;
	return true;
}

/*
 * VMware says "windows-936" where iconv says "CP936", and by the names of standards it means Windows' code pages, which have
 * more characters; in its Shift_JIS a backslash is none but a yen sign to iconv.
 */
static void iconv_name(const char *encoding, char name[40])
{
	static const char *const pages[][2] = {
		{ "Shift_JIS", "CP932" }, { "GBK", "CP936" }, { "GB2312", "CP936" }, { "EUC-KR", "CP949" }, { "Big5", "CP950" },
	};

	for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++)
		if (!strcasecmp(encoding, pages[i][0]))
			encoding = pages[i][1];
	if (!strncasecmp(encoding, "windows-", 8))
		snprintf(name, 40, "CP%s", encoding + 8);
	else
		snprintf(name, 40, "%s", encoding);
}

static int convert(iconv_t cd, const char *encoding, struct vd_bytes text, char **out, struct vd_error *e)
{
	/* No code page needs more than three bytes of UTF-8 for one of its own. */
	size_t room = text.len * 3 + 1, left = text.len, free_bytes = room - 1;
	vd_auto_free char *buf = NULL;
	char *from = (char *)text.p, *to;
	int r = vd_alloc(room, 1, &buf, e);

	if (r < 0)
		return r;
	to = buf;
	if (iconv(cd, &from, &left, &to, &free_bytes) == (size_t)-1)
		return vd_fail(e, VD_ECORRUPT, "text in the descriptor is not valid in its encoding %s", encoding);
	*out = vd_steal(&buf);
	return 0;
}

static int convert_from(const char *encoding, struct vd_bytes text, char **out, struct vd_error *e)
{
	char name[40];
	iconv_t cd;
	int r;

	iconv_name(encoding, name);
	cd = iconv_open("UTF-8", name);
	if (cd == (iconv_t)-1)
		return vd_fail(e, VD_EUNSUPPORTED, "the descriptor's encoding '%.40s' is not known on this machine", encoding);
	r = convert(cd, encoding, text, out, e);
	iconv_close(cd);
	return r;
}

int vd_vmdk_to_utf8(const char *encoding, struct vd_bytes text, char **out, struct vd_error *e)
{
	int r;

	if (encoding && !is_ascii(text) && strcasecmp(encoding, "UTF-8"))
		return convert_from(encoding, text, out, e);
	r = vd_alloc(text.len + 1, 1, out, e);
	if (r == 0)
		memcpy(*out, text.p, text.len);
	return r;
}

const char *vd_vmdk_utf16(struct vd_bytes text)
{
	if (text.len < 4 || text.len % 2)
		return NULL;
	return !memcmp(text.p, "\xff\xfe", 2) ? "UTF-16LE" : !memcmp(text.p, "\xfe\xff", 2) ? "UTF-16BE" : NULL;
}

int vd_vmdk_from_utf16(struct vd_bytes *text, struct vd_error *e)
{
	char *utf8 = NULL;
	int r = convert_from(vd_vmdk_utf16(*text), *text, &utf8, e);

	if (r < 0)
		return r;
	free((void *)text->p);
	*text = (struct vd_bytes){ (uint8_t *)utf8, strlen(utf8) };
	return 0;
}
