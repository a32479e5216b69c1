/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Gives an overlay another parent, or none. First it takes over what it would lose or gain with it, then the name in
 * its header changes: a crash leaves it with the old parent or the new, and the same disk with either.
 */
#include <limits.h>

#include "libvdisk/core/backing.h"
#include "libvdisk/core/merge.h"
#include "libvdisk/core/shape.h"

#include "libvdisk/base/cleanup.h"

VD_DEFINE_CLEANUP(struct vd_image, cleanup_image, vd_image_abort)
#define vd_auto_image __attribute__((cleanup(cleanup_image)))

struct request {
	const struct vd_rebase_opts *o;
	const struct vd_job *job;
	struct vd_outcome *outcome;
};

/* ---- judging -------------------------------------------------------------------------------------------- */

static int judge_opts(const struct vd_image *img, const struct vd_rebase_opts *o, struct vd_error *e)
{
	if (o->struct_size != sizeof(*o))
		return vd_fail(e, VD_EARG, "struct vd_rebase_opts: struct_size is %zu, want %zu", o->struct_size, sizeof(*o));
	if (!img->format->set_backing)
		return vd_fail(e, VD_EUNSUPPORTED, "%s: an image of format %s has no backing file", img->path, img->format->name);
	if (o->backing_file && !o->backing_format) {
		vd_fail(e, VD_EARG, "the format of the backing file %s is not named", o->backing_file);
		return vd_hint(e, VD_EARG, "name it with -F: a guessed format lets a guest read host files");
	}
	return 0;
}

int vd_backing_refuse_snapshots(struct vd_image *img, const char *what, struct vd_error *e)
{
	struct vd_snapshot *list = NULL;
	size_t n = 0;
	int r = img->format->snap ? img->format->snap->list(img->state, &list, &n, e) : 0;

	free(list);
	if (r < 0 || !n)
		return r;
	vd_fail(e, VD_EUNSUPPORTED, "%s has snapshots inside, %s", img->path, what);
	return vd_hint(e, VD_EUNSUPPORTED, "delete them first, or copy the disk with vdisk convert");
}

static bool is_in_chain(const struct vd_image *layer, const struct vd_image *chain)
{
	for (; chain; chain = chain->parent)
		if (vd_merge_is_same_file(layer, chain))
			return true;
	return false;
}

/* Layers that the image is about to lose, of whose content it takes over. */
static int refuse_in_clear(const struct vd_image *img, const struct vd_image *below, struct vd_error *e)
{
	if (img->layer.encryption)
		return 0;
	for (const struct vd_image *layer = img->parent; layer; layer = layer->parent)
		if (layer->layer.encryption && !is_in_chain(layer, below))
			return vd_backing_refuse_in_clear(img, layer, e);
	return 0;
}

int vd_backing_refuse_in_clear(const struct vd_image *into, const struct vd_image *from, struct vd_error *e)
{
	vd_fail(e, VD_EARG, "%s is encrypted and %s is not: what the one holds would be stored in clear", from->path, into->path);
	return vd_hint(e, VD_EARG, "if that is what you want: --in-clear");
}

/* ---- the new parent ------------------------------------------------------------------------------------- */

static int open_below(struct vd_image *img, const struct vd_rebase_opts *o, unsigned flags, struct vd_image **below,
		      struct vd_error *e)
{
	struct vd_open_opts opts = {
		.struct_size = sizeof(opts), .flags = flags, .format = o->backing_format, .gate = o->gate, .gate_ctx = o->gate_ctx,
		.keys = o->keys, .n_keys = o->n_keys,
	};
	vd_gate_fn gate = o->gate ? o->gate : vd_gate_own_folder;
	char path[PATH_MAX];
	int r;

	if (!o->backing_file)
		return 0;
	r = gate(o->gate_ctx, VD_REF_BACKING, img->path, o->backing_file, o->backing_format, path, sizeof(path), e);
	if (r < 0)
		return r;
	return vd_chain_open_layer(vd_set_host(img->set), img, path, &opts, below, e);
}

