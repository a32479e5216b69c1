/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Runs a conversion in place from names on the command line to the line that says it is done, or how it goes on. */
#include "inplace.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fail.h"
#include "json.h"
#include "output.h"
#include "plaintext.h"
#include "progress.h"
#include "signals.h"
#include "sizes.h"
#include "source.h"
#include "ui.h"

#define WHERE(member) offsetof(struct settings, member)

static const struct opt_choice resiliences[] = {
	{ "journal", VD_RESILIENCE_JOURNAL }, { "checksum", VD_RESILIENCE_CHECKSUM }, { "none", VD_RESILIENCE_NONE }, { NULL, 0 },
};
static const struct opt_choice chains[] = {
	{ "leave", CHAIN_LEAVE }, { "flatten", CHAIN_FLATTEN }, { "encrypt", CHAIN_ENCRYPT }, { NULL, 0 },
};
#define PACE_OPTS                                                                                                    \
	{ .name = "journal", .kind = OPT_TEXT, .where = WHERE(journal), .arg = "FILE",                               \
	  .help = "where the journal is kept (default: IMAGE.vdisk-journal)" },                                      \
	{ .name = "bwlimit", .kind = OPT_SIZE, .where = WHERE(bwlimit), .arg = "BYTES",                              \
	  .help = "no more bytes of the disk than this a second" }

static const struct opt start_opts[] = {
	{ .name = "in-place", .kind = OPT_FLAG, .where = WHERE(in_place), .help = "convert IMAGE itself, without a second copy" },
	{ .name = "chain", .kind = OPT_CHOICE, .where = WHERE(chain), .arg = "HOW", .choices = chains,
	  .help = "of an overlay: leave its backing files as they are (qcow2), encrypt them too, or flatten it first" },
	{ .name = "resilience", .kind = OPT_CHOICE, .where = WHERE(resilience), .arg = "HOW", .choices = resiliences,
	  .help = "journal (default), checksum, or none: see the page" },
	PACE_OPTS,
	{ 0 },
};
const struct opt_group opts_inplace = { "In place", start_opts };

static const struct opt pace_opts[] = { PACE_OPTS, { 0 } };
const struct opt_group opts_inplace_pace = { "In place", pace_opts };

struct job {
	struct settings *s;
	const char *label;
	struct keys keys;
	struct vd_key *new_key;
	struct vd_gate_dirs dirs;
	struct vd_inplace_opts opts;
	struct vd_inplace_report report;
	double seconds;
	const char *parent;             /* of an overlay that becomes part of its container */
	uint64_t align;
	struct vd_error refusal;        /* of approve(), in words */
	int refused;
};

/* ---- before --------------------------------------------------------------------------------------------- */

static int approve(void *ctx, const struct vd_inplace_plan *plan)
{
	struct job *j = ctx;
	const char *image = j->s->operands[0];
	int r = 0;

	ui_status_end();
	if (!j->s->no_space_check)
		r = output_has_room(plan->journal_path, plan->journal, &j->refusal);
	if (r == 0 && !j->s->no_space_check && plan->growth)
		r = output_has_room(image, plan->growth + plan->journal, &j->refusal);
	if (r == 0)
		ui_note("%s: %s to go through%s; it will grow by about %s, its journal takes up to %s", image,
			size_show((double)plan->total).s, plan->moves ? ", which move" : "", size_show((double)plan->growth).s,
			size_show((double)plan->journal).s);
	j->refused = r;
	return r;
}

/* Of the image that is encrypted it is a new one. */
static const char *header_of(const struct settings *s)
{
	return s->header ? s->header : s->new_header;
}

