/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The vdisk command: finds the verb, runs it, turns its result into words and an exit status. The verbs do the rest. */
#include <locale.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "exit.h"
#include "fail.h"
#include "help.h"
#include "ledger/acts.h"
#include "signals.h"
#include "ui.h"
#include "verbs.h"

/* In the order in which help shows them. */
static const struct verb *const verbs[] = {
	&verb_info,
	&verb_inspect,
	&verb_map,
	&verb_create,
	&verb_convert,
	&verb_encrypt,
	&verb_decrypt,
	&verb_rekey,
	&verb_status,
	&verb_resume,
	&verb_revert,
	&verb_key,
	&verb_compare,
	&verb_check,
	&verb_measure,
	&verb_snapshot,
	&verb_bitmap,
	&verb_resize, &verb_amend,
	&verb_rebase,
	&verb_flatten,
	&verb_commit,
	&verb_serve,
	&verb_mount,
	&verb_unmount,
	&verb_repo,
	&verb_backup,
	&verb_restore,
	&verb_backups,
	&verb_verify,
	&verb_wipe,
	&verb_cert,
	&verb_drill,
	&verb_ledger,
	&verb_scan,
	NULL,
};

/* Keys are in this process's memory: no core file, and no other process of this user looks in. */
static void harden(void)
{
	const struct rlimit none = { 0, 0 };

	setrlimit(RLIMIT_CORE, &none);
#ifndef __SANITIZE_ADDRESS__    /* whose leak check traces the process */
	prctl(PR_SET_DUMPABLE, 0);
#endif
}

static const char *verb_name(const void *ctx, size_t i)
{
	(void)ctx;
	return verbs[i] ? verbs[i]->name : NULL;
}

static const struct verb *find_verb(const char *name)
{
	for (size_t i = 0; verbs[i]; i++)
		if (!strcmp(verbs[i]->name, name))
			return verbs[i];
	return NULL;
}

static int refuse_unknown(const char *name, struct vd_error *e)
{
	const char *near = opts_nearest(name, verb_name, NULL);
	int r;

	if (name[0] == '-')
		r = fail(e, VD_EARG, "the verb comes first, then its options: '%s' is no verb", name);
	else
		r = fail(e, VD_EARG, "there is no verb '%s'", name);
	return near ? fail_hint(e, r, "did you mean %s?", near) : fail_hint(e, r, "see: vdisk help");
}

static int show_help(const char *name, struct vd_error *e)
{
	const struct verb *verb = name ? find_verb(name) : NULL;

	if (name && !verb)
		return refuse_unknown(name, e);
	if (verb)
		help_print_verb(verb);
	else
		help_print_all(verbs);
	return 0;
}

/* An error in the options themselves has to come in the form that the rest of the line asks for. */
static bool asks_for_json(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], "--output=json") ||
		    (i + 1 < argc && !strcmp(argv[i], "--output") && !strcmp(argv[i + 1], "json")))
			return true;
	return false;
}

static int run_verb(const struct verb *verb, int argc, char **argv, struct settings *s, struct vd_error *e)
{
	int r = opts_parse(verb, argc, argv, s, e);
	struct act act;

	if (r < 0)
		return r;
	ui_setup(s);
	if (s->help)
		return show_help(verb->name, e);
	r = act_begin(&act, s, argc, argv, e);
	if (r < 0)
		return r;
	return act_end(&act, verb->run(s, e), e);
}

/* "snapshot commit IMAGE" is "commit IMAGE": what belongs together is found together. */
static const struct verb *find_act(const struct verb *verb, const char *word)
{
	for (const struct verb *const *a = verb->acts; a && *a; a++)
		if (!strcmp((*a)->name, word))
			return *a;
	return NULL;
}

static int dispatch(int argc, char **argv, struct settings *s, struct vd_error *e)
{
	const char *first = argc > 1 ? argv[1] : "help";
	const struct verb *verb = find_verb(first), *act = verb && argc > 3 ? find_act(verb, argv[2]) : NULL;

	if (act)
		return run_verb(act, argc - 2, argv + 2, s, e);
	if (verb)
		return run_verb(verb, argc - 1, argv + 1, s, e);
	if (!strcmp(first, "help") || !strcmp(first, "--help") || !strcmp(first, "-h"))
		return show_help(argc > 2 ? argv[2] : NULL, e);
	if (!strcmp(first, "--version")) {
		ui_line("vdisk %s", vd_version());
		return 0;
	}
	if (!strcmp(first, "--dump-options=json")) {
		help_dump_options(verbs);
		return 0;
	}
	return refuse_unknown(first, e);
}

int main(int argc, char **argv)
{
	static struct settings s;       /* static: option texts hang on it until the end */
	struct vd_error e = { 0 };
	int r, end;

	harden();
	signals_setup();
	setlocale(LC_CTYPE, "");
	ui_setup_early(asks_for_json(argc, argv));
	r = dispatch(argc, argv, &s, &e);
	if (r < 0) {
		ui_error(&e, exit_status_of(r), s.n_operands ? s.operands[0] : NULL);
		r = exit_status_of(r);
	}
	end = ui_finish(&e);
	if (end < 0 && r == 0) {
		ui_error(&e, exit_status_of(end), NULL);
		r = exit_status_of(end);
	}
	return r;
}
