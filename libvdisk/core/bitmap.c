/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Records what is written, for the bitmaps inside an image that do, and changes bitmaps for the public. Where their bits
 * lie and how a new state comes into force, the driver knows.
 *
 *  D1  What this handle writes is recorded once, in pieces of the finest bitmap that records; it is added to each bitmap
 *      when they are stored: when writing ends, and before every act.
 *  D2  A range is marked before its bytes are written, and while anything is recorded the bitmaps on disk do not hold. So
 *      none that holds misses a write.
 *  D3  Every act goes from one state of all bitmaps to the next, which comes into force as a whole.
 */
#include "libvdisk/core/bitmap.h"

#include <stdlib.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/core/shape.h"

#define DEFAULT_BITS_MAX 16     /* 64 KiB, and at least 4 KiB: as qemu chooses */
#define DEFAULT_BITS_MIN 12
#define LOAD_COST 4096          /* of the smallest load, beside its bytes */
#define COUNT_COST_MAX (UINT64_C(4) << 30)      /* a list: what is dirty in a hostile image could be counted for hours */

static int list_entries(struct vd_image *img, struct vd_bitmap_entry **out, size_t *n, struct vd_error *e)
{
	vd_auto_unlock pthread_mutex_t *held = vd_locked(&img->begin);

	return img->format->bitmap->list(img->state, out, n, e);
}

/* ---- recording -------------------------------------------------------------------------------------------- */

static bool records(const struct vd_bitmap_entry *b)
{
	return b->is_enabled && b->is_held;
}

/* Over the disk as large as it is now. Nothing, when no bitmap records. */
static int start_recording(struct vd_image *img, const struct vd_bitmap_entry *list, size_t n, struct vd_error *e)
{
	struct vd_dirty *d = NULL;
	unsigned finest = 64;
	int r = 0;

	for (size_t i = 0; i < n; i++)
		if (records(&list[i]) && list[i].granularity_bits < finest)
			finest = list[i].granularity_bits;
	if (finest < 64)
		r = vd_dirty_new(img->info.size, finest, &d, e);
	if (r == 0)
		atomic_store_explicit(&img->dirty, d, memory_order_release);
	return r;
}

int vd_bitmap_begin(struct vd_image *img, struct vd_error *e)
{
	vd_auto_free struct vd_bitmap_entry *list = NULL;
	size_t n = 0;
	int r;

	if (!img->format->bitmap)
		return 0;
	r = img->format->bitmap->hold(img->state, false, e);
	if (r == 0)
		r = img->format->bitmap->list(img->state, &list, &n, e);
	/* The driver has seen to it that none of those which cannot be told holds. */
	if (r == VD_EBITMAP)
		return 0;
	return r < 0 ? r : start_recording(img, list, n, e);
}

/* ---- from one state to the next --------------------------------------------------------------------------- */

static struct vd_bitmap_next *as_it_is(const struct vd_bitmap_entry *list, size_t n, struct vd_error *e)
{
	struct vd_bitmap_next *next;

	/* Room for a new one. */
	if (vd_alloc(n + 1, sizeof(*next), &next, e) < 0)
		return NULL;
	for (size_t i = 0; i < n; i++)
		next[i] = (struct vd_bitmap_next){ .from = i, .is_enabled = list[i].is_enabled };
	return next;
}

/* Alone on the handle. */
static int store(struct vd_image *img, const struct vd_bitmap_next *next, size_t n, struct vd_error *e)
{
	const struct vd_bitmap_ops *ops = img->format->bitmap;
	int r = ops->write(img->state, next, n, e), settled;

	if (r == 0)
		r = vd_shape_settle(img, e);
	if (r < 0)
		return r;
	r = ops->enact(img->state, e);
	if (r == VD_EPOISONED) {
		atomic_store(&img->poisoned, true);
		return r;
	}
	/* What one of the two states had for itself is free. For want of memory it becomes so with a later commit. */
	settled = vd_shape_settle(img, r < 0 ? NULL : e);
	return r < 0 || settled == VD_ENOMEM ? r : settled;
}

static int store_recorded(struct vd_image *img, struct vd_error *e)
{
	vd_auto_free struct vd_bitmap_entry *list = NULL;
	vd_auto_free struct vd_bitmap_next *next = NULL;
	bool any = false;
	size_t n = 0;
	int r = list_entries(img, &list, &n, e);

	if (r == VD_EBITMAP)
		return 0;
	if (r == 0)
		next = as_it_is(list, n, e);
	if (!next)
		return r < 0 ? r : VD_ENOMEM;
	for (size_t i = 0; i < n; i++) {
		any |= list[i].is_held;
		if (records(&list[i]))
			next[i].add = atomic_load(&img->dirty);
	}
	return any ? store(img, next, n, e) : 0;
}

