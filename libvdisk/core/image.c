/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Opens, commits and closes images: picks the driver, builds the handle, gives the layer and the chain their turn.
 * Making new ones is create.c.
 */
#include "libvdisk/core/image.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/core/archive.h"
#include "libvdisk/core/bitmap.h"
#include "libvdisk/core/host.h"
#include "libvdisk/core/package.h"
#include "libvdisk/core/registry.h"
#include "libvdisk/core/inplace.h"
#include "libvdisk/core/keysrc.h"
#include "libvdisk/core/shape.h"
#include "libvdisk/io/https.h"
#include "libvdisk/io/nbd.h"
#include "libvdisk/io/sink.h"
#include "libvdisk/core/stub.h"

#define DEFAULT_CACHE (32u << 20)

VD_DEFINE_CLEANUP(struct vd_image, cleanup_image, vd_image_abort)
#define vd_auto_image __attribute__((cleanup(cleanup_image)))
VD_DEFINE_CLEANUP(struct vd_io, cleanup_io, vd_io_abort)
#define vd_auto_io __attribute__((cleanup(cleanup_io)))

VD_PUBLIC const char *vd_version(void)
{
#define STR(x) #x
#define VERSION(a, b, c) STR(a) "." STR(b) "." STR(c)
	return VERSION(VDISK_VERSION_MAJOR, VDISK_VERSION_MINOR, VDISK_VERSION_MICRO);
}

VD_PUBLIC uint64_t vd_image_size(const struct vd_image *img)
{
	return img->size;
}

VD_PUBLIC struct vd_image *vd_image_parent(struct vd_image *img)
{
	return img->parent;
}

static void control_init(struct vd_image *img)
{
	pthread_rwlockattr_t attr;

	pthread_rwlockattr_init(&attr);
	/* Else a stream of requests keeps a change of shape waiting for good. No call takes it twice. */
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&img->control, &attr);
	pthread_rwlockattr_destroy(&attr);
	pthread_mutex_init(&img->lent_lock, NULL);
	pthread_cond_init(&img->lent_back, NULL);
}

int vd_image_alloc(const char *path, struct vd_image **out, struct vd_error *e)
{
	vd_auto_image struct vd_image *img = NULL;
	int r = vd_alloc(1, sizeof(*img), &img, e);

	if (r < 0)
		return r;
	control_init(img);
	pthread_mutex_init(&img->alloc, NULL);
	pthread_mutex_init(&img->commit, NULL);
	pthread_cond_init(&img->commit_ended, NULL);
	pthread_cond_init(&img->commit_asked, NULL);
	pthread_mutex_init(&img->begin, NULL);
	r = vd_strdup(path, &img->path, e);
	if (r == 0)
		r = vd_space_new(&img->space, e);
	if (r == 0)
		r = vd_rangelock_new(&img->ranges, e);
	if (r == 0)
		r = vd_codec_new(&img->codec, e);
	if (r < 0)
		return r;
	*out = vd_steal(&img);
	return 0;
}

static int drain(void *ctx, struct vd_error *e)
{
	return vd_shape_settle(ctx, e);
}

int vd_image_run_driver(struct vd_image *img, uint64_t cache_bytes, const char *snapshot, struct vd_error *e)
{
	struct vd_open o = { .set = img->set, .space = img->space, .write = img->writable, .scrubs = img->scrubs,
			     .appends = img->appends, .fresh = img->fresh, .repair = img->is_repair, .snapshot = snapshot };
	int r = vd_meta_new(img->set, cache_bytes ? cache_bytes : DEFAULT_CACHE, img->fresh, &img->meta, e);

	if (r == 0)
		r = vd_alloc(1, img->format->state_size, &img->state, e);
	if (r < 0)
		return r;
	vd_space_set_drain(img->space, drain, img);
	o.meta = img->meta;
	r = img->format->open(img->state, &o, e);
	if (r < 0)
		return vd_error_prefix(e, r, "%s: ", img->path);
	img->format->describe(img->state, &img->info);
	if (img->writable && ((img->info.read_only_why && !img->is_repair) || !img->format->writable))
		return vd_fail(e, VD_EREADONLY, "%s cannot be written: %s", img->path,
			       img->info.read_only_why ? img->info.read_only_why : "this format is only read");
	return 0;
}

