/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writes guest bytes: reserve, fill, encrypt, host write, publish or cancel. Which table entry that is, the driver
 * knows; what makes it durable is flush.c. Zeros without payload, and discards, are zero.c's.
 *
 * W1  A range is written by one writer at a time: the range lock covers all that reserve() may want filled and every
 *     cipher sector touched, so that the old content read for the fill is the content when it is published.
 * W2  Payload is written before publish(), so before any table that a commit can see points at it.
 * W3  A failure between reserve() and publish() is cancelled: the guest still sees the old bytes.
 */
#include "libvdisk/core/image.h"

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/base/secret.h"
#include "libvdisk/core/bitmap.h"

#define PIECE (2u << 20)        /* longest range held under one range lock */
#define CHUNK (256u << 10)      /* bounce buffer: fill and cipher work in pieces of this */

int vd_write_start(struct vd_image *img, struct vd_error *e)
{
	int r = vd_image_poisoned(img, e);

	if (r < 0)
		return r;
	if (!img->writable)
		return vd_fail(e, VD_EREADONLY, "%s is open for reading only", img->path);
	if (img->is_control)
		return vd_fail(e, VD_EREADONLY, "%s is open for changes of its shape only", img->path);
	if (atomic_load(&img->begun))
		return 0;
	pthread_mutex_lock(&img->begin);
	if (!atomic_load(&img->begun)) {
		r = img->format->begin_write ? img->format->begin_write(img->state, e) : 0;
		if (r == 0)
			r = vd_bitmap_begin(img, e);
		if (r == VD_EPOISONED)
			atomic_store(&img->poisoned, true);
		if (r == 0)
			atomic_store(&img->begun, true);
		else if (vd_set_has_failed(img->set))
			atomic_store(&img->poisoned, true);
	}
	pthread_mutex_unlock(&img->begin);
	return r;
}

int vd_write_enter(struct vd_image *img, uint64_t off, uint64_t len, struct vd_error *e)
{
	int r = vd_image_check_range(img, off, len, e);

	return r < 0 ? r : vd_write_start(img, e);
}

/* The range of guest bytes that one host write makes valid, and where the caller's bytes lie in it. */
struct fill {
	uint64_t start, end;            /* guest, whole cipher sectors; may pass the end of the disk */
	uint64_t host_off;              /* of start */
	uint64_t data_start, data_end;  /* guest */
	const uint8_t *data;
	uint8_t *scratch;               /* data, when it may be overwritten with its ciphertext; else NULL */
};

static uint64_t cipher_sector(const struct vd_image *img)
{
	return img->layer.cipher ? img->layer.sector_size : 1;
}

static struct fill fill_of(const struct vd_image *img, const struct vd_resv *v, const void *buf, void *scratch)
{
	const struct vd_layer *l = &img->layer;
	uint64_t s = cipher_sector(img);
	uint64_t start = v->fill_off - l->payload_off;
	struct fill f = {
		.start = vd_round_down(start, s),
		.end = vd_round_up(start + v->fill_len, s),
		.data_start = v->off - l->payload_off,
		.data = buf,
		.scratch = scratch,
	};

	f.host_off = v->host_off - (start - f.start);
	f.data_end = f.data_start + v->covered;
	return f;
}

/* Plaintext of [at, at+len) as it is to be: the caller's bytes, around them the old content. */
static int compose(struct vd_image *img, const struct fill *f, uint8_t *out, uint64_t at, size_t len, struct vd_error *e)
{
	uint64_t end = at + len;
	uint64_t from = vd_min_u64(vd_max_u64(at, f->data_start), end);
	uint64_t to = vd_max_u64(vd_min_u64(end, f->data_end), from);
	int r = 0;

	if (from > at)
		r = vd_read(img, out, from - at, at, e);
	if (r == 0 && end > to)
		r = vd_read(img, out + (to - at), end - to, to, e);
	if (r == 0 && to > from)
		memcpy(out + (from - at), f->data + (from - f->data_start), to - from);
	return r;
}

