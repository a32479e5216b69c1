/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Takes a disk from a stream: finds the driver by the first bytes, gathers what comes into pieces, unpacks. Where pieces go
 * is copy.c's; what the stream has to say of itself is the driver's.
 */
#include "libvdisk/core/incoming.h"

#include <stdlib.h>

#include "libvdisk/base/alloc.h"
#include "libvdisk/base/checked.h"
#include "libvdisk/base/cleanup.h"
#include "libvdisk/core/keysrc.h"
#include "libvdisk/core/registry.h"

#define TAR_MAGIC_AT 257

struct vd_incoming {
	struct vd_feed *feed;
	const struct vd_format *format;
	const struct vd_incoming_ops *ops;
	void *st;
	struct vd_codec *codec;
	struct vd_incoming_info info;
	bool begun, ended, has_next;
	struct vd_run next;             /* whose bytes are not taken yet */
	uint64_t end;                   /* of what was taken, as far as it is furthest */
};

const char *vd_incoming_name(const struct vd_incoming *in)
{
	return vd_feed_name(in->feed);
}

/* ---- opening ---------------------------------------------------------------------------------------------- */

static int save_first(struct vd_error *e, int code)
{
	return vd_hint(e, code, "save it into a file, and name that");
}

static int refuse_unknown(const char *name, struct vd_bytes head, struct vd_error *e)
{
	uint64_t ignored;

	if (vd_luks_probe(head, &ignored)) {
		vd_fail(e, VD_EUNSUPPORTED, "%s: a LUKS container is not read from a stream", name);
		return save_first(e, VD_EUNSUPPORTED);
	}
	if (head.len > TAR_MAGIC_AT + 5 && !memcmp(head.p + TAR_MAGIC_AT, "ustar", 5)) {
		vd_fail(e, VD_EUNSUPPORTED, "%s: a package is not read from a stream", name);
		return vd_hint(e, VD_EUNSUPPORTED, "take its disk out on the way: tar -xO NAME.vmdk; or save it into a file, and name "
			       "that");
	}
	vd_fail(e, VD_EARG, "%s: what it is cannot be told by its beginning", name);
	return vd_hint(e, VD_EARG, "if it is a raw disk, say -f raw");
}

/* Some formats are known by their end: of a stream only its beginning counts. */
static int find_format(const char *name, struct vd_bytes head, const char *wanted, const struct vd_format **format,
		       struct vd_error *e)
{
	const struct vd_ends ends = { .head = head, .tail = { head.p, 0 }, .size = head.len };

	*format = wanted ? vd_registry_find(wanted) : vd_registry_next_match(&ends, NULL);
	if (!*format && !wanted)
		return refuse_unknown(name, head, e);
	if (!*format && strcmp(wanted, "luks"))
		return vd_fail(e, VD_EUNSUPPORTED, "%s: unknown format '%s'", name, wanted);
	if (*format && (*format)->incoming)
		return 0;
	vd_fail(e, VD_EUNSUPPORTED, "%s: %s is not read from a stream: what says where things are may come last", name,
		*format ? (*format)->name : wanted);
	return save_first(e, VD_EUNSUPPORTED);
}

static int start(struct vd_incoming *in, const struct vd_incoming_opts *o, struct vd_error *e)
{
	struct vd_bytes head;
	/* What is named is not waited for any longer than it takes to see that something comes. */
	int r = vd_feed_peek(in->feed, o->format ? 1 : VD_FEED_PEEK, &head, e);

	if (r == 0 && !head.len && !(o->format && o->size))
		r = vd_fail(e, VD_ECORRUPT, "%s: nothing came", vd_incoming_name(in));
	if (r == 0)
		r = find_format(vd_incoming_name(in), head, o->format, &in->format, e);
	if (r < 0)
		return r;
	in->ops = in->format->incoming;
	r = vd_codec_new(&in->codec, e);
	if (r == 0)
		r = vd_alloc(1, in->ops->state_size, &in->st, e);
	if (r == 0)
		r = in->ops->open(in->st, in->feed, o->size ? o->size : UINT64_MAX, e);
	if (r == 0)
		in->ops->describe(in->st, &in->info);
	return r;
}

