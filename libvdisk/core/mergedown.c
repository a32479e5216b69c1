/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Commits an overlay: what it and the layers between hold goes into a layer below, the base, and the overlay is emptied.
 *
 * C1  The base is written only where a layer above it hides it. So the overlay reads the same whatever of it has arrived.
 * C2  The base is durable before the overlay gives anything up, and that it does by one write: first its parent's name,
 *     if layers lie between, then its content.
 * C3  An overlay that knows the base by more than its name is told of what the base will be before that is written.
 */
#include "libvdisk/core/backing.h"
#include "libvdisk/core/merge.h"
#include "libvdisk/core/shape.h"
#include "libvdisk/core/walk.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"

#define SECTOR 512

struct request {
	const struct vd_commit_opts *o;
	const struct vd_job *job;
	struct vd_outcome *outcome;
};

static struct vd_image *layer_at(struct vd_image *img, unsigned depth)
{
	while (img && img->depth < depth)
		img = img->parent;
	return img;
}

/* ---- judging -------------------------------------------------------------------------------------------- */

static int judge(struct vd_image *img, const struct vd_commit_opts *o, const struct vd_image *base, struct vd_error *e)
{
	int r;

	if (!img->parent) {
		vd_fail(e, VD_EARG, "%s has no backing file that it could be committed to", img->path);
		return vd_hint(e, VD_EARG, "vdisk convert copies its disk into another image");
	}
	r = vd_image_refuse_container_chain(img, e);
	if (r < 0)
		return r;
	if (!base)
		return vd_fail(e, VD_EARG, "%s has no layer %u levels below it", img->path, o->depth ? o->depth : 1);
	/* Even where it keeps what it holds: some formats hold their parent's identity, which changes by being written. */
	if (!img->format->empty)
		return vd_fail(e, VD_EUNSUPPORTED, "%s: an image of format %s cannot be committed", img->path, img->format->name);
	if (!base->format->writable || base->info.read_only_why)
		return vd_fail(e, VD_EREADONLY, "%s cannot be written: %s", base->path,
			       base->info.read_only_why ? base->info.read_only_why : "its format is only read");
	/* Layers between are open for reading, and cannot be told (C3). */
	if (base->child != img && base->child->format == base->format && base->format->expect_parent) {
		vd_fail(e, VD_EUNSUPPORTED, "%s would not know its backing file %s any more", base->child->path, base->path);
		return vd_hint(e, VD_EUNSUPPORTED, "images of format %s are committed one layer at a time, from the top", base->format->name);
	}
	for (struct vd_image *layer = img; layer != base && r == 0; layer = layer->parent) {
		if (layer->layer.encryption && !base->layer.encryption && !(o->flags & VD_COMMIT_IN_CLEAR))
			return vd_backing_refuse_in_clear(base, layer, e);
		r = vd_backing_refuse_snapshots(layer, "whose disks would change with the backing file", e);
	}
	return r;
}

/* ---- the base, for writing ------------------------------------------------------------------------------ */

/* What it takes to open the base again, whose handle is gone then. */
struct reopen {
	struct vd_host *host;
	const struct vd_format *format;
	struct vd_image *above;
	char *path;
	uint64_t dev, ino;
	struct vd_open_opts opts;
};

static int note(struct vd_image *base, const struct vd_commit_opts *o, struct reopen *again, struct vd_error *e)
{
	const struct vd_io *io = vd_set_io(base->set, 0);

	*again = (struct reopen){
		.host = vd_set_host(base->set), .format = base->format, .above = base->child, .dev = io->dev, .ino = io->ino,
		.opts = {
			.struct_size = sizeof(again->opts), .flags = VD_OPEN_WRITE, .gate = o->gate, .gate_ctx = o->gate_ctx,
			.keys = o->keys, .n_keys = o->n_keys,
			.format = base->layer.is_container ? "luks" : base->format->name,
		},
	};
	return vd_strdup(base->path, &again->path, e);
}

static int open_again(const struct reopen *again, unsigned flags, struct vd_error *e)
{
	struct vd_open_opts opts = again->opts;
	const struct vd_io *io;
	int r;

	opts.flags = flags;
	r = vd_image_open_below(again->host, again->format, again->path, &opts, again->above, &again->above->parent, e);
	if (r < 0)
		return r;
	io = vd_set_io(again->above->parent->set, 0);
	if (io->dev == again->dev && io->ino == again->ino)
		return 0;
	vd_image_abort(vd_steal(&again->above->parent));
	return vd_fail(e, VD_EFAILED, "%s: another file has taken its name", again->path);
}

/* Readers and writers exclude each other, so the reader goes first. It comes back when there can be no writer. */
static int take_base(struct vd_image *base, const struct vd_commit_opts *o, struct vd_image **out, struct vd_error *e)
{
	vd_auto_free char *path = NULL;
	struct reopen again;
	int r = note(base, o, &again, e);

	path = again.path;
	if (r < 0)
		return r;
	vd_image_abort(vd_steal(&again.above->parent));
	r = open_again(&again, VD_OPEN_WRITE, e);
	if (r < 0 && open_again(&again, 0, NULL) < 0)
		again.above->parent_missing = true;
	*out = again.above->parent;
	return r;
}

