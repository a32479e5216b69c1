/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Raw: the host file is the disk, byte for byte; holes of the host file are holes of the disk. Has no tables at all. */
#include "libvdisk/core/format.h"

#include "libvdisk/base/checked.h"

struct raw_state {
	struct vd_set *set;
	uint64_t size;
};

static bool raw_probe(struct vd_bytes head, struct vd_bytes tail, uint64_t size)
{
	(void)head;
	(void)tail;
	(void)size;
	return true;
}

static int raw_open(void *st, const struct vd_open *o, struct vd_error *e)
{
	struct raw_state *s = st;

	s->set = o->set;
	return vd_io_size(vd_set_io(o->set, 0), &s->size, e);
}

static int raw_create(const struct vd_create *c, struct vd_error *e)
{
	struct vd_io *io = vd_set_io(c->set, 0);
	uint64_t have;
	int r;

	if (!io->is_device)
		return vd_io_truncate(io, c->size, e);
	r = vd_io_size(io, &have, e);
	if (r == 0 && have < c->size)
		return vd_fail(e, VD_ENOSPC, "%s has %llu bytes, the disk needs %llu", io->name, (unsigned long long)have,
			       (unsigned long long)c->size);
	return r;
}

static int raw_forecast(const struct vd_create *c, struct vd_forecast *f, struct vd_error *e)
{
	(void)c;
	(void)e;
	f->unit = 1;
	f->is_full = true;
	return 0;
}

static void raw_close(void *st)
{
	(void)st;
}

static void raw_describe(const void *st, struct vd_format_info *i)
{
	const struct raw_state *s = st;

	i->size = s->size;
	i->unit = 1;
	i->fill_unit = 1;
	i->is_flat = true;
}

static int raw_map(void *st, uint64_t off, uint64_t len, unsigned flags, struct vd_run *runs, size_t *n,
		   struct vd_error *e)
{
	struct raw_state *s = st;
	size_t got = 0;

	if (flags & VD_MAP_TO_READ) {
		runs[0] = (struct vd_run){ .guest_off = off, .len = len, .where = VD_DATA, .host_off = off, .host_len = len };
		*n = 1;
		return 0;
	}
	while (got < *n && len) {
		bool is_data;
		uint64_t part;
		int r = vd_io_extent(vd_set_io(s->set, 0), off, &is_data, &part, e);

		if (r < 0)
			return r;
		part = vd_min_u64(part, len);
		runs[got++] = (struct vd_run){
			.guest_off = off, .len = part, .where = is_data ? VD_DATA : VD_HOLE,
			.host_off = is_data ? off : 0, .host_len = is_data ? part : 0,
		};
		off += part;
		len -= part;
	}
	*n = got;
	return 0;
}

static int raw_reserve(void *st, struct vd_resv *v, struct vd_error *e)
{
	(void)st;
	(void)e;
	v->covered = v->len;
	v->fill_off = v->off;
	v->fill_len = v->len;
	v->host_off = v->off;
	v->file = 0;
	v->in_place = true;
	return 0;
}

/* No tables: the core makes holes in the host file or writes zeros. */
static int raw_punch(void *st, uint64_t off, uint64_t len, enum vd_punch_mode mode, uint64_t *done, struct vd_error *e)
{
	(void)st;
	(void)off;
	(void)len;
	(void)mode;
	(void)e;
	*done = 0;
	return 0;
}

/* Every reservation is in place and nothing is ever released, so publish, cancel and freed are never called. */
static int raw_resize(void *st, uint64_t size, struct vd_error *e)
{
	struct raw_state *s = st;
	struct vd_io *io = vd_set_io(s->set, 0);
	int r;

	if (io->is_device)
		return vd_fail(e, VD_EUNSUPPORTED, "%s is a device: its size is fixed", io->name);
	r = vd_io_truncate(io, size, e);
	if (r == 0)
		r = vd_set_flush(s->set, e);
	if (r == 0)
		s->size = size;
	return r;
}

