/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Counts; forgetting is the verb's. */
#include "backup/retention.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ui.h"

const char *retention_word(enum retention_span span)
{
	static const char *const words[] = { "last", "hourly", "daily", "weekly", "monthly", "yearly" };

	return words[span];
}

bool retention_is_same_series(const struct snapshot *a, const struct snapshot *b)
{
	bool same = a->n_paths == b->n_paths && !strcmp(a->host, b->host);

	for (size_t i = 0; same && i < a->n_paths; i++)
		same = !strcmp(a->paths[i], b->paths[i]);
	return same;
}

/* Two snapshots of the same span have the same number; `nth` makes each a span of its own. */
static int64_t number_of(enum retention_span span, int64_t sec, size_t nth)
{
	time_t then = (time_t)sec;
	struct tm tm = { 0 };
	char week[16] = "";

	gmtime_r(&then, &tm);
	switch (span) {
	case KEEP_HOURLY: return ((tm.tm_year * 400LL) + tm.tm_yday) * 24 + tm.tm_hour;
	case KEEP_DAILY: return (tm.tm_year * 400LL) + tm.tm_yday;
	case KEEP_WEEKLY:
		/* ISO 8601: the week belongs to the year that has its Thursday. */
		strftime(week, sizeof(week), "%G%V", &tm);
		return strtoll(week, NULL, 10);
	case KEEP_MONTHLY: return tm.tm_year * 12LL + tm.tm_mon;
	case KEEP_YEARLY: return tm.tm_year;
	default: return (int64_t)nth;
	}
}

static void apply_to_series(const struct retention *policy, const struct snapshots *all, size_t first, uint8_t *reasons, bool *is_done)
{
	uint64_t left[N_RETENTION_SPANS];
	int64_t last[N_RETENTION_SPANS];
	size_t nth = 0;

	memcpy(left, policy->keep, sizeof(left));
	for (int k = 0; k < N_RETENTION_SPANS; k++)
		last[k] = -1;
	for (size_t i = first; i < all->n; i++) {
		if (is_done[i] || !retention_is_same_series(&all->at[first], &all->at[i]))
			continue;
		is_done[i] = true;
		for (int k = 0; k < N_RETENTION_SPANS; k++) {
			int64_t number = number_of((enum retention_span)k, all->at[i].sec, nth);

			if (!left[k] || number == last[k])
				continue;
			last[k] = number;
			left[k]--;
			reasons[i] |= (uint8_t)(1u << k);
		}
		nth++;
	}
}

void retention_apply(const struct retention *policy, const struct snapshots *all, uint8_t *reasons)
{
	bool *is_done = calloc(all->n + 1, sizeof(*is_done));

	if (!is_done)
		ui_out_of_memory();
	memset(reasons, 0, all->n);
	for (size_t i = 0; i < all->n; i++)
		if (!is_done[i])
			apply_to_series(policy, all, i, reasons, is_done);
	free(is_done);
}
