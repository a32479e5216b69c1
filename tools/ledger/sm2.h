/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Raw signatures with SM2 and SM3 (GB/T 32918.2, with the usual identifier 1234567812345678), as openssl pkeyutl makes and verifies them:
 * for who asks for Chinese algorithms, beside the signature that counts.
 */
#ifndef TOOLS_LEDGER_SM2_H
#define TOOLS_LEDGER_SM2_H

#include "ledger/bytes.h"

/* `path` is a private key as openssl genpkey -algorithm SM2 writes it, without a passphrase. The signature is added to `out`, in DER. */
int sm2_sign(const char *path, const struct bytes *message, struct bytes *out, struct vd_error *e);
/* VD_EAUTH: it does not hold. `path` is a public key as openssl pkey -pubout writes it; `sig_path` is for the message. */
int sm2_judge(const char *path, const char *sig_path, const struct bytes *sig, const struct bytes *message, struct vd_error *e);

#endif
