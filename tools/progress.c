/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Draws a bar, prints lines or JSON, as the user asked. Knows nothing of the job but bytes done and bytes in all. */
#include "progress.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "json.h"
#include "signals.h"
#include "sizes.h"
#include "ui.h"

#define LINE_EVERY_PERCENT 10
#define LINE_EVERY_S 30         /* so that a slow job's log shows life */
#define SHORT_JOB_S 2           /* nobody wants ten lines of a job that is over at once */
#define JSON_EVERY_S 1
#define BAR_MAX 40

static struct {
	enum progress_how how;
	bool spares_short_jobs, bar_is_shown;
	const char *label;
	const char *phase;              /* the library's; a new one starts the clock of the rate anew */
	double job_start, phase_start, last_shown;
	unsigned last_percent;
	FILE *json;
} job;

struct rate {
	unsigned percent;
	double per_s, left_s;           /* left_s < 0: not known yet */
};

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static enum progress_how choose(const struct settings *s)
{
	bool automatic = s->progress == PROGRESS_UNSAID || s->progress == PROGRESS_AUTO;

	if (s->progress == PROGRESS_UNSAID && s->quiet)
		return PROGRESS_NONE;
	if (automatic)
		return isatty(STDERR_FILENO) ? PROGRESS_BAR : PROGRESS_LINE;
	return (enum progress_how)s->progress;
}

static struct rate rate_of(const struct vd_progress *p, double now)
{
	double elapsed = now - job.phase_start;
	struct rate r = { .percent = 100, .left_s = -1 };

	if (p->total)
		r.percent = (unsigned)((double)p->done * 100 / (double)p->total);
	if (elapsed > 0)
		r.per_s = (double)p->done / elapsed;
	/* The first moments say little about the rest. */
	if (elapsed > 0.5 && r.per_s > 0)
		r.left_s = (double)(p->total - p->done) / r.per_s;
	return r;
}

static const char *name_of(const struct vd_progress *p)
{
	bool is_main = !strcmp(p->phase, "convert") || !strcmp(p->phase, "compare");

	return is_main ? job.label : p->phase;
}

static void show_left(char *buf, size_t size, double left)
{
	if (left < 0)
		buf[0] = '\0';
	else if (left < 100)
		snprintf(buf, size, ", %.0f s left", left);
	else if (left < 6000)
		snprintf(buf, size, ", %.0f min left", left / 60);
	else
		snprintf(buf, size, ", %.1f h left", left / 3600);
}

static void clear_bar(void)
{
	if (job.bar_is_shown)
		fputs("\r\033[K", stderr);
	job.bar_is_shown = false;
}

static void print_line(const struct vd_progress *p, const struct rate *r)
{
	char left[32];

	clear_bar();
	show_left(left, sizeof(left), r->left_s);
	fprintf(stderr, "%s: %u %%, %s of %s, %s/s%s\n", name_of(p), r->percent, size_show((double)p->done).s,
		size_show((double)p->total).s, size_show(r->per_s).s, left);
}

static void draw_bar(const struct vd_progress *p, const struct rate *r)
{
	static const char full[] = "########################################";
	static const char empty[] = "........................................";
	struct winsize w = { .ws_col = 80 };
	char left[32], text[128];
	int room, n, filled;

	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &w) < 0 || !w.ws_col)
		w.ws_col = 80;
	show_left(left, sizeof(left), r->left_s);
	n = snprintf(text, sizeof(text), "%s/s%s", size_show(r->per_s).s, left);
	room = w.ws_col - n - (int)strlen(name_of(p)) - (int)strlen("  100 % []  ");
	room = room > BAR_MAX ? BAR_MAX : room;
	if (room < 0)
		room = 0;
	filled = room * (int)r->percent / 100;
	fprintf(stderr, "\r\033[K%s %3u %% [%.*s%.*s] %s", name_of(p), r->percent, filled, full, room - filled,
		empty, text);
	job.bar_is_shown = true;
}

static void print_json(const struct vd_progress *p, const struct rate *r)
{
	struct json_object *j = json_new();

	json_put_text(j, "type", "progress");
	json_put_text(j, "phase", name_of(p));
	json_put_u64(j, "done", p->done);
	json_put_u64(j, "total", p->total);
	json_put_text(j, "unit", "bytes");
	json_put_u64(j, "speed", (uint64_t)r->per_s);
	if (r->left_s >= 0)
		json_put_u64(j, "eta_s", (uint64_t)(r->left_s + 0.5));
	json_print_to(job.json, j);
}

static bool is_due(const struct vd_progress *p, const struct rate *r, double now)
{
	double since = now - job.last_shown;
	bool is_end = p->done == p->total && job.last_percent < 100;

	switch (job.how) {
	case PROGRESS_BAR:
		return true;
	case PROGRESS_JSON:
		return since >= JSON_EVERY_S || is_end;
	case PROGRESS_LINE:
		if (job.spares_short_jobs && now - job.job_start < SHORT_JOB_S)
			return false;
		return r->percent / LINE_EVERY_PERCENT > job.last_percent / LINE_EVERY_PERCENT || since >= LINE_EVERY_S;
	default:
		return false;
	}
}

static void show(const struct vd_progress *p, const struct rate *r)
{
	if (job.how == PROGRESS_BAR)
		draw_bar(p, r);
	else if (job.how == PROGRESS_JSON)
		print_json(p, r);
	else
		print_line(p, r);
}

static int on_progress(void *ctx, const struct vd_progress *p)
{
	double now = now_s();
	struct rate r;

	(void)ctx;
	if (!job.phase || strcmp(job.phase, p->phase) != 0) {
		job.phase_start = job.phase ? now : job.job_start;
		job.phase = p->phase;
		job.last_percent = 0;
	}
	r = rate_of(p, now);
	if (signals_take_report())
		print_line(p, &r);
	if (is_due(p, &r, now)) {
		show(p, &r);
		job.last_shown = now;
		job.last_percent = r.percent;
	}
	return signals_stop() != 0;
}

struct vd_job progress_start(const struct settings *s, const char *label)
{
	double now = now_s();

	memset(&job, 0, sizeof(job));
	job.how = choose(s);
	job.spares_short_jobs = s->progress == PROGRESS_UNSAID;
	job.label = label;
	job.job_start = job.phase_start = job.last_shown = now;
	/* Standard output holds one kind of thing: JSON among human results would be neither. */
	job.json = s->output == OUTPUT_JSON ? ui_results() : stderr;
	return (struct vd_job){
		.struct_size = sizeof(struct vd_job), .n_threads = (unsigned)s->threads, .progress = on_progress,
	};
}

double progress_end(void)
{
	clear_bar();
	return now_s() - job.job_start;
}
