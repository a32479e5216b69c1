/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Watches a machine's streams, events, screen and life. What is seen first decides; a login prompt is given a moment in which it may still panic. */
#include "drill/boot.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fail.h"
#include "signals.h"
#include "ui.h"

#define LOOK_MS 200
#define SCREEN_SECONDS 3.0      /* between two looks at a text screen */
#define SETTLE_SECONDS 1.0
#define RESETS_MAX 4            /* boot loaders and installers may reset once or twice */
#define QEMU_WORDS 4096

struct watch {
	const struct boot_plan *plan;
	struct boot_result *r;
	struct machine m;
	double started, screen_at, good_at;
	bool has_panicked, is_off;
	struct evidence errors;
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void on_event(void *ctx, const char *name)
{
	struct watch *w = ctx;

	if (!strcmp(name, "RESET"))
		w->r->resets++;
	else if (!strcmp(name, "GUEST_PANICKED"))
		w->has_panicked = true;
	else if (!strcmp(name, "SHUTDOWN"))
		w->is_off = true;
}

/* Takes what there is; a stream that has ended is closed. */
static void take(int *fd, struct evidence *v)
{
	char piece[4096];
	ssize_t n;

	while (*fd >= 0 && (n = read(*fd, piece, sizeof(piece))) >= 0) {
		if (n == 0) {
			close(*fd);
			*fd = -1;
			return;
		}
		evidence_add(v, piece, (size_t)n);
	}
}

/* What is seen first counts; but a failure that follows success undoes it. */
static void decide(struct watch *w, enum drill_outcome outcome, const char *words)
{
	if (w->r->outcome != DRILL_NOTHING && (!drill_outcome_proves(w->r->outcome) || drill_outcome_proves(outcome)))
		return;
	w->r->outcome = outcome;
	w->r->settled = now() - w->started;
	snprintf(w->r->words, sizeof(w->r->words), "%s", words);
}

static void judge_stream(struct watch *w, struct evidence *v)
{
	const char *words = "";
	enum drill_outcome outcome = evidence_judge(v, w->plan->expected, &words);

	if (outcome != DRILL_NOTHING)
		decide(w, outcome, words);
}

/* A boot loader without a serial line speaks on the screen alone. */
static void judge_screen(struct watch *w)
{
	struct evidence screen;

	if (now() - w->screen_at < SCREEN_SECONDS || !w->m.qmp)
		return;
	w->screen_at = now();
	machine_screen_text(&w->m, &screen);
	judge_stream(w, &screen);
}

static void judge_life(struct watch *w)
{
	char line[160];
	int how;

	if (w->has_panicked)
		decide(w, DRILL_PANIC, "GUEST_PANICKED");
	if (w->r->resets > RESETS_MAX)
		decide(w, DRILL_RESETS, "RESET");
	if (w->is_off)
		decide(w, DRILL_OFF, "SHUTDOWN");
	if (!machine_has_ended(&w->m, &how))
		return;
	take(&w->m.error_fd, &w->errors);
	evidence_last_line(&w->errors, line, sizeof(line));
	if (!w->is_off)
		decide(w, DRILL_BROKEN, *line ? line : WIFSIGNALED(how) ? "killed by a signal" : "ended");
}

static void look(struct watch *w)
{
	struct pollfd fds[3] = { { .fd = w->m.serial_fd, .events = POLLIN }, { .fd = w->m.firmware_fd, .events = POLLIN },
				 { .fd = w->m.error_fd, .events = POLLIN } };
	struct vd_error ignored;

	poll(fds, 3, LOOK_MS);
	take(&w->m.serial_fd, &w->r->serial);
	take(&w->m.firmware_fd, &w->r->firmware);
	take(&w->m.error_fd, &w->errors);
	if (w->r->first_output < 0 && w->r->serial.total)
		w->r->first_output = now() - w->started;
	machine_reach(&w->m, on_event, w);
	if (w->m.qmp && qmp_listen(w->m.qmp, &ignored) < 0) {
		qmp_close(w->m.qmp);
		w->m.qmp = NULL;
	}
	judge_stream(w, &w->r->firmware);
	judge_stream(w, &w->r->serial);
	judge_screen(w);
	judge_life(w);
}

static void say_where_it_is(const struct watch *w)
{
	char line[100], text[160];

	evidence_last_line(w->r->serial.n ? &w->r->serial : &w->r->firmware, line, sizeof(line));
	snprintf(text, sizeof(text), "booting, %.0f of %u s: %s", now() - w->started, w->plan->seconds, line);
	ui_status(text);
}

/* KVM may be there and not carry a machine: then it aborts, or says so, before anything was shown of the disk. */
static bool is_kvm_to_blame(const struct watch *w)
{
	return w->r->accel == DRILL_KVM && (w->r->outcome == DRILL_BROKEN || strstr(w->errors.text, "KVM internal error") != NULL);
}

static bool is_over(const struct watch *w)
{
	if (signals_stop() || is_kvm_to_blame(w))
		return true;
	if (w->r->outcome == DRILL_NOTHING)
		return false;
	return !drill_outcome_proves(w->r->outcome) || now() - w->started > w->r->settled + SETTLE_SECONDS;
}

static void watch_to_the_end(struct watch *w)
{
	double said = 0;

	while (!is_over(w)) {
		look(w);
		if (w->r->outcome == DRILL_NOTHING && now() - w->started > w->plan->seconds)
			decide(w, DRILL_TIME, "");
		if (now() - said > 1) {
			said = now();
			say_where_it_is(w);
		}
	}
	ui_status_end();
}

static void take_picture(struct watch *w)
{
	struct vd_error ignored;
	char path[PATH_MAX];

	if (w->m.pid <= 0 || (size_t)snprintf(path, sizeof(path), "%s/screen.png", w->plan->machine.folder) >= sizeof(path))
		return;
	if (machine_picture(&w->m, path, &ignored) == 0)
		memcpy(w->r->picture, path, sizeof(path));
}

static int attempt(struct watch *w, enum drill_accel accel, struct vd_error *e)
{
	struct machine_plan plan = w->plan->machine;
	struct boot_result *r = w->r;
	int ret;

	plan.accel = accel;
	r->accel = accel;
	r->outcome = DRILL_NOTHING;
	r->resets = 0;
	r->first_output = r->settled = -1;
	r->serial.n = r->serial.looked = r->firmware.n = r->firmware.looked = 0;
	w->errors.n = w->errors.looked = 0;
	w->has_panicked = w->is_off = false;
	w->started = w->screen_at = now();
	ret = machine_start(&plan, &w->m, e);
	if (ret < 0)
		return ret;
	watch_to_the_end(w);
	if (!is_kvm_to_blame(w))
		take_picture(w);
	machine_stop(&w->m);
	return signals_check(e);
}

int boot_run(const struct boot_plan *plan, struct boot_result *r, struct vd_error *e)
{
	static struct watch w;          /* large */
	bool kvm = !plan->no_kvm && access("/dev/kvm", R_OK | W_OK) == 0;
	int ret = 0;

	w = (struct watch){ .plan = plan, .r = r };
	if (kvm)
		ret = attempt(&w, DRILL_KVM, e);
	if (ret < 0 || (kvm && !is_kvm_to_blame(&w)))
		return ret;
	if (kvm)
		snprintf(r->why_tcg, sizeof(r->why_tcg), "under KVM qemu failed: %.120s", *r->words ? r->words : "KVM internal error");
	else if (!plan->no_kvm)
		snprintf(r->why_tcg, sizeof(r->why_tcg), "/dev/kvm is not there, or not for this user");
	r->words[0] = 0;
	return attempt(&w, DRILL_TCG, e);
}