/* The disk as the guest sees it: the payload, in whole cipher sectors (a header may claim any size). */
int vd_image_learn_size(struct vd_image *img, struct vd_error *e)
{
	const struct vd_layer *l = &img->layer;

	if (l->payload_off > img->info.size)
		return vd_fail(e, VD_ECORRUPT, "%s: the encrypted payload would begin past the end of the disk", img->path);
	img->size = img->info.size - l->payload_off;
	if (l->encryption)
		img->size = vd_round_down(img->size, l->sector_size);
	return 0;
}

static int probe(struct vd_image *img, struct vd_io *io, struct vd_error *e)
{
	vd_auto_ends struct vd_ends ends = { 0 };
	int r = vd_ends_read(io, &ends, e);

	if (r == 0)
		img->format = vd_registry_probe(&ends);
	return r;
}

static int pick_format(struct vd_image *img, struct vd_io *io, const char *name, struct vd_error *e)
{
	if (!name)
		return probe(img, io, e);
	img->format = vd_registry_find(!strcmp(name, "luks") ? "raw" : name);
	if (img->format)
		return 0;
	return vd_fail(e, VD_EUNSUPPORTED, "%s: unknown format '%s'", img->path, name);
}

static int refuse_half_converted(struct vd_io *io, struct vd_error *e)
{
	uint8_t head[VD_STUB_SIZE], uuid[VD_STUB_UUID];
	int r = vd_io_pread(io, head, sizeof(head), 0, e);

	if (r < 0 || !vd_stub_read((struct vd_bytes){ head, sizeof(head) }, uuid))
		return r;
	vd_fail(e, VD_EHALFWAY, "%s is being converted in place, and that has not ended", io->name);
	return vd_hint(e, VD_EHALFWAY, "vdisk resume goes on with it, vdisk revert undoes it; both take the journal beside it");
}

static bool holds_container(const struct vd_image *img)
{
	uint8_t head[VD_LUKS_PROBE_LEN] = { 0 };
	uint64_t ignored;

	return vd_set_pread(img->set, 0, head, sizeof(head), 0, NULL) == 0 &&
	       vd_luks_probe((struct vd_bytes){ head, sizeof(head) }, &ignored);
}

/*
 * A guest can write any header into a raw disk: who writes must say that it is raw. What a LUKS header says is for keys to tell, and
 * what is encrypted from the first byte on no guest can make look like one.
 */
static int refuse_probed_raw(const struct vd_image *img, const struct vd_open_opts *opts, struct vd_error *e)
{
	if (opts->format || !img->writable || img->format != &vd_format_raw || (img->is_control && img->layer.is_container) ||
	    (img->is_bare && holds_container(img)) || img->header)
		return 0;
	vd_fail(e, VD_EARG, "%s has no known header: writing to it needs the format named", img->path);
	return vd_hint(e, VD_EARG, "say -f raw or -f luks if that is what it is");
}

bool vd_image_is_bare_overlay(const struct vd_image *img)
{
	return img->info.backing_file && !img->format->encrypts && img->format->check_parent;
}

int vd_image_refuse_container_chain(const struct vd_image *img, struct vd_error *e)
{
	if (!img->layer.is_container || !img->info.backing_file)
		return 0;
	vd_fail(e, VD_EUNSUPPORTED, "%s: an encrypted disk that lies in several layers is only read and written", img->path);
	return vd_hint(e, VD_EUNSUPPORTED, "vdisk convert makes one image of the chain");
}

static int open_layer(struct vd_image *img, const struct vd_open_opts *opts, struct vd_error *e)
{
	bool named_luks = opts->format && !strcmp(opts->format, "luks");
	/* Raw bytes are taken as they are when they are so named; a child's bytes alone are no container. */
	bool look = img->format == &vd_format_raw ? !opts->format || named_luks : !img->format->encrypts && !img->child;
	int r = vd_layer_open(img, opts, look, e);

	/* It may be a container, in which these would be bytes in clear. */
	if (r == 0 && img->content_is_unknown && img->writable && !img->is_control)
		return vd_fail(e, VD_EREADONLY, "%s: its beginning cannot be read, so it is not known whether it is encrypted",
			       img->path);
	if (r == 0 && img->layer.is_container && img->info.backing_file && !vd_image_is_bare_overlay(img))
		return vd_fail(e, VD_EUNSUPPORTED, "%s: a LUKS container over a parent is not read: its holes would show noise",
			       img->path);
	return r;
}

