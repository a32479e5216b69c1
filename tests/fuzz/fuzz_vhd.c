/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The input is a VHD file. Checksums are made right first, of the footer at each end and of the header where it lies in
 * what is made here: else nothing that is changed would be looked at.
 */
#include "tests/fuzz/image.h"

#include "formats/vhd/vhd.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void seal(uint8_t *raw, size_t len, size_t at, const char *cookie)
{
	if (!memcmp(raw, cookie, 8))
		vd_put_be32(raw + at, vd_vhd_checksum(raw, len, at));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);
	int r;

	if (!copy)
		return 0;
	memcpy(copy, data, size);
	if (size >= 512) {
		seal(copy, 512, VHD_AT_CHECKSUM, "conectix");
		seal(copy + size - 512, 512, VHD_AT_CHECKSUM, "conectix");
	}
	if (size >= 1536)
		seal(copy + 512, 1024, VHD_AT_HEADER_CHECKSUM, "cxsparse");
	r = fuzz_image(&vd_format_vhd, copy, size);
	free(copy);
	return r;
}