static void fill_opts(struct job *j)
{
	const struct settings *s = j->s;

	j->dirs = (struct vd_gate_dirs){ s->allow.at, s->allow.n };
	j->opts = (struct vd_inplace_opts){
		.struct_size = sizeof(j->opts), .format = s->format, .keys = j->keys.at, .n_keys = j->keys.n, .new_key = j->new_key,
		.flags = (s->chain == CHAIN_LEAVE || s->chain == CHAIN_ENCRYPT ? VD_INPLACE_LEAVE_PARENT : 0) | (s->drop_slots ? VD_INPLACE_DROP_SLOTS : 0),
		.luks_type = (enum vd_luks_type)s->made.luks_type, .cipher = (enum vd_cipher)s->made.cipher,
		.kdf = { (uint32_t)s->made.pbkdf_iterations, (uint32_t)s->made.pbkdf_memory },
		.journal = s->journal, .header = header_of(s), .parent = j->parent, .align = j->align, .resilience = (enum vd_resilience)s->resilience, .bytes_per_second = s->bwlimit,
		.gate = s->allow.n ? vd_gate_below_dirs : NULL, .gate_ctx = &j->dirs, .approve = approve, .ctx = j,
	};
}

/* Keys of the image as it is: of options, else unasked, else asked for. */
static int find_keys(struct job *j, struct vd_error *e)
{
	int r = secrets_of_options(j->s, &j->keys, e);

	if (r == 0 && !j->keys.n)
		r = secrets_unasked(CREDENTIAL_KEY, &j->keys, e);
	return r < 0 || j->keys.n ? r : secrets_ask(j->s->operands[0], &j->keys, e);
}

static int find_all_keys(struct job *j, enum vd_inplace_act act, struct vd_error *e)
{
	const struct settings *s = j->s;
	int r = act == VD_INPLACE_ENCRYPT ? 0 : find_keys(j, e);

	if (r == 0 && (act == VD_INPLACE_ENCRYPT || (act == VD_INPLACE_REKEY && s->new_keys.n)))
		r = secrets_for_new(s, s->operands[0], act == VD_INPLACE_ENCRYPT ? CREDENTIAL_KEY : CREDENTIAL_NEW_KEY, &j->new_key, e);
	return r;
}

/* ---- after ---------------------------------------------------------------------------------------------- */

static void print_done(const struct job *j)
{
	const char *image = j->s->operands[0], *header = header_of(j->s);
	struct json_object *o;

	if (!ui_is_json()) {
		if (header && j->report.is_encrypted)
			ui_note("%s opens with the header in %s alone: guard that file like the disk, and keep a copy", image, header);
		else if (header && access(header, F_OK) == 0)
			ui_note("%s is in clear now, and %s of no use but for copies of the disk from before", image, header);
		ui_summary("%s: %s done in place: %s converted, %s overwritten, in %.2f s", image, j->label,
			   size_show((double)(j->report.converted + j->report.filled)).s, size_show((double)j->report.scrubbed).s,
			   j->seconds);
		return;
	}
	o = json_new();
	json_put_text(o, "type", "summary");
	json_put_text(o, "verb", j->label);
	json_put_text(o, "image", image);
	json_put_text(o, "state", "done");
	json_put_bool(o, "encrypted", j->report.is_encrypted);
	if (header)
		json_put_text(o, "header", header);
	json_put_u64(o, "converted", j->report.converted);
	json_put_u64(o, "filled", j->report.filled);
	json_put_u64(o, "scrubbed", j->report.scrubbed);
	json_put(o, "seconds", json_object_new_double(j->seconds));
	json_print(o);
}

static void end(struct job *j)
{
	secrets_free(&j->keys);
	vd_key_free(j->new_key);
}

typedef int (*go_fn)(struct job *j, enum vd_inplace_act act, struct vd_error *e);

static int go_start(struct job *j, enum vd_inplace_act act, struct vd_error *e)
{
	struct vd_job job = progress_start(j->s, j->label);

	return vd_inplace_start(j->s->operands[0], act, &j->opts, &job, &j->report, e);
}

static int go_resume(struct job *j, enum vd_inplace_act act, struct vd_error *e)
{
	struct vd_job job = progress_start(j->s, j->label);

	(void)act;
	return vd_inplace_resume(j->s->operands[0], &j->opts, &job, &j->report, e);
}

