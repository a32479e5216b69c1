/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Makes new images: judges the options, makes the key, lets the driver lay out its tables, opens the result. */
#include "libvdisk/core/image.h"

#include <limits.h>
#include <stdio.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/core/keysrc.h"
#include "libvdisk/core/package.h"
#include "libvdisk/core/registry.h"
#include "libvdisk/io/sink.h"

#define SECTOR 512                      /* guests and peers count the disk in sectors */

VD_DEFINE_CLEANUP(struct vd_image, cleanup_image, vd_image_abort)
#define vd_auto_image __attribute__((cleanup(cleanup_image)))
VD_DEFINE_CLEANUP(struct vd_io, cleanup_io, vd_io_abort)
#define vd_auto_io __attribute__((cleanup(cleanup_io)))

static int judge_encryption(const struct vd_create_opts *o, bool encrypted, bool is_container, struct vd_error *e)
{
	if (o->header && !encrypted)
		return vd_fail(e, VD_EARG, "%s: an image that is not encrypted has no header", o->header);
	if (o->header && !is_container)
		return vd_fail(e, VD_EUNSUPPORTED, "%s keeps its LUKS header in the image: it cannot be %s", o->format, o->header);
	if (!encrypted) {
		if (!strcmp(o->format, "luks"))
			return vd_fail(e, VD_ENOKEY, "a LUKS container needs a key");
		return 0;
	}
	if (!is_container && o->luks_type == VD_LUKS2)
		return vd_fail(e, VD_EUNSUPPORTED, "%s knows LUKS1 only", o->format);
	if (o->luks_sector_size > SECTOR && o->luks_type != VD_LUKS2)
		return vd_fail(e, VD_EUNSUPPORTED, "LUKS1 has 512-byte sectors; 4096 needs LUKS2");
	if (o->luks_sector_size && o->luks_sector_size != SECTOR && o->luks_sector_size != 4096)
		return vd_fail(e, VD_EARG, "a LUKS sector has 512 or 4096 bytes, not %u", o->luks_sector_size);
	return 0;
}

static bool is_package(const struct vd_create_opts *o)
{
	return o->format && !strcmp(o->format, "ova");
}

int vd_create_judge(const struct vd_create_opts *o, bool encrypted, const struct vd_format **format, struct vd_error *e)
{
	if (o->struct_size != sizeof(*o))
		return vd_fail(e, VD_EARG, "struct vd_create_opts: struct_size is %zu, want %zu", o->struct_size, sizeof(*o));
	if (!o->format)
		return vd_fail(e, VD_EARG, "the format of the new image is not named");
	if (!*format)
		*format = vd_registry_find(!strcmp(o->format, "luks") ? "raw" : is_package(o) ? "vmdk" : o->format);
	if (!*format || !(*format)->create)
		return vd_fail(e, VD_EUNSUPPORTED, "format '%s' cannot be created", o->format);
	if (is_package(o) && encrypted) {
		vd_fail(e, VD_EUNSUPPORTED, "a package is not encrypted: who imports it has no place for a key");
		return vd_hint(e, VD_EUNSUPPORTED, "the disk alone can be: vmdk, compressed or not");
	}
	if (*format == &vd_format_raw && (o->backing_file || o->data_file))
		return vd_fail(e, VD_EUNSUPPORTED, "raw has neither a backing file nor a data file");
	if (o->backing_file && !o->backing_format) {
		vd_fail(e, VD_EARG, "the format of the backing file %s is not named", o->backing_file);
		return vd_hint(e, VD_EARG, "name it with -F: a guessed format lets a guest read host files");
	}
	return judge_encryption(o, encrypted, !(*format)->encrypts, e);
}