int vd_bitmap_end(struct vd_image *img, struct vd_error *e)
{
	int r;

	if (!img->format->bitmap)
		return 0;
	r = store_recorded(img, e);
	/* What was recorded stays until it is stored: the caller may try again. */
	if (r == 0)
		vd_dirty_free(atomic_exchange(&img->dirty, NULL));
	return r < 0 ? vd_error_prefix(e, r, "the disk is written, but its bitmaps could not be stored: ") : 0;
}

int vd_bitmap_before_act(struct vd_image *img, struct vd_error *e)
{
	return img->format->bitmap ? img->format->bitmap->hold(img->state, true, e) : 0;
}

static int record_act(struct vd_image *img, uint64_t from, uint64_t to, struct vd_error *e)
{
	vd_auto_free struct vd_bitmap_entry *list = NULL;
	size_t n = 0;
	int r;

	img->format->describe(img->state, &img->info);
	r = list_entries(img, &list, &n, e);
	if (r == VD_EBITMAP)
		return 0;
	if (r == 0)
		r = start_recording(img, list, n, e);
	if (r < 0)
		return r;
	if (to > from)
		vd_bitmap_mark(img, from, to - from);
	return vd_bitmap_end(img, e);
}

int vd_bitmap_after_act(struct vd_image *img, int r, uint64_t from, uint64_t to, struct vd_error *e)
{
	int stored;

	if (!img->format->bitmap || r == VD_EPOISONED)
		return r;
	/* An act that failed has changed nothing, but for the bitmaps that do not hold since. */
	stored = record_act(img, from, r < 0 ? from : to, r < 0 ? NULL : e);
	if (stored < 0) {
		img->format->bitmap->abandon(img->state);
		vd_dirty_free(atomic_exchange(&img->dirty, NULL));
	}
	return r < 0 ? r : stored;
}

/* ---- looking ---------------------------------------------------------------------------------------------- */

static int judge_format(const struct vd_image *img, struct vd_error *e)
{
	if (!img->format->bitmap)
		return vd_fail(e, VD_EUNSUPPORTED, "%s: the format %s has no bitmaps inside the image", img->path,
			       img->format->name);
	if (img->is_view)
		return vd_fail(e, VD_EARG, "%s: bitmaps are of the disk as it is, not of a snapshot", img->path);
	return 0;
}

static int find(const struct vd_image *img, const struct vd_bitmap_entry *list, size_t n, const char *name, size_t *i,
		struct vd_error *e)
{
	for (*i = 0; *i < n; ++*i)
		if (!strcmp(list[*i].name, name))
			return 0;
	vd_fail(e, VD_ENOENT, "%s has no bitmap '%s'", img->path, name);
	return vd_hint(e, VD_ENOENT, n ? "vdisk bitmap list shows those it has" : "it has none at all");
}

static int judge_entry(const struct vd_image *img, const struct vd_bitmap_entry *b, struct vd_error *e)
{
	if (!b->unusable)
		return 0;
	vd_fail(e, VD_EBITMAP, "%s: bitmap '%s' does not tell what changed: %s", img->path, b->name, b->unusable);
	return vd_hint(e, VD_EBITMAP, "back up the whole disk, then remove the bitmap and make a new one");
}

static int look_at_entry(struct vd_bitmap_look *l, struct vd_image *img, const struct vd_bitmap_entry *b, size_t i,
			 struct vd_error *e)
{
	*l = (struct vd_bitmap_look){
		.img = img, .index = i, .bits = b->granularity_bits,
		.add = records(b) ? atomic_load(&img->dirty) : NULL,
	};
	return vd_alloc_buffer(img->info.unit, &l->raw, e);
}

int vd_bitmap_look_open(struct vd_bitmap_look *l, struct vd_image *img, const char *name, struct vd_error *e)
{
	vd_auto_free struct vd_bitmap_entry *list = NULL;
	size_t n = 0, i = 0;
	int r = judge_format(img, e);

	*l = (struct vd_bitmap_look){ 0 };
	if (r == 0)
		r = list_entries(img, &list, &n, e);
	if (r == 0)
		r = find(img, list, n, name, &i, e);
	if (r == 0)
		r = judge_entry(img, &list[i], e);
	return r < 0 ? r : look_at_entry(l, img, &list[i], i, e);
}

/* Guest bytes of one part. */
static uint64_t part_span(const struct vd_bitmap_look *l)
{
	return (uint64_t)l->img->info.unit * 8 << l->bits;
}

