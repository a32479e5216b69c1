/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Identifiers of 16 bytes as Microsoft's formats use them: made, and shown as text. */
#ifndef VD_BASE_GUID_H
#define VD_BASE_GUID_H

#include "libvdisk/base/error.h"

#define VD_GUID_LEN 16
#define VD_GUID_TEXT_LEN 37             /* "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx" and its NUL */

/* A random one (RFC 4122, version 4), its bytes in the order given: mixed is the order in which Windows stores it. */
int vd_guid_make(uint8_t guid[VD_GUID_LEN], bool is_mixed, struct vd_error *e) VD_MUST_CHECK;
void vd_guid_show(const uint8_t guid[VD_GUID_LEN], bool is_mixed, char text[VD_GUID_TEXT_LEN]);
/* With or without braces, in any case; false when it is none. Fills the bytes in the mixed order. */
bool vd_guid_parse(const char *text, uint8_t guid[VD_GUID_LEN]);

#endif
