/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How to wipe: which patterns in which order, and how to see that they are there. */
#ifndef TOOLS_WIPE_PLAN_H
#define TOOLS_WIPE_PLAN_H

#include "wipe/set.h"

#define WIPE_PASSES_MAX 16

enum wipe_verify { WIPE_VERIFY_FULL, WIPE_VERIFY_SAMPLE, WIPE_VERIFY_NONE };
struct wipe_pass {
	bool is_random;
	uint8_t byte;
};
struct wipe_plan {
	char profile[96];               /* as the user said it */
	struct wipe_pass passes[WIPE_PASSES_MAX];
	size_t n_passes;
	enum wipe_verify verify;
	uint64_t samples;               /* blocks of 4 KiB of each member */
	char confidence[16], fraction[16];      /* per cent, as the user said them: of a rest that large one is found with that confidence */
	bool erases_only;               /* of encrypted images the keys alone */
	bool is_partial;                /* what is nobody's in an image that stays */
};

/* NULL: the defaults, "clear" and "full". */
int wipe_plan_parse(const char *profile, const char *verify, struct wipe_plan *plan, struct vd_error *e);
/* "aes-256-ctr", or two hexadecimal digits. */
void wipe_pass_name(const struct wipe_pass *p, char name[16]);

#endif