/* What there is to be said of a disk has to be said before its bytes, and its tables after them. */
static int judge_stream(const struct vd_format *format, const struct vd_create_opts *o, struct vd_error *e)
{
	const char *kind = format->stream_kind;

	if (is_package(o)) {
		vd_fail(e, VD_EUNSUPPORTED, "a package cannot be written to a stream: it begins with what is known at its end");
		return vd_hint(e, VD_EUNSUPPORTED, "write it to a file, or the disk alone to the stream: vmdk, compressed");
	}
	if (kind && (!kind[0] || (o->subformat && !strcmp(o->subformat, kind))))
		return 0;
	vd_fail(e, VD_EUNSUPPORTED, "%s%s%s cannot be written to a stream: its tables lie before what they name", format->name,
		o->subformat ? " " : "", o->subformat ? o->subformat : "");
	return vd_hint(e, VD_EUNSUPPORTED, "write it to a file; raw, luks, and vmdk with -c (streamOptimized) go to a stream");
}

/* Opens the chain that the new overlay will stand on, through the same gate that later opens will use. */
static int open_backing(struct vd_host *host, struct vd_image *img, const struct vd_create_opts *o, struct vd_error *e)
{
	struct vd_open_opts below = {
		.struct_size = sizeof(below), .format = o->backing_format, .gate = o->gate, .gate_ctx = o->gate_ctx,
		.keys = o->backing_keys, .n_keys = o->n_backing_keys,
	};
	vd_gate_fn gate = o->gate ? o->gate : vd_gate_own_folder;
	char path[PATH_MAX];
	int r;

	if (!o->backing_file)
		return 0;
	r = gate(o->gate_ctx, VD_REF_BACKING, img->path, o->backing_file, o->backing_format, path, sizeof(path), e);
	return r < 0 ? r : vd_chain_open_parent(host, img, path, &below, e);
}

int vd_create_size(uint64_t want, const struct vd_create_opts *o, bool is_plain_raw, uint64_t *size, struct vd_error *e)
{
	uint64_t sector = o->luks_sector_size > SECTOR ? o->luks_sector_size : SECTOR;
	uint64_t unit = o->flags & VD_CREATE_AZURE ? UINT64_C(1) << 20 : sector;

	if (!vd_round_up_u64(want, is_plain_raw ? 1 : unit, size) || *size > INT64_MAX)
		return vd_fail(e, VD_EARG, "a disk of %llu bytes is too large", (unsigned long long)want);
	return 0;
}

static int final_size(const struct vd_image *img, const struct vd_create_opts *o, uint64_t *size, struct vd_error *e)
{
	uint64_t want = !o->size && img->parent ? img->parent->size : o->size;

	return vd_create_size(want, o, img->format == &vd_format_raw && !o->key, size, e);
}

/* Whose parts are made. */
struct maker {
	struct vd_host *host;
	struct vd_image *img;
	bool replaces;
};

/* Another file of the image, beside it whatever its name says of folders. */
static int add_part(void *ctx, const char *name, struct vd_error *e)
{
	const struct maker *m = ctx;
	struct vd_image *img = m->img;
	vd_auto_io struct vd_io *io = NULL;
	const char *slash = strrchr(img->path, '/');
	char path[PATH_MAX];
	uint32_t index;
	int r;

	if (strchr(name, '/'))
		return vd_fail(e, VD_EARG, "the parts of an image lie beside it: give the name '%s' without a folder", name);
	if (snprintf(path, sizeof(path), "%.*s%s", slash ? (int)(slash - img->path + 1) : 0, img->path, name) >=
	    (int)sizeof(path))
		return vd_fail(e, VD_EARG, "the name of the image is too long for those of its parts");
	r = vd_realloc(&img->parts, img->n_parts + 1, sizeof(*img->parts), e);
	if (r == 0)
		r = vd_output_open(m->host, path, m->replaces, &img->parts[img->n_parts], &io, e);
	if (r < 0)
		return r;
	img->n_parts++;
	r = vd_set_adopt(img->set, io, &index, e);
	if (r == 0)
		io = NULL;
	return r;
}

