/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Whose key may sign: the allowed_signers file of ssh-keygen(1), or one public key. */
#ifndef TOOLS_LEDGER_ALLOWED_H
#define TOOLS_LEDGER_ALLOWED_H

#include "ledger/sshsig.h"

#define ALLOWED_FILE_MAX (1u << 20)
#define ALLOWED_NAME_MAX 256

/*
 * A line of `path` allows this key, at this moment, to sign for sig->ns; with `who`, for that person. The principals of the line go to
 * `name`. VD_EAUTH: none does. Lines of certificate authorities, and lines that cannot be read, allow nothing.
 */
int allowed_by_file(const char *path, const struct sshsig *sig, const char *who, char name[ALLOWED_NAME_MAX], struct vd_error *e);
/* The key is the one of this public file; its comment goes to `name`. */
int allowed_by_key(const char *path, const struct sshsig *sig, char name[ALLOWED_NAME_MAX], struct vd_error *e);

#endif