int vd_image_open_below(struct vd_host *host, const struct vd_format *format, const char *path,
			const struct vd_open_opts *opts, struct vd_image *child, struct vd_image **out,
			struct vd_error *e)
{
	bool write = opts->flags & VD_OPEN_WRITE;
	unsigned io_flags = (write ? VD_IO_WRITE : 0) | (opts->flags & VD_OPEN_FORCE_SHARE ? VD_IO_FORCE_SHARE : 0);
	struct vd_set_opts so = {
		.host = host, .io_flags = io_flags, .gate = opts->gate, .gate_ctx = opts->gate_ctx,
		.open_references = !(opts->flags & VD_OPEN_METADATA) || opts->flags & VD_OPEN_FILES,
		.open_extents = opts->flags & (VD_OPEN_CONTROL | VD_OPEN_BARE),
	};
	vd_auto_image struct vd_image *img = NULL;
	vd_auto_io struct vd_io *io = NULL;
	int r = vd_image_alloc(path, &img, e);

	if (r < 0)
		return r;
	img->writable = write;
	img->is_control = opts->flags & VD_OPEN_CONTROL;
	img->is_repair = opts->flags & VD_OPEN_REPAIR;
	img->scrubs = write && opts->flags & VD_OPEN_SCRUB_FREED;
	img->appends = opts->flags & VD_OPEN_APPENDS;
	img->is_bare = opts->flags & VD_OPEN_BARE;
	img->is_view = opts->snapshot;
	img->child = child;
	img->depth = child ? child->depth + 1 : 0;
	img->format = format;
	r = host->open(host, path, io_flags, &io, e);
	if (r == 0)
		r = refuse_half_converted(io, e);
	if (r == 0 && !format && !opts->format)
		r = vd_archive_enter(&io, opts, e);
	if (r == 0 && !format)
		r = pick_format(img, io, opts->format, e);
	if (r == 0)
		r = vd_set_new(&so, io, &img->set, e);
	if (r < 0)
		return r;
	io = NULL;
	if (!child)
		r = vd_layer_open_header(host, img, opts, e);
	if (r < 0)
		return r;
	if (opts->snapshot && !img->format->snap)
		return vd_fail(e, VD_EUNSUPPORTED, "%s: the format %s has no snapshots inside the image", path, img->format->name);
	r = vd_image_run_driver(img, opts->cache_bytes, opts->snapshot, e);
	/* Before the keys: a wrong chain should not cost a key derivation. */
	if (r == 0)
		r = vd_chain_open(host, img, opts, e);
	if (r == 0 && !img->is_bare)
		r = open_layer(img, opts, e);
	if (r == 0 && !format)
		r = refuse_probed_raw(img, opts, e);
	if (r == 0)
		r = vd_image_learn_size(img, e);
	if (r < 0)
		return r;
	*out = vd_steal(&img);
	return 0;
}

int vd_image_open_on(struct vd_host *host, const struct vd_format *format, const char *path,
		     const struct vd_open_opts *opts, struct vd_image **out, struct vd_error *e)
{
	struct vd_open_opts o = { .struct_size = sizeof(o) };

	if (opts && opts->struct_size != sizeof(*opts))
		return vd_fail(e, VD_EARG, "struct vd_open_opts: struct_size is %zu, want %zu", opts->struct_size, sizeof(*opts));
	if (opts)
		o = *opts;
	/* A server's disk is the guest's, who can write any header to it. */
	if (!o.format && vd_nbd_is_name(path))
		o.format = "raw";
	/* Without the key, writing would put plaintext into an encrypted image. */
	if ((o.flags & VD_OPEN_METADATA) && (o.flags & VD_OPEN_WRITE))
		return vd_fail(e, VD_EARG, "%s: what is opened for its tables alone cannot be written", path);
	if (o.flags & VD_OPEN_REPAIR)
		o.flags |= VD_OPEN_CONTROL;
	if (o.snapshot && (o.flags & (VD_OPEN_WRITE | VD_OPEN_CONTROL)))
		return vd_fail(e, VD_EARG, "%s: a snapshot is only read", path);
	if (o.flags & VD_OPEN_SCRUB_FREED && !(o.flags & (VD_OPEN_WRITE | VD_OPEN_CONTROL)))
		return vd_fail(e, VD_EARG, "%s: what is only read frees nothing that could be scrubbed", path);
	if (o.flags & VD_OPEN_CONTROL)
		o.flags |= VD_OPEN_METADATA | VD_OPEN_WRITE;
	return vd_image_open_below(host ? host : vd_host_os(), format, path, &o, NULL, out, e);
}

