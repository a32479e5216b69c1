/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The stub: the 512 bytes that stand at the beginning of an image while it is converted in place. To qemu, whatever the
 * image's format, they are a qcow2 image with an unknown incompatible feature, whose name it prints; to us they say which
 * journal has the true bytes.
 */
#ifndef VD_CORE_STUB_H
#define VD_CORE_STUB_H

#include "libvdisk/base/bytes.h"

#define VD_STUB_SIZE 512
#define VD_STUB_UUID 16

void vd_stub_make(uint8_t stub[VD_STUB_SIZE], const uint8_t uuid[VD_STUB_UUID]);
/* Whether these bytes are a stub, and of which conversion. */
bool vd_stub_read(struct vd_bytes head, uint8_t uuid[VD_STUB_UUID]);

#endif
