/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Draws the conclusions from what was found and done. Every downgrade has a finding in words. */
#include "wipe/grade.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ui.h"

static const struct {
	const char *name, *text;
	int status;
} grades[] = {
#define GRADE(sym, name, status, text) { name, text, status },
	WIPE_GRADE_TABLE(GRADE)
#undef GRADE
};

const char *wipe_grade_name(enum wipe_grade g)
{
	return grades[g].name;
}

const char *wipe_grade_text(enum wipe_grade g)
{
	return grades[g].text;
}

int wipe_grade_status(enum wipe_grade g)
{
	return grades[g].status;
}

void wipe_findings_free(struct wipe_findings *f)
{
	free(f->at);
	*f = (struct wipe_findings){ 0 };
}

/* What is being graded. */
struct grading {
	struct wipe_findings *f;
	size_t member;
	enum wipe_grade grade;
};

static void find(struct grading *g, const char *code, enum wipe_grade grade, const char *fmt, ...) VD_PRINTF(4, 5);
static void find(struct grading *g, const char *code, enum wipe_grade grade, const char *fmt, ...)
{
	struct wipe_finding *at;
	va_list ap;

	if (grade > g->grade)
		g->grade = grade;
	if (g->f->n == WIPE_FINDINGS_MAX)
		return;
	at = realloc(g->f->at, (g->f->n + 1) * sizeof(*at));
	if (!at)
		ui_out_of_memory();
	g->f->at = at;
	at = &at[g->f->n++];
	*at = (struct wipe_finding){ .code = code, .member = g->member, .grade = grade };
	va_start(ap, fmt);
	vsnprintf(at->text, sizeof(at->text), fmt, ap);
	va_end(ap);
}

/* ---- what keeps old blocks -------------------------------------------------------------------------------- */

static const char *code_of(enum vd_keeps_kind kind)
{
	switch (kind) {
	case VD_KEEPS_COPY_ON_WRITE: return "fs.cow";
	case VD_KEEPS_LOG: return "fs.log";
	case VD_KEEPS_OVERLAY: return "fs.overlay";
	case VD_KEEPS_REMOTE: return "fs.remote";
	case VD_KEEPS_FUSE: return "fs.fuse";
	case VD_KEEPS_DATA_JOURNAL: return "fs.data_journal";
	case VD_KEEPS_SHARED: return "extent.shared";
	case VD_KEEPS_VOLUME: return "lower.snapshot_unknown";
	case VD_KEEPS_FLASH: return "media.flash";
	case VD_KEEPS_THIN: return "media.thin";
	case VD_KEEPS_UNKNOWN_MEDIUM: return "media.unknown";
	default: return "fs.unknown";
	}
}

/* Shared blocks, and those of a file system that never writes in place, are not reached. What may be kept is not assured to be gone. */
static void judge_keeps(struct grading *g, const struct wipe_member *m)
{
	for (size_t i = 0; i < m->n_keeps; i++) {
		const struct vd_keeps *k = &m->keeps[i];
		bool moves = k->kind == VD_KEEPS_COPY_ON_WRITE || k->kind == VD_KEEPS_SHARED || k->kind == VD_KEEPS_LOG;

		find(g, code_of(k->kind), moves && k->is_certain ? WIPE_NOT_ASSURED : WIPE_OVERWRITTEN, "%s", k->text);
	}
	if (!m->is_device && !m->has_map)
		find(g, "overwrite.unproven", WIPE_OVERWRITTEN,
		     "the file system does not tell where a file lies, so that it was overwritten in place cannot be proven");
	if (m->encoded)
		find(g, "extent.encoded", WIPE_NOT_ASSURED, "%llu bytes lie compressed or inside tables, whose old blocks are not reached",
		     (unsigned long long)m->encoded);
	if (m->past_end)
		find(g, "extent.past_end", WIPE_CLEARED, "%llu bytes are allocated past the end of the file, and not reached",
		     (unsigned long long)m->past_end);
	if (!m->is_device && m->before_bytes < m->size)
		find(g, "hole.history_unknown", WIPE_CLEARED,
		     "the file has holes: what lay there, if anything did, is the file system's now and not reached");
}

