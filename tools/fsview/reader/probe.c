/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a volume holds, by its signatures; reading it is another's. Two signatures at once: the one that was found first. */
#include <stdio.h>
#include <string.h>

#include "fsview/reader/reader.h"

struct sign {
	enum fsview_fs fs;
	uint64_t off;
	size_t len;
	const char *bytes;
};
static const struct sign signs[] = {
	{ FSVIEW_FS_LUKS, 0, 6, "LUKS\xba\xbe" },
	{ FSVIEW_FS_BITLOCKER, 3, 8, "-FVE-FS-" },
	{ FSVIEW_FS_NTFS, 3, 8, "NTFS    " },
	{ FSVIEW_FS_EXFAT, 3, 8, "EXFAT   " },
	{ FSVIEW_FS_REFS, 3, 4, "ReFS" },
	{ FSVIEW_FS_XFS, 0, 4, "XFSB" },
	{ FSVIEW_FS_SQUASHFS, 0, 4, "hsqs" },
	{ FSVIEW_FS_LVM, 512 + 24, 8, "LVM2 001" }, { FSVIEW_FS_LVM, 24, 8, "LVM2 001" },
	{ FSVIEW_FS_LVM, 1024 + 24, 8, "LVM2 001" }, { FSVIEW_FS_LVM, 1536 + 24, 8, "LVM2 001" },
	{ FSVIEW_FS_RAID, 4096, 4, "\xfc\x4e\x2b\xa9" }, { FSVIEW_FS_RAID, 0, 4, "\xfc\x4e\x2b\xa9" },
	{ FSVIEW_FS_F2FS, 1024, 4, "\x10\x20\xf5\xf2" },
	{ FSVIEW_FS_EXT, 1024 + 56, 2, "\x53\xef" },
	{ FSVIEW_FS_SWAP, 4086, 10, "SWAPSPACE2" }, { FSVIEW_FS_SWAP, 4086, 9, "S1SUSPEND" },
	{ FSVIEW_FS_SWAP, 16374, 10, "SWAPSPACE2" }, { FSVIEW_FS_SWAP, 65526, 10, "SWAPSPACE2" },
	{ FSVIEW_FS_ISO, 32769, 5, "CD001" },
	{ FSVIEW_FS_BTRFS, 65536 + 64, 8, "_BHRfS_M" },
};

static bool is_fat(const uint8_t *b)
{
	uint16_t sector = read_le16(b + 11);

	return b[510] == 0x55 && b[511] == 0xaa && (b[0] == 0xeb || b[0] == 0xe9) && sector >= 512 && sector <= 4096 &&
	       !(sector & (sector - 1)) && b[13] && !(b[13] & (b[13] - 1)) && (b[16] == 1 || b[16] == 2) && read_le16(b + 14);
}

static void copy_label(char *to, size_t size, const uint8_t *from, size_t len)
{
	size_t n = 0;

	while (n < len && n + 1 < size && from[n]) {
		to[n] = (char)(from[n] < 0x20 || from[n] == 0x7f ? '?' : from[n]);
		n++;
	}
	while (n && to[n - 1] == ' ')
		n--;
	to[n] = '\0';
}

/* By which fstab names it. */
static void take_names(const uint8_t *b, struct fsview_volume *v)
{
	switch (v->fs) {
	case FSVIEW_FS_EXT:
		uuid_text(v->uuid, b + 1024 + 104, false);
		copy_label(v->label, sizeof(v->label), b + 1024 + 120, 16);
		break;
	case FSVIEW_FS_XFS:
		uuid_text(v->uuid, b + 32, false);
		copy_label(v->label, sizeof(v->label), b + 108, 12);
		break;
	case FSVIEW_FS_SWAP:
		uuid_text(v->uuid, b + 1036, false);
		copy_label(v->label, sizeof(v->label), b + 1052, 16);
		break;
	case FSVIEW_FS_BTRFS:
		uuid_text(v->uuid, b + 65536 + 32, false);
		copy_label(v->label, sizeof(v->label), b + 65536 + 299, 64);
		break;
	case FSVIEW_FS_LUKS:
		copy_label(v->uuid, sizeof(v->uuid), b + 168, 36);
		break;
	case FSVIEW_FS_NTFS:
		snprintf(v->uuid, sizeof(v->uuid), "%08X%08X", read_le32(b + 76), read_le32(b + 72));
		break;
	case FSVIEW_FS_FAT: {
		size_t at = read_le16(b + 22) ? 39 : 67;     /* FAT32 has no 16-bit size of its tables */

		snprintf(v->uuid, sizeof(v->uuid), "%04X-%04X", read_le16(b + at + 2), read_le16(b + at));
		copy_label(v->label, sizeof(v->label), b + at + 4, 11);
		break;
	}
	default:
		break;
	}
}

int probe(const struct device *d, struct fsview_volume *v, struct vd_error *e)
{
	static uint8_t b[131072];
	size_t len = d->size < sizeof(b) ? (size_t)d->size : sizeof(b), i = 0;
	int r;

	memset(b, 0, sizeof(b));
	r = device_read(d, b, len, 0, e);
	v->fs = FSVIEW_FS_UNKNOWN;
	if (r < 0)
		return r;
	while (i < sizeof(signs) / sizeof(signs[0]) && memcmp(b + signs[i].off, signs[i].bytes, signs[i].len) != 0)
		i++;
	if (i < sizeof(signs) / sizeof(signs[0]))
		v->fs = signs[i].fs;
	else if (is_fat(b))
		v->fs = FSVIEW_FS_FAT;
	else if (!b[0] && !memcmp(b, b + 1, len - (len > 0)))
		v->fs = FSVIEW_FS_EMPTY;
	take_names(b, v);
	return 0;
}
