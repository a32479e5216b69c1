/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Makes, shows and parses GUIDs. What they identify is their users' business. */
#include "libvdisk/base/guid.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

/* Where the text's bytes lie when the first three fields are little-endian. */
static const uint8_t mixed[VD_GUID_LEN] = { 3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15 };

static size_t place(size_t i, bool is_mixed)
{
	return is_mixed ? mixed[i] : i;
}

int vd_guid_make(uint8_t guid[VD_GUID_LEN], bool is_mixed, struct vd_error *e)
{
	ssize_t n;

	/* So few bytes come whole or not at all (getrandom(2)). */
	do
		n = getrandom(guid, VD_GUID_LEN, 0);
	while (n < 0 && errno == EINTR);
	if (n != VD_GUID_LEN)
		return vd_fail_errno(e, errno, "no random bytes for an identifier");
	guid[place(6, is_mixed)] = (guid[place(6, is_mixed)] & 0x0f) | 0x40;
	guid[8] = (guid[8] & 0x3f) | 0x80;
	return 0;
}

void vd_guid_show(const uint8_t guid[VD_GUID_LEN], bool is_mixed, char text[VD_GUID_TEXT_LEN])
{
	static const char digits[] = "0123456789abcdef";
	char *p = text;

	for (size_t i = 0; i < VD_GUID_LEN; i++) {
		uint8_t b = guid[place(i, is_mixed)];

		if (i == 4 || i == 6 || i == 8 || i == 10)
			*p++ = '-';
		*p++ = digits[b >> 4];
		*p++ = digits[b & 15];
	}
	*p = '\0';
}

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool vd_guid_parse(const char *text, uint8_t guid[VD_GUID_LEN])
{
	bool has_brace = *text == '{';
	const char *p = text + has_brace;

	for (size_t i = 0; i < VD_GUID_LEN; i++) {
		int high, low;

		if ((i == 4 || i == 6 || i == 8 || i == 10) && *p++ != '-')
			return false;
		high = digit(p[0]);
		low = high < 0 ? -1 : digit(p[1]);
		if (low < 0)
			return false;
		guid[mixed[i]] = high << 4 | low;
		p += 2;
	}
	return !strcmp(p, has_brace ? "}" : "");
}