/* What was recorded since goes over what is stored. */
static void add_recorded(struct vd_bitmap_look *l)
{
	uint64_t span = part_span(l), start = l->part * span, from, to;

	if (!l->add || l->what == VD_BITS_ONES)
		return;
	if (!vd_dirty_next(l->add, start, start + l->n_parts * span, &from, &to))
		return;
	/* Up to where it begins all is as it was. */
	if (from / span > l->part) {
		l->n_parts = from / span - l->part;
		return;
	}
	l->n_parts = 1;
	if (l->what == VD_BITS_ZEROS)
		memset(l->raw, 0, l->img->info.unit);
	l->what = VD_BITS_MIXED;
	vd_dirty_add_to(l->add, l->bits, start >> l->bits, (uint64_t)l->img->info.unit * 8, l->raw);
}

static int load(struct vd_bitmap_look *l, uint64_t part, struct vd_error *e)
{
	struct vd_image *img = l->img;
	int r;

	if (part >= l->part && part - l->part < l->n_parts)
		return 0;
	l->part = part;
	l->n_parts = (img->info.size - 1) / part_span(l) + 1 - part;
	r = img->format->bitmap->load(img->state, l->index, part, &l->n_parts, l->raw, &l->what, e);
	if (r < 0)
		l->n_parts = 0;
	else
		add_recorded(l);
	l->loaded += LOAD_COST + (l->what == VD_BITS_MIXED ? img->info.unit : 0);
	return r;
}

static bool bit_at(const uint8_t *raw, uint64_t bit)
{
	return raw[bit / 8] >> bit % 8 & 1;
}

/* The first bit after `bit`, before n, that is not like it; n: none. */
static uint64_t next_other(const uint8_t *raw, uint64_t bit, uint64_t n)
{
	bool value = bit_at(raw, bit);
	uint8_t alike = value ? 0xff : 0;

	while (bit < n && (bit % 8 || raw[bit / 8] != alike) && bit_at(raw, bit) == value)
		bit++;
	if (bit >= n || bit % 8 || raw[bit / 8] != alike)
		return vd_min_u64(bit, n);
	while (bit < n && raw[bit / 8] == alike)
		bit += 8;
	while (bit < n && bit_at(raw, bit) == value)
		bit++;
	return vd_min_u64(bit, n);
}

/* What is loaded says this of `at`, and for as far as *end. */
static bool look_loaded(const struct vd_bitmap_look *l, uint64_t at, uint64_t *end)
{
	uint64_t span = part_span(l), start = l->part * span, other;

	if (l->what != VD_BITS_MIXED) {
		*end = start + l->n_parts * span;
		return l->what == VD_BITS_ONES;
	}
	other = next_other(l->raw, (at - start) >> l->bits, (uint64_t)l->img->info.unit * 8);
	*end = start + (other << l->bits);
	return bit_at(l->raw, (at - start) >> l->bits);
}

int vd_bitmap_look_at(struct vd_bitmap_look *l, uint64_t at, uint64_t limit, bool *is_dirty, uint64_t *end,
		      struct vd_error *e)
{
	uint64_t first = at;

	for (*end = at; at < limit; at = *end) {
		uint64_t to;
		bool dirty;
		int r = load(l, at / part_span(l), e);

		if (r < 0)
			return r;
		dirty = look_loaded(l, at, &to);
		if (at == first)
			*is_dirty = dirty;
		if (dirty != *is_dirty)
			return 0;
		*end = vd_min_u64(to, limit);
	}
	return 0;
}

/* ---- the list --------------------------------------------------------------------------------------------- */

/* *cost goes up by what it has taken. Past the bound it is not counted on. */
static int count_dirty(struct vd_image *img, const struct vd_bitmap_entry *b, size_t i, uint64_t *cost, uint64_t *bytes,
		       struct vd_error *e)
{
	vd_auto_look struct vd_bitmap_look l = { 0 };
	uint64_t size = img->info.size, at = 0;
	int r = look_at_entry(&l, img, b, i, e);

	for (uint64_t end; at < size && r == 0 && *cost + l.loaded < COUNT_COST_MAX; at = end) {
		bool is_dirty = false;

		r = vd_bitmap_look_at(&l, at, size, &is_dirty, &end, e);
		*bytes += r == 0 && is_dirty ? end - at : 0;
	}
	*cost += l.loaded;
	if (r == 0 && at < size)
		*bytes = VD_BITMAP_NOT_COUNTED;
	return r;
}

