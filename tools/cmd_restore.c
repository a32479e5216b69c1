/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdisk restore: a disk, or a file, out of a snapshot, into a new image of any format, or into one that is there already. */
#include <stdio.h>
#include <string.h>

#include "backup/disk.h"
#include "backup/recover.h"
#include "backup/snapshot.h"
#include "fail.h"
#include "json.h"
#include "newimage.h"
#include "output.h"
#include "pickitem.h"
#include "progress.h"
#include "repository.h"
#include "signals.h"
#include "sizes.h"
#include "source.h"
#include "ui.h"
#include "verbs.h"

#define WHERE(member) offsetof(struct settings, member)

static const struct opt what_options[] = {
	{ .name = "path", .kind = OPT_TEXT, .where = WHERE(backup.path), .arg = "PATH",
	  .help = "which disk or file of the snapshot, where it has several" },
	{ .name = "target-format", .letter = 'O', .kind = OPT_TEXT, .where = WHERE(target_format), .arg = "FMT",
	  .help = "format of OUT: raw (default), qcow2, vmdk, vhd, vhdx or luks; of one that is there: told from its bytes" },
	{ .name = "only-differing", .kind = OPT_FLAG, .where = WHERE(backup.only_differing),
	  .help = "OUT is there already: write only what is not the same, in place" },
	{ 0 },
};
static const struct opt_group what_group = { "Restore", what_options };

static const struct opt_group *const groups[] = {
	&opts_repo, &opts_repo_key, &opts_keys, &what_group, &opts_output, &opts_new_key, &opts_encryption, &opts_job, &opts_output_form, &opts_speech, NULL,
};

static const char *const examples[] = {
	"vdisk restore --repo /backup/vms --passphrase-file pw disk.raw",
	"vdisk restore --repo /backup/vms --passphrase-file pw -O qcow2 4f2a91c0 disk.qcow2",
	"vdisk restore --repo /backup/vms --passphrase-file pw --path mail/disk.vmdk latest /dev/vg0/mail",
	"vdisk restore --repo /backup/vms --passphrase-file pw --only-differing latest disk.raw",
	NULL,
};

struct restore {
	struct settings *s;
	struct repository r;
	const char *snapshot, *out;
	const char *format;             /* of OUT */
	struct item item;
	struct recovery v;
	struct keys keys;               /* of OUT, where it is there already */
	double seconds;
};

/* ---- the output ----------------------------------------------------------------------------------------- */

static bool wants_encryption(const struct settings *s, const char *format)
{
	return s->made.encrypt || s->made.encrypt_format || s->made.key_secret || s->new_keys.n || s->new_header || !strcmp(format, "luks");
}

static int judge(struct restore *t, struct vd_error *e)
{
	struct settings *s = t->s;
	bool has_shape = s->create_options.n || s->new_keys.n || s->made.encrypt || s->force;
	int r;

	if (output_is_stream(t->out)) {
		fail(e, VD_EUNSUPPORTED, "a disk is not restored to standard output: its chunks come in any order");
		return fail_hint(e, VD_EUNSUPPORTED, "restore it into a file; then: vdisk convert FILE -");
	}
	if (s->backup.only_differing && has_shape)
		return fail(e, VD_EARG, "--only-differing writes into what is there: nothing is said of a new image");
	if (!s->backup.only_differing) {
		r = newimage_judge_format(t->format, e);
		if (r == 0 && !strcmp(t->format, "ova"))
			r = fail(e, VD_EUNSUPPORTED, "a package is not restored at once: restore a disk, then vdisk convert -O ova");
		if (r == 0)
			r = newimage_parse(s, t->format, e);
		return r < 0 ? r : output_judge(s, t->out, e);
	}
	if (output_is_device(t->out))
		return output_judge(s, t->out, e);
	return ui_confirm(s->yes, "what differs in the image is overwritten in place", e);
}

static int make_output(struct restore *t, uint64_t size, struct vd_error *e)
{
	struct vd_key *key = NULL;
	struct vd_create_opts o;
	int r = newimage_opts(t->s, t->format, &o, e);

	if (r == 0 && t->item.is_verbatim && (strcmp(t->format, "raw") != 0 || wants_encryption(t->s, t->format))) {
		fail(e, VD_EARG, "%s is a file that is kept as it lies, and comes back so", t->item.path);
		return fail_hint(e, VD_EARG, "leave out -O; then: vdisk convert");
	}
	if (r == 0 && wants_encryption(t->s, t->format))
		r = secrets_for_new(t->s, t->out, CREDENTIAL_NEW_KEY, &key, e);
	if (r < 0)
		return r;
	o.key = key;
	o.size = t->s->made.size > size ? t->s->made.size : size;
	secrets_status(&key, key != NULL);
	r = vd_image_create(t->out, &o, &t->v.to, e);
	ui_status_end();
	vd_key_free(key);
	return r;
}

/* Raw is not guessed where another format is: its header would be overwritten by the disk's first bytes. */
static int format_of_output(struct restore *t, char format[16], struct vd_error *e)
{
	struct vd_image *img = NULL;
	struct vd_info info;
	int r;

	if (t->item.is_verbatim || t->s->target_format || output_is_device(t->out)) {
		snprintf(format, 16, "%s", t->item.is_verbatim ? "raw" : t->format);
		return 0;
	}
	r = source_open_metadata(t->s, t->out, NULL, &img, e);
	if (r == 0)
		r = source_info(img, &info, e);
	if (r == 0)
		snprintf(format, 16, "%s", !strcmp(info.format, "raw") && info.encryption == VD_ENCRYPTED_LUKS ? "luks" : info.format);
	vd_image_abort(img);
	return r;
}

