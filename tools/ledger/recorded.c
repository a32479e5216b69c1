/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Tells command lines that change something from those that only look. */
#include "ledger/recorded.h"

#include <string.h>

static bool never(const struct settings *s)
{
	(void)s;
	return false;
}

static bool is_first(const struct settings *s, const char *const *words)
{
	for (size_t i = 0; s->n_operands && words[i]; i++)
		if (!strcmp(s->operands[0], words[i]))
			return true;
	return false;
}

static bool check_changes(const struct settings *s)
{
	return s->repair || s->scrub;
}

static bool first_is_no_look(const struct settings *s)
{
	static const char *const looks[] = { "list", "show", "test", "diff", "verify", "check", "render", "status", NULL };

	return !is_first(s, looks);
}

static bool snapshot_changes(const struct settings *s)
{
	return !s->snap_list && first_is_no_look(s);
}

static bool serve_changes(const struct settings *s)
{
	return s->serve.read_write;
}

static bool wipe_changes(const struct settings *s)
{
	return !s->wipe.dry_run;
}

static bool verify_changes(const struct settings *s)
{
	return s->verify.repair;
}

bool is_recorded(const char *verb, const struct settings *s)
{
	static const struct row {
		const char *verb;
		bool (*changes)(const struct settings *s);
	} rows[] = {
		{ "info", never }, { "inspect", never }, { "map", never }, { "compare", never }, { "measure", never }, { "status", never },
		{ "ledger", never },    /* writes its own lines */
		{ "check", check_changes }, { "snapshot", snapshot_changes }, { "wipe", wipe_changes },
		{ "serve", serve_changes }, { "mount", serve_changes }, { "unmount", never },
		{ "key", first_is_no_look }, { "bitmap", first_is_no_look }, { "cert", first_is_no_look }, { "repo", first_is_no_look },
		{ "backups", first_is_no_look }, { "rules", never }, { "scan", never }, { "verify", verify_changes },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (!strcmp(rows[i].verb, verb))
			return rows[i].changes(s);
	return true;
}