/* One whose bits cannot be found does not hold, which is an answer. */
static int describe(struct vd_image *img, const struct vd_bitmap_entry *b, size_t i, uint64_t *cost, struct vd_bitmap *out,
		    struct vd_error *e)
{
	int r = 0;

	out->granularity = b->granularity_bits < 64 ? UINT64_C(1) << b->granularity_bits : 0;
	out->enabled = b->is_enabled;
	out->unusable = b->unusable;
	if (!b->unusable)
		r = count_dirty(img, b, i, cost, &out->dirty_bytes, e);
	if (r == VD_EBITMAP) {
		out->unusable = "its table breaks a rule of the format";
		out->dirty_bytes = 0;
		r = 0;
	}
	return r;
}

static int list_all(struct vd_image *img, struct vd_bitmap **list, size_t *n, struct vd_error *e)
{
	vd_auto_free struct vd_bitmap_entry *entries = NULL;
	vd_auto_free struct vd_bitmap *out = NULL;
	uint64_t cost = 0;
	size_t bytes = 0;
	char *room;
	int r = list_entries(img, &entries, n, e);

	for (size_t i = 0; r == 0 && i < *n; i++)
		bytes += sizeof(*out) + strlen(entries[i].name) + 1;
	if (r == 0)
		r = vd_alloc(bytes, 1, &out, e);
	if (r < 0)
		return r;
	room = (char *)(out + *n);
	for (size_t i = 0; i < *n && r == 0; i++) {
		out[i].name = strcpy(room, entries[i].name);
		room += strlen(room) + 1;
		r = describe(img, &entries[i], i, &cost, &out[i], e);
	}
	if (r == 0)
		*list = vd_steal(&out);
	return r;
}

VD_PUBLIC int vd_bitmap_list(struct vd_image *img, struct vd_bitmap **list, size_t *n, struct vd_error *e)
{
	int r = judge_format(img, e);

	if (r < 0)
		return r;
	pthread_rwlock_rdlock(&img->control);
	r = list_all(img, list, n, e);
	pthread_rwlock_unlock(&img->control);
	return r;
}

VD_PUBLIC void vd_bitmap_list_free(struct vd_bitmap *list)
{
	free(list);
}

/* ---- acts ------------------------------------------------------------------------------------------------- */

enum act { CREATE, REMOVE, CLEAR, ENABLE, DISABLE, MERGE };

struct request {
	enum act act;
	const char *name;
	unsigned bits;                  /* CREATE: granularity; 64: the default */
	bool is_enabled;                /* CREATE */
	const struct vd_dirty *add;     /* MERGE */
};

static unsigned default_bits(const struct vd_image *img)
{
	unsigned bits = (unsigned)__builtin_ctz(img->info.unit);

	return (unsigned)vd_min_u64(vd_max_u64(bits, DEFAULT_BITS_MIN), DEFAULT_BITS_MAX);
}

static int add_new(const struct vd_image *img, const struct request *q, const struct vd_bitmap_entry *list,
		   struct vd_bitmap_next *next, size_t *n, struct vd_error *e)
{
	for (size_t i = 0; i < *n; i++)
		if (!strcmp(list[i].name, q->name)) {
			vd_fail(e, VD_EEXIST, "%s has a bitmap '%s' already", img->path, q->name);
			return vd_hint(e, VD_EEXIST, "choose another name, or remove that bitmap first");
		}
	next[(*n)++] = (struct vd_bitmap_next){
		.from = VD_BITMAP_NEW, .name = q->name, .is_enabled = q->is_enabled,
		.granularity_bits = q->bits < 64 ? q->bits : default_bits(img),
	};
	return 0;
}

/* One that does not hold can only be removed. */
static int change_one(const struct vd_image *img, const struct request *q, const struct vd_bitmap_entry *list,
		      struct vd_bitmap_next *next, size_t *n, struct vd_error *e)
{
	size_t i = 0;
	int r = find(img, list, *n, q->name, &i, e);

	if (r == 0 && q->act != REMOVE)
		r = judge_entry(img, &list[i], e);
	if (r < 0)
		return r;
	if (q->act == REMOVE)
		memmove(&next[i], &next[i + 1], (--*n - i) * sizeof(*next));
	else if (q->act == ENABLE || q->act == DISABLE)
		next[i].is_enabled = q->act == ENABLE;
	else if (q->act == CLEAR)
		next[i].is_cleared = true;
	else
		next[i].add = q->add;
	return 0;
}

