/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A wipe of all members: canaries, keys, then all devices side by side, with checkpoints. */
#ifndef TOOLS_WIPE_RUN_H
#define TOOLS_WIPE_RUN_H

#include "secrets.h"
#include "wipe/member.h"
#include "wipe/record.h"

struct wipe_run {
	struct wipe_record rec;
	uint8_t key[WIPE_KEY_SIZE];     /* of the pattern */
	const char *state;              /* path of the state file; NULL: none is kept */
	enum wipe_grade accept;         /* good enough to go on with after the canary, and to be unlinked */
	bool unlinks;
	unsigned depth;
	uint64_t bytes_per_second;
	struct keys *keys;              /* of the image whose guest's free space is wiped */
	const struct vd_job *job;       /* progress, and whether to stop */
};
/*
 * Works through the set from where its members are, and grades it: rec.grade, rec.findings. Failures of members are in their grades;
 * what fails the call is the state file and what belongs to no member, and is in the record as well. The state stays.
 */
int wipe_run(struct wipe_run *run, struct vd_error *e);
/* Removes the state of a wipe that has ended: all that tells of it is where it should be. */
int wipe_run_end(const struct wipe_run *run, struct vd_error *e);
/* Of all members that were not begun on. True: blocks move, or a file cannot be written, and that is not accepted. */
bool wipe_run_try_canaries(struct wipe_run *run);
/* The members are still the files of which a state speaks. EXIT_ECONFIRM names the first that is not, or may not be. */
int wipe_run_recognize(struct wipe_run *run, struct vd_error *e);

#endif
