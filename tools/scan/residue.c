/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Goes through the space of volumes that no file has. That it is not zeros is a finding by itself: somebody who gets the image can
 * read it. What it says is not looked at, and never told.
 */
#include "scan/residue.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fail.h"
#include "signals.h"
#include "sizes.h"

#define PIECE ((size_t)1 << 20)
#define UNIT 4096               /* bytes that are counted together */
#define EXTENTS 64
#define PAGE 4096               /* the header of swap space */

static bool is_zero(const uint8_t *p, size_t n)
{
	return !n || (!p[0] && !memcmp(p, p + 1, n - 1));
}

static int count_data(struct vd_image *img, uint64_t off, uint64_t len, uint8_t *piece, struct scan_nonzero *sum, struct vd_error *e)
{
	int r = 0;

	for (uint64_t at = 0; at < len && r == 0; at += PIECE) {
		size_t n = len - at < PIECE ? (size_t)(len - at) : PIECE;

		r = vd_image_pread(img, piece, n, off + at, e);
		if (r == 0)
			r = signals_check(e);
		for (size_t i = 0; i < n && r == 0; i += UNIT) {
			size_t some = n - i < UNIT ? n - i : UNIT;

			if (is_zero(piece + i, some))
				continue;
			sum->first = sum->bytes ? sum->first : off + at + i;
			sum->bytes += some;
		}
	}
	return r;
}

int scan_count_nonzero(struct vd_image *img, struct fsview_range where, struct scan_nonzero *sum, struct vd_error *e)
{
	uint8_t *piece = malloc(PIECE);
	uint64_t at = where.off, end = where.off + where.len;
	int r = piece ? 0 : fail(e, VD_ENOMEM, "not enough memory");

	while (at < end && r == 0) {
		struct vd_extent x[EXTENTS];
		size_t n = 0;

		r = vd_image_extents(img, at, end - at, x, EXTENTS, &n, e);
		for (size_t i = 0; i < n && r == 0; i++)
			if (!(x[i].flags & (VD_EXTENT_ZERO | VD_EXTENT_HOLE)) || x[i].flags & VD_EXTENT_ENCRYPTED)
				r = count_data(img, x[i].off, x[i].len, piece, sum, e);
		if (r == 0 && !n)
			r = fail(e, VD_EIO, "the image does not say what is at byte %llu", (unsigned long long)at);
		if (r == 0)
			at = x[n - 1].off + x[n - 1].len;
	}
	free(piece);
	return r;
}

struct look {
	struct vd_image *img;
	struct fsview *v;
	size_t volume;
	struct scan_nonzero free;
	uint64_t n_deleted, deleted_bytes;
	char example[256];
	int code;                       /* of a count */
	struct vd_error *e;
};

static int count_place(void *ctx, const struct fsview_range *r)
{
	struct look *l = ctx;

	l->code = scan_count_nonzero(l->img, *r, &l->free, l->e);
	return l->code;
}

static int count_free(void *ctx, const struct fsview_range *r)
{
	struct look *l = ctx;

	return fsview_volume_place(l->v, l->volume, *r, count_place, l, l->e);
}

static int count_deleted(void *ctx, const struct fsview_deleted *d)
{
	struct look *l = ctx;

	if (!d->size || !S_ISREG(d->mode))
		return 0;
	l->n_deleted++;
	l->deleted_bytes += d->size;
	if (!l->example[0] && d->name[0])
		snprintf(l->example, sizeof(l->example), ", '%.200s' for one", d->name);
	return 0;
}

/* A failure of reading the image ends the scan; that the view cannot tell is a shortfall, which it has recorded. */
static int or_shortfall(const struct look *l, int r)
{
	if (l->code < 0 || r == VD_ECANCELLED || r == VD_ENOMEM)
		return r;
	return r < 0 ? 0 : r;
}

static int judge_files(struct look *l, const struct fsview_volume *x, struct scan_findings *f)
{
	int r = or_shortfall(l, fsview_deleted(l->v, l->volume, count_deleted, l, l->e));

	if (r == 0 && l->n_deleted)
		scan_findings_add(f, "SEAL-024", SCAN_HIGH, x->name, "overwrite free space: vdisk wipe --guest-free",
				  "%llu deleted file%s of %s can still be found%s", (unsigned long long)l->n_deleted,
				  l->n_deleted == 1 ? "" : "s", size_show((double)l->deleted_bytes).s, l->example);
	if (r == 0)
		r = or_shortfall(l, fsview_free_ranges(l->v, l->volume, count_free, l, l->e));
	if (r == 0 && l->free.bytes)
		scan_findings_add(f, "SEAL-025", SCAN_HIGH, x->name, "overwrite free space: vdisk wipe --guest-free",
				  "about %s of free space are not zeros, first at byte %llu of the disk", size_show((double)l->free.bytes).s,
				  (unsigned long long)l->free.first);
	return r;
}

static int judge_swap(struct look *l, const struct fsview_volume *x, struct scan_findings *f)
{
	char sign[10] = "";
	struct fsview_range rest = { PAGE, x->size > PAGE ? x->size - PAGE : 0 };
	int r = x->size > PAGE ? fsview_volume_read(l->v, l->volume, sign, sizeof(sign), PAGE - sizeof(sign), l->e) : 0;

	if (r == 0 && !memcmp(sign, "S1SUSPEND", 9))
		scan_findings_add(f, "SEAL-023", SCAN_CRITICAL, x->name, "shut the machine down and do not let it sleep",
				  "the memory of a machine that sleeps is in the swap space");
	if (r == 0)
		r = fsview_volume_place(l->v, l->volume, rest, count_place, l, l->e);
	if (r == 0 && l->free.bytes)
		scan_findings_add(f, "SEAL-022", SCAN_HIGH, x->name, "make it anew: mkswap, on zeros",
				  "about %s of swap space are not zeros: they were a machine's memory", size_show((double)l->free.bytes).s);
	return r;
}

int scan_residue(struct vd_image *img, struct fsview *v, struct scan_findings *f, struct vd_error *e)
{
	const struct fsview_volume *x;
	int r = 0;

	for (size_t i = 0; r == 0 && (x = fsview_volume(v, i)); i++) {
		struct look l = { .img = img, .v = v, .volume = i, .e = e };

		if (x->is_readable)
			r = judge_files(&l, x, f);
		else if (x->fs == FSVIEW_FS_SWAP)
			r = judge_swap(&l, x, f);
	}
	return r;
}
