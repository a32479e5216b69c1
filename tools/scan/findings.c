/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Keeps findings. Which are too many for a release is the verb's to say. */
#include "scan/findings.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ui.h"

const char *scan_severity_name(enum scan_severity s)
{
	static const char *const names[SCAN_N_SEVERITIES] = { "info", "low", "medium", "high", "critical" };

	return (unsigned)s < SCAN_N_SEVERITIES ? names[s] : "critical";
}

static char *copy_of(const char *text)
{
	char *copy = strdup(text);

	if (!copy)
		ui_out_of_memory();
	return copy;
}

void scan_findings_add(struct scan_findings *f, const char *rule, enum scan_severity severity, const char *subject,
		       const char *remedy, const char *fmt, ...)
{
	struct scan_finding *x;
	char text[1024];
	va_list ap;

	f->total++;
	f->by_severity[severity]++;
	if (f->n == SCAN_FINDINGS_MAX)
		return;
	if (f->n == f->room) {
		f->room = f->room * 2 + 64;
		f->at = realloc(f->at, f->room * sizeof(*f->at));
		if (!f->at)
			ui_out_of_memory();
	}
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	x = &f->at[f->n++];
	*x = (struct scan_finding){ .severity = severity, .subject = copy_of(subject), .text = copy_of(text) };
	snprintf(x->rule, sizeof(x->rule), "%s", rule);
	x->remedy = remedy ? copy_of(remedy) : NULL;
}

static int by_weight(const void *a, const void *b)
{
	const struct scan_finding *x = a, *y = b;
	int d = (int)y->severity - (int)x->severity;

	if (!d)
		d = strcmp(x->rule, y->rule);
	if (!d)
		d = strcmp(x->subject, y->subject);
	return d ? d : strcmp(x->text, y->text);
}

void scan_findings_sort(struct scan_findings *f)
{
	if (f->n)
		qsort(f->at, f->n, sizeof(*f->at), by_weight);
}

void scan_findings_free(struct scan_findings *f)
{
	for (size_t i = 0; i < f->n; i++) {
		free(f->at[i].subject);
		free(f->at[i].text);
		free(f->at[i].remedy);
	}
	free(f->at);
	*f = (struct scan_findings){ 0 };
}
