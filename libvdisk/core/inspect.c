/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Judges an image from outside by its bytes. A driver's own open() is the judge of its format: it reads tables, with no
 * reference opened. Here is what no driver sees: other formats in the same bytes, names, and whether it is anything.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/core/archive.h"
#include "libvdisk/core/image.h"
#include "libvdisk/core/keysrc.h"
#include "libvdisk/core/registry.h"
#include "libvdisk/io/capture.h"

struct inspect {
	const struct vd_inspect_opts *opts;
	struct vd_inspection *result;
	struct vd_host *host;
	const char *path;
};

static int found(struct inspect *in, enum vd_risk risk, const char *fmt, ...) VD_PRINTF(3, 4);
static int found(struct inspect *in, enum vd_risk risk, const char *fmt, ...)
{
	const struct vd_inspect_opts *o = in->opts;
	char text[sizeof(((struct vd_error *)0)->message)];
	va_list ap;

	in->result->risks |= risk;
	if (!o || !o->found)
		return 0;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return o->found(o->ctx, risk, text) ? VD_ECANCELLED : 0;
}

/* ---- what else it could be -------------------------------------------------------------------------------- */

/* Signatures of what other programs look for, and this library does not open. */
static const struct signature {
	const char *name;
	uint64_t at;
	const char *bytes;
	size_t len;
	bool is_obsolete;
} signatures[] = {
	{ "qed", 0, "QED", 4, true },                           /* with its NUL */
	{ "vdi", 0x40, "\x7f\x10\xda\xbe", 4, false },
	{ "parallels", 0, "WithoutFreeSpace", 16, false },
	{ "parallels", 0, "WithouFreSpacExt", 16, false },
	{ "cloop", 0, "#!/bin/sh\n#V2.0 Format", 23, false },
	{ "bochs", 0, "Bochs Virtual HD Image", 22, false },
	{ "iso9660", 0x8001, "CD001", 5, false },
	{ "ova (tar)", 257, "ustar", 5, false },
	{ "gzip", 0, "\x1f\x8b\x08", 3, false },
	{ "xz", 0, "\xfd" "7zXZ", 6, false },
	{ "zstd", 0, "\x28\xb5\x2f\xfd", 4, false },
};
#define N_SIGNATURES (sizeof(signatures) / sizeof(signatures[0]))

static bool has(struct vd_bytes head, uint64_t at, const void *bytes, size_t len)
{
	return at + len <= head.len && !memcmp(head.p + at, bytes, len);
}

/* A boot record that programs read as a partition table: the mark, and entries that are active or not. */
static bool has_partitions(struct vd_bytes head)
{
	bool any = false;

	if (!has(head, 510, "\x55\xaa", 2))
		return false;
	for (size_t at = 446; at < 510; at += 16) {
		if (head.p[at] & 0x7f)
			return false;
		any |= head.p[at + 4] != 0;
	}
	return any;
}

/* An image for discs may be made to boot from a disk, too: then both are meant. */
static int look_for_others(struct inspect *in, const struct vd_ends *ends, const struct vd_format *first, bool *any)
{
	int r = 0;

	*any = false;
	for (size_t i = 0; i < N_SIGNATURES && r == 0; i++) {
		const struct signature *s = &signatures[i];

		if (!has(ends->head, s->at, s->bytes, s->len))
			continue;
		*any = true;
		if (s->is_obsolete)
			r = found(in, VD_RISK_OBSOLETE, "it is an image of format %s, which nothing should open from outside", s->name);
		else if (first)
			r = found(in, VD_RISK_AMBIGUOUS, "it is %s, and also begins as %s does", first->name, s->name);
		else
			r = found(in, VD_RISK_UNKNOWN, "it looks like %s, which is not opened here", s->name);
	}
	for (const struct vd_format *f = first; first && r == 0 && (f = vd_registry_next_match(ends, f));)
		r = found(in, VD_RISK_AMBIGUOUS, "it is %s for one program and %s for another", first->name, f->name);
	return r;
}

/* ---- what it says ----------------------------------------------------------------------------------------- */

static int judge_references(struct inspect *in, const struct vd_image *img)
{
	int r = 0;

	if (img->info.backing_file)
		r = found(in, VD_RISK_REFERENCE, "it has a backing file: %s", img->info.backing_file);
	for (uint32_t f = 1; f < vd_set_count(img->set) && r == 0; f++)
		r = found(in, VD_RISK_REFERENCE, "it keeps its content in another file: %s", vd_set_name(img->set, f));
	return r;
}

static int found_by_driver(void *ctx, enum vd_risk risk, const char *what)
{
	return found(ctx, risk, "%s", what);
}

static int judge_image(struct inspect *in, const struct vd_image *img)
{
	const struct vd_vetting v = { in, found_by_driver };
	uint64_t max = in->opts ? in->opts->max_size : 0;
	int r = judge_references(in, img);

	in->result->virtual_size = img->size;
	in->result->encryption = img->layer.encryption;
	in->result->luks_version = img->layer.luks.version;
	in->result->is_encryption_unknown = img->content_is_unknown;
	if (r == 0 && img->format->vet)
		r = img->format->vet(img->state, &v);
	if (r == 0 && max && img->size > max)
		r = found(in, VD_RISK_SIZE, "its disk has %llu bytes, more than the %llu that are allowed",
			  (unsigned long long)img->size, (unsigned long long)max);
	return r;
}

