/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Makes a container of a disk with holes whole before its data are turned: a hole has no bytes that could be ciphertext,
 * and would show noise. New units are born as what zeros become, past the ends of the beginning, where the walk does not
 * come; what has its place before them gets plain zeros, for the walk to turn.
 */
#include "libvdisk/core/inplace.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"

#define UNIT 512
#define PIECE (2u << 20)
#define COMMIT_BYTES (UINT64_C(128) << 20)      /* filled between two commits */
#define RUNS 64

struct fill {
	struct vd_inplace *p;
	uint8_t *zeros, *born;          /* PIECE bytes each */
	uint64_t from;                  /* the disk begins here: behind the header of the container there is */
	uint64_t uncommitted;           /* bytes */
};

static bool is_born(const struct fill *f, const struct vd_resv *v)
{
	return v->file >= f->p->j->state.n_files || v->host_off >= f->p->j->ends[v->file];
}

static int make_born(struct fill *f, uint64_t off, uint64_t len, struct vd_error *e)
{
	memset(f->born, 0, len);
	return vd_inplace_turn(f->p, f->born, len, (off - f->from) / UNIT, e);
}

static int fill_piece(struct fill *f, uint64_t off, uint64_t len, struct vd_error *e)
{
	struct vd_image *img = f->p->img;
	int r = 0;

	for (uint64_t n; len && r == 0; off += n, len -= n) {
		struct vd_resv v = { .off = off, .len = len };
		uint8_t *bytes = f->zeros;

		n = 0;
		r = vd_write_reserve(img, &v, e);
		if (r < 0)
			break;
		n = v.covered;
		if (is_born(f, &v)) {
			bytes = f->born;
			r = make_born(f, off, n, e);
		}
		if (r == 0)
			r = vd_write_complete(img, &v, bytes, e);
		else
			vd_write_cancel(img, &v);
		f->p->report->filled += n;
	}
	return r;
}

/*
 * Of a unit that is linked all bytes are taken for data: tables are only committed, and it only stops, where whole units end.
 */
static int end_unit(struct fill *f, struct vd_error *e)
{
	struct vd_image *img = f->p->img;
	int r = 0, c;

	if (f->uncommitted >= COMMIT_BYTES || vd_meta_wants_commit(img->meta)) {
		r = vd_image_commit_tables(img, e);
		f->uncommitted = 0;
	}
	if (r == 0)
		r = vd_inplace_progress(f->p, e);
	if (r != VD_ECANCELLED)
		return r;
	c = vd_image_commit_tables(img, e);
	return c < 0 ? c : r;
}

static int fill_run(struct fill *f, const struct vd_run *run, struct vd_error *e)
{
	uint64_t off = vd_max_u64(run->guest_off, f->from), end = run->guest_off + run->len;
	bool is_parents = run->where == VD_HOLE && f->p->img->info.backing_file;
	int r = 0;

	if (is_parents || (run->where != VD_HOLE && run->where != VD_ZERO))
		return 0;
	for (uint64_t n; off < end && r == 0; off += n) {
		n = vd_min_u64(end - off, PIECE - off % PIECE);
		r = fill_piece(f, off, n, e);
		f->uncommitted += n;
		if (r == 0 && ((off + n) % f->p->img->info.unit == 0 || off + n == end))
			r = end_unit(f, e);
	}
	return r;
}

static int fill_all(struct fill *f, struct vd_error *e)
{
	struct vd_image *img = f->p->img;
	int r = vd_write_start(img, e);

	for (uint64_t at = f->from; at < img->info.size && r == 0;) {
		struct vd_run runs[RUNS];
		size_t n = RUNS;

		r = img->format->map(img->state, at, img->info.size - at, 0, runs, &n, e);
		for (size_t i = 0; i < n && r == 0; i++) {
			at = runs[i].guest_off + runs[i].len;
			r = fill_run(f, &runs[i], e);
		}
	}
	return r < 0 ? r : vd_image_commit_tables(img, e);
}

int vd_inplace_fill(struct vd_inplace *p, struct vd_error *e)
{
	struct fill f = { .p = p, .from = p->j->state.from_sector ? p->j->state.payload_off : 0 };
	vd_auto_free uint8_t *zeros = NULL, *born = NULL;
	int r = vd_alloc(1, PIECE, &zeros, e);

	if (r == 0)
		r = vd_alloc_buffer(PIECE, &born, e);
	f.zeros = zeros;
	f.born = born;
	return r < 0 ? r : fill_all(&f, e);
}
