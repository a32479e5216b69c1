/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Makes zeros and gives space back: decides for each piece of a range whether the driver's tables can say it, a hole of
 * the host file, or written bytes. When space that tables gave up is free is freeing.c's.
 *
 * Z1  Zeros mask: neither a zero nor a discard makes anything of a parent or of an older snapshot show.
 * Z2  In a container a hole is noise, so there zeros are written and nothing is ever discarded.
 * Z3  With scrubbing asked for, bytes that stay in the image's hands under a flag, or at a fixed place, are written over.
 */
#include "libvdisk/core/bitmap.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"

#define CHUNK (256u << 10)
#define HELD ((uint64_t)1 << 30)        /* longest range held under one range lock */

/* One stretch that the tables say the same of. Offsets are guest ones. */
struct piece {
	struct vd_run run;
	uint64_t off, len;              /* what of the request lies in it and behind */
	bool allocated, discards;
};

static int write_zero_bytes(struct vd_image *img, uint64_t len, uint64_t off, struct vd_error *e)
{
	vd_auto_free uint8_t *zeros = NULL;
	int r = vd_alloc(1, vd_min_u64(CHUNK, len), &zeros, e);

	for (uint64_t n; len && r == 0; off += n, len -= n) {
		n = vd_min_u64(CHUNK, len);
		r = vd_write_held(img, zeros, n, off, e);
	}
	return r;
}

/* From here to the end of the run, but no further than the next unit, where the tables get their chance again. */
static uint64_t in_unit(const struct vd_image *img, const struct piece *p)
{
	uint64_t n = vd_min_u64(p->len, p->run.guest_off + p->run.len - p->off);
	uint64_t at = p->off + img->layer.payload_off;
	uint32_t unit = img->info.zero_unit ? img->info.zero_unit : img->info.unit;

	return unit > 1 ? vd_min_u64(n, unit - at % unit) : n;
}

/* What lies past the end of the disk has no content to keep, so a last unit cut short is whole. */
static bool is_whole_unit(const struct vd_image *img, const struct piece *p)
{
	return p->off % img->info.unit == 0 && (p->len >= img->info.unit || p->off + p->len == img->size);
}

/* Nothing is to be done. */
static bool is_so(const struct vd_image *img, const struct piece *p)
{
	const struct vd_run *run = &p->run;
	bool is_hole = run->where == VD_HOLE && !img->parent && !img->parent_missing && !img->gets_parent;
	bool is_hosted = run->where == VD_ZERO && run->flags & VD_RUN_HOSTED;

	if (img->layer.is_container)
		return false;
	if (p->allocated)
		return is_hosted && !(run->flags & VD_RUN_SHARED) && !img->scrubs;
	return is_hole || (run->where == VD_ZERO && !(is_hosted && p->discards));
}

/* ---- by tables ------------------------------------------------------------------------------------------ */

static int punch_host(struct vd_image *img, uint32_t file, uint64_t host_off, uint64_t len, struct vd_error *e)
{
	int r = vd_set_punch(img->set, file, host_off, len, e);

	return r == VD_EUNSUPPORTED ? 0 : r;
}

/* *done: from p->off, 0: the tables cannot say it. */
static int punch_tables(struct vd_image *img, const struct piece *p, uint64_t *done, struct vd_error *e)
{
	enum vd_punch_mode mode = p->discards ? VD_PUNCH_DISCARD : img->gets_parent ? VD_PUNCH_MASK : VD_PUNCH_ZERO;
	int r;

	*done = 0;
	if (img->layer.is_container)
		return 0;
	pthread_mutex_lock(&img->alloc);
	vd_space_set_to_host(img->space, p->discards);
	r = img->format->punch(img->state, p->off, p->len, mode, done, e);
	vd_space_set_to_host(img->space, false);
	pthread_mutex_unlock(&img->alloc);
	if (r < 0)
		atomic_store(&img->poisoned, true);
	if (r == 0 && *done && img->info.is_flat)
		r = punch_host(img, img->info.flat_file, p->off, *done, e);
	return r;
}

/* Whole units that get their host space, or keep it, and say that they are zeros. */
static int link_zeros(struct vd_image *img, const struct piece *p, uint64_t *done, struct vd_error *e)
{
	struct vd_resv v = { .off = p->off, .len = p->len, .as_zeros = true };
	int r;

	if (p->off + p->len < img->size)
		v.len = vd_round_down(p->len, img->info.unit);
	r = vd_write_reserve(img, &v, e);
	*done = v.covered;
	return r < 0 ? r : vd_write_publish(img, &v, e);
}

/* ---- pieces --------------------------------------------------------------------------------------------- */

/* Bytes in place, in the clear and without another owner: the host can make zeros of them. */
static bool can_punch_host(const struct vd_image *img, const struct piece *p)
{
	return p->run.where == VD_DATA && !(p->run.flags & VD_RUN_SHARED) && !img->layer.encryption &&
	       !p->allocated && !img->scrubs;
}