static int open_output(struct restore *t, uint64_t size, struct vd_error *e)
{
	char format[16];
	int r;

	if (!t->s->backup.only_differing)
		return make_output(t, size, e);
	r = format_of_output(t, format, e);
	if (r == 0)
		r = source_open_writable(t->s, t->out, format, &t->keys, &t->v.to, e);
	if (r == 0 && vd_image_size(t->v.to) < size)
		r = fail(e, VD_EMISMATCH, "%s: has %llu bytes, and the disk in the snapshot %llu", t->out, (unsigned long long)vd_image_size(t->v.to),
			 (unsigned long long)size);
	return r;
}

/* ---- the content ---------------------------------------------------------------------------------------- */

static int end_output(struct restore *t, struct vd_error *e)
{
	struct vd_image *img = t->v.to;
	int r = t->s->backup.only_differing ? vd_image_flush(img, e) : vd_image_commit(img, e);

	if (r < 0)
		return r;
	t->v.to = NULL;
	return vd_image_close(img, e);
}

static int recover(struct restore *t, struct vd_error *e)
{
	int r;

	t->v = (struct recovery){
		.repo = t->r.repo, .threads = (unsigned)t->s->threads, .only_differing = t->s->backup.only_differing, .phase = "restore",
		.total = t->item.size,
	};
	r = open_output(t, t->item.size, e);
	if (r < 0)
		return r;
	t->v.job = progress_start(t->s, "restore");
	r = t->item.is_verbatim ? recover_node(&t->v, t->item.file, 0, e) : recover_disk(&t->v, &t->item.disk, e);
	if (r == 0)
		r = end_output(t, e);
	t->seconds = progress_end();
	return r;
}

static void tell(const struct restore *t, const struct snapshot *snap)
{
	double speed = t->seconds > 0 ? (double)t->v.written / t->seconds : 0;
	struct json_object *j;

	if (!ui_is_json()) {
		ui_summary("%s: %s of snapshot %.8s, %s, %s written in %.2f s, %s/s%s%s%s", t->out, t->item.path, snap->name,
			   size_show((double)t->item.size).s, size_show((double)t->v.written).s, t->seconds, size_show(speed).s,
			   t->s->backup.only_differing ? ", " : "", t->s->backup.only_differing ? size_show((double)t->v.same).s : "",
			   t->s->backup.only_differing ? " were the same" : "");
		return;
	}
	j = json_new();
	json_put_text(j, "type", "summary");
	json_put_text(j, "verb", "restore");
	json_put_text(j, "repository", t->s->backup.repo);
	json_put_text(j, "snapshot", snap->name);
	json_put_text(j, "path", t->item.path);
	json_put_text(j, "output", t->out);
	json_put_u64(j, "size", t->item.size);
	json_put_u64(j, "written", t->v.written);
	json_put_u64(j, "zeros", t->v.zeros);
	json_put_u64(j, "same", t->v.same);
	json_put(j, "seconds", json_object_new_double(t->seconds));
	json_print(j);
}

/* A disk half written is worth a word of its own, where it could not be under another name. */
static int explain(const struct restore *t, int r, struct vd_error *e)
{
	int stopped = r == VD_ECANCELLED ? signals_check(e) : 0;

	r = stopped ? stopped : r;
	if (t->v.written && (t->s->backup.only_differing || output_is_device(t->out)))
		return fail(e, r, "%s; %s is half restored", strdupa(e->message), t->out);
	return r;
}

static void bad_snapshot(void *ctx, const char *name, const struct vd_error *why)
{
	(void)ctx;
	(void)name;
	ui_warn("%s", why->message);
}

static int restore(struct restore *t, struct vd_error *e)
{
	struct snapshots all = { 0 };
	const struct snapshot *snap;
	int r = repository_open(t->s, REPOSITORY_SHARED, &t->r, e);

	if (r == 0)
		r = snapshots_load(t->r.repo, bad_snapshot, NULL, &all, e);
	if (r == 0)
		r = snapshots_find(&all, t->snapshot, &snap, e);
	if (r == 0)
		r = repo_load_index(t->r.repo, e);
	if (r == 0)
		r = pickitem(t->r.repo, snap->tree, t->s->backup.path, &t->item, e);
	if (r == 0)
		r = recover(t, e);
	if (r == 0)
		tell(t, snap);
	snapshots_free(&all);
	return r;
}

static int run(struct settings *s, struct vd_error *e)
{
	struct restore t = { .s = s, .out = s->operands[s->n_operands - 1], .format = s->target_format ? s->target_format : "raw" };
	int r;

	t.snapshot = s->n_operands > 1 ? s->operands[0] : "latest";
	r = judge(&t, e);
	if (r == 0)
		r = restore(&t, e);
	vd_image_abort(t.v.to);
	pickitem_free(&t.item);
	repository_close(&t.r);
	secrets_free(&t.keys);
	return r < 0 ? explain(&t, r, e) : r;
}

const struct verb verb_restore = {
	.name = "restore",
	.operands = "[SNAPSHOT] OUT",
	.min_operands = 1,
	.max_operands = 2,
	.summary = "bring a disk back from a repository of backups",
	.about = "Writes the disk that SNAPSHOT has (the latest, if none is named) into the new image OUT, of any format, or onto a block device. "
		 "A file has its name only when it is whole. Every chunk is what was backed up, or the command fails. What restic has backed "
		 "up of an image comes back as well.",
	.groups = groups,
	.examples = examples,
	.run = run,
};
