/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The input is a qcow2 file. */
#include "tests/fuzz/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	return fuzz_image(&vd_format_qcow2, data, size);
}
