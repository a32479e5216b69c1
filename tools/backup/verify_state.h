/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* When each pack was verified last, in a file beside the ledger. It decides what is looked at first, and is believed in nothing else. */
#ifndef TOOLS_BACKUP_VERIFY_STATE_H
#define TOOLS_BACKUP_VERIFY_STATE_H

#include "backup/verify.h"

/* A file that is not there, or not to be understood: nothing was verified yet. */
int verify_state_open(const char *path, struct verify_state **out, struct vd_error *e);
/* Seconds since 1970; 0: never, at this level or one above. */
int64_t verify_state_when(const struct verify_state *s, const uint8_t pack[ID_SIZE], enum verify_level level);
/* Any thread. */
void verify_state_note(struct verify_state *s, const uint8_t pack[ID_SIZE], enum verify_level level, int64_t when);
int verify_state_save(struct verify_state *s, const char *path, struct vd_error *e);
/* NULL is allowed. */
void verify_state_free(struct verify_state *s);

#endif
