/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Judges pieces of host files by whose they are, for plaintext.c, which goes through all of them. */
#ifndef VD_CORE_PLAINTEXT_H
#define VD_CORE_PLAINTEXT_H

#include "libvdisk/base/bytes.h"
#include "libvdisk/include/vdisk.h"
#include "libvdisk/core/noise.h"

#define VD_PIECE_MAX (1u << 20)
#define VD_PIECE_RUNS 64

/* Some bytes of a piece, or all that one of its runs has there. */
struct vd_sighting {
	enum vd_plaintext_kind kind;
	uint32_t run;
	uint64_t off, len;              /* in the host file */
};

/* Bytes of one host file, and whose they are: the runs are side by side, and cut to the piece. */
struct vd_piece {
	uint64_t number;                /* in the order of the files */
	uint32_t file;
	uint64_t off, len;
	struct vd_host_run runs[VD_PIECE_RUNS];
	size_t n_runs;
	uint8_t *bytes;

	/* What came out of it. */
	struct vd_sighting *seen;       /* ascending; VD_PIECE_SIGHTINGS have room */
	size_t n_seen;
	bool not_zeros[VD_PIECE_RUNS];
	uint64_t looked_at, known;
};
/* Each sector, what of it is another run's, and one for the count of each run. */
#define VD_PIECE_SIGHTINGS (VD_PIECE_MAX / VD_NOISE_SECTOR + 3 * VD_PIECE_RUNS)

/* `clear`: what of the LUKS header is no key material, whole sectors; sums: for each owner what looked random. */
void vd_piece_judge(struct vd_piece *p, struct vd_bytes clear, struct vd_noise sums[VD_N_OWNERS]);

#endif
