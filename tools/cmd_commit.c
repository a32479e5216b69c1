/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdisk commit: writes what an overlay holds into its backing file. */
#include <errno.h>
#include <sys/stat.h>

#include "fail.h"
#include "json.h"
#include "progress.h"
#include "rechain.h"
#include "signals.h"
#include "sizes.h"
#include "source.h"
#include "ui.h"
#include "verbs.h"

#define WHERE(member) offsetof(struct settings, member)

static const struct opt target[] = {
	{ .name = "base", .letter = 'b', .kind = OPT_TEXT, .where = WHERE(base), .arg = "FILE",
	  .help = "the backing file to write to, if not the next one: those between are merged too" },
	{ .name = "keep", .letter = 'd', .kind = OPT_FLAG, .where = WHERE(keep),
	  .help = "leave IMAGE as it is; else it is emptied" },
	{ 0 },
};
static const struct opt_group target_group = { "What to do", target };

static const struct opt_group *const groups[] = {
	&target_group, &opts_scrub, &opts_in_clear, &opts_format, &opts_backing, &opts_sharing, &opts_keys, &opts_job, &opts_output_form,
	&opts_speech, NULL,
};

static const char *const examples[] = {
	"vdisk commit web.qcow2",
	"vdisk commit --base golden.qcow2 web-tuesday.qcow2",
	NULL,
};

struct result {
	struct vd_outcome outcome;
	double seconds;
};

static bool is_file(const char *path, const struct stat *file)
{
	struct stat st;

	return stat(path, &st) == 0 && st.st_dev == file->st_dev && st.st_ino == file->st_ino;
}

/* How many levels below the image the file is that --base names. */
static int find_base(const struct settings *s, struct vd_image *img, unsigned *depth, struct vd_error *e)
{
	struct stat file;

	*depth = 1;
	if (!s->base)
		return 0;
	if (stat(s->base, &file) < 0)
		return fail_errno(e, errno, "%s", s->base);
	for (struct vd_image *layer = vd_image_parent(img); layer; layer = vd_image_parent(layer), ++*depth) {
		struct vd_info info;
		int r = source_info(layer, &info, e);

		if (r < 0)
			return r;
		if (is_file(info.path, &file))
			return 0;
	}
	fail(e, VD_EARG, "%s: is not among the backing files of %s", s->base, s->operands[0]);
	return fail_hint(e, VD_EARG, "vdisk info tells of an image which file it stands on");
}

static int commit(const struct settings *s, const struct keys *keys, struct vd_image *img, struct result *res,
		  struct vd_error *e)
{
	struct vd_gate_dirs dirs = { s->allow.at, s->allow.n };
	struct vd_commit_opts o = {
		.struct_size = sizeof(o),
		.flags = (s->keep ? VD_COMMIT_KEEP : 0) | (s->in_clear ? VD_COMMIT_IN_CLEAR : 0),
		.gate = dirs.n ? vd_gate_below_dirs : NULL, .gate_ctx = &dirs, .keys = keys->at, .n_keys = keys->n,
	};
	int r = find_base(s, img, &o.depth, e);
	struct vd_job job;

	if (r < 0)
		return r;
	job = progress_start(s, "commit");
	r = signals_check(e);
	if (r == 0)
		r = vd_backing_commit(img, &o, &job, &res->outcome, e);
	res->seconds = progress_end();
	return r;
}

static void print_done(const struct settings *s, const struct result *res)
{
	struct json_object *j;

	if (!ui_is_json()) {
		ui_summary("%s: %s written to its backing file, %s%s", s->operands[0], size_show((double)res->outcome.written).s,
			   s->keep ? "kept as it is" : "and emptied", s->scrub ? "; freed space overwritten" : "");
		return;
	}
	j = json_new();
	json_put_text(j, "type", "summary");
	json_put_text(j, "verb", "commit");
	json_put_text(j, "image", s->operands[0]);
	json_put_bool(j, "emptied", !s->keep);
	json_put_bool(j, "scrubbed", s->scrub);
	json_put_u64(j, "written", res->outcome.written);
	json_put(j, "seconds", json_object_new_double(res->seconds));
	json_print(j);
}

static int run(struct settings *s, struct vd_error *e)
{
	struct result res = { .outcome.struct_size = sizeof(res.outcome) };
	struct vd_image *img = NULL;
	struct keys keys = { 0 };
	int r, closed;

	if (s->scrub && s->keep)
		return fail(e, VD_EARG, "--scrub overwrites what becomes free, and with --keep nothing does");
	r = source_open_writable(s, s->operands[0], s->format, &keys, &img, e);
	if (r == 0)
		r = commit(s, &keys, img, &res, e);
	secrets_free(&keys);
	if (img) {
		closed = vd_image_close(img, r < 0 ? NULL : e);
		r = r < 0 ? r : closed;
	}
	if (r == 0)
		print_done(s, &res);
	return rechain_explain_stop(r, "the image holds what it held; its backing file has a part of that, too", e);
}

const struct verb verb_commit = {
	.name = "commit",
	.operands = "IMAGE",
	.min_operands = 1,
	.max_operands = 1,
	.summary = "write what an overlay holds into its backing file",
	.about = "What IMAGE holds goes into its backing file, which grows if it is smaller; then IMAGE is emptied, and its "
		 "disk reads as before. Other overlays of that backing file read something else afterwards: they are lost. "
		 "A crash leaves IMAGE with the same disk at any moment.",
	.groups = groups,
	.examples = examples,
	.run = run,
};