/* A failure to read is one; what the bytes are is a finding. */
static int open_and_judge(struct inspect *in, struct vd_error *e)
{
	struct vd_open_opts o = { .struct_size = sizeof(o), .flags = VD_OPEN_METADATA };
	struct vd_image *img = NULL;
	int r = vd_image_open_on(in->host, NULL, in->path, &o, &img, e);

	if (r == VD_ECORRUPT || r == VD_EAUTH || r == VD_EUNSUPPORTED || r == VD_ERANGE)
		return found(in, VD_RISK_BROKEN, "%s", e->message);
	if (r == VD_EAGAIN)
		return found(in, VD_RISK_UNSEEN, "%s", e->message);
	if (r < 0)
		return r;
	r = judge_image(in, img);
	vd_image_abort(img);
	return r;
}

static int inspect_ends(struct inspect *in, const struct vd_ends *ends, struct vd_error *e)
{
	const struct vd_format *f = vd_registry_next_match(ends, NULL);
	uint64_t ignored;
	bool is_luks = !f && vd_luks_probe(ends->head, &ignored) != 0, has_others;
	int r = look_for_others(in, ends, f, &has_others);

	in->result->file_size = ends->size;
	in->result->format = is_luks ? "luks" : f ? f->name : has_others ? NULL : "raw";
	if (r == 0 && !f && !is_luks && !has_others && !has_partitions(ends->head))
		r = found(in, VD_RISK_UNKNOWN, "it has no known format, and no partition table");
	return r < 0 || !in->result->format ? r : open_and_judge(in, e);
}

/* The disk in a package is what counts; one that cannot be found in it is a finding. */
static int enter_package(struct inspect *in, struct vd_io **io, struct vd_error *e)
{
	const struct vd_open_opts o = { .struct_size = sizeof(o) };
	int r = vd_archive_enter(io, &o, e);

	if (r == VD_EAGAIN)
		return found(in, VD_RISK_UNSEEN, "%s", e->message);
	if (r == VD_EARG || r == VD_ECORRUPT || r == VD_EUNSUPPORTED)
		return found(in, VD_RISK_BROKEN, "%s", e->message);
	return r;
}

static int inspect(struct inspect *in, struct vd_error *e)
{
	vd_auto_ends struct vd_ends ends = { 0 };
	struct vd_io *io = NULL;
	struct vd_error ignored;
	int r;

	if (in->opts && in->opts->struct_size != sizeof(*in->opts))
		return vd_fail(e, VD_EARG, "struct vd_inspect_opts: struct_size is %zu, want %zu", in->opts->struct_size,
			       sizeof(*in->opts));
	if (in->result->struct_size != sizeof(*in->result))
		return vd_fail(e, VD_EARG, "struct vd_inspection: struct_size is %zu, want %zu", in->result->struct_size,
			       sizeof(*in->result));
	*in->result = (struct vd_inspection){ .struct_size = sizeof(*in->result) };
	/* Findings are worded by errors, so there has to be one. */
	if (!e)
		e = &ignored;
	r = in->host->open(in->host, in->path, 0, &io, e);
	if (r == 0)
		r = enter_package(in, &io, e);
	if (r == 0)
		r = vd_ends_read(io, &ends, e);
	vd_io_abort(io);
	if (r == 0 && !in->result->risks)
		r = inspect_ends(in, &ends, e);
	return r == VD_ECANCELLED ? vd_fail(e, r, "cancelled") : r;
}

VD_PUBLIC int vd_inspect(const char *path, const struct vd_inspect_opts *opts, struct vd_inspection *result, struct vd_error *e)
{
	struct inspect in = { .opts = opts, .result = result, .host = vd_host_os(), .path = path };

	return inspect(&in, e);
}

/* ---- streams ---------------------------------------------------------------------------------------------- */

struct vd_inspector {
	struct vd_capture *capture;
};

VD_PUBLIC int vd_inspector_new(struct vd_inspector **out, struct vd_error *e)
{
	struct vd_inspector *in;
	int r = vd_alloc(1, sizeof(*in), &in, e);

	if (r < 0)
		return r;
	r = vd_capture_new(&in->capture, e);
	if (r < 0)
		free(in);
	else
		*out = in;
	return r;
}

VD_PUBLIC int vd_inspector_feed(struct vd_inspector *in, const void *bytes, size_t len, struct vd_error *e)
{
	return vd_capture_add(in->capture, bytes, len, e);
}

VD_PUBLIC int vd_inspector_end(struct vd_inspector *in, const struct vd_inspect_opts *opts, struct vd_inspection *result,
			       struct vd_error *e)
{
	struct inspect i = { .opts = opts, .result = result, .host = vd_capture_host(in->capture), .path = "stream" };

	return inspect(&i, e);
}

VD_PUBLIC void vd_inspector_free(struct vd_inspector *in)
{
	if (!in)
		return;
	vd_capture_free(in->capture);
	free(in);
}
