/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vdisk map: shows where the disk's bytes are and what they look like, or with --host what the image's files consist of;
 * without the key and without backing files.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"
#include "hostmap.h"
#include "hostpicture.h"
#include "json.h"
#include "picture.h"
#include "signals.h"
#include "sizes.h"
#include "source.h"
#include "ui.h"
#include "verbs.h"

#define WHERE(member) offsetof(struct settings, member)
#define EXTENTS 256
#define CELLS_MAX (PICTURE_COLUMNS * PICTURE_ROWS_MAX)

static const struct opt looking[] = {
	{ .name = "since", .kind = OPT_TEXT, .where = WHERE(since), .arg = "BITMAP",
	  .help = "show what was written since this bitmap inside IMAGE was made or cleared" },
	{ .name = "full", .kind = OPT_FLAG, .where = WHERE(full), .help = "look at all data, not at samples of it" },
	{ .name = "host", .kind = OPT_FLAG, .where = WHERE(host),
	  .help = "whose each byte of the image's files is: tables, data, snapshots', nobody's" },
	{ 0 },
};
static const struct opt_group looking_group = { "Input", looking };

static const struct opt_choice outputs[] = {
	{ "human", OUTPUT_HUMAN }, { "json", OUTPUT_JSON }, { "svg", OUTPUT_SVG }, { NULL, 0 },
};
static const struct opt output[] = {
	{ .name = "output", .kind = OPT_CHOICE, .where = WHERE(output), .arg = "FORM", .choices = outputs,
	  .help = "human (default): a picture; json: the extents, as qemu-img has them, or with --host the files' pieces; svg" },
	{ 0 },
};
static const struct opt_group output_group = { "General", output };

static const struct opt_group *const groups[] = {
	&opts_format, &opts_snapshot, &opts_header, &opts_sharing, &looking_group, &output_group, &opts_speech, NULL,
};

static const char *const examples[] = {
	"vdisk map disk.qcow2",
	"vdisk map --full --output=svg disk.qcow2 > disk.svg",
	"vdisk map --since monday disk.qcow2",
	"vdisk map --output=json disk.qcow2 | jq 'map(select(.data)) | length'",
	"vdisk map --host disk.qcow2",
	NULL,
};

/* ---- the extents ------------------------------------------------------------------------------------------ */

/* Raw holds every byte of its disk, if only as a hole of the host's file. */
static bool is_present(const struct vd_extent *x, const struct vd_info *i)
{
	return !(x->flags & VD_EXTENT_HOLE) || !strcmp(i->format, "raw") || i->is_container;
}

/* Where this image holds nothing, its backing file or, in a container, noise is what a guest reads: no zeros. */
static bool reads_as_zeros(const struct vd_extent *x, const struct vd_info *i)
{
	if (x->flags & VD_EXTENT_ZERO)
		return true;
	return (x->flags & VD_EXTENT_HOLE) && !i->backing_file && !(x->flags & VD_EXTENT_ENCRYPTED);
}

static struct json_object *extent_object(const struct vd_extent *x, const struct vd_info *i, const struct settings *s)
{
	struct json_object *j = json_new();

	json_put_u64(j, "start", x->off);
	json_put_u64(j, "length", x->len);
	json_put_u64(j, "depth", x->depth);
	json_put_bool(j, "present", is_present(x, i));
	json_put_bool(j, "zero", reads_as_zeros(x, i));
	json_put_bool(j, "data", x->flags & VD_EXTENT_DATA);
	json_put_bool(j, "compressed", x->flags & VD_EXTENT_PACKED);
	json_put_bool(j, "encrypted", x->flags & VD_EXTENT_ENCRYPTED);
	if (x->flags & VD_EXTENT_HOST) {
		/* qemu's "offset" promises the disk's own bytes there: ciphertext goes by another name. */
		json_put_u64(j, x->flags & VD_EXTENT_ENCRYPTED ? "ciphertext-offset" : "offset", x->host_off);
		json_put_text(j, "filename", x->file);
	}
	if (s->since)
		json_put_bool(j, "dirty", x->flags & VD_EXTENT_DIRTY);
	return j;
}

/* As many as fit, from `at` on. */
static int next_extents(struct vd_image *img, const struct settings *s, uint64_t at, struct vd_extent *x, size_t *n,
			struct vd_error *e)
{
	uint64_t left = vd_image_size(img) - at;
	int r = signals_check(e);

	if (r < 0)
		return r;
	if (s->since)
		return vd_image_extents_since(img, s->since, at, left, x, EXTENTS, n, e);
	return vd_image_extents(img, at, left, x, EXTENTS, n, e);
}

static int print_extents(struct vd_image *img, const struct settings *s, const struct vd_info *info, struct vd_error *e)
{
	uint64_t at = 0, size = vd_image_size(img);
	struct vd_extent x[EXTENTS];
	size_t n;
	int r = 0;

	do {
		r = next_extents(img, s, at, x, &n, e);
		for (size_t i = 0; i < n && r == 0; i++) {
			json_print_item(extent_object(&x[i], info, s), x[i].off == 0);
			at = x[i].off + x[i].len;
		}
	} while (at < size && r == 0);
	if (r == 0)
		json_print_items_end(size == 0);
	return r;
}