static int go_revert(struct job *j, enum vd_inplace_act act, struct vd_error *e)
{
	struct vd_job job = progress_start(j->s, j->label);

	(void)act;
	return vd_inplace_revert(j->s->operands[0], &j->opts, &job, &j->report, e);
}

static int go(struct job *j, go_fn fn, enum vd_inplace_act act, struct vd_error *e)
{
	int r = signals_check(e);

	j->report.struct_size = sizeof(j->report);
	fill_opts(j);
	secrets_status(j->opts.keys, j->opts.n_keys);
	if (r == 0)
		r = fn(j, act, e);
	ui_status_end();
	j->seconds = progress_end();
	if (r == VD_ECANCELLED && j->refused) {
		*e = j->refusal;
		r = j->refused;
	}
	if (r == 0)
		print_done(j);
	return r;
}

/* What is encrypted now is looked through for what is not, and that is the last thing said. */
static int scan_for_plaintext(struct settings *s, const struct job *j, struct vd_error *e)
{
	s->header = header_of(s);
	/* A raw image that is encrypted now is a container. */
	if (s->format && !strcmp(s->format, "raw") && !s->header)
		s->format = NULL;
	return j->report.is_encrypted ? plaintext_check(s, e) : 0;
}

static int flatten_first(struct settings *s, struct vd_error *e)
{
	struct keys keys = { 0 };
	struct vd_rebase_opts o = { .struct_size = sizeof(o) };
	struct vd_outcome outcome = { .struct_size = sizeof(outcome) };
	struct vd_image *img = NULL;
	struct vd_job job = progress_start(s, "flatten");
	int r = source_open_writable(s, s->operands[0], s->format, &keys, &img, e), c;

	if (r == 0 && vd_image_parent(img))
		r = vd_backing_rebase(img, &o, &job, &outcome, e);
	progress_end();
	if (img) {
		c = vd_image_close(img, r < 0 ? NULL : e);
		r = r < 0 ? r : c;
	}
	secrets_free(&keys);
	return r;
}

/* The overlay knows its parent again, by which it is told from another one. Nothing happens to what knows it. */
static int adopt_parent(struct settings *s, struct vd_error *e)
{
	struct vd_gate_dirs dirs = { s->allow.at, s->allow.n };
	struct vd_rebase_opts o = {
		.struct_size = sizeof(o), .flags = VD_REBASE_UNSAFE | VD_REBASE_ADOPT, .backing_format = s->format,
		.gate = s->allow.n ? vd_gate_below_dirs : NULL, .gate_ctx = &dirs,
	};
	struct vd_image *img = NULL;
	struct vd_info info;
	char name[PATH_MAX];
	int r = source_open_whole(s, s->operands[0], s->format, true, &img, e), c;

	if (r == 0)
		r = source_info(img, &info, e);
	if (r < 0)
		return r;
	snprintf(name, sizeof(name), "%s", info.backing_file);
	o.backing_file = name;
	r = vd_backing_rebase(img, &o, NULL, NULL, e);
	c = vd_image_close(img, r < 0 ? NULL : e);
	return r < 0 ? r : c;
}

static int convert_one(struct settings *s, struct job *j, enum vd_inplace_act act, struct vd_error *e)
{
	int r;

	j->s = s;
	r = go(j, go_start, act, e);
	if (r == 0 && j->parent)
		r = adopt_parent(s, e);
	return r < 0 ? r : scan_for_plaintext(s, j, e);
}

/* ---- a chain -------------------------------------------------------------------------------------------- */

#define LAYERS_MAX 128

struct layer {
	char path[PATH_MAX], format[16];
	uint64_t unit;
	bool is_encrypted;
};

/* One layer, and where its parent is; *parent empty: it has none. */
static int look_at_layer(const struct settings *s, struct layer *l, char *parent, char *parent_format, struct vd_error *e)
{
	struct vd_image *img = NULL;
	struct vd_info info;
	int r = source_open_tables(s, l->path, l->format[0] ? l->format : NULL, &img, e);

	parent[0] = parent_format[0] = '\0';
	if (r == 0)
		r = source_info(img, &info, e);
	if (r == 0) {
		snprintf(l->format, sizeof(l->format), "%s", info.format);
		l->is_encrypted = info.encryption != VD_PLAIN;
		l->unit = info.cluster_size;
		if (info.backing_file)
			r = source_resolve(s, VD_REF_BACKING, l->path, info.backing_file, parent, PATH_MAX, e);
		if (info.backing_format)
			snprintf(parent_format, 16, "%s", info.backing_format);
	}
	vd_image_abort(img);
	return r;
}

