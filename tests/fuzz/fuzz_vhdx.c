/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The input is a VHDX file less its zeros, which has some MiB even when it is empty:
 *   size:u8 in MiB, modulo 16, then pieces of sector:u24 len:u16 bytes, little-endian; a length past the end is cut
 * Checksums are made right afterwards, of headers, region tables and of whatever looks like an entry of the log.
 */
#include "tests/fuzz/image.h"

#include "libvdisk/base/crc32c.h"
#include "libvdisk/base/cursor.h"

#define MIB (1u << 20)
#define SIZE_MAX_MIB 16u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void seal(uint8_t *raw, size_t len, const char *signature)
{
	if (memcmp(raw, signature, 4))
		return;
	vd_put_le32(raw + 4, 0);
	vd_put_le32(raw + 4, vd_crc32c(0, raw, len));
}

static void seal_all(uint8_t *file, size_t size)
{
	if (size < MIB)
		return;
	for (size_t i = 0; i < 2; i++) {
		seal(file + (65536 << i), 4096, "head");
		seal(file + 196608 + i * 65536, 65536, "regi");
	}
	for (size_t at = MIB; at + 4096 <= size && at < 2 * MIB; at += 4096) {
		uint32_t len = vd_get_le32(file + at + 8);

		if (len >= 64 && len <= size - at)
			seal(file + at, len, "loge");
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vd_reader r = vd_reader_of(data, size);
	size_t len = (size_t)(vd_read_u8(&r) % SIZE_MAX_MIB) * MIB;
	uint8_t *file = calloc(1, len ? len : 1);

	while (file && vd_reader_left(&r) >= 5) {
		size_t at = vd_read_le16(&r), n;

		at = (at | (size_t)vd_read_u8(&r) << 16) * 512;
		n = vd_read_le16(&r);
		n = n < vd_reader_left(&r) ? n : vd_reader_left(&r);
		if (at < len && n <= len - at)
			memcpy(file + at, vd_reader_take(&r, n), n);
		else
			vd_reader_take(&r, n);
	}
	if (file) {
		seal_all(file, len);
		fuzz_image(&vd_format_vhdx, file, len);
	}
	free(file);
	return 0;
}
