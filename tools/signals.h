/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What other processes ask of a running command: to stop, or to say how far it is. */
#ifndef TOOLS_SIGNALS_H
#define TOOLS_SIGNALS_H

#include <stdbool.h>

struct vd_error;

/* Once, before anything else. A signal that the parent had ignored (nohup) stays ignored. */
void signals_setup(void);
/* The signal that asked to stop, or 0. Work under way sees it in its progress callback and cleans up. */
int signals_stop(void);
/* While it is so SIGHUP does nothing: restic asks by it whether the holder of a repository's lock lives. */
void signals_spare_hangup(bool spare);
/* 0, or VD_ECANCELLED in words when a stop was asked for: between the steps that have no progress callback. */
int signals_check(struct vd_error *e);
/* True once for each SIGUSR1. */
bool signals_take_report(void);

#endif