/* ---- since a bitmap --------------------------------------------------------------------------------------- */

static void print_run(uint64_t from, uint64_t to, uint64_t *sum)
{
	if (to == from)
		return;
	ui_line("%20llu %20llu", (unsigned long long)from, (unsigned long long)(to - from));
	*sum += to - from;
}

/* Neighbours in one line, whatever they hold. */
static int print_dirty(struct vd_image *img, const struct settings *s, struct vd_error *e)
{
	uint64_t at = 0, size = vd_image_size(img), from = 0, to = 0, sum = 0;
	struct vd_extent x[EXTENTS];
	size_t n;
	int r = 0;

	/* At least once: the bitmap has to be there on a disk of no bytes, too. */
	do {
		r = next_extents(img, s, at, x, &n, e);
		for (size_t i = 0; i < n && r == 0; at = x[i].off + x[i].len, i++) {
			if (!(x[i].flags & VD_EXTENT_DIRTY))
				continue;
			if (x[i].off != to) {
				print_run(from, to, &sum);
				from = x[i].off;
			}
			to = x[i].off + x[i].len;
		}
	} while (at < size && r == 0);
	if (r < 0)
		return r;
	print_run(from, to, &sum);
	ui_summary("%s of %s may have changed since '%s'", size_show((double)sum).s, size_show((double)size).s, s->since);
	return 0;
}

/* ---- the picture ------------------------------------------------------------------------------------------ */

static int draw(struct vd_image *img, const struct settings *s, struct vd_error *e)
{
	struct survey_cell cells[CELLS_MAX];
	uint64_t size = vd_image_size(img);
	struct survey v = { .img = img, .cells = cells, .full = s->full, .cell_bytes = CLASSIFY_BYTES };
	int r;

	while (v.cell_bytes * CELLS_MAX < size)
		v.cell_bytes *= 2;
	v.n_cells = (size_t)((size + v.cell_bytes - 1) / v.cell_bytes);
	ui_status("looking");
	r = survey_run(&v, e);
	ui_status_end();
	if (r < 0)
		return r;
	if (s->output == OUTPUT_SVG)
		picture_draw_svg(&v, s->operands[0]);
	else
		picture_draw(&v);
	return 0;
}

static int show(struct vd_image *img, const struct settings *s, const struct vd_info *info, struct vd_error *e)
{
	if (ui_is_json())
		return print_extents(img, s, info, e);
	return s->since ? print_dirty(img, s, e) : draw(img, s, e);
}

/* ---- the files -------------------------------------------------------------------------------------------- */

static int draw_files(struct vd_image *img, const struct settings *s, struct vd_error *e)
{
	struct hostmap *maps = NULL;
	size_t n = 0;
	int r;

	ui_status("looking");
	r = hostmap_gather(img, &maps, &n, e);
	ui_status_end();
	if (r < 0)
		return r;
	if (s->output == OUTPUT_SVG)
		hostpicture_draw_svg(maps, n);
	for (size_t i = 0; i < n && s->output != OUTPUT_SVG; i++) {
		if (i)
			putchar('\n');
		hostpicture_draw(&maps[i]);
	}
	free(maps);
	return 0;
}

static int run_host(struct settings *s, struct vd_error *e)
{
	struct vd_image *img = NULL;
	int r;

	if (s->full || s->snapshot || s->since)
		return fail(e, VD_EARG, "--host shows the files as a whole, without looking at the content: neither --full, "
			    "--since nor --snapshot goes with it");
	r = source_open_tables(s, s->operands[0], s->format, &img, e);
	if (r == 0)
		r = ui_is_json() ? hostmap_print(img, e) : draw_files(img, s, e);
	vd_image_abort(img);
	return r;
}

static int run(struct settings *s, struct vd_error *e)
{
	struct vd_image *img = NULL;
	struct vd_info info;
	int r;

	if (s->host)
		return run_host(s, e);
	if (s->since && (s->output == OUTPUT_SVG || s->full))
		return fail(e, VD_EARG, "--since goes with neither --full nor --output=svg");
	r = source_open_tables(s, s->operands[0], s->format, &img, e);
	if (r == 0)
		r = source_info(img, &info, e);
	if (r == 0)
		r = show(img, s, &info, e);
	if (r == 0 && info.backing_file && !s->since)
		ui_note("only this image is shown: holes may be filled by its backing file %s", info.backing_file);
	vd_image_abort(img);
	return r;
}

const struct verb verb_map = {
	.name = "map",
	.operands = "IMAGE",
	.min_operands = 1,
	.max_operands = 1,
	.summary = "show what is where on a disk, and what is encrypted",
	.about = "Shows the disk in IMAGE as a picture: where it holds data, and whether that looks plain, compressed or "
		 "encrypted. Looks at the bytes as they lie in the host's files, so it needs neither key nor backing file "
		 "and sees what a thief would see. With --host it shows the files instead: whose each of their bytes is.",
	.groups = groups,
	.examples = examples,
	.run = run,
};
