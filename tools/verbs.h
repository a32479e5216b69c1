/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The verbs: each is described in its cmd_<verb>.c; main.c lists them. */
#ifndef TOOLS_VERBS_H
#define TOOLS_VERBS_H

#include "opts.h"

extern const struct verb verb_info;
extern const struct verb verb_inspect;
extern const struct verb verb_create;
extern const struct verb verb_convert;
extern const struct verb verb_encrypt;
extern const struct verb verb_decrypt;
extern const struct verb verb_rekey;
extern const struct verb verb_status;
extern const struct verb verb_resume;
extern const struct verb verb_revert;
extern const struct verb verb_map;
extern const struct verb verb_compare;
extern const struct verb verb_snapshot;
extern const struct verb verb_resize;
extern const struct verb verb_amend;
extern const struct verb verb_key;
extern const struct verb verb_bitmap;
extern const struct verb verb_rebase;
extern const struct verb verb_flatten;
extern const struct verb verb_commit;
extern const struct verb verb_measure;
extern const struct verb verb_check;
extern const struct verb verb_serve;
extern const struct verb verb_mount;
extern const struct verb verb_unmount;
extern const struct verb verb_verify;
extern const struct verb verb_wipe;
extern const struct verb verb_cert;
extern const struct verb verb_scan;
extern const struct verb verb_repo;
extern const struct verb verb_backup;
extern const struct verb verb_drill;
extern const struct verb verb_ledger;
extern const struct verb verb_restore;
extern const struct verb verb_backups;

#endif
