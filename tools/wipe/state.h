/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The small file that says how far a wipe is, from which it goes on after a kill. */
#ifndef TOOLS_WIPE_STATE_H
#define TOOLS_WIPE_STATE_H

#include "wipe/record.h"

/* Replaces the file whole; durable when it returns. */
int wipe_state_save(const char *path, const struct wipe_record *rec, const uint8_t key[WIPE_KEY_SIZE], struct vd_error *e);
/* VD_ECORRUPT: it is none. What is read is not to be trusted more than that: the members are still to be held against the files. */
int wipe_state_load(const char *path, struct wipe_record *rec, uint8_t key[WIPE_KEY_SIZE], struct vd_error *e);
int wipe_state_remove(const char *path, struct vd_error *e);

#endif
