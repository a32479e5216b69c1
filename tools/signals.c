/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Catches signals and notes them. What is to be done about them, the callers decide where it is safe. */
#include "signals.h"

#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <vdisk.h>

#include "fail.h"

static volatile sig_atomic_t stop_signal;
static volatile sig_atomic_t report_asked;
static volatile sig_atomic_t hangup_is_spared;

static void on_stop(int sig)
{
	if (!stop_signal && !(sig == SIGHUP && hangup_is_spared))
		stop_signal = sig;
}

static void on_report(int sig)
{
	(void)sig;
	report_asked = 1;
}

/* A handler rather than SIG_IGN, which the child of a passphrase command would inherit. */
static void on_pipe(int sig)
{
	(void)sig;
}

/* Without SA_RESTART for those that stop: a prompt that waits for a line has to notice. */
static void catch(int sig, void (*handler)(int), int flags)
{
	struct sigaction old, now = { .sa_handler = handler, .sa_flags = flags };

	sigemptyset(&now.sa_mask);
	if (sigaction(sig, NULL, &old) == 0 && old.sa_handler != SIG_IGN)
		sigaction(sig, &now, NULL);
}

void signals_setup(void)
{
	catch(SIGINT, on_stop, 0);
	catch(SIGTERM, on_stop, 0);
	catch(SIGHUP, on_stop, 0);
	catch(SIGUSR1, on_report, SA_RESTART);
	catch(SIGPIPE, on_pipe, SA_RESTART);
}

int signals_stop(void)
{
	return stop_signal;
}

void signals_spare_hangup(bool spare)
{
	hangup_is_spared = spare;
}

int signals_check(struct vd_error *e)
{
	if (!stop_signal)
		return 0;
	return fail(e, VD_ECANCELLED, "stopped by SIG%s", sigabbrev_np(stop_signal));
}

bool signals_take_report(void)
{
	bool asked = report_asked;

	report_asked = 0;
	return asked;
}