int vd_incoming_new(struct vd_feed *feed, const struct vd_incoming_opts *opts, struct vd_incoming **out, struct vd_error *e)
{
	struct vd_incoming_opts o = { .struct_size = sizeof(o) };
	struct vd_incoming *in;
	int r;

	if (opts && opts->struct_size != sizeof(*opts))
		return vd_fail(e, VD_EARG, "struct vd_incoming_opts: struct_size is %zu, want %zu", opts->struct_size, sizeof(*opts));
	if (opts)
		o = *opts;
	r = vd_alloc(1, sizeof(*in), &in, e);
	if (r < 0)
		return r;
	in->feed = feed;
	r = start(in, &o, e);
	if (r < 0) {
		in->feed = NULL;
		vd_incoming_free(in);
		return r;
	}
	*out = in;
	return 0;
}

VD_PUBLIC int vd_incoming_open(int fd, const char *name, const struct vd_incoming_opts *opts, struct vd_incoming **out,
			       struct vd_error *e)
{
	struct vd_feed *feed = NULL;
	int r = vd_feed_new(fd, name, &feed, e);

	if (r == 0)
		r = vd_incoming_new(feed, opts, out, e);
	if (r < 0)
		vd_feed_free(feed);
	return r;
}

VD_PUBLIC void vd_incoming_free(struct vd_incoming *in)
{
	if (!in)
		return;
	if (in->st)
		in->ops->close(in->st);
	free(in->st);
	vd_codec_free(in->codec);
	vd_feed_free(in->feed);
	free(in);
}

VD_PUBLIC uint64_t vd_incoming_size(const struct vd_incoming *in)
{
	return in->info.size;
}

VD_PUBLIC const char *vd_incoming_format(const struct vd_incoming *in)
{
	return in->format->name;
}

uint64_t vd_incoming_piece(const struct vd_incoming *in, uint64_t piece, uint32_t align)
{
	return vd_round_up(vd_max_u64(piece, in->info.unit_max), align) + (align > 1 ? align : 0);
}

int vd_incoming_begin(struct vd_incoming *in, const atomic_bool *stop, struct vd_error *e)
{
	if (in->begun)
		return vd_fail(e, VD_EARG, "%s: a stream is read once", vd_incoming_name(in));
	in->begun = true;
	vd_feed_obey(in->feed, stop);
	return 0;
}

void vd_incoming_pause(struct vd_incoming *in)
{
	vd_feed_obey(in->feed, NULL);
}

/* ---- pieces ----------------------------------------------------------------------------------------------- */

/* Packed bytes have room for as much as the piece, and one run more: each is taken whole. */
int vd_intake_init(struct vd_intake *t, const struct vd_incoming *in, uint64_t piece_max, struct vd_error *e)
{
	*t = (struct vd_intake){ .room = piece_max + in->info.host_max };
	return vd_alloc_buffer(t->room, &t->bytes, e);
}

void vd_intake_fini(struct vd_intake *t)
{
	free(t->bytes);
	free(t->runs);
}

static int look_ahead(struct vd_incoming *in, struct vd_error *e)
{
	int r;

	if (in->has_next || in->ended)
		return 0;
	r = in->ops->next(in->st, &in->next, e);
	in->has_next = r == 0 && in->next.len;
	in->ended = r == 0 && !in->next.len;
	return r;
}

static uint64_t end_of(const struct vd_run *r)
{
	return r->guest_off + r->len;
}

int vd_incoming_ahead(struct vd_incoming *in, const struct vd_intake_rules *rules, uint64_t *off, struct vd_error *e)
{
	int r = look_ahead(in, e);

	*off = UINT64_MAX;
	if (r < 0 || in->ended)
		return r;
	*off = vd_round_down(in->next.guest_off, rules->align);
	if (!rules->in_order || in->next.guest_off >= in->end)
		return 0;
	vd_fail(e, VD_EUNSUPPORTED, "%s: the disk does not come in order, byte %llu behind byte %llu, and the output takes it in "
		"order only", vd_incoming_name(in), (unsigned long long)in->next.guest_off, (unsigned long long)in->end);
	return save_first(e, VD_EUNSUPPORTED);
}

