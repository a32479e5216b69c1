/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which snapshots are kept: so many of the last, and of hours, days, weeks, months and years, each the newest of its span, as restic counts them, in UTC. */
#ifndef TOOLS_BACKUP_RETENTION_H
#define TOOLS_BACKUP_RETENTION_H

#include "backup/snapshot.h"

enum retention_span { KEEP_LAST, KEEP_HOURLY, KEEP_DAILY, KEEP_WEEKLY, KEEP_MONTHLY, KEEP_YEARLY, N_RETENTION_SPANS };
struct retention {
	uint64_t keep[N_RETENTION_SPANS];
};
const char *retention_word(enum retention_span span);

/*
 * `all` is sorted newest first; those of the same host and paths are a series, and the policy is for each series by itself. reasons[i] gets a bit for each
 * span that keeps snapshot i; 0: no longer kept.
 */
void retention_apply(const struct retention *policy, const struct snapshots *all, uint8_t *reasons);
bool retention_is_same_series(const struct snapshot *a, const struct snapshot *b);

#endif
