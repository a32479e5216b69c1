/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Signatures as ssh-keygen -Y makes and verifies them (PROTOCOL.sshsig of OpenSSH), with Ed25519. A signature is bound to a
 * namespace, the purpose for which it was given, and holds for no other.
 */
#ifndef TOOLS_LEDGER_SSHSIG_H
#define TOOLS_LEDGER_SSHSIG_H

#include "ledger/sshkey.h"

#define SSHSIG_FILE_MAX 16384

/* Who signs: a private key file, or the agent that holds the key of a public one. */
struct signer {
	struct sshkey key;
	const char *path;               /* borrowed; for messages */
};
int signer_open(const char *path, struct signer *s, struct vd_error *e);
void signer_close(struct signer *s);

/* The text of the file FILE.sig, added to `out`. */
int sshsig_make(const struct signer *s, const char *ns, const struct bytes *message, struct bytes *out, struct vd_error *e);

struct sshsig {
	uint8_t public_key[ED25519_SIZE];
	char ns[128];
	bool is_sha256;                 /* else SHA-512 */
	uint8_t sig[ED25519_SIG_SIZE];
};
/* VD_EAUTH: it is none, or not of Ed25519. `path` is for the message. */
int sshsig_read(const char *path, const struct bytes *text, struct sshsig *sig, struct vd_error *e);
/* VD_EAUTH: it was not given for this message and this purpose. Whose key it is, is another question: allowed.h. */
int sshsig_judge(const struct sshsig *sig, const char *ns, const struct bytes *message, struct vd_error *e);

#endif
