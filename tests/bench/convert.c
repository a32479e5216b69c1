/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Encrypts an image in place by the library's call alone, without the look for plaintext by which the command ends: what a
 * peer does that has none.
 *
 * usage: convert IMAGE FORMAT KEYFILE journal|checksum|none
 */
#include <stdio.h>
#include <string.h>

#include "libvdisk/include/vdisk.h"

int main(int argc, char **argv)
{
	static const char *const names[] = {
		[VD_RESILIENCE_JOURNAL] = "journal", [VD_RESILIENCE_CHECKSUM] = "checksum", [VD_RESILIENCE_NONE] = "none",
	};
	struct vd_inplace_opts o = { .struct_size = sizeof(o), .kdf = { .iterations = 1000 } };
	struct vd_inplace_report report = { .struct_size = sizeof(report) };
	struct vd_error e;
	int r;

	if (argc != 5)
		return 64;
	o.format = argv[2];
	while (strcmp(argv[4], names[o.resilience]))
		if (++o.resilience > VD_RESILIENCE_NONE)
			return 64;
	r = vd_key_from_file(argv[3], &o.new_key, &e);
	if (r == 0)
		r = vd_inplace_start(argv[1], VD_INPLACE_ENCRYPT, &o, NULL, &report, &e);
	if (r < 0)
		fprintf(stderr, "%s\n", e.message);
	vd_key_free(o.new_key);
	return r < 0;
}
