/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How far a long job is, shown while it runs; the same callback stops it when a signal came. */
#ifndef TOOLS_PROGRESS_H
#define TOOLS_PROGRESS_H

#include "settings.h"

/* `label` is what the job is called: the verb. One job at a time. */
struct vd_job progress_start(const struct settings *s, const char *label);
/* Takes the bar off the screen. Returns the seconds since progress_start(). */
double progress_end(void);

#endif