/* One unit of the header, of which the driver takes none but packed ones. */
static int store_packed(struct vd_image *img, const uint8_t *unit, uint64_t at, struct vd_error *e)
{
	struct vd_resv v = { .off = at, .len = vd_min_u64(img->info.unit, img->info.size - at) };
	vd_auto_free uint8_t *packed = NULL;
	size_t len = 0;
	int r = vd_alloc_buffer(vd_write_pack_room(img), &packed, e);

	if (r == 0)
		r = vd_codec_pack(img->codec, img->info.codec, packed, vd_write_pack_room(img), unit, img->info.unit, &len, e);
	v.packed_len = len;
	if (r == 0)
		r = vd_write_reserve(img, &v, e);
	return r < 0 ? r : vd_write_complete(img, &v, packed, e);
}

/*
 * The header of a container is the first content of the disk. The driver's room for it may be larger than the header: the
 * rest are zeros, in which a LUKS container has nothing, or noise anyway.
 */
static int store_container(struct vd_image *img, struct vd_bytes header, struct vd_error *e)
{
	vd_auto_free uint8_t *unit = NULL;
	uint64_t whole = vd_round_up(header.len, vd_max_u64(img->info.fill_unit, 1));
	int r = vd_alloc(1, whole, &unit, e);

	if (r == 0)
		r = vd_write_start(img, e);
	if (r < 0)
		return r;
	memcpy(unit, header.p, header.len);
	for (uint64_t at = 0; img->info.packs_only && at < whole && r == 0; at += img->info.unit)
		r = vd_is_zero(unit + at, img->info.unit) ? 0 : store_packed(img, unit + at, at, e);
	for (uint64_t at = 0; !img->info.packs_only && at < whole;) {
		struct vd_resv v = { .off = at, .len = vd_min_u64(whole, img->info.size) - at };

		r = vd_write_reserve(img, &v, e);
		if (r < 0)
			return r;
		r = vd_set_pwrite(img->set, v.file, unit + v.fill_off, vd_min_u64(v.fill_len, whole - v.fill_off), v.host_off, e);
		if (r == 0)
			r = vd_write_publish(img, &v, e);
		else
			vd_write_cancel(img, &v);
		if (r < 0)
			return r;
		at += v.covered;
	}
	return r;
}

/* A file of its own: whole and durable under its name before the image has its name. It is never one that there is already. */
static int store_detached(struct vd_host *host, struct vd_image *img, const char *path, struct vd_bytes header, struct vd_error *e)
{
	int r = vd_realloc(&img->parts, img->n_parts + 1, sizeof(*img->parts), e);

	if (r == 0 && host->exists(host, path)) {
		r = vd_fail(e, VD_EEXIST, "%s: exists already, and may be the header of another disk", path);
		return vd_hint(e, r, "a header is never replaced: choose another name, or remove the file");
	}
	if (r == 0)
		r = vd_output_open(host, path, false, &img->parts[img->n_parts], &img->header, e);
	if (r < 0)
		return r;
	img->n_parts++;
	r = vd_io_pwrite(img->header, header.p, header.len, 0, e);
	return r < 0 ? r : vd_io_flush(img->header, e);
}

static int lay_out(struct vd_host *host, struct vd_image *img, const struct vd_create_opts *o, uint64_t size,
		   struct vd_error *e)
{
	struct maker maker = { host, img, o->flags & VD_CREATE_REPLACE };
	bool is_container = o->key && !img->format->encrypts;
	vd_auto_free uint8_t *header = NULL;
	size_t header_len = 0;
	const char *slash = strrchr(img->path, '/');
	struct vd_create c = {
		.opts = o, .size = size, .set = img->set, .name = slash ? slash + 1 : img->path,
		.add_part = add_part, .ctx = &maker,
	};
	int r = o->data_file ? add_part(&maker, o->data_file, e) : 0;

