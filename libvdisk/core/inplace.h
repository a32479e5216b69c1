/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Conversion in place, as its files share it. inplace.c has the order of things; inplace_start.c judges, and makes keys and
 * journal; inplace_header.c has the header of a container; inplace_walk.c goes over the host's bytes, inplace_move.c over a flat disk that moves, inplace_fill.c over guest
 * holes, inplace_unpack.c over packed units; mover.c takes pieces of data through the ciphers, crash-safely.
 */
#ifndef VD_CORE_INPLACE_H
#define VD_CORE_INPLACE_H

#include <stdatomic.h>

#include "libvdisk/core/image.h"
#include "libvdisk/core/journal.h"
#include "libvdisk/core/veil.h"

struct vd_inplace {
	struct vd_host *inner;
	const char *path;
	struct vd_journal *j;
	struct vd_veil *veil;
	struct vd_image *img;           /* open through the veil, without a layer */
	struct vd_diskcipher *cipher[2];/* of before and after; NULL: plain */
	const struct vd_inplace_opts *opts;
	const struct vd_job *job;
	struct vd_inplace_report *report;
	uint32_t at_file;               /* where the mover is: as the state's cursor, but not durable */
	uint64_t at;
	atomic_bool scrubbed;           /* something was, and is not flushed: no record goes past it before */
};

enum vd_inplace_run { VD_INPLACE_RESUME = 16, VD_INPLACE_REVERT };
/* All of the public calls (an act counts as itself), on a host of the caller's: tests; NULL: the operating system. */
int vd_inplace_run_on(struct vd_host *host, const char *path, enum vd_inplace_run what, const struct vd_inplace_opts *opts,
		      const struct vd_job *job, struct vd_inplace_report *report, struct vd_error *e) VD_MUST_CHECK;

/* ---- mover.c: data through the ciphers ------------------------------------------------------------------- */

struct vd_mover;

/* Takes the direction, the journal and the limits from p. */
int vd_mover_new(struct vd_inplace *p, struct vd_mover **out, struct vd_error *e) VD_MUST_CHECK;
void vd_mover_free(struct vd_mover *m);
/* How long a piece is at most. */
#define VD_MOVER_CHUNK (1u << 20)
uint64_t vd_mover_piece(const struct vd_mover *m);
/* Tests make batches small: a power of two, at least 4096. */
extern uint64_t vd_mover_batch;
/*
 * One piece more, whole sectors of both ciphers; once it is in place the state's cursor is (file, cursor). Pieces come in an
 * order in which no piece's dst is the src of one that comes later. VD_ECANCELLED between two batches.
 */
int vd_mover_add(struct vd_mover *m, const struct vd_chunk *c, uint64_t cursor, struct vd_error *e) VD_MUST_CHECK;
/* After a cancel, which is `why` and what it returns: what was turned is in place, durably, and the state says so. */
int vd_mover_stop(struct vd_mover *m, int why, struct vd_error *e) VD_MUST_CHECK;
/* All that was added is in place, durably. */
int vd_mover_end(struct vd_mover *m, struct vd_error *e) VD_MUST_CHECK;
/* Puts in place what records say that a crash left, and moves the cursor. */
int vd_mover_replay(struct vd_inplace *p, struct vd_error *e) VD_MUST_CHECK;
/* The bytes as they are to be. */
int vd_inplace_turn(const struct vd_inplace *p, void *buf, size_t len, uint64_t unit, struct vd_error *e) VD_MUST_CHECK;
/* Tells how far it is; VD_ECANCELLED. */
int vd_inplace_progress(struct vd_inplace *p, struct vd_error *e) VD_MUST_CHECK;

/* ---- inplace_header.c ------------------------------------------------------------------------------------- */

/* The container's header is in a file of its own, and all of the disk is payload. */
bool vd_inplace_is_detached(const struct vd_journal_state *s);
/* The header of before (0) or of after (1); len 0: there is none. */
struct vd_bytes vd_inplace_header(const struct vd_inplace *p, int i);
/* Of a conversion that goes on in this direction: the header's file is named, if it has one, and is no other. */
int vd_inplace_judge_header(struct vd_inplace *p, bool is_back, struct vd_error *e) VD_MUST_CHECK;

/* ---- passes: each is resumed where a crash or a cancel left it -------------------------------------------- */

int vd_inplace_walk(struct vd_inplace *p, struct vd_error *e) VD_MUST_CHECK;
/* What is nobody's now, and no zeros, is overwritten. */
int vd_inplace_scrub(struct vd_inplace *p, struct vd_error *e) VD_MUST_CHECK;
int vd_inplace_move(struct vd_inplace *p, struct vd_error *e) VD_MUST_CHECK;
int vd_inplace_fill(struct vd_inplace *p, struct vd_error *e) VD_MUST_CHECK;
int vd_inplace_write_header(struct vd_inplace *p, struct vd_error *e) VD_MUST_CHECK;

#endif
