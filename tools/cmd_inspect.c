/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdisk inspect: whether an image from outside may be opened, told from its bytes alone; also of one that comes by a pipe. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "exit.h"
#include "fail.h"
#include "json.h"
#include "sizes.h"
#include "ui.h"
#include "verbs.h"

#define WHERE(member) offsetof(struct settings, member)
#define PIECE (1u << 20)

enum policy { POLICY_NONE, POLICY_UNTRUSTED };
static const struct opt_choice policies[] = { { "none", POLICY_NONE }, { "untrusted", POLICY_UNTRUSTED }, { NULL, 0 } };

static const struct opt judging[] = {
	{ .name = "policy", .kind = OPT_CHOICE, .where = WHERE(policy), .arg = "NAME", .choices = policies,
	  .help = "untrusted: exit 10 on any finding; none (default): only tell" },
	{ .name = "max-size", .kind = OPT_SIZE, .where = WHERE(max_size), .arg = "SIZE",
	  .help = "a disk larger than SIZE is a finding" },
	{ 0 },
};
static const struct opt_group judging_group = { "Judging", judging };

static const struct opt_group *const groups[] = { &judging_group, &opts_output_form, &opts_speech, NULL };

static const char *const examples[] = {
	"vdisk inspect --policy=untrusted upload.vmdk",
	"curl -s https://example.org/image.qcow2 | tee image.qcow2 | vdisk inspect --policy=untrusted -",
	NULL,
};

/* ---- findings --------------------------------------------------------------------------------------------- */

static const struct {
	enum vd_risk risk;
	const char *name;
} risk_names[] = {
	{ VD_RISK_UNKNOWN, "unknown" }, { VD_RISK_AMBIGUOUS, "ambiguous" }, { VD_RISK_OBSOLETE, "obsolete" },
	{ VD_RISK_BROKEN, "broken" }, { VD_RISK_REFERENCE, "reference" }, { VD_RISK_SIZE, "size" },
	{ VD_RISK_UNSEEN, "unseen" },
};

static const char *name_of(enum vd_risk risk)
{
	for (size_t i = 0; i < sizeof(risk_names) / sizeof(risk_names[0]); i++)
		if (risk_names[i].risk == risk)
			return risk_names[i].name;
	return "other";
}

struct report {
	struct json_object *findings;   /* NULL: for people, told as they come */
	struct vd_inspection result;
};

static int tell(void *ctx, enum vd_risk risk, const char *text)
{
	struct report *rep = ctx;
	struct json_object *j;

	if (!rep->findings) {
		ui_line("%s%-10s%s %s", ui_colour(UI_RED), name_of(risk), ui_colour(UI_PLAIN), text);
		return 0;
	}
	j = json_new();
	json_put_text(j, "risk", name_of(risk));
	json_put_text(j, "text", text);
	json_add(rep->findings, j);
	return 0;
}

/* ---- looking ---------------------------------------------------------------------------------------------- */

static int feed_all(struct vd_inspector *in, struct vd_error *e)
{
	char *piece = malloc(PIECE);
	ssize_t n = 1;
	int r = 0;

	if (!piece)
		ui_out_of_memory();
	while (r == 0 && n) {
		n = read(STDIN_FILENO, piece, PIECE);
		if (n < 0 && errno != EINTR)
			r = fail_errno(e, errno, "reading standard input");
		else if (n > 0)
			r = vd_inspector_feed(in, piece, (size_t)n, e);
	}
	free(piece);
	return r;
}

static int inspect_stream(const struct vd_inspect_opts *o, struct vd_inspection *result, struct vd_error *e)
{
	struct vd_inspector *in = NULL;
	int r = vd_inspector_new(&in, e);

	if (r == 0)
		r = feed_all(in, e);
	if (r == 0)
		r = vd_inspector_end(in, o, result, e);
	vd_inspector_free(in);
	return r;
}

static void print_human(const char *image, const struct vd_inspection *i)
{
	const char *encryption = i->encryption == VD_ENCRYPTED_LUKS ? ", encrypted (LUKS)" :
				 i->encryption == VD_ENCRYPTED_LEGACY_AES ? ", weakly encrypted" :
				 i->is_encryption_unknown ? "; whether it is encrypted is not known" : "";

	if (i->format)
		ui_summary("%s: %s, a disk of %s%s", image, i->format, size_show((double)i->virtual_size).s, encryption);
	if (!i->risks)
		ui_summary("%s%s: nothing found against opening it as %s%s", ui_colour(UI_GREEN), image, i->format,
			   ui_colour(UI_PLAIN));
}

static void print_json(const char *image, const struct report *rep, struct json_object *j)
{
	const struct vd_inspection *i = &rep->result;

	json_put_text(j, "image", image);
	json_put_bool(j, "safe", !i->risks);
	if (i->format)
		json_put_text(j, "format", i->format);
	json_put_u64(j, "virtual-size", i->virtual_size);
	json_put_u64(j, "file-size", i->file_size);
	if (!i->is_encryption_unknown)
		json_put_bool(j, "encrypted", i->encryption != VD_PLAIN);
	if (i->luks_version)
		json_put_u64(j, "luks-version", i->luks_version);
	json_put(j, "findings", rep->findings);
	json_print(j);
}

static int run(struct settings *s, struct vd_error *e)
{
	const char *image = s->operands[0];
	bool is_stream = !strcmp(image, "-");
	struct report rep = {
		.findings = ui_is_json() ? json_object_new_array() : NULL,
		.result = { .struct_size = sizeof(rep.result) },
	};
	struct vd_inspect_opts o = { .struct_size = sizeof(o), .max_size = s->max_size, .found = tell, .ctx = &rep };
	int r = is_stream ? inspect_stream(&o, &rep.result, e) : vd_inspect(image, &o, &rep.result, e);

	if (r < 0) {
		json_object_put(rep.findings);
		return r;
	}
	if (is_stream)
		image = "standard input";
	if (rep.findings)
		print_json(image, &rep, json_new());
	else
		print_human(image, &rep.result);
	return s->policy == POLICY_UNTRUSTED && rep.result.risks ? vd_code_exit_status(VD_EMISMATCH) : 0;
}

const struct verb verb_inspect = {
	.name = "inspect",
	.operands = "IMAGE",
	.min_operands = 1,
	.max_operands = 1,
	.summary = "tell whether an image from outside may be opened",
	.about = "Looks at the bytes of IMAGE, or with - of standard input, and at nothing else: no file that it names is "
		 "opened, and no key is needed. Told is what a careful host refuses: references to other files, formats that "
		 "can be taken for one another, broken tables, features that are not known.",
	.groups = groups,
	.examples = examples,
	.run = run,
};