static int write_bounced(struct vd_image *img, const struct vd_resv *v, const struct fill *f, uint64_t at, size_t len,
			 uint8_t *bounce, struct vd_error *e)
{
	uint64_t host_off = f->host_off + (at - f->start);
	int r = compose(img, f, bounce, at, len, e);

	if (r < 0)
		return r;
	/* The host shows zeros there already. */
	if (v->fresh && !img->layer.cipher && vd_is_zero(bounce, len))
		return 0;
	r = vd_layer_encrypt(&img->layer, bounce, len, at, host_off, e);
	return r < 0 ? r : vd_set_pwrite(img->set, v->file, bounce, len, host_off, e);
}

/* Whether the caller's bytes need no copy: they go out as they are, or as the ciphertext that they are turned into. */
static bool goes_straight(const struct vd_image *img, const struct fill *f)
{
	return !img->layer.cipher || f->scratch;
}

/* The part from `at`, which is at a sector, that goes straight at once; 0: none. */
static size_t straight_len(const struct vd_image *img, const struct fill *f, uint64_t at)
{
	uint64_t len;

	if (!goes_straight(img, f) || at < f->data_start || at >= f->data_end)
		return 0;
	len = f->data_end - at;
	return img->layer.cipher ? vd_round_down(vd_min_u64(CHUNK, len), img->layer.sector_size) : len;
}

static int write_straight(struct vd_image *img, const struct vd_resv *v, const struct fill *f, uint64_t at, size_t len,
			  struct vd_error *e)
{
	uint64_t host_off = f->host_off + (at - f->start);
	uint64_t skip = at - f->data_start;
	int r = 0;

	if (img->layer.cipher)
		r = vd_layer_encrypt(&img->layer, f->scratch + skip, len, at, host_off, e);
	return r < 0 ? r : vd_set_pwrite(img->set, v->file, f->data + skip, len, host_off, e);
}

/* The part from `at` to be composed at once: no further than where the caller's bytes can go straight. */
static size_t bounce_len(const struct vd_image *img, const struct fill *f, uint64_t at)
{
	uint64_t end = f->end;

	if (goes_straight(img, f) && at < f->data_start)
		end = vd_round_up(f->data_start, cipher_sector(img));
	return vd_min_u64(CHUNK, end - at);
}

static int write_fill(struct vd_image *img, const struct vd_resv *v, const struct fill *f, struct vd_error *e)
{
	vd_auto_free uint8_t *bounce = NULL;
	size_t n, cap = vd_min_u64(CHUNK, f->end - f->start);
	int r = 0;

	for (uint64_t at = f->start; at < f->end && r == 0; at += n) {
		n = straight_len(img, f, at);
		if (n) {
			r = write_straight(img, v, f, at, n, e);
			continue;
		}
		n = bounce_len(img, f, at);
		if (!bounce)
			r = vd_alloc_buffer(cap, &bounce, e);
		if (r == 0)
			r = write_bounced(img, v, f, at, n, bounce, e);
	}
	if (bounce && img->layer.cipher)
		vd_wipe(bounce, cap);
	return r;
}

int vd_write_reserve(struct vd_image *img, struct vd_resv *v, struct vd_error *e)
{
	int r;

	vd_bitmap_mark(img, v->off, v->len);
	pthread_mutex_lock(&img->alloc);
	r = img->format->reserve(img->state, v, e);
	pthread_mutex_unlock(&img->alloc);
	/* A new file has no name yet: nobody opens what a crash leaves of it. */
	if (r < 0 || !v->barrier_first || img->fresh)
		return r;
	r = vd_image_commit_tables(img, e);
	if (r < 0)
		vd_write_cancel(img, v);
	return r;
}

void vd_write_cancel(struct vd_image *img, struct vd_resv *v)
{
	if (v->in_place)
		return;
	pthread_mutex_lock(&img->alloc);
	img->format->cancel(img->state, v);
	pthread_mutex_unlock(&img->alloc);
}

int vd_write_publish(struct vd_image *img, struct vd_resv *v, struct vd_error *e)
{
	int r;

	if (v->in_place)
		return 0;
	pthread_mutex_lock(&img->alloc);
	r = img->format->publish(img->state, v, e);
	pthread_mutex_unlock(&img->alloc);
	if (r < 0)
		atomic_store(&img->poisoned, true);
	return r;
}

