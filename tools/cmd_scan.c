/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdisk scan: tells whether an image may be released. What is looked at is the engine's in scan/; here it is put together. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "exit.h"
#include "fail.h"
#include "json.h"
#include "scan/container.h"
#include "scan/report.h"
#include "scan/residue.h"
#include "source.h"
#include "ui.h"
#include "verbs.h"

static const struct opt_choice severities[] = {
	{ "low", SCAN_LOW }, { "medium", SCAN_MEDIUM }, { "high", SCAN_HIGH }, { "critical", SCAN_CRITICAL }, { NULL, 0 },
};
static const struct opt scan_options[] = {
	{ .name = "fail-on", .kind = OPT_CHOICE, .where = offsetof(struct settings, scan.fail_on), .arg = "SEVERITY",
	  .choices = severities, .help = "fail from this severity on (default: medium)" },
	{ 0 },
};
static const struct opt_group scan_group = { "What fails", scan_options };

static const struct opt_group *const groups[] = {
	&scan_group, &opts_keys, &opts_header, &opts_format, &opts_backing, &opts_snapshot, &opts_sharing, &opts_output_form, &opts_speech, NULL,
};

static const char *const examples[] = {
	"vdisk scan golden.qcow2",
	"vdisk scan --output=json --key-file disk.key golden.vmdk > scan.json",
	"vdisk scan --fail-on=high /srv/chroot",
	NULL,
};

static enum scan_result result_of(const struct scan_findings *f, const struct fsview *v, enum scan_severity fail_on)
{
	uint64_t total;
	size_t n;

	for (int s = (int)fail_on; s < SCAN_N_SEVERITIES; s++)
		if (f->by_severity[s])
			return SCAN_FOUND;
	fsview_shortfalls(v, &n, &total);
	return total ? SCAN_INCOMPLETE : SCAN_CLEAN;
}

static int judge(const struct settings *s, struct fsview *v, struct vd_image *img, struct vd_error *e)
{
	struct scan_findings findings = { 0 };
	struct scan_facts facts = { 0 };
	struct scan_report report = { .image = s->operands[0], .facts = &facts, .findings = &findings };
	int r = scan_facts_gather(v, img, &facts, e);

	report.fail_on = s->scan.fail_on ? (enum scan_severity)s->scan.fail_on : SCAN_MEDIUM;
	if (r == 0 && img)
		r = scan_container(img, v, &findings, e);
	if (r == 0 && img)
		r = scan_residue(img, v, &findings, e);
	if (r == 0) {
		scan_findings_sort(&findings);
		report.result = result_of(&findings, v, report.fail_on);
		(ui_is_json() ? scan_report_json : scan_report_human)(&report);
		r = report.result == SCAN_FOUND ? SCAN_STATUS_FOUND : report.result == SCAN_INCOMPLETE ? SCAN_STATUS_INCOMPLETE : 0;
	}
	scan_facts_free(&facts);
	scan_findings_free(&findings);
	return r;
}

static int scan_image(struct settings *s, struct vd_error *e)
{
	struct keys keys = { 0 };
	struct vd_image *img = NULL;
	struct fsview *v = NULL;
	int r = source_open(s, s->operands[0], s->format, &keys, &img, e);

	secrets_free(&keys);
	if (r == 0)
		r = fsview_open(img, NULL, &v, e);
	if (r == 0)
		r = judge(s, v, img, e);
	fsview_close(v);
	vd_image_abort(img);
	return r;
}

static int scan_directory(struct settings *s, struct vd_error *e)
{
	struct fsview *v = NULL;
	int r = fsview_open_directory(s->operands[0], &v, e);

	if (r == 0)
		r = judge(s, v, NULL, e);
	fsview_close(v);
	return r;
}

static int run(struct settings *s, struct vd_error *e)
{
	struct stat st;

	if (stat(s->operands[0], &st) == 0 && S_ISDIR(st.st_mode))
		return scan_directory(s, e);
	return scan_image(s, e);
}

const struct verb verb_scan = {
	.name = "scan",
	.operands = "IMAGE|DIR",
	.min_operands = 1,
	.max_operands = 1,
	.summary = "tell whether an image may be released",
	.about = "Looks into IMAGE, which may be encrypted and is not booted, or into a directory with a system in it: at its file "
		 "systems, and at what is left in the container itself. The file systems are read in a process that can open no "
		 "file and reach no network. What could not be looked at makes the result incomplete, never clean.",
	.groups = groups,
	.examples = examples,
	.run = run,
};
