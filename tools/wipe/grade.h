/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What may be said of a wipe: grades, not yes or no, and why not a better one. */
#ifndef TOOLS_WIPE_GRADE_H
#define TOOLS_WIPE_GRADE_H

#include "exit.h"
#include "wipe/plan.h"

/* From the best to the worst. Symbol, stable name, exit status, what is said to people. Never "purge": that is for a device's own commands. */
#define WIPE_GRADE_TABLE(X)                                                                               \
	X(WIPE_CLEARED,      "cleared",      0, "cleared: overwritten where it lay, and read back")        \
	X(WIPE_CLEARED_CE,   "cleared-ce",   0, "cleared by crypto-erase: the keys are overwritten where they lay; that all data was ever encrypted, the operator says") \
	X(WIPE_OVERWRITTEN,  "overwritten",  WIPE_STATUS_OVERWRITTEN, "overwritten; Clear not assured")    \
	X(WIPE_NOT_ASSURED,  "not-assured",  WIPE_STATUS_NOT_ASSURED, "not assured: old blocks were not reached") \
	X(WIPE_INCOMPLETE,   "incomplete",   WIPE_STATUS_INCOMPLETE, "incomplete")                         \
	X(WIPE_VERIFY_FAIL,  "verify-fail",  WIPE_STATUS_VERIFY_FAIL, "verification failed: what was read back is not what was written") \
	X(WIPE_REFUSED,      "refused",      WIPE_STATUS_REFUSED, "refused; nothing was written")
enum wipe_grade {
#define WIPE_GRADE_ENUM(sym, name, status, text) sym,
	WIPE_GRADE_TABLE(WIPE_GRADE_ENUM)
#undef WIPE_GRADE_ENUM
	WIPE_N_GRADES
};
const char *wipe_grade_name(enum wipe_grade g);
const char *wipe_grade_text(enum wipe_grade g);
int wipe_grade_status(enum wipe_grade g);

/* Why a member's grade is not a better one, or what the wipe does not speak of. */
struct wipe_finding {
	const char *code;               /* stable: "overwrite.not_in_place" */
	size_t member;                  /* SIZE_MAX: the whole set */
	enum wipe_grade grade;          /* the best that is possible with it; WIPE_CLEARED: a limit only */
	char text[512];
};
#define WIPE_FINDINGS_MAX 1024
struct wipe_findings {
	struct wipe_finding *at;        /* malloc'ed */
	size_t n;
};
void wipe_findings_free(struct wipe_findings *f);

/*
 * The grade of a member, and its findings; before the wipe: the best that can be reached. `was_wiped` says which.
 */
enum wipe_grade wipe_grade_member(const struct wipe_set *set, size_t i, const struct wipe_plan *plan, bool was_wiped,
				  struct wipe_findings *f);
/* The worst of all members. */
enum wipe_grade wipe_grade_set(const struct wipe_set *set, const struct wipe_plan *plan, bool was_wiped, struct wipe_findings *f);

#endif
