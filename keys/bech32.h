/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bech32 (BIP 173): bytes as letters that can be told apart, under a name and with a checksum. */
#ifndef VD_KEYS_BECH32_H
#define VD_KEYS_BECH32_H

#include "libvdisk/base/error.h"

/* Exactly len bytes under the name `hrp`. False for anything else. */
bool vd_bech32_decode(const char *text, const char *hrp, uint8_t *out, size_t len);

#endif
