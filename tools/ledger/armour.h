/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bytes as lines of letters between "-----BEGIN X-----" and "-----END X-----", as OpenSSH writes its keys and signatures. */
#ifndef TOOLS_LEDGER_ARMOUR_H
#define TOOLS_LEDGER_ARMOUR_H

#include "ledger/bytes.h"

#define ARMOUR_KEY "OPENSSH PRIVATE KEY"
#define ARMOUR_SIGNATURE "SSH SIGNATURE"
/* Room for n bytes in armour. */
#define ARMOUR_ROOM(n) (((n) + 2) / 3 * 4 * 71 / 70 + 128)

/* `letters` has room for BASE64_LEN(n) + 1; it is wiped. */
void armour_put(const char *label, const void *bytes, size_t n, char *letters, struct bytes *out);
/*
 * Takes what armour_put() made back. Lines may be of any length and end as those of Windows do; all else is strict, so
 * that no other text stands for the same bytes. `letters` has room for text_n + 1, and is wiped. False: it is none, or more than fits.
 */
bool armour_take(const char *label, const char *text, size_t text_n, char *letters, struct bytes *out);

#endif
