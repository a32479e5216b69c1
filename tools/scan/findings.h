/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a scan has found: one list for all that find something, whether rules, secrets or the container's own remains. */
#ifndef TOOLS_SCAN_FINDINGS_H
#define TOOLS_SCAN_FINDINGS_H

#include <vdisk.h>

enum scan_severity { SCAN_INFO, SCAN_LOW, SCAN_MEDIUM, SCAN_HIGH, SCAN_CRITICAL, SCAN_N_SEVERITIES };
const char *scan_severity_name(enum scan_severity s);

struct scan_finding {
	char rule[40];                  /* stable: "SEAL-028" */
	enum scan_severity severity;
	char *subject;                  /* what it is about: a path, a package, a volume; "" for the image. Hostile bytes */
	char *text;                     /* one line for people; never the value of a secret */
	char *remedy;                   /* what to do; NULL: nothing is known */
};
#define SCAN_FINDINGS_MAX 100000        /* more are counted only */
struct scan_findings {
	struct scan_finding *at;
	size_t n, room;
	uint64_t total;
	uint64_t by_severity[SCAN_N_SEVERITIES];        /* of the total */
};

/* `remedy` may be NULL. Texts are copied. */
void scan_findings_add(struct scan_findings *f, const char *rule, enum scan_severity severity, const char *subject,
		       const char *remedy, const char *fmt, ...) VD_PRINTF(6, 7);
/* Worst first, then by rule and subject: the same image gives the same list. */
void scan_findings_sort(struct scan_findings *f);
void scan_findings_free(struct scan_findings *f);

#endif