	if (r == 0 && o->key)
		r = vd_layer_create(&img->layer, o, is_container, &header, &header_len, e);
	if (r < 0)
		return r;
	if (img->parent && img->parent->format == img->format)
		c.parent = img->parent->state;
	if (is_container)
		c.size += img->layer.payload_off;
	else
		c.key_area = (struct vd_bytes){ header, header_len };
	r = img->format->create(&c, e);
	if (r < 0)
		return vd_error_prefix(e, r, "%s: ", img->path);
	r = vd_image_run_driver(img, 0, NULL, e);
	if (r < 0 || !is_container)
		return r;
	if (o->header)
		return store_detached(host, img, o->header, (struct vd_bytes){ header, header_len }, e);
	return store_container(img, (struct vd_bytes){ header, header_len }, e);
}

/* Takes the stream, if there is one. */
static int start_output(struct vd_host *host, struct vd_image *img, const struct vd_create_opts *o, struct vd_io **stream,
			struct vd_error *e)
{
	struct vd_set_opts so = { .host = host, .io_flags = VD_IO_WRITE };
	vd_auto_io struct vd_io *io = vd_steal(stream);
	int r = 0;

	img->sink = io;
	if (!io)
		r = vd_output_open(host, img->path, o->flags & VD_CREATE_REPLACE, &img->output, &io, e);
	if (r == 0 && is_package(o))
		r = vd_package_begin(img->path, &io, &img->package, e);
	if (r == 0)
		r = vd_set_new(&so, io, &img->set, e);
	if (r < 0)
		return r;
	io = NULL;
	return 0;
}

/* The disk in a package is one kind of VMDK. */
static struct vd_create_opts opts_of_disk(const struct vd_create_opts *o)
{
	struct vd_create_opts disk = *o;

	if (is_package(o)) {
		disk.format = "vmdk";
		disk.subformat = "streamOptimized";
	}
	return disk;
}

static int make(struct vd_host *host, struct vd_image *img, const struct vd_create_opts *opts, struct vd_io **stream,
		struct vd_error *e)
{
	struct vd_create_opts disk = opts_of_disk(opts);
	uint64_t size = 0;
	int r = open_backing(host, img, &disk, e);

	if (r == 0)
		r = final_size(img, &disk, &size, e);
	if (r == 0)
		r = start_output(host, img, opts, stream, e);
	if (r == 0)
		r = lay_out(host, img, &disk, size, e);
	return r < 0 ? r : vd_image_learn_size(img, e);
}

static int create(struct vd_host *host, const struct vd_format *format, const char *path, struct vd_io **stream,
		  const struct vd_create_opts *opts, struct vd_image **out, struct vd_error *e)
{
	vd_auto_image struct vd_image *img = NULL;
	int r = vd_create_judge(opts, opts->key, &format, e);

	if (r == 0 && *stream)
		r = judge_stream(format, opts, e);
	if (r == 0)
		r = vd_image_alloc(path, &img, e);
	if (r < 0)
		return r;
	img->format = format;
	img->writable = true;
	img->fresh = true;
	r = make(host ? host : vd_host_os(), img, opts, stream, e);
	if (r < 0)
		return r;
	*out = vd_steal(&img);
	return 0;
}

int vd_image_create_on(struct vd_host *host, const struct vd_format *format, const char *path,
		       const struct vd_create_opts *opts, struct vd_image **out, struct vd_error *e)
{
	struct vd_io *none = NULL;

	return create(host, format, path, &none, opts, out, e);
}

VD_PUBLIC int vd_image_create_fd(int fd, const char *name, const struct vd_create_opts *opts, struct vd_image **out,
				 struct vd_error *e)
{
	vd_auto_io struct vd_io *stream = NULL;
	int r = vd_sink_new(fd, name, &stream, e);

	return r < 0 ? r : create(NULL, NULL, name, &stream, opts, out, e);
}

VD_PUBLIC int vd_image_create(const char *path, const struct vd_create_opts *opts, struct vd_image **out,
			      struct vd_error *e)
{
	return vd_image_create_on(NULL, NULL, path, opts, out, e);
}