static int complete(struct vd_image *img, struct vd_resv *v, const void *buf, void *scratch, struct vd_error *e)
{
	int r = 0;

	/* Never in clear into an encrypted image. */
	if (img->layer.encryption && !img->layer.cipher) {
		r = vd_fail(e, VD_ENOKEY, "%s is encrypted and was opened without a key", img->path);
	} else if (v->packed_len) {
		r = vd_set_pwrite(img->set, v->file, v->prefix, v->prefix_len, v->host_off - v->prefix_len, e);
		if (r == 0)
			r = vd_set_pwrite(img->set, v->file, buf, v->packed_len, v->host_off, e);
	} else {
		struct fill f = fill_of(img, v, buf, scratch);

		r = write_fill(img, v, &f, e);
	}
	if (r == 0)
		return vd_write_publish(img, v, e);
	vd_write_cancel(img, v);
	return r;
}

int vd_write_complete(struct vd_image *img, struct vd_resv *v, const void *buf, struct vd_error *e)
{
	return complete(img, v, buf, NULL, e);
}

int vd_write_complete_scratch(struct vd_image *img, struct vd_resv *v, void *buf, struct vd_error *e)
{
	return complete(img, v, buf, buf, e);
}

/* Where a unit can be stored plain, less than itself; else what deflate can lose, and more. */
size_t vd_write_pack_room(const struct vd_image *img)
{
	size_t unit = img->info.unit;

	return img->info.packs_only ? unit + unit / 64 + 128 : unit - 1;
}

int vd_write_pack(struct vd_image *img, uint8_t *buf, size_t len, uint64_t guest_off, uint8_t *packed, size_t *packed_len,
		  struct vd_error *e)
{
	int r = img->layer.is_container ? vd_layer_encrypt(&img->layer, buf, len, guest_off, 0, e) : 0;

	*packed_len = 0;
	if (r == 0)
		r = vd_codec_pack(img->codec, img->info.codec, packed, vd_write_pack_room(img), buf, img->info.unit, packed_len, e);
	if (r == 0 && !*packed_len && img->info.packs_only)
		r = vd_fail(e, VD_EIO, "%s: the unit at %llu became too large when it was packed", img->path,
			    (unsigned long long)guest_off);
	return r;
}

void vd_write_hold(struct vd_image *img, struct vd_rangehold *h, uint64_t off, uint64_t len)
{
	uint64_t unit = vd_max_u64(img->info.fill_unit, img->layer.encryption ? img->layer.sector_size : 1);
	uint64_t start = vd_round_down(off + img->layer.payload_off, unit);
	uint64_t end = vd_round_up(off + img->layer.payload_off + len, unit);

	vd_rangelock_acquire(img->ranges, h, start, end - start);
}

int vd_write_held(struct vd_image *img, const uint8_t *buf, size_t len, uint64_t off, struct vd_error *e)
{
	while (len) {
		struct vd_resv v = { .off = off + img->layer.payload_off, .len = len };
		int r = vd_write_reserve(img, &v, e);

		if (r == 0)
			r = vd_write_complete(img, &v, buf, e);
		if (r < 0)
			return r;
		buf += v.covered;
		off += v.covered;
		len -= v.covered;
	}
	return 0;
}

int vd_write_relieve(struct vd_image *img, struct vd_error *e)
{
	return vd_meta_wants_commit(img->meta) ? vd_image_commit_tables(img, e) : 0;
}

int vd_write(struct vd_image *img, const void *bytes, size_t len, uint64_t off, struct vd_error *e)
{
	const uint8_t *buf = bytes;
	int r = vd_write_enter(img, off, len, e);

	for (size_t n; len && r == 0; buf += n, off += n, len -= n) {
		struct vd_rangehold h;

		/* Pieces end where allocation units do, so that no unit is filled twice. */
		n = vd_min_u64(len, PIECE - (off + img->layer.payload_off) % PIECE);
		vd_write_hold(img, &h, off, n);
		r = vd_write_held(img, buf, n, off, e);
		vd_rangelock_release(&h);
		if (r == 0)
			r = vd_write_relieve(img, e);
	}
	return r;
}

VD_PUBLIC int vd_image_pwrite(struct vd_image *img, const void *buf, size_t len, uint64_t off, struct vd_error *e)
{
	int r;

	pthread_rwlock_rdlock(&img->control);
	r = vd_write(img, buf, len, off, e);
	pthread_rwlock_unlock(&img->control);
	return r;
}
