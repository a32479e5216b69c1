/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A scan's result for people and programs. */
#ifndef TOOLS_SCAN_REPORT_H
#define TOOLS_SCAN_REPORT_H

#include "scan/facts.h"
#include "scan/findings.h"

enum scan_result { SCAN_CLEAN, SCAN_FOUND, SCAN_INCOMPLETE };

struct scan_report {
	const char *image;
	enum scan_severity fail_on;
	enum scan_result result;
	const struct scan_facts *facts;
	const struct scan_findings *findings;
};
const char *scan_result_name(enum scan_result r);
void scan_report_json(const struct scan_report *r);
void scan_report_human(const struct scan_report *r);

#endif