static int act_alone(struct vd_image *img, const void *arg, struct vd_error *e)
{
	const struct request *q = arg;
	vd_auto_free struct vd_bitmap_entry *list = NULL;
	vd_auto_free struct vd_bitmap_next *next = NULL;
	size_t n = 0;
	int r = list_entries(img, &list, &n, e);

	if (r < 0)
		return r;
	next = as_it_is(list, n, e);
	if (!next)
		return VD_ENOMEM;
	r = q->act == CREATE ? add_new(img, q, list, next, &n, e) : change_one(img, q, list, next, &n, e);
	return r < 0 ? r : store(img, next, n, e);
}

static int act(struct vd_image *img, const struct request *q, struct vd_error *e)
{
	int r = judge_format(img, e);

	return r < 0 ? r : vd_shape_run(img, act_alone, q, e);
}

VD_PUBLIC int vd_bitmap_create(struct vd_image *img, const char *name, uint64_t granularity, unsigned flags,
			       struct vd_error *e)
{
	struct request q = { .act = CREATE, .name = name, .bits = 64, .is_enabled = !(flags & VD_BITMAP_DISABLED) };

	if (granularity && !vd_is_pow2(granularity))
		return vd_fail(e, VD_EARG, "a granularity of %llu bytes: it is a power of two", (unsigned long long)granularity);
	if (granularity)
		q.bits = (unsigned)__builtin_ctzll(granularity);
	return act(img, &q, e);
}

VD_PUBLIC int vd_bitmap_remove(struct vd_image *img, const char *name, struct vd_error *e)
{
	return act(img, &(struct request){ .act = REMOVE, .name = name }, e);
}

VD_PUBLIC int vd_bitmap_clear(struct vd_image *img, const char *name, struct vd_error *e)
{
	return act(img, &(struct request){ .act = CLEAR, .name = name }, e);
}

VD_PUBLIC int vd_bitmap_enable(struct vd_image *img, const char *name, struct vd_error *e)
{
	return act(img, &(struct request){ .act = ENABLE, .name = name }, e);
}

VD_PUBLIC int vd_bitmap_disable(struct vd_image *img, const char *name, struct vd_error *e)
{
	return act(img, &(struct request){ .act = DISABLE, .name = name }, e);
}

/* ---- merging ---------------------------------------------------------------------------------------------- */

/* In pieces of this bitmap, over its disk. */
static int new_set_for(struct vd_image *img, const char *name, struct vd_dirty **out, uint64_t *size, struct vd_error *e)
{
	vd_auto_look struct vd_bitmap_look l = { 0 };
	int r;

	pthread_rwlock_rdlock(&img->control);
	r = vd_bitmap_look_open(&l, img, name, e);
	*size = img->info.size;
	if (r == 0)
		r = vd_dirty_new(*size, l.bits, out, e);
	pthread_rwlock_unlock(&img->control);
	return r;
}

static int collect_one(struct vd_image *from, const char *name, struct vd_dirty *all, struct vd_error *e)
{
	vd_auto_look struct vd_bitmap_look l = { 0 };
	uint64_t size = from->info.size;
	int r = vd_bitmap_look_open(&l, from, name, e);

	for (uint64_t at = 0, end; at < size && r == 0; at = end) {
		bool is_dirty = false;

		r = vd_bitmap_look_at(&l, at, size, &is_dirty, &end, e);
		if (r == 0 && is_dirty)
			vd_dirty_mark(all, at, end - at);
	}
	return r;
}

static int collect(struct vd_image *from, uint64_t size, const char *const *sources, size_t n, struct vd_dirty *all,
		   struct vd_error *e)
{
	int r = 0;

	pthread_rwlock_rdlock(&from->control);
	if (from->info.size != size)
		r = vd_fail(e, VD_EARG, "%s: its disk has %llu bytes, and the other one %llu: bitmaps of the two cannot be merged",
			    from->path, (unsigned long long)from->info.size, (unsigned long long)size);
	for (size_t i = 0; i < n && r == 0; i++)
		r = collect_one(from, sources[i], all, e);
	pthread_rwlock_unlock(&from->control);
	return r;
}

VD_DEFINE_CLEANUP(struct vd_dirty, cleanup_dirty, vd_dirty_free)

/* What is written between the two steps comes after the merge. */
VD_PUBLIC int vd_bitmap_merge(struct vd_image *img, const char *name, struct vd_image *from, const char *const *sources,
			      size_t n, struct vd_error *e)
{
	__attribute__((cleanup(cleanup_dirty))) struct vd_dirty *all = NULL;
	uint64_t size = 0;
	int r = new_set_for(img, name, &all, &size, e);

	if (r == 0)
		r = collect(from ? from : img, size, sources, n, all, e);
	return r < 0 ? r : act(img, &(struct request){ .act = MERGE, .name = name, .add = all }, e);
}
