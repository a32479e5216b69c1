/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Checks and mends an image, for the public: the lock, the counts, the order of the two. What can be wrong and how it is
 * mended, the driver knows. A repair is a check, the mending, and a check that says what is left.
 */
#include <time.h>

#include "libvdisk/core/job.h"
#include "libvdisk/core/shape.h"

#define TICK_NS 100000000       /* ten reports a second (vdisk.h, struct vd_job) */

struct run {
	struct vd_check check;          /* what the driver sees */
	struct vd_image *img;
	enum vd_repair repair;
	int (*on_finding)(void *ctx, const struct vd_finding *f);
	void *ctx;
	const struct vd_job *job;
	const char *phase;
	bool remains;                   /* this check comes after the mending */
	uint64_t last_tick;
};

VD_PUBLIC const char *vd_finding_name(enum vd_finding_kind kind)
{
	static const char *const names[] = {
#define NAME(sym, value, name, text) [value] = name,
		VD_FINDING_TABLE(NAME)
#undef NAME
	};

	return kind > 0 && kind < sizeof(names) / sizeof(names[0]) ? names[kind] : "unknown";
}

static int cancelled(struct vd_error *e)
{
	return vd_fail(e, VD_ECANCELLED, "cancelled");
}

static int found(struct vd_check *c, struct vd_finding *f, struct vd_error *e)
{
	struct run *run = (struct run *)c;
	struct vd_check_report *rep = c->report;

	f->remains = run->remains;
	if (!f->file)
		f->file = run->img->path;
	if (f->severity == VD_SEVERITY_LEAK)
		rep->leaks += f->n;
	else if (f->severity == VD_SEVERITY_CORRUPTION)
		rep->corruptions += f->n;
	else
		rep->check_errors += f->n;
	if (f->severity == VD_SEVERITY_CORRUPTION && !f->can_mend)
		rep->not_mendable += f->n;
	return run->on_finding && run->on_finding(run->ctx, f) ? cancelled(e) : 0;
}

static int progress(struct vd_check *c, uint64_t done, uint64_t total, struct vd_error *e)
{
	struct run *run = (struct run *)c;
	struct vd_progress p = { .phase = run->phase, .done = done, .total = total };
	struct timespec now;
	uint64_t ns;

	if (!run->job || !run->job->progress)
		return 0;
	clock_gettime(CLOCK_MONOTONIC, &now);
	ns = (uint64_t)now.tv_sec * 1000000000 + now.tv_nsec;
	if (done < total && ns - run->last_tick < TICK_NS)
		return 0;
	run->last_tick = ns;
	return run->job->progress(run->job->ctx, &p) ? cancelled(e) : 0;
}

static int check_once(struct run *run, struct vd_error *e)
{
	run->phase = "check";
	*run->check.report = (struct vd_check_report){ .struct_size = sizeof(*run->check.report) };
	return run->img->format->repair->check(run->img->state, &run->check, e);
}

static uint64_t fixed(uint64_t before, uint64_t after)
{
	return before > after ? before - after : 0;
}

/* What could not be looked at may own anything; what is broken may want what looks unowned. */
static bool may_mend(const struct run *run, const struct vd_check_report *rep)
{
	if (!run->img->format->repair->mend || rep->check_errors)
		return false;
	return run->repair == VD_REPAIR_ALL ? rep->leaks || rep->corruptions : rep->leaks && !rep->corruptions;
}

static int check_and_mend(struct vd_image *img, const void *arg, struct vd_error *e)
{
	struct run *run = *(struct run *const *)arg;
	struct vd_check_report *rep = run->check.report, before;
	bool changed;
	int r = check_once(run, e);

	if (r < 0 || !may_mend(run, rep))
		return r;
	before = *rep;
	run->phase = "repair";
	r = img->format->repair->mend(img->state, run->repair, &run->check, e);
	changed = rep->changed;
	if (r < 0)
		return r;
	run->remains = true;
	r = check_once(run, e);
	rep->changed = changed;
	rep->corruptions_fixed = fixed(before.corruptions, rep->corruptions);
	rep->leaks_fixed = fixed(before.leaks, rep->leaks);
	return r;
}

/* Nothing is written, so any handle will do; what it has written before is part of what is looked at. */
static int check_alone(struct run *run, struct vd_error *e)
{
	struct vd_image *img = run->img;
	int r = 0;

	vd_control_alone(img);
	if (atomic_load(&img->begun))
		r = vd_shape_settle(img, e);
	if (r == 0)
		r = check_once(run, e);
	vd_control_release(img);
	return r;
}

VD_PUBLIC int vd_image_check(struct vd_image *img, enum vd_repair repair, int (*on_finding)(void *ctx, const struct vd_finding *f),
			     void *ctx, const struct vd_job *job, struct vd_check_report *report, struct vd_error *e)
{
	struct run run = {
		.check = { .found = found, .progress = progress, .report = report },
		.img = img, .repair = repair, .on_finding = on_finding, .ctx = ctx, .job = job,
	}, *const self = &run;
	int r = vd_job_check(job, e);

	if (r < 0)
		return r;
	if (report->struct_size != sizeof(*report))
		return vd_fail(e, VD_EARG, "struct vd_check_report: struct_size is %zu, want %zu", report->struct_size,
			       sizeof(*report));
	if (!img->format->repair)
		return vd_fail(e, VD_EUNSUPPORTED, "%s: images of format %s cannot be checked", img->path, img->format->name);
	if (repair == VD_REPAIR_NONE)
		return check_alone(&run, e);
	if (!img->is_repair)
		return vd_fail(e, VD_EREADONLY, "%s is not open for repair", img->path);
	return vd_shape_alone(img, check_and_mend, &self, e);
}