static int zero_piece(struct vd_image *img, const struct piece *p, uint64_t *done, struct vd_error *e)
{
	bool is_whole = is_whole_unit(img, p);
	int r = 0;

	*done = 0;
	if (p->allocated && is_whole && img->info.links_zeros && !img->layer.is_container && !img->scrubs)
		return link_zeros(img, p, done, e);
	if (!p->allocated && !(img->scrubs && (img->info.is_flat || !is_whole)))
		r = punch_tables(img, p, done, e);
	if (r < 0 || *done)
		return r;
	*done = in_unit(img, p);
	if (can_punch_host(img, p)) {
		r = vd_set_punch(img->set, p->run.file, p->run.host_off + (p->off - p->run.guest_off), *done, e);
		if (r != VD_EUNSUPPORTED)
			return r;
	}
	return write_zero_bytes(img, *done, p->off, e);
}

/* What cannot be given back stays as it is. */
static int discard_piece(struct vd_image *img, const struct piece *p, uint64_t *done, struct vd_error *e)
{
	int r = 0;

	*done = 0;
	if (!(img->scrubs && (img->info.is_flat || !is_whole_unit(img, p))))
		r = punch_tables(img, p, done, e);
	if (r < 0 || *done)
		return r;
	*done = in_unit(img, p);
	if (p->run.where != VD_DATA || !(img->info.is_flat || img->info.keeps_place))
		return 0;
	if (img->scrubs)
		return write_zero_bytes(img, *done, p->off, e);
	if (!can_punch_host(img, p))
		return 0;
	return punch_host(img, p->run.file, p->run.host_off + (p->off - p->run.guest_off), *done, e);
}

static int next_run(struct vd_image *img, struct piece *p, struct vd_error *e)
{
	uint64_t shift = img->layer.payload_off;
	size_t one = 1;
	unsigned ticket = vd_space_enter(img->space);
	int r = img->format->map(img->state, p->off + shift, p->len, 0, &p->run, &one, e);

	/* What the answer names is this writer's own; only the tables might have gone meanwhile. */
	vd_space_leave(img->space, ticket);
	p->run.guest_off -= shift;
	return r;
}

static int work(struct vd_image *img, struct piece p, struct vd_error *e)
{
	if (p.discards && img->layer.is_container)
		return 0;
	vd_bitmap_mark(img, p.off + img->layer.payload_off, p.len);
	for (uint64_t n; p.len; p.off += n, p.len -= n) {
		int r = next_run(img, &p, e);

		if (r < 0)
			return r;
		n = vd_min_u64(p.len, p.run.guest_off + p.run.len - p.off);
		if (is_so(img, &p))
			continue;
		r = (p.discards ? discard_piece : zero_piece)(img, &p, &n, e);
		if (r < 0)
			return r;
	}
	return 0;
}

int vd_write_zeroes(struct vd_image *img, uint64_t off, uint64_t len, unsigned flags, struct vd_error *e)
{
	struct piece p = { .off = off, .len = len, .allocated = flags & VD_ZERO_ALLOCATED };

	return work(img, p, e);
}

/* ---- the public calls ----------------------------------------------------------------------------------- */

static int work_entered(struct vd_image *img, struct piece p, struct vd_error *e)
{
	uint64_t end = p.off + p.len;
	int r = vd_write_enter(img, p.off, p.len, e);

	for (; p.off < end && r == 0; p.off += p.len) {
		struct vd_rangehold h;

		/* Pieces end where units do, so that none is split. */
		p.len = vd_min_u64(end - p.off, HELD - (p.off + img->layer.payload_off) % HELD);
		vd_write_hold(img, &h, p.off, p.len);
		r = work(img, p, e);
		vd_rangelock_release(&h);
		if (r == 0)
			r = vd_write_relieve(img, e);
	}
	return r;
}

static int work_shared(struct vd_image *img, struct piece p, struct vd_error *e)
{
	int r;

	pthread_rwlock_rdlock(&img->control);
	r = work_entered(img, p, e);
	pthread_rwlock_unlock(&img->control);
	return r;
}

int vd_zero(struct vd_image *img, uint64_t off, uint64_t len, struct vd_error *e)
{
	return work_entered(img, (struct piece){ .off = off, .len = len }, e);
}

VD_PUBLIC int vd_image_write_zeroes(struct vd_image *img, uint64_t off, uint64_t len, unsigned flags, struct vd_error *e)
{
	struct piece p = { .off = off, .len = len, .allocated = flags & VD_ZERO_ALLOCATED };

	if (flags & ~(unsigned)VD_ZERO_ALLOCATED)
		return vd_fail(e, VD_EARG, "vd_image_write_zeroes: unknown flags 0x%x", flags);
	return work_shared(img, p, e);
}

VD_PUBLIC int vd_image_discard(struct vd_image *img, uint64_t off, uint64_t len, struct vd_error *e)
{
	return work_shared(img, (struct piece){ .off = off, .len = len, .discards = true }, e);
}
