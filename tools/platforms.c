/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * --for: the image as a platform imports it. Each row says where that is written down.
 */
#include "platforms.h"

#include <string.h>

#include "fail.h"

enum platform { FOR_NOTHING, FOR_ESXI, FOR_WORKSTATION, FOR_HYPERV, FOR_AZURE, FOR_PROXMOX, FOR_AWS, FOR_GCP };

const struct opt_choice platform_names[] = {
	{ "esxi", FOR_ESXI }, { "workstation", FOR_WORKSTATION }, { "hyperv", FOR_HYPERV }, { "azure", FOR_AZURE },
	{ "proxmox", FOR_PROXMOX }, { "aws", FOR_AWS }, { "gcp", FOR_GCP }, { NULL, 0 },
};

static const struct recipe {
	const char *format, *subformat, *adapter;
	bool azure;
	uint64_t size_unit;
	const char *next_step;
} recipes[] = {
	/* vSphere imports stream-optimized disks of version 3, and attaches them by the adapter they name. */
	[FOR_ESXI] = { "vmdk", "streamOptimized", "lsilogic", false, 0, NULL },
	[FOR_WORKSTATION] = { "vmdk", "monolithicSparse", "lsilogic", false, 0, NULL },
	[FOR_HYPERV] = { "vhdx", "dynamic", NULL, false, 0, NULL },
	/* "Prepare a VHD": fixed, the size in whole MiB. */
	[FOR_AZURE] = { "vhd", "fixed", NULL, true, 0, NULL },
	[FOR_PROXMOX] = { "qcow2", NULL, NULL, false, 0, "qm importdisk VMID IMAGE STORAGE attaches it to a machine" },
	/* "VM Import/Export, image formats": raw, fixed and dynamic VHD and VHDX, stream-optimized VMDK. */
	[FOR_AWS] = { "vmdk", "streamOptimized", "lsilogic", false, 0, NULL },
	/* "Import boot disks manually": disk.raw, whole GiB, in a gzipped tar of the old GNU kind. */
	[FOR_GCP] = { "raw", NULL, NULL, false, UINT64_C(1) << 30,
		      "pack it under the name disk.raw: tar --format=oldgnu -Sczf image.tar.gz disk.raw" },
};

int platforms_apply(struct settings *s, struct vd_error *e)
{
	const struct recipe *r = &recipes[s->platform];

	if (s->platform == FOR_NOTHING)
		return 0;
	if (s->target_format && strcmp(s->target_format, r->format) != 0)
		return fail(e, VD_EARG, "--for makes %s, and -O asks for %s: leave one of them out", r->format, s->target_format);
	s->target_format = r->format;
	s->made.subformat = r->subformat;
	s->made.adapter_type = r->adapter;
	s->made.azure |= r->azure;
	s->made.size_unit = r->size_unit;
	return 0;
}

const char *platforms_next_step(const struct settings *s)
{
	return recipes[s->platform].next_step;
}
