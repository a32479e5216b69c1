/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The signed paper of a wipe: where it goes and who signs, settled before anything is written; and that it is there before the wipe has ended. */
#ifndef TOOLS_WIPE_PAPER_H
#define TOOLS_WIPE_PAPER_H

#include "ledger/sshsig.h"
#include "settings.h"
#include "wipe/record.h"

/* What the options ask for, beyond what the state of a wipe that is resumed has; names become absolute. Opens the key. */
int wipe_paper_order(const struct settings *s, struct wipe_paper *p, struct signer *signer, struct vd_error *e);
/* The paper and the state (or NULL) have places of their own, outside of what is wiped. The set is known. */
int wipe_paper_judge_place(const struct settings *s, const struct wipe_record *rec, const char *state, struct vd_error *e);
/* That nothing is there which a new paper would replace. *is_written: the certificate of this very wipe is, from before a kill. */
int wipe_paper_judge_new(const struct wipe_record *rec, bool resumes, bool *is_written, struct vd_error *e);
int wipe_paper_write(const struct wipe_record *rec, const uint8_t key[WIPE_KEY_SIZE], const struct signer *signer, struct vd_error *e);

#endif
