/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the verbs that convert an image in place have in common: keys, the plan, the run, and what is said of it. */
#ifndef TOOLS_INPLACE_H
#define TOOLS_INPLACE_H

#include "opts.h"

extern const struct opt_group opts_inplace;             /* of a conversion that begins: journal, resilience, speed */
extern const struct opt_group opts_inplace_pace;        /* of one that goes on */

/* Begins a conversion of the one operand. `label` is the verb. */
int inplace_start(struct settings *s, const char *label, enum vd_inplace_act act, struct vd_error *e);
enum inplace_way { INPLACE_RESUME, INPLACE_REVERT };
int inplace_go_on(struct settings *s, enum inplace_way way, struct vd_error *e);

#endif
