/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Remembers what keyslots gave. A program that calls keymemo_start() has a crypt_volume_key_get() in front of libcryptsetup's:
 * what it answers depends on the bytes of the header, the slot and the passphrase alone, so the same question is asked once. A
 * campaign over crash states asks it many thousand times, and would spend three quarters of its time on key derivation.
 */
#ifndef VD_TESTS_KEYMEMO_H
#define VD_TESTS_KEYMEMO_H

void keymemo_start(void);

#endif
