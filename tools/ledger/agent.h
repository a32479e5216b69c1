/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The one thing that is asked of ssh-agent: a signature (draft-ietf-sshm-ssh-agent, 4.6). */
#ifndef TOOLS_LEDGER_AGENT_H
#define TOOLS_LEDGER_AGENT_H

#include "ledger/sshkey.h"

/* An agent is there; `path` names the public key, for messages. */
int agent_judge(const char *path, struct vd_error *e);
/* VD_ENOKEY: it does not have the key, or will not. The signature has been verified. */
int agent_sign(const char *path, const uint8_t public_key[ED25519_SIZE], const struct bytes *message,
	       uint8_t sig[ED25519_SIG_SIZE], struct vd_error *e);

#endif
