/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * All that is known of a wipe when it ends: what the certificate is made of. Whole numbers, times in UTC; the JSON is described in
 * vdisk-wipe(1), and its keys do not change meaning.
 */
#ifndef TOOLS_WIPE_RECORD_H
#define TOOLS_WIPE_RECORD_H

#include <json-c/json.h>
#include <limits.h>

#include "wipe/cipher.h"
#include "wipe/grade.h"

#define WIPE_RECORD_SCHEMA 1

enum wipe_consent { WIPE_BY_NAME, WIPE_BY_ID, WIPE_BY_RESUME };

/* The certificate that was asked for, by absolute names; file "": none was. */
struct wipe_paper {
	char file[PATH_MAX], sign_key[PATH_MAX], person[256];
};

struct wipe_record {
	char run[33];                   /* of this wipe, from its start over all its resumes */
	char confirm[WIPE_ID_SIZE];     /* of the set as it was */
	enum wipe_consent consent;
	struct wipe_set set;
	struct wipe_plan plan;
	bool publish_key, force;
	struct wipe_paper paper;
	bool guest_free;                /* what the guest calls free was overwritten, too */
	char snapshot[128];             /* that was deleted, alone of its image; "" */
	uint64_t resumed;               /* how often */
	int64_t started, ended;         /* seconds since 1970 */
	uint64_t seconds;               /* at work, in all its parts */
	enum wipe_grade grade;
	struct wipe_findings findings;
};

void wipe_record_free(struct wipe_record *rec);
/* The object, without the keys that every summary has. */
void wipe_record_to_json(const struct wipe_record *rec, const uint8_t key[WIPE_KEY_SIZE], struct json_object *to);
/* The same of a set before it is wiped, for --dry-run. */
void wipe_set_to_json(const struct wipe_record *rec, struct json_object *to);

#endif