static int add_run(struct vd_incoming *in, struct vd_intake *t, struct vd_error *e)
{
	struct vd_run run = in->next;
	int r = 0;

	if (t->n_runs == t->max_runs) {
		size_t more = t->max_runs * 2 + 16;

		r = vd_realloc(&t->runs, more, sizeof(*t->runs), e);
		if (r < 0)
			return r;
		t->max_runs = more;
	}
	r = in->ops->take(in->st, &run, t->bytes + t->used, e);
	if (r < 0)
		return r;
	run.host_off = t->used;
	t->used += run.host_len;
	t->runs[t->n_runs++] = run;
	in->has_next = false;
	in->end = vd_max_u64(in->end, end_of(&run));
	return 0;
}

/* The next run goes on where the piece ends, and fits. Not before it: what comes later would be overwritten. */
static bool belongs(const struct vd_incoming *in, const struct vd_intake_rules *rules, const struct vd_intake *t)
{
	const struct vd_run *n = &in->next;

	return in->has_next && n->guest_off >= in->end && n->guest_off >= t->off && n->guest_off <= t->off + t->len &&
	       end_of(n) - t->off <= rules->piece_max - (rules->align > 1 ? rules->align : 0) &&
	       t->used + n->host_len <= t->room;
}

int vd_incoming_take(struct vd_incoming *in, const struct vd_intake_rules *rules, struct vd_intake *t, struct vd_error *e)
{
	int r = vd_incoming_ahead(in, rules, &t->off, e);

	t->len = t->n_runs = t->used = 0;
	if (r < 0 || in->ended)
		return r;
	do {
		r = add_run(in, t, e);
		if (r < 0)
			return r;
		t->len = vd_min_u64(vd_round_up(end_of(&t->runs[t->n_runs - 1]), rules->align), rules->size) - t->off;
		r = look_ahead(in, e);
	} while (r == 0 && belongs(in, rules, t));
	return r;
}

/* Inside, bytes would be copied as they are, and the key be looked for in vain later. */
static int refuse_container(const struct vd_incoming *in, const struct vd_intake *t, const uint8_t *buf, struct vd_error *e)
{
	uint64_t ignored;

	if (t->off || in->format == &vd_format_raw || !vd_luks_probe((struct vd_bytes){ buf, t->len }, &ignored))
		return 0;
	vd_fail(e, VD_EUNSUPPORTED, "%s: the disk is encrypted, and is not read from a stream", vd_incoming_name(in));
	return save_first(e, VD_EUNSUPPORTED);
}

/* A last unit may be cut by the end of the disk: what is packed has all of it. */
static int unpack_run(struct vd_incoming *in, const struct vd_intake *t, const struct vd_run *run, uint8_t *out,
		      struct vd_error *e)
{
	const uint8_t *bytes = t->bytes + run->host_off;
	vd_auto_free uint8_t *unit = NULL;
	int r = 0;

	if (run->where == VD_DATA) {
		memcpy(out, bytes, run->len);
		return 0;
	}
	if (run->len < run->unit_len)
		r = vd_alloc_buffer(run->unit_len, &unit, e);
	if (r == 0)
		r = vd_codec_unpack_some(in->codec, run->codec, unit ? unit : out, run->unit_len,
					 run->unit_least ? run->unit_least : run->unit_len, bytes, run->host_len, e);
	if (r < 0)
		return vd_error_prefix(e, r, "%s: the unit at byte %llu of the disk: ", vd_incoming_name(in),
				       (unsigned long long)run->guest_off);
	if (unit)
		memcpy(out, unit, run->len);
	return 0;
}

int vd_incoming_unpack(struct vd_incoming *in, const struct vd_intake *t, uint8_t *buf, struct vd_error *e)
{
	int r = 0;

	memset(buf, 0, t->len);
	for (size_t i = 0; i < t->n_runs && r == 0; i++)
		r = unpack_run(in, t, &t->runs[i], buf + (t->runs[i].guest_off - t->off), e);
	return r < 0 ? r : refuse_container(in, t, buf, e);
}
