/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The cover: goes through a settled window from its start to its end and makes runs of it, gapless and disjoint. What
 * nobody claims it judges by the format's account and by what the host stores.
 *
 *   claimed twice, legally     the better owner, refs of all, SHARED; compressed pieces: each up to the next one's start
 *   claimed twice, otherwise   CORRUPT
 *   not claimed, in a unit of which something is claimed     SLACK
 *   not claimed                LEAKED if it is counted, else TAIL behind the last unit, else FREE
 *   not stored by the host     HOSTHOLE instead of TAIL and FREE; a flag with all others
 */
#ifndef VD_CORE_COVER_H
#define VD_CORE_COVER_H

#include "libvdisk/core/image.h"

#define VD_COVER_DEPTH 64       /* claims at one place that are told apart; legal ones are one (D3 in window.h) */

struct vd_cover {
	struct vd_image *img;
	const struct vd_window *w;
	uint64_t at;
	size_t next_claim, next_count;
	struct vd_claim active[VD_COVER_DEPTH];
	size_t n_active;
	uint64_t deep_end;              /* up to here there are more than can be told apart */
	uint64_t used_end;              /* where the claims so far end */
	uint8_t last_owner;
	uint64_t stored_end;            /* is_stored holds up to here */
	bool is_stored;
	bool has_pending;
	struct vd_host_run pending;     /* begun, and may go on */
};

/* From a byte of the window on. */
void vd_cover_start(struct vd_cover *c, struct vd_image *img, const struct vd_window *w, uint64_t from);
/* The next run; *got false at the end of the window. */
int vd_cover_next(struct vd_cover *c, struct vd_host_run *run, bool *got, struct vd_error *e) VD_MUST_CHECK;

#endif