int vd_backing_set(struct vd_image *img, const char *name, const char *format, const struct vd_image *below,
		   struct vd_error *e)
{
	const void *parent = below && below->format == img->format ? below->state : NULL;
	int r = img->format->set_backing(img->state, name, format, parent, e);

	/* Even now: the strings of before are gone. */
	img->format->describe(img->state, &img->info);
	return r;
}

/* ---- the act -------------------------------------------------------------------------------------------- */

/* Whatever is written, the disk stays what it is: for bitmaps nothing has changed. */
static int merge_unrecorded(const struct vd_merge *m, const struct request *q, struct vd_error *e)
{
	struct vd_image *img = m->to;
	struct vd_dirty *recorder;
	int r = vd_write_start(img, e);

	if (r < 0)
		return r;
	recorder = atomic_exchange(&img->dirty, NULL);
	img->gets_parent = m->below != NULL;
	r = vd_merge_run(m, q->job, q->outcome, e);
	img->gets_parent = false;
	atomic_store(&img->dirty, recorder);
	return r;
}

/* Where an image knows its parent by more than its name. */
static int judge_below(const struct vd_image *img, const struct vd_image *below, struct vd_error *e)
{
	if (!below || !img->format->check_parent || below->format == img->format)
		return 0;
	return vd_fail(e, VD_EUNSUPPORTED, "%s: the backing file of an image of format %s is of the same format, not %s", img->path,
		       img->format->name, below->format->name);
}

static int take_over(struct vd_image *img, const struct request *q, struct vd_image *below, struct vd_error *e)
{
	struct vd_merge m = { .phase = q->o->backing_file ? "rebase" : "flatten", .from = img, .to = img, .below = below };
	int r = vd_backing_refuse_snapshots(img, "which would lose what lies in the backing file", e);

	if (r == 0 && !(q->o->flags & VD_REBASE_IN_CLEAR))
		r = refuse_in_clear(img, below, e);
	if (r < 0)
		return r;
	r = merge_unrecorded(&m, q, e);
	return r < 0 ? r : vd_image_finish_writing(img, e);
}

static int rename_only(struct vd_image *img, const struct request *q, struct vd_error *e)
{
	vd_auto_image struct vd_image *below = NULL;
	int r = q->o->flags & VD_REBASE_ADOPT ? open_below(img, q->o, VD_OPEN_METADATA | VD_OPEN_FILES, &below, e) : 0;

	if (r == 0)
		r = judge_below(img, below, e);
	if (r == 0)
		r = vd_backing_set(img, q->o->backing_file, q->o->backing_format, below, e);
	if (r < 0)
		return r;
	vd_image_abort(vd_steal(&img->parent));
	img->parent_missing = q->o->backing_file;
	return 0;
}

static int rebase(struct vd_image *img, const void *arg, struct vd_error *e)
{
	const struct request *q = arg;
	vd_auto_image struct vd_image *below = NULL;
	int r = judge_opts(img, q->o, e);

	if (r < 0)
		return r;
	if (q->o->flags & VD_REBASE_UNSAFE)
		return rename_only(img, q, e);
	if (img->is_control)
		return vd_fail(e, VD_EREADONLY, "%s is open for changes of its shape only", img->path);
	r = vd_image_refuse_container_chain(img, e);
	if (r == 0)
		r = open_below(img, q->o, 0, &below, e);
	if (r == 0)
		r = judge_below(img, below, e);
	if (r == 0)
		r = take_over(img, q, below, e);
	if (r == 0)
		r = vd_backing_set(img, q->o->backing_file, q->o->backing_format, below, e);
	if (r < 0)
		return r;
	vd_image_abort(img->parent);
	img->parent = vd_steal(&below);
	return 0;
}

VD_PUBLIC int vd_backing_rebase(struct vd_image *img, const struct vd_rebase_opts *opts, const struct vd_job *job,
				struct vd_outcome *outcome, struct vd_error *e)
{
	struct request q = { opts, job, outcome };
	int r = vd_job_check(job, e);

	if (r == 0)
		r = vd_job_clear_outcome(outcome, e);
	if (r == 0)
		r = vd_shape_run(img, rebase, &q, e);
	if (outcome)
		outcome->changed = r == 0 || r == VD_EPOISONED || outcome->written;
	return r;
}
