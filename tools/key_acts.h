/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of vdisk key share: the request, the key that opens, and how a result is told. */
#ifndef TOOLS_KEY_ACTS_H
#define TOOLS_KEY_ACTS_H

#include "json.h"
#include "secrets.h"

struct key_request {
	const struct settings *s;
	const char *image, *what;               /* what: a slot or a file */
	struct vd_image *img;
	struct keys keys;
	struct vd_key *key;                     /* the one that opens; borrowed of keys */
	uint32_t slot;
};

/* ---- cmd_key.c ---- */

/* Fetches or asks for keys until one opens a keyslot: q->key, q->slot. */
int key_find(struct key_request *q, struct vd_error *e);

typedef int (*key_slot_call)(struct vd_image *img, const struct vd_key *key, const struct vd_key *new_key,
			     const struct vd_keyslot_opts *opts, uint32_t *slot, struct vd_error *e);
/* vd_keyslot_add() or _change() with the options of the command line, the header backed up before. */
int key_add_slot(struct key_request *q, key_slot_call fn, struct vd_key *new_key, const char *kind,
		 struct vd_error *e);

/* Warns of what keeps qemu, where it knows the image at all, or a person who types from giving this key. */
void key_warn_of(const struct key_request *q, const struct vd_key *key);

struct json_object *key_summary(const struct key_request *q, const char *act);
void key_print_slot(const struct key_request *q, const char *act, const char *words);

/* ---- key_header.c ---- */

/* Before a change: backs the header up to where --header-backup says, or offers it, or says how. */
int key_offer_backup(struct key_request *q, struct vd_error *e);
int key_act_backup_header(struct key_request *q, struct vd_error *e);
int key_act_restore_header(struct key_request *q, struct vd_error *e);

/* ---- key_recovery.c ---- */

int key_act_recovery(struct key_request *q, struct vd_error *e);
int key_act_escrow(struct key_request *q, struct vd_error *e);

/* ---- key_export.c ---- */

int key_act_export(struct key_request *q, struct vd_error *e);

#endif