static int find_layers(const struct settings *s, struct layer *layers, size_t *n, struct vd_error *e)
{
	int r = 0;

	snprintf(layers[0].path, PATH_MAX, "%s", s->operands[0]);
	snprintf(layers[0].format, sizeof(layers[0].format), "%s", s->format ? s->format : "");
	for (*n = 1; r == 0; (*n)++) {
		if (*n == LAYERS_MAX)
			return fail(e, VD_EUNSUPPORTED, "%s: its chain has more than %d layers", s->operands[0], LAYERS_MAX - 1);
		r = look_at_layer(s, &layers[*n - 1], layers[*n].path, layers[*n].format, e);
		if (r < 0 || !layers[*n].path[0])
			return r;
	}
	return r;
}

/* Of other formats than qcow2 the layers are pieces of one container. */
static bool makes_container(const struct layer *top)
{
	return strcmp(top->format, "qcow2") != 0;
}

static int judge_layers(const struct layer *layers, size_t n, struct vd_error *e)
{
	for (size_t i = 1; i < n; i++) {
		bool is_base = i + 1 == n;

		if (!strcmp(layers[i].format, layers[0].format) || (is_base && !strcmp(layers[i].format, "raw")))
			continue;
		fail(e, VD_EUNSUPPORTED, "%s is %s, and %s above it %s: these are not encrypted layer by layer", layers[i].path,
		     layers[i].format, layers[i - 1].path, layers[i - 1].format);
		return fail_hint(e, VD_EUNSUPPORTED, "flatten it first: --chain=flatten");
	}
	return 0;
}

/*
 * A raw base becomes a container, and its overlay has to say so: first, since an overlay that takes ciphertext for a disk
 * shows noise, while one that finds no container fails.
 */
static int name_container(struct settings *s, const struct layer *overlay, const struct layer *base, struct vd_error *e)
{
	struct vd_rebase_opts o = { .struct_size = sizeof(o), .flags = VD_REBASE_UNSAFE, .backing_format = "luks" };
	struct vd_image *img = NULL;
	struct vd_info info;
	char name[PATH_MAX];
	int r, c;

	if (strcmp(base->format, "raw") != 0)
		return 0;
	r = source_open_control(s, overlay->path, overlay->format, &img, e);
	if (r == 0)
		r = source_info(img, &info, e);
	if (r < 0)
		return r;
	snprintf(name, sizeof(name), "%s", info.backing_file);
	o.backing_file = name;
	if (strcmp(info.backing_format ? info.backing_format : "", "luks") != 0)
		r = vd_backing_rebase(img, &o, NULL, NULL, e);
	c = vd_image_close(img, r < 0 ? NULL : e);
	return r < 0 ? r : c;
}

/* From the base upwards; what is encrypted is left alone, so that a chain that was stopped between two layers goes on. */
static int convert_layers(struct settings *s, struct job *j, struct layer *layers, size_t n, struct vd_error *e)
{
	bool is_one = makes_container(&layers[0]);
	int r = n > 1 && !is_one ? name_container(s, &layers[n - 2], &layers[n - 1], e) : 0;

	for (size_t i = 0; i < n && is_one; i++)
		j->align = layers[i].unit > j->align ? layers[i].unit : j->align;
	for (size_t i = n; i-- > 0 && r == 0;) {
		struct settings one = *s;
		bool is_above = is_one && i + 1 < n;

		one.operands[0] = layers[i].path;
		one.format = layers[i].format;
		/* The place where an overlay named its parent before is nobody's then. */
		one.scrub |= is_above;
		j->parent = is_above ? layers[i + 1].path : NULL;
		if (!layers[i].is_encrypted)
			r = convert_one(&one, j, VD_INPLACE_ENCRYPT, e);
		else if (is_above)
			r = adopt_parent(&one, e);
	}
	return r;
}

