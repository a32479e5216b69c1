/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One member's way through a wipe, step by step. In which order, and what becomes of several, is run.c's business. */
#ifndef TOOLS_WIPE_MEMBER_H
#define TOOLS_WIPE_MEMBER_H

#include "wipe/engine.h"
#include "wipe/plan.h"

/* Where the member lies and what keeps its old blocks. Opens it for reading. */
int wipe_member_probe(struct wipe_member *m, struct vd_error *e);
/* The latter alone. */
int wipe_member_find_keeps(struct wipe_member *m, struct vd_error *e);
/*
 * Writes one block back as it was, and sees whether it lies where it lay: canary_moved. The first write of a wipe, and one that takes
 * nothing away.
 */
int wipe_member_canary(struct wipe_member *m, struct vd_error *e);
/* Overwrites its key areas, and reads them back: is_erased. */
int wipe_member_erase_keys(struct wipe_member *m, uint32_t number, struct wipe_shared *shared, struct vd_error *e);

/* What a run wants to know between two windows. */
struct wipe_steps {
	struct wipe_shared *shared;
	const struct wipe_plan *plan;
	uint32_t number;                /* of the member in the set: its part of the pattern */
	int (*checkpoint)(void *ctx, struct vd_error *e);       /* all up to pass and offset is durable */
	void *ctx;
};
/* From m->pass and m->offset to the end of the last pass and of the verification. */
int wipe_member_overwrite(struct wipe_member *m, const struct wipe_steps *s, struct vd_error *e);
/* Under a name that says nothing first; the folder is flushed. */
int wipe_member_unlink(struct wipe_member *m, struct vd_error *e);
/* Whether what it holds now shows that this wipe, and no other, has begun on it. */
int wipe_member_holds_pattern(const struct wipe_member *m, uint32_t number, const struct wipe_plan *plan,
			      const uint8_t key[WIPE_KEY_SIZE], bool *holds, struct vd_error *e);
/* Bytes that overwriting will write and read. */
uint64_t wipe_member_cost(const struct wipe_member *m, const struct wipe_plan *plan);

#endif
