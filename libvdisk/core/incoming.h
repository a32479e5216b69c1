/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A disk that comes once, in the order of its file: taken in pieces, which may be unpacked side by side. */
#ifndef VD_CORE_INCOMING_H
#define VD_CORE_INCOMING_H

#include "libvdisk/core/format.h"

/* A range of the disk and what came for it; belongs to one worker. */
struct vd_intake {
	uint64_t off, len;              /* len 0: the stream has ended */
	struct vd_run *runs;            /* host_off is where in `bytes` a run's are */
	size_t n_runs, max_runs;
	uint8_t *bytes;
	size_t used, room;
};

/* What the receiver of pieces needs. */
struct vd_intake_rules {
	uint64_t piece_max;             /* of the disk's bytes; at least what vd_incoming_piece() says */
	uint32_t align;                 /* pieces are of whole units of this; 1: as they come */
	bool in_order;                  /* no piece may begin before the end of the last one */
	uint64_t size;                  /* of the receiver: a unit may end there */
};

/* From a feed, which it owns on success. */
int vd_incoming_new(struct vd_feed *feed, const struct vd_incoming_opts *opts, struct vd_incoming **out,
		    struct vd_error *e) VD_MUST_CHECK;
const char *vd_incoming_name(const struct vd_incoming *in);
/* The longest piece that is needed to take whole units of `align` and one run at least. */
uint64_t vd_incoming_piece(const struct vd_incoming *in, uint64_t piece, uint32_t align);
/* It is read from here on; VD_EARG: it was already. */
int vd_incoming_begin(struct vd_incoming *in, const atomic_bool *stop, struct vd_error *e) VD_MUST_CHECK;
void vd_incoming_pause(struct vd_incoming *in);

int vd_intake_init(struct vd_intake *t, const struct vd_incoming *in, uint64_t piece_max, struct vd_error *e) VD_MUST_CHECK;
void vd_intake_fini(struct vd_intake *t);
/* Where the next piece begins; UINT64_MAX: there is none. One thread at a time, as the next. */
int vd_incoming_ahead(struct vd_incoming *in, const struct vd_intake_rules *rules, uint64_t *off, struct vd_error *e) VD_MUST_CHECK;
int vd_incoming_take(struct vd_incoming *in, const struct vd_intake_rules *rules, struct vd_intake *t, struct vd_error *e) VD_MUST_CHECK;
/* The piece as bytes of the disk into buf, zeros where nothing came. Any thread. */
int vd_incoming_unpack(struct vd_incoming *in, const struct vd_intake *t, uint8_t *buf, struct vd_error *e) VD_MUST_CHECK;

#endif
