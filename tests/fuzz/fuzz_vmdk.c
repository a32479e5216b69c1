/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The input is a VMDK file: an extent with or without its descriptor, or a descriptor alone. */
#include "tests/fuzz/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	return fuzz_image(&vd_format_vmdk, data, size);
}