VD_PUBLIC bool vd_name_is_address(const char *name)
{
	return vd_nbd_is_name(name) || vd_https_is_name(name);
}

VD_PUBLIC int vd_image_open(const char *path, const struct vd_open_opts *opts, struct vd_image **out, struct vd_error *e)
{
	return vd_image_open_on(NULL, NULL, path, opts, out, e);
}

/* Tables, then what a clean close says, then again: ending a quarantine and ending writing dirty tables themselves. */
int vd_image_finish_writing(struct vd_image *img, struct vd_error *e)
{
	int r = vd_image_poisoned(img, e);

	if (r < 0 || !atomic_load(&img->begun))
		return r;
	r = vd_shape_settle(img, e);
	if (r == 0 && img->format->end_write)
		r = img->format->end_write(img->state, e);
	if (r == 0)
		r = vd_image_commit_tables(img, e);
	/* Last: with bitmaps stored and not held any more, the next write has to begin anew. */
	if (r == 0)
		r = vd_bitmap_end(img, e);
	if (r == 0)
		atomic_store(&img->begun, false);
	return r;
}

VD_PUBLIC int vd_image_commit(struct vd_image *img, struct vd_error *e)
{
	int r;

	if (!img->fresh)
		return vd_fail(e, VD_EARG, "%s: only an image made by vd_image_create() is committed", img->path);
	r = vd_image_finish_writing(img, e);
	/* What create() laid out is not flushed yet if nothing was written since. */
	if (r == 0)
		r = vd_image_commit_tables(img, e);
	if (r == 0 && img->package)
		r = vd_package_end(img->package, img->size, e);
	if (r == 0 && img->sink)
		r = vd_sink_end(img->sink, e);
	/* The parts first: the image's own name is what makes the whole appear. */
	for (size_t i = 0; i < img->n_parts && r == 0; i++)
		r = vd_output_commit(&img->parts[i], e);
	if (r == 0)
		r = vd_output_commit(&img->output, e);
	if (r < 0)
		return r;
	img->fresh = false;
	img->writable = false;
	return 0;
}

/* While the partial files are open: once their locks are gone, another run may take the names over. */
static void abandon_outputs(struct vd_image *img)
{
	vd_output_abandon(&img->output);
	for (size_t i = 0; i < img->n_parts; i++)
		vd_output_abandon(&img->parts[i]);
}

static void free_image(struct vd_image *img)
{
	if (img->state)
		img->format->close(img->state);
	free(img->state);
	vd_layer_fini(&img->layer);
	vd_io_abort(img->header);
	vd_host_forget(img);
	vd_meta_free(img->meta);
	vd_space_free(img->space);
	vd_rangelock_free(img->ranges);
	vd_codec_free(img->codec);
	vd_dirty_free(atomic_load(&img->dirty));
	vd_image_abort(img->parent);
	pthread_rwlock_destroy(&img->control);
	pthread_mutex_destroy(&img->lent_lock);
	pthread_cond_destroy(&img->lent_back);
	pthread_mutex_destroy(&img->alloc);
	pthread_mutex_destroy(&img->commit);
	pthread_cond_destroy(&img->commit_asked);
	pthread_cond_destroy(&img->commit_ended);
	pthread_mutex_destroy(&img->begin);
	vd_package_free(img->package);
	free(img->parts);
	free(img->path);
	free(img);
}

VD_PUBLIC int vd_image_close(struct vd_image *img, struct vd_error *e)
{
	int r = 0, c, h = 0;

	if (!img->fresh)
		r = vd_image_finish_writing(img, e);
	abandon_outputs(img);
	c = vd_set_close(vd_steal(&img->set), r < 0 ? NULL : e);
	if (img->header)
		h = vd_io_close(vd_steal(&img->header), r < 0 || c < 0 ? NULL : e);
	free_image(img);
	return r < 0 ? r : c < 0 ? c : h;
}

VD_PUBLIC void vd_image_abort(struct vd_image *img)
{
	if (!img)
		return;
	abandon_outputs(img);
	vd_set_abort(img->set);
	img->set = NULL;
	free_image(img);
}