/* Past the end of a container that grows there is noise: what reads as zeros there has to do so by itself. */
static int mask_noise(struct vd_image *img, const struct vd_image *base, struct vd_error *e)
{
	vd_auto_free struct vd_walk *w = NULL;
	uint64_t at = base->size;
	int r;

	if (!base->layer.is_container)
		return 0;
	r = vd_alloc(1, sizeof(*w), &w, e);
	if (r == 0)
		r = vd_walk_start_held(w, img, e);
	while (at < img->size && r == 0) {
		struct vd_extent x;
		uint64_t end;

		r = vd_walk_to(w, at, &x, e);
		end = vd_min_u64(vd_extent_end(&x), img->size);
		if (r == 0 && vd_extent_is_zero(&x))
			r = vd_zero(img, at, end - at, e);
		at = end;
	}
	return r < 0 ? r : vd_image_finish_writing(img, e);
}

static int grow_base(struct vd_image *img, struct vd_image *base, struct vd_error *e)
{
	uint64_t sector = base->layer.encryption ? base->layer.sector_size : base->info.unit > 1 ? SECTOR : 1;
	int r;

	if (base->size >= img->size)
		return 0;
	r = mask_noise(img, base, e);
	return r < 0 ? r : vd_image_resize(base, vd_round_up(img->size, sector), 0, e);
}

/* ---- giving up ------------------------------------------------------------------------------------------ */

/*
 * The base's name as seen from the overlay. A path of a layer is the overlay's folder and what names added to it, or
 * absolute, where one of them was.
 */
static const char *name_of(const struct vd_image *img, const struct vd_image *base)
{
	const char *slash = strrchr(img->path, '/');
	size_t folder = slash ? slash - img->path + 1 : 0;

	return strncmp(base->path, img->path, folder) ? base->path : base->path + folder;
}

/* The layers between are not part of the chain any more. */
static int drop_layers_between(struct vd_image *img, struct vd_image *base, struct vd_error *e)
{
	const char *format = base->layer.is_container ? "luks" : base->format->name;
	int r;

	if (base == img->parent)
		return 0;
	r = vd_backing_set(img, name_of(img, base), format, base, e);
	if (r < 0)
		return r;
	base->child->parent = NULL;
	vd_image_abort(img->parent);
	img->parent = base;
	base->child = img;
	for (struct vd_image *layer = base; layer; layer = layer->parent)
		layer->depth = layer->child->depth + 1;
	return 0;
}

static int give_up(struct vd_image *img, struct vd_image *base, struct vd_error *e)
{
	int r = drop_layers_between(img, base, e);

	return r < 0 ? r : img->format->empty(img->state, e);
}

/* Who keeps more of a parent than its name learns what that is now. */
static int stay_above(struct vd_image *img, const struct vd_image *base, struct vd_error *e)
{
	if (img->parent != base || !img->format->expect_parent)
		return 0;
	return vd_backing_set(img, img->info.backing_file, img->info.backing_format, base, e);
}

/* ---- the act -------------------------------------------------------------------------------------------- */

static int fill_base(struct vd_image *img, struct vd_image *base, const struct request *q, struct vd_error *e)
{
	struct vd_merge m = { .phase = "commit", .from = img, .to = base };
	int r = grow_base(img, base, e), end;

	if (r == 0)
		r = vd_merge_run(&m, q->job, q->outcome, e);
	/* Whatever came of it: what the base has got is sound (C1). */
	end = vd_image_finish_writing(base, r < 0 ? NULL : e);
	base->writable = false;
	return r < 0 ? r : end;
}

static int expect_parent(struct vd_image *img, struct vd_image *base, struct vd_error *e)
{
	int r = img->format->expect_parent(img->state, base->state, e);

	/* Even now: the strings of before are gone. */
	img->format->describe(img->state, &img->info);
	return r;
}

static int commit(struct vd_image *img, const void *arg, struct vd_error *e)
{
	const struct request *q = arg;
	struct vd_image *base = layer_at(img, q->o->depth ? q->o->depth : 1);
	int r;

	if (img->is_control || img->parent_missing)
		return vd_fail(e, VD_EREFERENCE, "%s: its backing file was not opened", img->path);
	r = judge(img, q->o, base, e);
	if (r == 0)
		r = take_base(base, q->o, &base, e);
	if (r == 0 && img->format->expect_parent && base->format == img->format)
		r = expect_parent(img, base, e);
	if (r == 0)
		r = fill_base(img, base, q, e);
	if (r < 0)
		return r;
	return q->o->flags & VD_COMMIT_KEEP ? stay_above(img, base, e) : give_up(img, base, e);
}

VD_PUBLIC int vd_backing_commit(struct vd_image *img, const struct vd_commit_opts *opts, const struct vd_job *job,
				struct vd_outcome *outcome, struct vd_error *e)
{
	struct request q = { opts, job, outcome };
	int r = vd_job_check(job, e);

	if (opts->struct_size != sizeof(*opts))
		return vd_fail(e, VD_EARG, "struct vd_commit_opts: struct_size is %zu, want %zu", opts->struct_size, sizeof(*opts));
	if (r == 0)
		r = vd_job_clear_outcome(outcome, e);
	if (r == 0)
		r = vd_shape_run(img, commit, &q, e);
	if (outcome)
		outcome->changed = r == 0 || r == VD_EPOISONED || outcome->written;
	return r;
}
