/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Ed25519 keys as OpenSSH keeps them (its PROTOCOL.key; RFC 8709): a private file, a line of a public one. */
#ifndef TOOLS_LEDGER_SSHKEY_H
#define TOOLS_LEDGER_SSHKEY_H

#include "ledger/crypto.h"
#include "ledger/bytes.h"

#define SSHKEY_TYPE "ssh-ed25519"
#define SSHKEY_BLOB_SIZE (4 + 11 + 4 + ED25519_SIZE)
#define SSHKEY_PRINT_SIZE 52    /* of a fingerprint: "SHA256:", 43 letters and a NUL */

struct sshkey {
	uint8_t public_key[ED25519_SIZE];
	uint8_t *seed;                  /* locked; NULL: of the public half alone */
	char comment[128];
};
void sshkey_free(struct sshkey *k);

void sshkey_blob(const uint8_t public_key[ED25519_SIZE], uint8_t blob[SSHKEY_BLOB_SIZE]);
/* False: it is no Ed25519 key. */
bool sshkey_of_blob(struct cursor blob, uint8_t public_key[ED25519_SIZE]);
/* As ssh-keygen -l prints it. */
void sshkey_print(const uint8_t public_key[ED25519_SIZE], char text[SSHKEY_PRINT_SIZE]);

/* Makes a pair, and the files `path` (mode 0600) and `path`.pub, neither of which may be there. */
int sshkey_make(const char *path, const char *comment, struct sshkey *k, struct vd_error *e);
/* A private file, or a public one, which has no seed. */
int sshkey_read(const char *path, struct sshkey *k, struct vd_error *e);
/* "ssh-ed25519 LETTERS comment", up to the end of the line. `kind` is filled with the first word even if it is another. */
bool sshkey_of_line(const char *line, struct sshkey *k, char kind[64]);

#endif
