/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Files of any kind from strangers, as inspect sees them: probed by all drivers, taken apart if they are packages, opened by
 * their driver. Whatever it finds, it is the same for the stream as for the file in memory, and nothing but findings.
 *
 * The corpus: small packages and images as tar, qemu-img and this library write them, cut behind what is looked at.
 */
#include <stdlib.h>

#include "libvdisk/include/vdisk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct vd_inspection result = { .struct_size = sizeof(result) };
	struct vd_inspector *in = NULL;
	struct vd_error e;

	if (vd_inspector_new(&in, &e) < 0)
		return 0;
	/* In two pieces: where they meet does not matter. */
	if (vd_inspector_feed(in, data, len / 3, &e) < 0 || vd_inspector_feed(in, data + len / 3, len - len / 3, &e) < 0)
		abort();
	if (vd_inspector_end(in, NULL, &result, &e) == 0 && (result.file_size != len && !result.risks && !result.format))
		abort();
	vd_inspector_free(in);
	return 0;
}