static int convert_chain(struct settings *s, struct job *j, enum vd_inplace_act act, struct vd_error *e)
{
	struct layer *layers;
	size_t n;
	int r;

	if (act != VD_INPLACE_ENCRYPT)
		return fail(e, VD_EARG, "--chain=encrypt goes with encrypt");
	if (header_of(s))
		return fail(e, VD_EARG, "--header is that of one image, and --chain=encrypt encrypts several");
	layers = calloc(LAYERS_MAX, sizeof(*layers));
	if (!layers)
		ui_out_of_memory();
	r = find_layers(s, layers, &n, e);
	if (r == 0)
		r = judge_layers(layers, n, e);
	if (r == 0)
		r = convert_layers(s, j, layers, n, e);
	free(layers);
	return r;
}

static int judge_state(const struct settings *s, enum vd_inplace_act act, const struct vd_info *info, struct vd_error *e)
{
	const char *image = s->operands[0];
	bool is_plain = info->encryption == VD_PLAIN;

	if (act != VD_INPLACE_ENCRYPT && is_plain) {
		fail(e, VD_EARG, "%s is not encrypted", image);
		return fail_hint(e, VD_EARG, "vdisk info shows what it is; a LUKS header in a file of its own is named by --header");
	}
	/* Of a chain, the layers that are encrypted already are left alone. */
	if (act == VD_INPLACE_ENCRYPT && !is_plain && s->chain != CHAIN_ENCRYPT) {
		fail(e, VD_EARG, "%s is encrypted already", image);
		return fail_hint(e, VD_EARG, "vdisk rekey gives it another volume key, vdisk key other passphrases");
	}
	if (is_plain && !s->format && !strcmp(info->format, "raw")) {
		fail(e, VD_EARG, "%s has no known header: to write to it, its format has to be named", image);
		return fail_hint(e, VD_EARG, "say -f raw if that is what it is");
	}
	return 0;
}

/* What the library would refuse, too, but only when somebody has been asked for a key. */
static int judge_image(const struct settings *s, enum vd_inplace_act act, struct vd_error *e)
{
	struct vd_image *img = NULL;
	struct vd_info info;
	int r = source_open_tables(s, s->operands[0], s->format, &img, e);

	if (r == 0)
		r = source_info(img, &info, e);
	if (r == 0)
		r = judge_state(s, act, &info, e);
	vd_image_abort(img);
	return r;
}

int inplace_start(struct settings *s, const char *label, enum vd_inplace_act act, struct vd_error *e)
{
	struct job j = { .s = s, .label = label };
	int r = judge_image(s, act, e);

	if (r == 0)
		r = find_all_keys(&j, act, e);
	if (r == 0 && s->chain == CHAIN_FLATTEN)
		r = flatten_first(s, e);
	if (r == 0)
		r = s->chain == CHAIN_ENCRYPT ? convert_chain(s, &j, act, e) : convert_one(s, &j, act, e);
	end(&j);
	return r;
}

int inplace_go_on(struct settings *s, enum inplace_way way, struct vd_error *e)
{
	struct job j = { .s = s, .label = way == INPLACE_RESUME ? "resume" : "revert" };
	struct vd_inplace_status st = { .struct_size = sizeof(st) };
	int r = vd_inplace_status(s->operands[0], s->journal, &st, e);

	if (r == 0 && !st.in_progress) {
		r = fail(e, VD_EARG, "%s is not half-way through a conversion", s->operands[0]);
		fail_hint(e, r, "if this is a copy from before, or the wrong file, leave the journal where it is");
	}
	if (r == 0)
		r = find_keys(&j, e);
	if (r == 0)
		r = go(&j, way == INPLACE_RESUME ? go_resume : go_revert, 0, e);
	end(&j);
	return r < 0 ? r : scan_for_plaintext(s, &j, e);
}
