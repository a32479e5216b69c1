/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A recovery key: 256 random bits as text that people can write down and type again. */
#ifndef TOOLS_RECOVERY_H
#define TOOLS_RECOVERY_H

#include <vdisk.h>

/* Eight groups of eight letters and seven dashes, and a NUL. */
#define RECOVERY_TEXT_SIZE 72

/* The text, dashes and all, is the passphrase, and *key holds it. The caller wipes the one and frees the other. */
int recovery_make(char text[RECOVERY_TEXT_SIZE], struct vd_key **key, struct vd_error *e);
/* The text as a QR code on standard output, for a terminal that shows UTF-8. */
int recovery_show_qr(const char *text, struct vd_error *e);

#endif