static int raw_walk(void *st, struct vd_window *w, struct vd_error *e)
{
	const struct raw_state *s = st;

	return vd_window_claim(w, &(struct vd_claim){
		.len = s->size, .parent_off = VD_HOST_NOWHERE, .refs = 1, .owner = VD_OWNER_DATA,
	}, e);
}

/* There is nothing that could contradict itself. */
static int raw_check(void *st, struct vd_check *c, struct vd_error *e)
{
	struct raw_state *s = st;

	c->report->image_end_offset = s->size;
	return c->progress(c, s->size, s->size, e);
}

static const struct vd_repair_ops raw_repair = { .check = raw_check };

/* ---- as it comes ------------------------------------------------------------------------------------------ */

#define PIECE (1u << 20)

struct raw_incoming {
	struct vd_feed *in;
	uint64_t size;
};

/* What is cut off looks like what is shorter: only who knows the size can tell. */
static int raw_incoming_open(void *st, struct vd_feed *in, uint64_t size, struct vd_error *e)
{
	struct raw_incoming *s = st;

	s->in = in;
	s->size = size;
	if (size != UINT64_MAX || vd_feed_size(in, &s->size))
		return 0;
	vd_fail(e, VD_EARG, "%s: how large a raw disk is cannot be told before it has come", vd_feed_name(in));
	return vd_hint(e, VD_EARG, "say so: -o size=SIZE");
}

static void raw_incoming_describe(const void *st, struct vd_incoming_info *i)
{
	const struct raw_incoming *s = st;

	*i = (struct vd_incoming_info){ .size = s->size, .unit_max = PIECE, .host_max = PIECE };
}

static int raw_incoming_next(void *st, struct vd_run *r, struct vd_error *e)
{
	struct raw_incoming *s = st;
	uint64_t at = vd_feed_at(s->in), len = vd_min_u64(PIECE, s->size - at);
	struct vd_bytes more;
	int ret;

	*r = (struct vd_run){ .guest_off = at, .len = len, .where = VD_DATA, .host_off = at, .host_len = len };
	if (len)
		return 0;
	ret = vd_feed_peek(s->in, 1, &more, e);
	if (ret < 0 || !more.len)
		return ret;
	return vd_fail(e, VD_EARG, "%s: more came than the %llu bytes of the disk", vd_feed_name(s->in),
		       (unsigned long long)s->size);
}

static int raw_incoming_take(void *st, struct vd_run *r, uint8_t *buf, struct vd_error *e)
{
	struct raw_incoming *s = st;
	uint64_t got;
	int ret = vd_feed_take(s->in, buf, r->host_len, &got, e);

	if (ret < 0 || got == r->host_len)
		return ret;
	vd_fail_at(e, VD_ECORRUPT, vd_feed_at(s->in), "%s: the disk is cut off: only the first %llu of %llu bytes of it came",
		   vd_feed_name(s->in), (unsigned long long)vd_feed_at(s->in), (unsigned long long)s->size);
	return vd_hint(e, VD_ECORRUPT, "see what ended the program that writes, or whether the size is right");
}

static const struct vd_incoming_ops raw_incoming_ops = {
	.state_size = sizeof(struct raw_incoming),
	.open = raw_incoming_open,
	.close = raw_close,
	.describe = raw_incoming_describe,
	.next = raw_incoming_next,
	.take = raw_incoming_take,
};

const struct vd_format vd_format_raw = {
	.name = "raw",
	.state_size = sizeof(struct raw_state),
	.writable = true,
	.stream_kind = "",
	.probe = raw_probe,
	.open = raw_open,
	.create = raw_create,
	.close = raw_close,
	.describe = raw_describe,
	.map = raw_map,
	.reserve = raw_reserve,
	.punch = raw_punch,
	.walk = raw_walk,
	.resize = raw_resize,
	.forecast = raw_forecast,
	.repair = &raw_repair,
	.incoming = &raw_incoming_ops,
};