/* ---- what was done ---------------------------------------------------------------------------------------- */

static void judge_moves(struct grading *g, const struct wipe_member *m)
{
	if (m->canary_moved || m->moved)
		find(g, "overwrite.not_in_place", WIPE_NOT_ASSURED, "%s came to lie elsewhere when it was overwritten: its old blocks stay",
		     m->moved ? "a part" : "the first block");
}

static void judge_failures(struct grading *g, const struct wipe_member *m)
{
	if (m->failure[0])
		find(g, "io.failed", WIPE_INCOMPLETE, "%s", m->failure);
	if (m->unwritable.bytes)
		find(g, "io.unwritable", WIPE_INCOMPLETE, "%llu bytes could not be written, the first at %llu",
		     (unsigned long long)m->unwritable.bytes, (unsigned long long)m->unwritable.at[0].off);
	if (m->unreadable.bytes)
		find(g, "io.unreadable", WIPE_INCOMPLETE, "%llu bytes could not be read back, the first at %llu",
		     (unsigned long long)m->unreadable.bytes, (unsigned long long)m->unreadable.at[0].off);
	if (m->mismatch.bytes)
		find(g, "verify.mismatch", WIPE_VERIFY_FAIL, "%llu bytes are not what was written, the first at %llu",
		     (unsigned long long)m->mismatch.bytes, (unsigned long long)m->mismatch.at[0].off);
}

static void judge_work(struct grading *g, const struct wipe_set *set, const struct wipe_member *m, const struct wipe_plan *plan)
{
	judge_moves(g, m);
	judge_failures(g, m);
	if (set->is_stopped) {
		find(g, "run.stopped", m->failure[0] ? WIPE_INCOMPLETE : WIPE_NOT_ASSURED,
		     "stopped before anything was taken away");
		return;
	}
	if (plan->erases_only && m->is_encrypted) {
		find(g, "ce.attested", WIPE_CLEARED_CE, "its keys are gone: that all data was ever encrypted, and that no copy of its header exists, the operator says");
		if (m->n_key_areas && !m->erased)
			find(g, "ce.unproven", WIPE_INCOMPLETE, "its keys were not overwritten in place, or not all of them");
		return;
	}
	if (!m->is_done)
		find(g, "run.unfinished", WIPE_INCOMPLETE, "the wipe of it has not come to its end");
	if (m->through_cache)
		find(g, "verify.page_cache", WIPE_OVERWRITTEN, "it had to be written or read by way of the page cache: what the device has was not seen");
}

static void judge_plan(struct grading *g, const struct wipe_plan *plan)
{
	if (plan->verify == WIPE_VERIFY_NONE)
		find(g, "verify.none", WIPE_OVERWRITTEN, "nothing was to be read back");
	if (!plan->passes[plan->n_passes - 1].is_random)
		find(g, "lower.zero_elision", WIPE_CLEARED,
		     "the last pass writes the same byte all over, which a layer below may note instead of overwriting: a random last pass rules that out");
}

enum wipe_grade wipe_grade_member(const struct wipe_set *set, size_t i, const struct wipe_plan *plan, bool was_wiped,
				  struct wipe_findings *f)
{
	const struct wipe_member *m = &set->at[i];
	struct grading g = { f, i, WIPE_CLEARED };

	judge_keeps(&g, m);
	if (was_wiped)
		judge_work(&g, set, m, plan);
	return g.grade;
}

enum wipe_grade wipe_grade_set(const struct wipe_set *set, const struct wipe_plan *plan, bool was_wiped, struct wipe_findings *f)
{
	struct grading g = { f, SIZE_MAX, WIPE_CLEARED };

	for (size_t i = 0; i < set->n; i++) {
		enum wipe_grade one = wipe_grade_member(set, i, plan, was_wiped, f);

		if (one > g.grade)
			g.grade = one;
	}
	if (set->failure[0])
		find(&g, "run.failed", WIPE_INCOMPLETE, "%s", set->failure);
	judge_plan(&g, plan);
	return g.grade;
}
