/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Key files: each holds the repository's master key under another secret (restic's design document, "Keys, Encryption and MAC"). */
#ifndef TOOLS_BACKUP_KEYFILE_H
#define TOOLS_BACKUP_KEYFILE_H

#include "backup/seal.h"
#include "ledger/bytes.h"

/* Adds the text of a new one. */
int keyfile_write(const struct vd_key *secret, const struct seal_key *master, struct bytes *text, struct vd_error *e);
/* VD_EKEY: another secret's. VD_ECORRUPT: it is no key file. */
int keyfile_open(const char *name, const struct bytes *text, const struct vd_key *secret, struct seal_key *master, struct vd_error *e);

/* Whose process this is, as restic notes it in keys, locks and snapshots. */
void writer_host(char *out, size_t size);
void writer_user(char *out, size_t size);

#endif
